"""The one rounding rule of qcy, inlined into every loop that needs it.

In NumPy: ``np.clip(np.rint(real), low, high).astype(np.int32) + zero_point``.
"""
from libc.stdint cimport int32_t


cdef inline int32_t round_code(
    float real, float low, float high, int32_t zero_point
) noexcept nogil:
    """Turn a real number, in units of one code step, into a code; ties to even.

    `low` and `high` are ``qmin - zero_point`` and ``qmax - zero_point``. They are integers,
    so clamping before rounding changes nothing, and it keeps the value below 2**22, where
    adding and subtracting 1.5 * 2**23 rounds exactly. Unlike ``rintf`` that vectorizes on
    every instruction set. A NaN comes out as some code in range.
    """
    real = real if real > low else low
    real = real if real < high else high
    return <int32_t> ((real + <float> 12582912.0) - <float> 12582912.0) + zero_point
