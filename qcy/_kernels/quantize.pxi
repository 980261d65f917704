"""Between reals, 32-bit sums and codes: quantize, dequantize, requantize.

Codes are written as bytes, whatever their dtype: int8 and uint8 differ only in what `qmin` is.
Channels lie along one axis; arrays come in as (outer, channels, inner), flattened.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from libc.string cimport memset

from qcy._kernels._output cimport qcy_output
from qcy._rounding cimport round_code
from qcy._step cimport Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for, task_t

cdef extern from *:
    """
    #ifdef _MSC_VER
    #include <intrin.h>
    #define qcy_count(p, n) _InterlockedExchangeAdd((p), (n))
    #else
    #define qcy_count(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    #endif
    """
    long qcy_count(long* total, long n) noexcept nogil

cdef extern from "elementwise.h":
    ctypedef struct qcy_quantizer:
        qcy_output out
    qcy_quantizer qcy_quantizer_of(float scale, int zero_point, uint8_t flip) noexcept nogil
    Py_ssize_t qcy_quantize_run(
        const float* x, Py_ssize_t n, const qcy_quantizer* q, uint8_t* codes
    ) noexcept nogil
    void qcy_dequantize_run(
        const uint8_t* codes, Py_ssize_t n, float scale, int zero_point, int is_signed, float* x
    ) noexcept nogil

cdef enum:
    CONVERT_CHUNK = 16384   # elements that a thread takes at a time
    CONVERT_FEWEST = 65536     # elements below which waking threads costs more than they save
    TFLITE = 1              # rounding rules other than half to even


cdef struct convert_t:
    task_t task                 # one chunk of it
    place_t source
    place_t target
    const float* scale
    const int32_t* zero_point
    const int32_t* bias         # or NULL
    const int32_t* shift        # of the fixed-point multipliers
    const int32_t* fixed
    Py_ssize_t n_channels       # 1: one scale for all
    Py_ssize_t inner            # elements that share a scale, side by side
    Py_ssize_t size
    int32_t qmin                # of the dtype, or of the clamp
    int32_t qmax
    int is_signed               # codes are int8
    int rounding
    # What one run adds:
    uint8_t** memories
    long* n_nan


cdef inline Py_ssize_t chunk_of(const convert_t* run) noexcept nogil:
    """Elements of one task: a chunk, a run that shares a scale, or some whole rows of channels."""
    if run.n_channels == 1:
        return CONVERT_CHUNK
    if run.inner > 1:
        return run.inner
    return max(1, CONVERT_CHUNK // run.n_channels) * run.n_channels


cdef inline Py_ssize_t n_chunks(const convert_t* run) noexcept nogil:
    return (run.size + chunk_of(run) - 1) // chunk_of(run)


cdef long _run_convert(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef convert_t run = (<const convert_t*> args)[0]
    cdef long n_nan = 0
    if run.size == 0:
        return 0
    run.memories = memories
    run.n_nan = &n_nan
    parallel_for(run.task, &run, n_chunks(&run), n_threads)
    return n_nan


cdef Step _convert_step(task_t task, convert_t* run, object source, object target, list owners):
    cdef Step step
    run.task = task
    run.source = place_of(source, owners)
    run.target = place_of(target, owners)
    step = new_step(_run_convert, run, sizeof(convert_t), owners)
    if run.size < CONVERT_FEWEST:
        step.most_threads = 1
    return step


cdef void _set_channels(
    convert_t* run, const float[::1] scale, const int32_t[::1] zero_point, Py_ssize_t inner,
    Py_ssize_t size, int is_signed, list owners,
):
    run.n_channels = scale.shape[0]
    run.scale = &scale[0] if run.n_channels else NULL
    run.zero_point = &zero_point[0] if run.n_channels else NULL
    run.inner = inner
    run.size = size
    run.is_signed = is_signed
    owners.append(scale)
    owners.append(zero_point)


# ------------------------------------------------------------------------------------- quantize

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
    cdef const convert_t* run = <const convert_t*> args
    cdef Py_ssize_t first = index * chunk_of(run), channel
    cdef Py_ssize_t last = min(run.size, first + chunk_of(run))
    cdef const float* reals = <const float*> at(run.source, run.memories)
    cdef uint8_t* codes = <uint8_t*> at(run.target, run.memories)
    cdef int64_t n_nan = 0
    cdef uint8_t flip = 0x80 if run.is_signed else 0
    cdef qcy_quantizer quantizer
    if run.n_channels > 1 and run.inner == 1:
        while first < last:
            n_nan += _quantize_row(
                reals + first, run.scale, run.zero_point, run.qmin, run.qmax, run.n_channels,
                codes + first,
            )
            first += run.n_channels
    else:
        channel = index % run.n_channels
        quantizer = qcy_quantizer_of(
            run.scale[channel], run.zero_point[channel] + (128 if run.is_signed else 0), flip
        )
        quantizer.out.low = <uint8_t> run.qmin ^ flip
        quantizer.out.high = <uint8_t> run.qmax ^ flip
        n_nan = qcy_quantize_run(reals + first, last - first, &quantizer, codes + first)
    if n_nan:
        qcy_count(run.n_nan, <long> n_nan)


def quantize(
    object reals,
    Py_ssize_t size,
    const float[::1] scale,             # one, or one per channel
    const int32_t[::1] zero_point,      # as many
    Py_ssize_t inner,                   # elements side by side that share a scale
    bint is_signed,                     # codes are int8
    int32_t qmin,
    int32_t qmax,
    object codes,                       # as long as reals
    /,
):
    """Return the step of equation (4); it returns how many NaNs it saw."""
    cdef convert_t run
    cdef list owners = []
    memset(&run, 0, sizeof(run))
    _set_channels(&run, scale, zero_point, inner, size, is_signed, owners)
    run.qmin = qmin
    run.qmax = qmax
    return _convert_step(_quantize_task, &run, reals, codes, owners)


# ----------------------------------------------------------------------------------- dequantize

cdef void _dequantize_row(
    const uint8_t* codes, const float* scale, const int32_t* zero_point, bint is_signed,
    Py_ssize_t n, float* reals,
) noexcept nogil:
    cdef Py_ssize_t i
    if is_signed:
        for i in range(n):
            reals[i] = scale[i] * <float> (<int32_t> <int8_t> codes[i] - zero_point[i])
    else:
        for i in range(n):
            reals[i] = scale[i] * <float> (<int32_t> codes[i] - zero_point[i])


cdef void _dequantize_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const convert_t* run = <const convert_t*> args
    cdef Py_ssize_t first = index * chunk_of(run), channel
    cdef Py_ssize_t last = min(run.size, first + chunk_of(run))
    cdef const uint8_t* codes = <const uint8_t*> at(run.source, run.memories)
    cdef float* reals = <float*> at(run.target, run.memories)
    if run.n_channels > 1 and run.inner == 1:
        while first < last:
            _dequantize_row(
                codes + first, run.scale, run.zero_point, run.is_signed, run.n_channels,
                reals + first,
            )
            first += run.n_channels
    else:
        channel = index % run.n_channels
        qcy_dequantize_run(
            codes + first, last - first, run.scale[channel], run.zero_point[channel],
            run.is_signed, reals + first,
        )


def dequantize(
    object codes,
    Py_ssize_t size,
    const float[::1] scale,             # one, or one per channel
    const int32_t[::1] zero_point,      # as many
    Py_ssize_t inner,                   # elements side by side that share a scale
    bint is_signed,                     # codes are int8
    object reals,                       # as long as codes
    /,
):
    """Return the step of equation (5)."""
    cdef convert_t run
    cdef list owners = []
    memset(&run, 0, sizeof(run))
    _set_channels(&run, scale, zero_point, inner, size, is_signed, owners)
    return _convert_step(_dequantize_task, &run, codes, reals, owners)


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
    if rounding != TFLITE:              # single rounding
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
    const convert_t* run, const int32_t* acc, Py_ssize_t n, uint8_t* codes
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
    cdef const convert_t* run = <const convert_t*> args
    cdef Py_ssize_t first = index * chunk_of(run)
    cdef Py_ssize_t last = min(run.size, first + chunk_of(run))
    cdef const int32_t* acc = <const int32_t*> at(run.source, run.memories)
    cdef uint8_t* codes = <uint8_t*> at(run.target, run.memories)
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
    object acc,                         # (M, N)
    Py_ssize_t size,
    const int32_t[::1] bias,            # (N,) or None
    const float[::1] multiplier,        # (N,)
    const int32_t[::1] fixed,           # (N,) fixed-point multipliers; None if rounding is 0
    const int32_t[::1] shift,           # (N,) and their exponents, -31 to 10
    int rounding,                       # 0: half to even; TFLITE; 2: TFLite's single rounding
    const int32_t[::1] zero_point,      # one
    int32_t qmin,
    int32_t qmax,
    object codes,                       # (M, N)
    /,
):
    """Return the step of equations (9) and (10)."""
    cdef convert_t run
    cdef list owners = [bias, fixed, shift]
    memset(&run, 0, sizeof(run))
    _set_channels(&run, multiplier, zero_point, 1, size, 0, owners)
    run.bias = NULL if bias is None else &bias[0]
    run.fixed = NULL if fixed is None else &fixed[0]
    run.shift = NULL if shift is None else &shift[0]
    run.rounding = rounding
    run.qmin = qmin
    run.qmax = qmax
    return _convert_step(_requantize_task, &run, acc, codes, owners)
