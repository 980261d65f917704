"""Pooling of codes, channels last: the largest, or the mean, of each window.

Cells outside the image do not take part: a maximum ignores them, equation (13), and a mean divides
by the cells inside unless told otherwise.
"""
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memset

from qcy._kernels._output cimport output_from, qcy_output
from qcy._kernels._tile cimport QCY_LHS_ZERO
from qcy._kernels._window cimport cells_t, find_cells, point_at_cells, window_from, window_t
from qcy._step cimport SCRATCH, Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "windows.h":
    void qcy_max_row(
        const uint8_t** rows, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_out,
        Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t pad, Py_ssize_t n,
        uint8_t x_flip, uint8_t* out,
    ) noexcept nogil
    void qcy_max_narrow_row(
        const uint8_t** rows, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_out,
        Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t pad, Py_ssize_t n,
        uint8_t x_flip, uint8_t* line, uint8_t* result, uint8_t* out,
    ) noexcept nogil
    enum:
        QCY_BLOCK
    void qcy_mean_pixel(
        const uint8_t* first, Py_ssize_t stride, Py_ssize_t n_even, const uint8_t** taps,
        Py_ssize_t n_groups, Py_ssize_t n, uint8_t x_flip, int32_t offset, float multiplier,
        const qcy_output* output, uint8_t* out,
    ) noexcept nogil

cdef enum:
    FEWEST_CELLS = 262144       # below it, waking threads costs more than they save


cdef struct pool_t:
    window_t window
    cells_t cells
    place_t x
    place_t out
    Py_ssize_t n_images
    uint8_t flip                # 0x80: codes are int8
    const float* multiplier     # by the number of cells that take part; NULL: the largest
    bint count_outside
    bint is_whole               # the mean of the whole image
    int32_t x_zero              # as uint8
    qcy_output output
    # What one run adds:
    uint8_t** memories
    Py_ssize_t scratch_per_thread


cdef inline Py_ssize_t _cell_pointers(const pool_t* pool) noexcept nogil:
    """Return the bytes of a pointer for each cell, in whole groups of four."""
    cdef Py_ssize_t n_taps = pool.window.kernel_height * pool.window.kernel_width
    return (<Py_ssize_t> sizeof(void*) * (n_taps + 4) + 63) // 64 * 64


cdef inline Py_ssize_t _pool_line(const pool_t* pool, Py_ssize_t width) noexcept nogil:
    """Return the bytes of a row of few channels, and a block more."""
    return (width * pool.window.channels + 63) // 64 * 64 + QCY_BLOCK


cdef Py_ssize_t _pool_scratch(const pool_t* pool) noexcept nogil:
    """Return the bytes that a thread needs: pointers, and two rows if channels are few."""
    cdef Py_ssize_t size = _cell_pointers(pool)
    if pool.multiplier == NULL and pool.window.channels < QCY_BLOCK:
        size += _pool_line(pool, pool.window.width) + _pool_line(pool, pool.window.out_width)
    return size


