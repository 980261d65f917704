"""Sums, products and clamps of codes, element by element.

Codes come and go as bytes; `flip` 0x80 turns int8 bytes into uint8 and back, and zero points are
given as uint8.
"""
from libc.stdint cimport int32_t, uint8_t

from qcy._rounding cimport round_code
from qcy._threads cimport parallel_for

cdef enum:
    CHUNK = 16384


cdef struct pair_t:
    const uint8_t* a
    const uint8_t* b
    uint8_t* out
    Py_ssize_t size
    int32_t a_zero
    int32_t b_zero
    int32_t zero_point
    uint8_t a_flip
    uint8_t b_flip
    uint8_t flip
    float a_multiplier
    float b_multiplier
    float low                   # clamp of the output, less the zero point
    float high


cdef void _add_run(
    const uint8_t* a, const uint8_t* b, const pair_t* pair, Py_ssize_t n, uint8_t* out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t a_zero = pair.a_zero, b_zero = pair.b_zero, zero_point = pair.zero_point
    cdef uint8_t a_flip = pair.a_flip, b_flip = pair.b_flip, flip = pair.flip
    cdef float a_multiplier = pair.a_multiplier, b_multiplier = pair.b_multiplier
    cdef float low = pair.low, high = pair.high, left, right
    for i in range(n):
        left = <float> (<int32_t> (a[i] ^ a_flip) - a_zero) * a_multiplier
        right = <float> (<int32_t> (b[i] ^ b_flip) - b_zero) * b_multiplier
        out[i] = flip ^ <uint8_t> round_code(left + right, low, high, zero_point)


cdef void _mul_run(
    const uint8_t* a, const uint8_t* b, const pair_t* pair, Py_ssize_t n, uint8_t* out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t a_zero = pair.a_zero, b_zero = pair.b_zero, zero_point = pair.zero_point
    cdef uint8_t a_flip = pair.a_flip, b_flip = pair.b_flip, flip = pair.flip
    cdef float multiplier = pair.a_multiplier, low = pair.low, high = pair.high
    cdef int32_t product
    for i in range(n):
        product = (<int32_t> (a[i] ^ a_flip) - a_zero) * (<int32_t> (b[i] ^ b_flip) - b_zero)
        out[i] = flip ^ <uint8_t> round_code(<float> product * multiplier, low, high, zero_point)


cdef void _add_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const pair_t* pair = <const pair_t*> args
    cdef Py_ssize_t first = index * CHUNK
    _add_run(
        pair.a + first, pair.b + first, pair, min(CHUNK, pair.size - first), pair.out + first
    )


cdef void _mul_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const pair_t* pair = <const pair_t*> args
    cdef Py_ssize_t first = index * CHUNK
    _mul_run(
        pair.a + first, pair.b + first, pair, min(CHUNK, pair.size - first), pair.out + first
    )


cdef bint _set_pair(
    pair_t* pair,
    const uint8_t[::1] a,
    const uint8_t[::1] b,
    tuple zero_points,          # of a, b and out, as uint8
    tuple flips,                # of a, b and out
    uint8_t low,
    uint8_t high,
    uint8_t[::1] out,
):
    if out.shape[0] == 0:
        return False
    pair.a_zero, pair.b_zero, pair.zero_point = zero_points
    pair.a_flip, pair.b_flip, pair.flip = flips
    pair.low = <float> (low - pair.zero_point)
    pair.high = <float> (high - pair.zero_point)
    pair.a = &a[0]
    pair.b = &b[0]
    pair.out = &out[0]
    pair.size = out.shape[0]
    return True


def add(
    const uint8_t[::1] a,
    const uint8_t[::1] b,
    float a_multiplier,
    float b_multiplier,
    tuple zero_points,
    tuple flips,
    uint8_t low,                # clamp of the output, as uint8
    uint8_t high,
    uint8_t[::1] out,           # as long as a and b, overwritten
    int n_threads,
):
    """Equation (15): two float32 products, their sum, one rounding."""
    cdef pair_t pair
    if not _set_pair(&pair, a, b, zero_points, flips, low, high, out):
        return
    pair.a_multiplier = a_multiplier
    pair.b_multiplier = b_multiplier
    with nogil:
        parallel_for(
            _add_task, &pair, (pair.size + CHUNK - 1) // CHUNK,
            n_threads if pair.size > 2 * CHUNK else 1,
        )


def mul(
    const uint8_t[::1] a,
    const uint8_t[::1] b,
    float multiplier,
    tuple zero_points,
    tuple flips,
    uint8_t low,                # clamp of the output, as uint8
    uint8_t high,
    uint8_t[::1] out,           # as long as a and b, overwritten
    int n_threads,
):
    """Equation (9) on the product of two codes less their zero points."""
    cdef pair_t pair
    if not _set_pair(&pair, a, b, zero_points, flips, low, high, out):
        return
    pair.a_multiplier = multiplier
    pair.b_multiplier = 0
    with nogil:
        parallel_for(
            _mul_task, &pair, (pair.size + CHUNK - 1) // CHUNK,
            n_threads if pair.size > 2 * CHUNK else 1,
        )


cdef struct clamp_t:
    const uint8_t* codes
    uint8_t* out
    Py_ssize_t size
    uint8_t low
    uint8_t high
    uint8_t flip


cdef void _clamp_run(
    const uint8_t* codes, uint8_t low, uint8_t high, uint8_t flip, Py_ssize_t n, uint8_t* out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t code
    for i in range(n):
        code = codes[i] ^ flip
        code = code if code > low else low
        code = code if code < high else high
        out[i] = code ^ flip


cdef void _clamp_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const clamp_t* run = <const clamp_t*> args
    cdef Py_ssize_t first = index * CHUNK
    _clamp_run(
        run.codes + first, run.low, run.high, run.flip, min(CHUNK, run.size - first),
        run.out + first,
    )


def clamp(
    const uint8_t[::1] codes,
    uint8_t low,                # as uint8
    uint8_t high,
    uint8_t flip,               # 0x80: the codes are int8
    uint8_t[::1] out,           # as long as codes, overwritten
    int n_threads,
):
    """Equation (14): ReLU and its kin are clamps of codes."""
    cdef clamp_t run
    if codes.shape[0] == 0:
        return
    run.codes = &codes[0]
    run.out = &out[0]
    run.size = codes.shape[0]
    run.low = low
    run.high = high
    run.flip = flip
    with nogil:
        parallel_for(
            _clamp_task, &run, (run.size + CHUNK - 1) // CHUNK,
            n_threads if run.size > 2 * CHUNK else 1,
        )


cdef struct softmax_t:
    const uint8_t* codes
    const int32_t* table
    uint8_t* out
    Py_ssize_t n_cols
    int32_t qmin
    int32_t qmax
    uint8_t flip


cdef void _softmax_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const softmax_t* run = <const softmax_t*> args
    cdef const uint8_t* codes = run.codes + index * run.n_cols
    cdef uint8_t* out = run.out + index * run.n_cols
    cdef Py_ssize_t j
    cdef int32_t largest = 0, code
    cdef unsigned long long total = 0, part
    for j in range(run.n_cols):
        largest = max(largest, <int32_t> (codes[j] ^ run.flip))
    for j in range(run.n_cols):
        total += run.table[largest - (codes[j] ^ run.flip)]
    for j in range(run.n_cols):
        part = run.table[largest - (codes[j] ^ run.flip)]
        part = (512 * part + total) // (2 * total)
        code = run.qmin + <int32_t> part
        out[j] = <uint8_t> min(code, run.qmax)


def softmax(
    const uint8_t[:, ::1] codes,        # (M, N)
    const int32_t[::1] table,           # (256,) exponentials by distance from the row's largest
    uint8_t flip,                       # 0x80: the codes are int8
    int32_t qmin,                       # of the output
    int32_t qmax,
    uint8_t[:, ::1] out,                # (M, N), overwritten
    int n_threads,
):
    """Equation (18), integers only."""
    cdef softmax_t run
    if codes.size == 0:
        return
    run.codes = &codes[0, 0]
    run.table = &table[0]
    run.out = &out[0, 0]
    run.n_cols = codes.shape[1]
    run.flip = flip
    run.qmin = qmin
    run.qmax = qmax
    if codes.size < 2 * CHUNK:
        n_threads = 1
    with nogil:
        parallel_for(_softmax_row, &run, codes.shape[0], n_threads)
