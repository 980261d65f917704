"""Pooling of codes, channels last: the largest, or the mean, of each window.

Cells outside the image do not take part: a maximum ignores them, equation (13), and a mean divides
by the cells inside unless told otherwise.
"""
from libc.stdint cimport int8_t, int32_t, uint8_t

from qcy._dtypes cimport q8_t
from qcy._kernels._window cimport input_column, input_row, window_from, window_t
from qcy._rounding cimport round_code
from qcy._threads cimport parallel_for

cdef enum:
    CHANNELS = 64               # summed side by side
    FEWEST_CELLS = 131072       # below it, waking threads costs more than they save


cdef struct pool_t:
    window_t window
    const void* x
    void* out
    const float* multiplier     # by the number of cells that take part
    bint count_outside
    int32_t x_zero
    int32_t zero_point
    int32_t qmin
    int32_t qmax


# -------------------------------------------------------------------------------------- largest

cdef void _max_into(const q8_t* x, Py_ssize_t n, q8_t* out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = x[i] if x[i] > out[i] else out[i]


cdef void _max_row(const pool_t* pool, Py_ssize_t index, q8_t lowest) noexcept nogil:
    """Compute one row of output pixels."""
    cdef const window_t* w = &pool.window
    cdef Py_ssize_t out_row = index % w.out_height, image = index // w.out_height
    cdef Py_ssize_t pixel, tap_row, tap_column, row, column, i
    cdef const q8_t* x
    cdef q8_t* out = <q8_t*> pool.out + index * w.out_width * w.channels
    for pixel in range(w.out_width):
        for i in range(w.channels):
            out[i] = lowest
        for tap_row in range(w.kernel_height):
            row = input_row(w, out_row, tap_row)
            if row < 0:
                continue
            for tap_column in range(w.kernel_width):
                column = input_column(w, pixel, tap_column)
                if column >= 0:
                    x = (
                        <const q8_t*> pool.x
                        + ((image * w.height + row) * w.width + column) * w.channels
                    )
                    _max_into(x, w.channels, out)
        out += w.channels


cdef void _max_row_int8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _max_row(<const pool_t*> args, index, <int8_t> -128)


cdef void _max_row_uint8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _max_row(<const pool_t*> args, index, <uint8_t> 0)


def max_pool(
    const q8_t[:, :, :, ::1] x,         # (B, H, W, C)
    tuple window,
    q8_t[:, :, :, ::1] out,             # (B, OH, OW, C), overwritten
    int n_threads,
):
    cdef pool_t pool
    if out.size == 0:
        return
    pool.window = window_from(window)
    pool.x = &x[0, 0, 0, 0]
    pool.out = &out[0, 0, 0, 0]
    if out.size * pool.window.kernel_height * pool.window.kernel_width < FEWEST_CELLS:
        n_threads = 1
    with nogil:
        parallel_for(
            _max_row_int8 if q8_t is int8_t else _max_row_uint8, &pool,
            x.shape[0] * pool.window.out_height, n_threads,
        )


# ----------------------------------------------------------------------------------------- mean

cdef void _sum_into(
    const q8_t* x, int32_t x_zero, Py_ssize_t n, int32_t* sums
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += <int32_t> x[i] - x_zero


cdef void _mean_row(const pool_t* pool, Py_ssize_t index, q8_t unused) noexcept nogil:
    """Compute one row of output pixels."""
    cdef const window_t* w = &pool.window
    cdef Py_ssize_t out_row = index % w.out_height, image = index // w.out_height
    cdef Py_ssize_t pixel, tap_row, tap_column, row, column, i, block, channel, n
    cdef Py_ssize_t n_cells
    cdef int32_t sums[CHANNELS]
    cdef float low = <float> (pool.qmin - pool.zero_point)
    cdef float high = <float> (pool.qmax - pool.zero_point)
    cdef const q8_t* x
    cdef q8_t* out
    for pixel in range(w.out_width):
        for block in range((w.channels + CHANNELS - 1) // CHANNELS):
            channel = block * CHANNELS
            n = min(CHANNELS, w.channels - channel)
            n_cells = 0
            for i in range(n):
                sums[i] = 0
            for tap_row in range(w.kernel_height):
                row = input_row(w, out_row, tap_row)
                if row < 0:
                    continue
                for tap_column in range(w.kernel_width):
                    column = input_column(w, pixel, tap_column)
                    if column >= 0:
                        x = (
                            <const q8_t*> pool.x + channel
                            + ((image * w.height + row) * w.width + column) * w.channels
                        )
                        _sum_into(x, pool.x_zero, n, sums)
                        n_cells += 1
            if pool.count_outside:
                n_cells = w.kernel_height * w.kernel_width
            out = <q8_t*> pool.out + (index * w.out_width + pixel) * w.channels + channel
            for i in range(n):
                out[i] = <q8_t> round_code(
                    <float> sums[i] * pool.multiplier[n_cells], low, high, pool.zero_point
                )


cdef void _mean_row_int8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _mean_row(<const pool_t*> args, index, <int8_t> 0)


cdef void _mean_row_uint8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _mean_row(<const pool_t*> args, index, <uint8_t> 0)


def avg_pool(
    const q8_t[:, :, :, ::1] x,         # (B, H, W, C)
    tuple window,
    bint count_outside,
    int32_t x_zero,
    const float[::1] multiplier,        # (KH * KW + 1,) by the number of cells, equation (16)
    int32_t zero_point,
    int32_t qmin,
    int32_t qmax,
    q8_t[:, :, :, ::1] out,             # (B, OH, OW, C), overwritten
    int n_threads,
):
    cdef pool_t pool
    if out.size == 0:
        return
    pool.window = window_from(window)
    pool.x = &x[0, 0, 0, 0]
    pool.out = &out[0, 0, 0, 0]
    pool.count_outside = count_outside
    pool.multiplier = &multiplier[0]
    pool.x_zero = x_zero
    pool.zero_point = zero_point
    pool.qmin = qmin
    pool.qmax = qmax
    if out.size * pool.window.kernel_height * pool.window.kernel_width < FEWEST_CELLS:
        n_threads = 1
    with nogil:
        parallel_for(
            _mean_row_int8 if q8_t is int8_t else _mean_row_uint8, &pool,
            x.shape[0] * pool.window.out_height, n_threads,
        )
