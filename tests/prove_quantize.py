"""Compare the codes of quantize_q8 with those of true division, for every float32 there is.

Where fused multiply-adds exist, the kernels multiply by the reciprocal and correct the quotient
once. That this gives the code of ``rint(x / scale)`` is proved by trying: all 2**32 bit patterns,
for eight scales, some four minutes of CPU time. The tests try a sample.

Usage: python tests/prove_quantize.py [SCALE ...]
"""

import sys

import numpy as np

from qcy import info, primitive

#: Powers of two and not, a mantissa of all ones, the extremes of the corrected quotient.
SCALES = (
    1.0, 0.1, 1 / 3, 0.023529412, 1.9999999, 3.1e-5, 7.888609e-31, 1.2676506e30,
)
CHUNK = 2**22


def by_division(x, scale):
    """Return the codes by true division, float32 throughout."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(x / np.float32(scale))
    return (np.clip(steps, -128, 127) + 128).astype(np.uint8)


def differences(x, scale):
    """Return the reals of `x` whose codes differ; NaNs are left out."""
    x = x[~np.isnan(x)]
    codes = primitive.quantize_q8(x, scale, 128)
    return x[codes != by_division(x, scale)]


def prove(scale):
    """Try every bit pattern; return how many codes differ."""
    n_different = 0
    for first in range(0, 2**32, CHUNK):
        x = np.arange(first, first + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
        different = differences(x, scale)
        n_different += different.size
        if different.size:
            print(f"scale {scale}: {different[:3]} ...", flush=True)
    return n_different


if __name__ == "__main__":
    print(f"kernels for {info()['variant']}")
    for number in [float(arg) for arg in sys.argv[1:]] or SCALES:
        print(f"scale {number!r}: {prove(number)} codes differ from division", flush=True)
