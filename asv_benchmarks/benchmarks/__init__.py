"""Speed, memory and quality of qcy, by floor.

NumPy's own threads are pinned to one before it is imported, as qcy's are in each benchmark: a ratio
of two libraries means something only on equal terms. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which
would slow NumPy down, are dropped.
"""

import os

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
