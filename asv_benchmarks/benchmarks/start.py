"""Starting up: what ``import qcy`` costs beyond NumPy, and how large it is."""

import subprocess
import sys
import time
from pathlib import Path

import qcy


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


class Footprint:
    """What an installed qcy takes: its modules and the demo's data, not its sources."""

    def track_bytes(self):
        kinds = (".so", ".pyd", ".py", ".pyi", ".qcy", ".npz")
        files = Path(qcy.__file__).parent.rglob("*")
        return 1e-6 * sum(file.stat().st_size for file in files if file.suffix in kinds)

    track_bytes.unit = "MB"