cdef void _whole_image(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Take the mean of each channel of one image."""
    cdef const pool_t* pool = <const pool_t*> args
    cdef Py_ssize_t channels = pool.window.channels, n = pool.window.height * pool.window.width, i
    cdef const uint8_t* rest[4]
    cdef const uint8_t* image = <const uint8_t*> at(pool.x, pool.memories)
    cdef uint8_t* out = <uint8_t*> at(pool.out, pool.memories)
    image += index * n * channels
    for i in range(4):
        rest[i] = image + (n - n % 4 + i) * channels if i < n % 4 else pool.cells.outside
    qcy_mean_pixel(
        image, channels, n // 4, rest, 1, channels, pool.flip,
        <int32_t> ((n // 4 + 1) * 4 * QCY_LHS_ZERO - n * pool.x_zero), pool.multiplier[n],
        &pool.output, out + index * channels,
    )


cdef void _max_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Take the largest codes of one row of output pixels."""
    cdef const pool_t* pool = <const pool_t*> args
    cdef const window_t* w = &pool.window
    cdef Py_ssize_t n_rows = 0, y, row
    cdef uint8_t* scratch = pool.memories[SCRATCH] + worker * pool.scratch_per_thread
    cdef uint8_t* line
    cdef const uint8_t** rows = <const uint8_t**> scratch
    cdef const uint8_t* image = <const uint8_t*> at(pool.x, pool.memories)
    cdef uint8_t* out = <uint8_t*> at(pool.out, pool.memories)
    image += index // w.out_height * w.height * w.width * w.channels
    for y in range(w.kernel_height):
        row = pool.cells.rows[index % w.out_height * w.kernel_height + y]
        if row >= 0:
            rows[n_rows] = image + row
            n_rows += 1
    if w.channels < QCY_BLOCK:
        line = scratch + _cell_pointers(pool)
        qcy_max_narrow_row(
            rows, n_rows, w.width, w.out_width, w.kernel_width, w.stride_width, w.dilation_width,
            w.pad_left, w.channels, pool.flip, line, line + _pool_line(pool, w.width),
            out + index * w.out_width * w.channels,
        )
        return
    qcy_max_row(
        rows, n_rows, w.width, w.out_width, w.kernel_width, w.stride_width, w.dilation_width,
        w.pad_left, w.channels, pool.flip, out + index * w.out_width * w.channels,
    )


cdef void _mean_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Take the means of one row of output pixels."""
    cdef const pool_t* pool = <const pool_t*> args
    cdef const window_t* w = &pool.window
    cdef Py_ssize_t n_taps = w.kernel_height * w.kernel_width, n, i, pixel, n_groups
    cdef uint8_t* scratch = pool.memories[SCRATCH] + worker * pool.scratch_per_thread
    cdef const uint8_t** taps = <const uint8_t**> scratch
    cdef uint8_t* out = <uint8_t*> at(pool.out, pool.memories)
    cdef const uint8_t* image = <const uint8_t*> at(pool.x, pool.memories)
    image += index // w.out_height * w.height * w.width * w.channels
    out += index * w.out_width * w.channels
    for pixel in range(w.out_width):
        point_at_cells(w, &pool.cells, image, index % w.out_height, pixel, taps)
        n = 0
        for i in range(n_taps):             # leave out the cells outside
            taps[n] = taps[i]
            n += taps[i] != pool.cells.outside
        n_groups = (n + 3) // 4
        for i in range(n, 4 * n_groups):
            taps[i] = pool.cells.outside        # code 0 as uint8
        qcy_mean_pixel(
            NULL, 0, 0, taps, n_groups, w.channels, pool.flip,
            <int32_t> (4 * n_groups * QCY_LHS_ZERO - n * pool.x_zero),
            pool.multiplier[n_taps if pool.count_outside else n], &pool.output, out,
        )
        out += w.channels


cdef long _run_pool(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef pool_t pool = (<const pool_t*> args)[0]
    if pool.window.channels == 0:
        return 0
    pool.memories = memories
    pool.scratch_per_thread = _pool_scratch(&pool)
    if pool.is_whole:
        parallel_for(_whole_image, &pool, pool.n_images, n_threads)
    else:
        parallel_for(
            _max_row if pool.multiplier == NULL else _mean_row, &pool,
            pool.n_images * pool.window.out_height, n_threads,
        )
    return 0


cdef Step _pool_step(
    pool_t* pool, object x, Py_ssize_t n_images, tuple window, uint8_t flip, object out,
    list owners,
):
    cdef Step step
    cdef double cells = n_images
    pool.window = window_from(window)
    pool.cells = find_cells(&pool.window, flip, owners)
    pool.x = place_of(x, owners)
    pool.out = place_of(out, owners)
    pool.n_images = n_images
    pool.flip = flip
    pool.is_whole = pool.multiplier != NULL and (
        pool.window.kernel_height == pool.window.height
        and pool.window.kernel_width == pool.window.width
        and pool.window.out_height == pool.window.out_width == 1
        and pool.window.pad_top == pool.window.pad_left == 0
    )
    step = new_step(_run_pool, pool, sizeof(pool_t), owners)
    step.scratch_per_thread = _pool_scratch(pool)
    cells *= pool.window.out_height * pool.window.out_width * pool.window.channels
    if cells * pool.window.kernel_height * pool.window.kernel_width < FEWEST_CELLS:
        step.most_threads = 1
    return step


def max_pool(
    object x,                           # (B, H, W, C) codes
    Py_ssize_t n_images,
    tuple window,
    uint8_t flip,                       # 0x80: codes are int8
    object out,                         # (B, OH, OW, C)
    /,
):
    """Return the step that takes the largest code of each window."""
    cdef pool_t pool
    memset(&pool, 0, sizeof(pool))
    return _pool_step(&pool, x, n_images, window, flip, out, [])


def avg_pool(
    object x,                           # (B, H, W, C) codes
    Py_ssize_t n_images,
    tuple window,
    uint8_t flip,                       # 0x80: codes are int8
    bint count_outside,
    int32_t x_zero,                     # as uint8
    const float[::1] multiplier,        # (KH * KW + 1,) by the number of cells, equation (16)
    tuple target,                       # zero point, low, high, flip as uint8; and wild
    object out,                         # (B, OH, OW, C)
    /,
):
    """Return the step that takes the mean of each window."""
    cdef pool_t pool
    memset(&pool, 0, sizeof(pool))
    pool.count_outside = count_outside
    pool.multiplier = &multiplier[0]
    pool.x_zero = x_zero
    pool.output = output_from(target)
    return _pool_step(&pool, x, n_images, window, flip, out, [multiplier])
