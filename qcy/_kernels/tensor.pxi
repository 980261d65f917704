"""Loops of the generic tensor: element access, arithmetic, scaling and range of ten dtypes.

Nothing here checks its arguments: `qcy.tensor.generic` has done so. Arrays are flat and not empty.
Choose a function by the C name of the dtype, as in ``combine["int8_t"]``.

Design
------
a. Integers are added and multiplied in unsigned C, where overflow is defined, and each loop tells
   in the end whether a result did not fit: an operation or two an element, which vectorize.
b. What Cython makes of the arguments alone is 1 to 3 kB for each function and dtype. So there is
   one function for ``+ - *``, and operands that broadcast are walked by one that knows only bytes.
c. No loop looks for values that do not fit: scaling and conversion keep the order of numbers, so
   the two results of `min_max` tell beforehand.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from qcy._dtypes cimport number_t, signed_t

cdef extern from *:
    """
    #if defined(__GNUC__)
    static int qcy_multiply_signed(int64_t a, int64_t b, int64_t *product)
    {
        return __builtin_mul_overflow(a, b, product);
    }
    static int qcy_multiply_unsigned(uint64_t a, uint64_t b, uint64_t *product)
    {
        return __builtin_mul_overflow(a, b, product);
    }
    #else
    static int qcy_multiply_unsigned(uint64_t a, uint64_t b, uint64_t *product)
    {
        *product = a * b;
        return a != 0 && *product / a != b;
    }
    static int qcy_multiply_signed(int64_t a, int64_t b, int64_t *product)
    {
        uint64_t size, limit = (uint64_t)INT64_MAX + ((a < 0) != (b < 0));
        int wide = qcy_multiply_unsigned(
            a < 0 ? 0 - (uint64_t)a : (uint64_t)a, b < 0 ? 0 - (uint64_t)b : (uint64_t)b, &size);
        *product = (int64_t)((uint64_t)a * (uint64_t)b);
        return wide || size > limit;
    }
    #endif
    """
    bint qcy_multiply_signed(int64_t a, int64_t b, int64_t* product) noexcept nogil
    bint qcy_multiply_unsigned(uint64_t a, uint64_t b, uint64_t* product) noexcept nogil

ctypedef fused wide_t:          # what integer matrices are multiplied in
    int64_t
    uint64_t

cdef enum:
    MOST_AXES = 64              # of a NumPy array
    BLOCK = 512                 # elements that stand for an operand of one element
    LANES = 256                 # minima and maxima that `min_max` finds side by side


def get(const number_t[::1] values, Py_ssize_t index, /):
    return values[index]


def fill(
    number_t value,
    number_t[::1] values,       # overwritten from first to last
    Py_ssize_t first,
    Py_ssize_t last,
    /,
):
    with nogil:
        _fill(&values[first], value, last - first)


cdef void _fill(number_t* values, number_t value, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        values[i] = value


# How to walk two operands that broadcast: runs of the innermost axis, one after another.
cdef struct walk_t:
    Py_ssize_t n_axes
    Py_ssize_t length[MOST_AXES]    # innermost first
    Py_ssize_t a_step[MOST_AXES]
    Py_ssize_t b_step[MOST_AXES]
    Py_ssize_t index[MOST_AXES]
    Py_ssize_t a                    # where the run starts
    Py_ssize_t b


cdef int _start(walk_t* walk, tuple axes) except -1:
    cdef Py_ssize_t axis
    walk.n_axes = len(axes)
    walk.a = walk.b = 0
    for axis in range(walk.n_axes):
        walk.length[axis], walk.a_step[axis], walk.b_step[axis] = axes[axis]
        walk.index[axis] = 0
    return 0


cdef bint _next(walk_t* walk) noexcept nogil:
    """Step to the next run; return whether there is one."""
    cdef Py_ssize_t axis
    for axis in range(1, walk.n_axes):
        walk.index[axis] += 1
        walk.a += walk.a_step[axis]
        walk.b += walk.b_step[axis]
        if walk.index[axis] < walk.length[axis]:
            return True
        walk.index[axis] = 0
        walk.a -= walk.a_step[axis] * walk.length[axis]
        walk.b -= walk.b_step[axis] * walk.length[axis]
    return False


def combine(
    Py_UCS4 op,                 # "+", "-" or "*"
    const number_t[::1] a,
    const number_t[::1] b,
    number_t[::1] out,          # overwritten
    tuple axes,                 # (length, step in a, step in b) of each axis, innermost first;
    /,                          # innermost steps are 0 or 1, and not both 0
):
    """Return whether an integer result did not fit."""
    cdef walk_t walk
    cdef number_t* target = &out[0]
    cdef bint overflows = False
    _start(&walk, axes)
    with nogil:
        while True:
            overflows |= _combine_run(&walk, op, &a[0] + walk.a, &b[0] + walk.b, target)
            target += walk.length[0]
            if not _next(&walk):
                break
    return overflows


cdef bint _combine_run(
    const walk_t* walk, Py_UCS4 op, const number_t* a, const number_t* b, number_t* out
) noexcept nogil:
    """Combine one run. An operand of step 0 becomes a block of equal numbers: one loop for all."""
    cdef number_t same[BLOCK]
    cdef Py_ssize_t left = walk.length[0], n = left
    cdef bint overflows = False
    if walk.a_step[0] == 0:
        n = min(left, BLOCK)
        _fill(same, a[0], n)
        a = same
    elif walk.b_step[0] == 0:
        n = min(left, BLOCK)
        _fill(same, b[0], n)
        b = same
    while left > 0:
        n = min(n, left)
        if op == u"+":
            overflows |= _add(a, b, out, n)
        elif op == u"-":
            overflows |= _subtract(a, b, out, n)
        else:
            overflows |= _multiply(a, b, out, n)
        a += walk.a_step[0] * n
        b += walk.b_step[0] * n
        out += n
        left -= n
    return overflows


cdef bint _add(const number_t* a, const number_t* b, number_t* out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef number_t total, bad = 0
    for i in range(n):
        if number_t is int32_t:
            total = <int32_t> (<uint32_t> a[i] + <uint32_t> b[i])
        elif number_t is int64_t:
            total = <int64_t> (<uint64_t> a[i] + <uint64_t> b[i])
        else:
            total = <number_t> (a[i] + b[i])
        out[i] = total
        # Signed: both operands have the sign that the sum has not. Unsigned: it has come around.
        if number_t in signed_t:
            bad |= (a[i] ^ total) & (b[i] ^ total)
        elif number_t is not float and number_t is not double:
            bad |= total < a[i]
    return bad < 0 if number_t in signed_t else bad != 0


cdef bint _subtract(
    const number_t* a, const number_t* b, number_t* out, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    cdef number_t total, bad = 0
    for i in range(n):
        if number_t is int32_t:
            total = <int32_t> (<uint32_t> a[i] - <uint32_t> b[i])
        elif number_t is int64_t:
            total = <int64_t> (<uint64_t> a[i] - <uint64_t> b[i])
        else:
            total = <number_t> (a[i] - b[i])
        out[i] = total
        if number_t in signed_t:
            bad |= (a[i] ^ b[i]) & (a[i] ^ total)
        elif number_t is not float and number_t is not double:
            bad |= a[i] < b[i]
    return bad < 0 if number_t in signed_t else bad != 0


cdef bint _multiply(
    const number_t* a, const number_t* b, number_t* out, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t small
    cdef uint32_t small_unsigned
    cdef int64_t large
    cdef uint64_t large_unsigned
    cdef bint bad = 0
    for i in range(n):
        if number_t is float or number_t is double:
            out[i] = a[i] * b[i]
        elif number_t is int64_t:
            bad |= qcy_multiply_signed(a[i], b[i], &out[i])
        elif number_t is uint64_t:
            bad |= qcy_multiply_unsigned(a[i], b[i], &out[i])
        elif number_t is int32_t:
            large = <int64_t> a[i] * b[i]
            out[i] = <int32_t> large
            bad |= large != out[i]
        elif number_t is uint32_t:
            large_unsigned = <uint64_t> a[i] * b[i]
            out[i] = <uint32_t> large_unsigned
            bad |= large_unsigned != out[i]
        elif number_t is uint16_t or number_t is uint8_t:
            small_unsigned = <uint32_t> a[i] * b[i]
            out[i] = <number_t> small_unsigned
            bad |= small_unsigned != out[i]
        else:
            small = <int32_t> a[i] * b[i]
            out[i] = <number_t> small
            bad |= small != out[i]
    return bad


def matmul(
    const wide_t[::1] a,     # matrices of (n_rows, n_inner)
    const wide_t[::1] b,     # matrices of (n_inner, n_cols)
    wide_t[::1] out,         # matrices of (n_rows, n_cols), overwritten
    tuple axes,                 # as in `combine`, in whole matrices
    tuple shape,                # n_rows, n_inner, n_cols
    /,
):
    cdef walk_t walk
    cdef Py_ssize_t n_rows, n_inner, n_cols
    _start(&walk, axes)
    n_rows, n_inner, n_cols = shape
    with nogil:
        _matmul(&a[0], &b[0], &out[0], &walk, n_rows, n_inner, n_cols)


cdef void _matmul(
    const wide_t* a,
    const wide_t* b,
    wide_t* out,
    walk_t* walk,
    Py_ssize_t n_rows,
    Py_ssize_t n_inner,
    Py_ssize_t n_cols,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef const wide_t* a_row
    cdef const wide_t* b_matrix
    while True:
        for i in range(walk.length[0]):
            a_row = a + (walk.a + i * walk.a_step[0]) * n_rows * n_inner
            b_matrix = b + (walk.b + i * walk.b_step[0]) * n_inner * n_cols
            for _ in range(n_rows):
                if n_cols == 1:
                    out[0] = _dot(a_row, b_matrix, n_inner)
                else:
                    _multiply_row(a_row, b_matrix, out, n_inner, n_cols)
                a_row += n_inner
                out += n_cols
        if not _next(walk):
            return


cdef wide_t _dot(const wide_t* a, const wide_t* b, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t total = 0
    for i in range(n):
        total += <uint64_t> a[i] * <uint64_t> b[i]
    return <wide_t> total


cdef void _multiply_row(
    const wide_t* a, const wide_t* b, wide_t* out, Py_ssize_t n_inner, Py_ssize_t n_cols
) noexcept nogil:
    cdef Py_ssize_t j, k
    for j in range(n_cols):
        out[j] = 0
    for k in range(n_inner):
        for j in range(n_cols):
            out[j] = <wide_t> (<uint64_t> out[j] + <uint64_t> a[k] * <uint64_t> b[j])
        b += n_cols


def scale(const number_t[::1] values, double factor, number_t[::1] out, /):
    """Multiply; integers in float64, rounded half to even."""
    with nogil:
        _scale(&values[0], factor, &out[0], values.shape[0])


cdef void _scale(
    const number_t* values, double factor, number_t* out, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if number_t is float or number_t is double:
            out[i] = values[i] * <number_t> factor
        elif sizeof(number_t) < 4:
            out[i] = <number_t> <int32_t> _rounded(<double> values[i] * factor)
        elif sizeof(number_t) == 4:
            out[i] = <number_t> _rounded(<double> values[i] * factor)
        else:
            out[i] = <number_t> _rounded_large(<double> values[i] * factor)


cdef inline double _rounded(double real) noexcept nogil:
    """Round a real below 2**51, as `_rounding` does one below 2**22."""
    return (real + 6755399441055744.0) - 6755399441055744.0


cdef inline double _rounded_large(double real) noexcept nogil:
    """Round any real: those of 2**52 and more are integers already."""
    cdef double size = -real if real < 0 else real
    size = (size + 4503599627370496.0) - 4503599627370496.0 if size < 4503599627370496.0 else size
    return -size if real < 0 else size


def min_max(const number_t[::1] values, /):
    """Return the least and the greatest; the least is NaN if there is one."""
    cdef number_t low, high
    with nogil:
        _range(&values[0], values.shape[0], &low, &high)
    return low, high


cdef void _range(
    const number_t* values, Py_ssize_t n, number_t* least, number_t* greatest
) noexcept nogil:
    # One minimum is slow: each comparison waits for the one before, and for the sake of NaN
    # compilers do not vectorize it. Many side by side are a plain loop.
    cdef number_t low[LANES]
    cdef number_t high[LANES]
    cdef number_t nan[LANES]
    cdef number_t x, y
    cdef const number_t* lows = values
    cdef const number_t* highs = values
    cdef const number_t* nans = values
    cdef Py_ssize_t i, start = 0, last = n - 2 * LANES
    if last >= 0:
        for i in range(LANES):
            low[i] = high[i] = nan[i] = values[i]
        while start <= last:
            for i in range(LANES):
                x = values[start + i]
                y = values[start + LANES + i]
                low[i] = _lesser(_lesser(x, y), low[i])
                high[i] = _greater(_greater(x, y), high[i])
                if number_t is float or number_t is double:
                    nan[i] = x if x != x else nan[i]
                    nan[i] = y if y != y else nan[i]
            if start < last < start + 2 * LANES:
                start = last    # looking at some numbers again, rather than at fewer
            else:
                start += 2 * LANES
        lows, highs, nans, n = low, high, nan, LANES
    x = lows[0]
    y = highs[0]
    for i in range(n):
        x = _lesser(lows[i], x)
        y = _greater(highs[i], y)
    least[0] = x
    greatest[0] = y
    if number_t is float or number_t is double:
        for i in range(n):
            if nans[i] != nans[i]:
                least[0] = nans[i]


cdef inline number_t _lesser(number_t x, number_t y) noexcept nogil:
    return x if x < y else y


cdef inline number_t _greater(number_t x, number_t y) noexcept nogil:
    return x if x > y else y
