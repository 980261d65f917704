"""Between reals, 32-bit sums and codes: quantize, dequantize, requantize, look up.

Codes are written as bytes, whatever their dtype: int8 and uint8 differ only in what `qmin` is.
Channels lie along one axis; arrays come in as (outer, channels, inner), flattened.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from qcy._dtypes cimport q8_t
from qcy._rounding cimport round_code
from qcy._threads cimport parallel_for

cdef enum:
    CHUNK = 16384           # elements that a thread takes at a time, and a call hands to a second
    TFLITE = 1              # rounding rules other than half to even
    TFLITE_SINGLE = 2


cdef struct run_t:
    const void* source
    void* target
    const float* scale
    const int32_t* zero_point
    const int32_t* bias         # or NULL
    const int32_t* shift        # of the fixed-point multipliers
    const int32_t* fixed
    Py_ssize_t n_channels       # 1: one scale for all
    Py_ssize_t inner            # elements that share a scale, side by side
    Py_ssize_t size
    int32_t qmin
    int32_t qmax
    int64_t* n_nan              # per worker, a cache line apart
    int rounding


cdef inline Py_ssize_t chunk_of(const run_t* run) noexcept nogil:
    """Elements of one task: a chunk, a run that shares a scale, or some whole rows of channels."""
    if run.n_channels == 1:
        return CHUNK
    if run.inner > 1:
        return run.inner
    return max(1, CHUNK // run.n_channels) * run.n_channels


cdef inline Py_ssize_t n_chunks(const run_t* run) noexcept nogil:
    return (run.size + chunk_of(run) - 1) // chunk_of(run)


# ------------------------------------------------------------------------------------- quantize

cdef int64_t _quantize_run(
    const float* reals, float scale, int32_t zero_point, int32_t qmin, int32_t qmax,
    Py_ssize_t n, uint8_t* codes,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef float low = <float> (qmin - zero_point), high = <float> (qmax - zero_point)
    cdef int32_t n_nan = 0
    for i in range(n):
        n_nan += reals[i] != reals[i]
        codes[i] = <uint8_t> round_code(reals[i] / scale, low, high, zero_point)
    return n_nan


cdef int64_t _quantize_row(
    const float* reals, const float* scale, const int32_t* zero_point, int32_t qmin, int32_t qmax,
    Py_ssize_t n, uint8_t* codes,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t n_nan = 0
    for i in range(n):
        n_nan += reals[i] != reals[i]
        codes[i] = <uint8_t> round_code(
            reals[i] / scale[i], <float> (qmin - zero_point[i]), <float> (qmax - zero_point[i]),
            zero_point[i],
        )
    return n_nan


cdef void _quantize_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const run_t* run = <const run_t*> args
    cdef Py_ssize_t first = index * chunk_of(run), channel
    cdef Py_ssize_t last = min(run.size, first + chunk_of(run))
    cdef const float* reals = <const float*> run.source
    cdef uint8_t* codes = <uint8_t*> run.target
    cdef int64_t n_nan = 0
    if run.n_channels > 1 and run.inner == 1:
        while first < last:
            n_nan += _quantize_row(
                reals + first, run.scale, run.zero_point, run.qmin, run.qmax, run.n_channels,
                codes + first,
            )
            first += run.n_channels
    else:
        channel = index % run.n_channels
        n_nan = _quantize_run(
            reals + first, run.scale[channel], run.zero_point[channel], run.qmin, run.qmax,
            last - first, codes + first,
        )
    run.n_nan[worker * 8] += n_nan


def quantize(
    const float[::1] reals,
    const float[::1] scale,             # one, or one per channel
    const int32_t[::1] zero_point,      # as many
    Py_ssize_t inner,                   # elements side by side that share a scale
    int32_t qmin,
    int32_t qmax,
    uint8_t[::1] codes,                 # as long as reals, overwritten
    int64_t[::1] n_nan,                 # 8 * n_threads zeros: the NaNs that each thread saw
    int n_threads,
):
    cdef run_t run
    if reals.shape[0] == 0:
        return
    run.source = &reals[0]
    run.target = &codes[0]
    run.scale = &scale[0]
    run.zero_point = &zero_point[0]
    run.n_channels = scale.shape[0]
    run.inner = inner
    run.size = reals.shape[0]
    run.qmin = qmin
    run.qmax = qmax
    run.n_nan = &n_nan[0]
    with nogil:
        parallel_for(
            _quantize_task, &run, n_chunks(&run), n_threads if run.size > 2 * CHUNK else 1
        )


# ----------------------------------------------------------------------------------- dequantize

cdef void _dequantize_run(
    const q8_t* codes, float scale, int32_t zero_point, Py_ssize_t n, float* reals
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        reals[i] = scale * <float> (<int32_t> codes[i] - zero_point)


cdef void _dequantize_row(
    const q8_t* codes, const float* scale, const int32_t* zero_point, Py_ssize_t n, float* reals
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        reals[i] = scale[i] * <float> (<int32_t> codes[i] - zero_point[i])


cdef void _dequantize_chunk(const run_t* run, Py_ssize_t index, q8_t unused) noexcept nogil:
    cdef Py_ssize_t first = index * chunk_of(run), channel
    cdef Py_ssize_t last = min(run.size, first + chunk_of(run))
    cdef const q8_t* codes = <const q8_t*> run.source
    cdef float* reals = <float*> run.target
    if run.n_channels > 1 and run.inner == 1:
        while first < last:
            _dequantize_row(
                codes + first, run.scale, run.zero_point, run.n_channels, reals + first
            )
            first += run.n_channels
    else:
        channel = index % run.n_channels
        _dequantize_run(
            codes + first, run.scale[channel], run.zero_point[channel], last - first,
            reals + first,
        )


cdef void _dequantize_int8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _dequantize_chunk(<const run_t*> args, index, <int8_t> 0)


cdef void _dequantize_uint8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _dequantize_chunk(<const run_t*> args, index, <uint8_t> 0)


def dequantize(
    const q8_t[::1] codes,
    const float[::1] scale,             # one, or one per channel
    const int32_t[::1] zero_point,      # as many
    Py_ssize_t inner,                   # elements side by side that share a scale
    float[::1] reals,                   # as long as codes, overwritten
    int n_threads,
):
    cdef run_t run
    if codes.shape[0] == 0:
        return
    run.source = &codes[0]
    run.target = &reals[0]
    run.scale = &scale[0]
    run.zero_point = &zero_point[0]
    run.n_channels = scale.shape[0]
    run.inner = inner
    run.size = codes.shape[0]
    with nogil:
        parallel_for(
            _dequantize_int8 if q8_t is int8_t else _dequantize_uint8, &run, n_chunks(&run),
            n_threads if run.size > 2 * CHUNK else 1,
        )


# ----------------------------------------------------------------------------------- requantize

cdef void _requantize_row(
    const int32_t* acc, const int32_t* bias, const float* multiplier, float low, float high,
    int32_t zero_point, Py_ssize_t n, uint8_t* codes,
) noexcept nogil:
    cdef Py_ssize_t i
    if bias == NULL:
        for i in range(n):
            codes[i] = <uint8_t> round_code(<float> acc[i] * multiplier[i], low, high, zero_point)
    else:
        for i in range(n):
            codes[i] = <uint8_t> round_code(
                <float> (<int64_t> acc[i] + bias[i]) * multiplier[i], low, high, zero_point
            )


cdef inline int64_t _fixed_point(
    int64_t acc, int64_t fixed, int32_t shift, int rounding
) noexcept nogil:
    """Multiply by ``fixed / 2**31 * 2**shift`` as TFLite does, equation (10)."""
    cdef int64_t product, mask, rest, high
    if shift > 0:                       # then what is far out saturates in any case
        acc = min(max(acc, -1048576), 1048576)
    if rounding == TFLITE_SINGLE:
        product = acc * fixed
        return (product + (<int64_t> 1 << (30 - shift))) >> (31 - shift)
    if shift > 0:
        acc = acc * (<int64_t> 1 << shift)
        shift = 0
    high = (acc * fixed + (<int64_t> 1 << 30)) >> 31
    mask = (<int64_t> 1 << -shift) - 1
    rest = high & mask
    return (high >> -shift) + (rest > (mask >> 1) + (high < 0))


cdef void _requantize_fixed_row(
    const run_t* run, const int32_t* acc, Py_ssize_t n, uint8_t* codes
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int64_t total
    for i in range(n):
        total = acc[i]
        if run.bias != NULL:
            total += run.bias[i]
        total = _fixed_point(total, run.fixed[i], run.shift[i], run.rounding) + run.zero_point[0]
        codes[i] = <uint8_t> min(max(total, <int64_t> run.qmin), <int64_t> run.qmax)


cdef void _requantize_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const run_t* run = <const run_t*> args
    cdef Py_ssize_t rows = max(1, CHUNK // run.n_channels)
    cdef Py_ssize_t first = index * rows * run.n_channels
    cdef Py_ssize_t last = min(run.size, first + rows * run.n_channels)
    cdef const int32_t* acc = <const int32_t*> run.source
    cdef uint8_t* codes = <uint8_t*> run.target
    cdef int32_t zero_point = run.zero_point[0]
    while first < last:
        if run.rounding == 0:
            _requantize_row(
                acc + first, run.bias, run.scale, <float> (run.qmin - zero_point),
                <float> (run.qmax - zero_point), zero_point, run.n_channels, codes + first,
            )
        else:
            _requantize_fixed_row(run, acc + first, run.n_channels, codes + first)
        first += run.n_channels


def requantize(
    const int32_t[:, ::1] acc,          # (M, N)
    const int32_t[::1] bias,            # (N,) or None
    const float[::1] multiplier,        # (N,)
    const int32_t[::1] fixed,           # (N,) fixed-point multipliers; None if rounding is 0
    const int32_t[::1] shift,           # (N,) and their exponents, -31 to 10
    int rounding,                       # 0: half to even; TFLITE, TFLITE_SINGLE
    int32_t zero_point,
    int32_t qmin,
    int32_t qmax,
    uint8_t[:, ::1] codes,              # (M, N), overwritten
    int n_threads,
):
    cdef run_t run
    cdef Py_ssize_t rows
    if acc.size == 0:
        return
    rows = max(1, CHUNK // acc.shape[1])
    run.source = &acc[0, 0]
    run.target = &codes[0, 0]
    run.bias = NULL if bias is None else &bias[0]
    run.scale = &multiplier[0]
    run.fixed = NULL if fixed is None else &fixed[0]
    run.shift = NULL if shift is None else &shift[0]
    run.rounding = rounding
    run.zero_point = &zero_point
    run.n_channels = acc.shape[1]
    run.size = acc.size
    run.qmin = qmin
    run.qmax = qmax
    with nogil:
        parallel_for(
            _requantize_task, &run, (run.size // run.n_channels + rows - 1) // rows,
            n_threads if run.size > 2 * CHUNK else 1,
        )


# --------------------------------------------------------------------------------------- look up

cdef struct lookup_t:
    const uint8_t* codes
    const uint8_t* table
    uint8_t* out
    Py_ssize_t size


cdef void _lookup_run(
    const uint8_t* codes, const uint8_t* table, Py_ssize_t n, uint8_t* out
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = table[codes[i]]


cdef void _lookup_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const lookup_t* run = <const lookup_t*> args
    cdef Py_ssize_t first = index * CHUNK
    _lookup_run(
        run.codes + first, run.table, min(CHUNK, run.size - first), run.out + first
    )


def lookup(
    const uint8_t[::1] codes,
    const uint8_t[::1] table,           # (256,) by the code's byte
    uint8_t[::1] out,                   # as long as codes, overwritten
    int n_threads,
):
    cdef lookup_t run
    if codes.shape[0] == 0:
        return
    run.codes = &codes[0]
    run.table = &table[0]
    run.out = &out[0]
    run.size = codes.shape[0]
    with nogil:
        parallel_for(
            _lookup_task, &run, (run.size + CHUNK - 1) // CHUNK,
            n_threads if run.size > 2 * CHUNK else 1,
        )
