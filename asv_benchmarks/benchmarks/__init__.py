"""Speed, memory and quality of qcy, by floor.

NumPy's own threads are pinned to one, as qcy's are in each benchmark: a ratio of two libraries
means something only on equal terms. asv has imported NumPy before it imports this, so the
environment, which counts for child processes, comes too late for this one. OPENBLAS_CORETYPE and
OPENBLAS_L2_SIZE, which would slow NumPy down, are dropped.
"""

import os

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402, F401
from threadpoolctl import threadpool_limits  # noqa: E402

_pinned = threadpool_limits(1)
