"""Starting up: what ``import qcy`` costs beyond NumPy."""

import subprocess
import sys
import time


def _seconds(statement):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


class Import:
    """A fresh interpreter each time."""

    def track_import_beyond_numpy(self):
        qcy = min(_seconds("import qcy") for _ in range(7))
        numpy = min(_seconds("import numpy") for _ in range(7))
        return 1e3 * (qcy - numpy)

    track_import_beyond_numpy.unit = "ms"
