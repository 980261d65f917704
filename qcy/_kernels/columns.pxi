"""Between images and matrices of windows: im2col and col2im, channels outermost in a row.

These are the public forms; a convolution gathers windows by itself, channels innermost.
"""
from libc.stdint cimport int8_t, int32_t, uint8_t

from qcy._kernels._window cimport input_column, input_row, window_from, window_t
from qcy._threads cimport parallel_for

ctypedef fused column_t:
    int8_t
    uint8_t
    int32_t


cdef struct columns_t:
    window_t window
    const void* source
    void* target
    Py_ssize_t image_step       # elements between images, channels, rows and columns of the image
    Py_ssize_t channel_step
    Py_ssize_t row_step
    Py_ssize_t column_step
    int32_t zero_point


cdef void _set_steps(columns_t* columns, bint channels_last) noexcept nogil:
    cdef const window_t* w = &columns.window
    columns.image_step = w.channels * w.height * w.width
    columns.channel_step = 1 if channels_last else w.height * w.width
    columns.column_step = w.channels if channels_last else 1
    columns.row_step = w.width * columns.column_step


cdef void _im2col_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Write the window of one output pixel: channels, kernel rows, kernel columns."""
    cdef const columns_t* c = <const columns_t*> args
    cdef const window_t* w = &c.window
    cdef Py_ssize_t taps = w.kernel_height * w.kernel_width
    cdef Py_ssize_t out_column = index % w.out_width, out_row = index // w.out_width % w.out_height
    cdef Py_ssize_t image = index // w.out_width // w.out_height
    cdef Py_ssize_t tap, row, column, channel
    cdef uint8_t* target = <uint8_t*> c.target + index * taps * w.channels
    cdef const uint8_t* source
    for tap in range(taps):
        row = input_row(w, out_row, tap // w.kernel_width)
        column = input_column(w, out_column, tap % w.kernel_width)
        if row < 0 or column < 0:       # an image without pixels has no address to count from
            for channel in range(w.channels):
                target[channel * taps + tap] = <uint8_t> c.zero_point
            continue
        source = (
            <const uint8_t*> c.source + image * c.image_step + row * c.row_step
            + column * c.column_step
        )
        for channel in range(w.channels):
            target[channel * taps + tap] = source[channel * c.channel_step]


def im2col(
    const uint8_t[:, :, :, ::1] x,      # images, in either layout
    tuple window,
    bint channels_last,
    uint8_t fill,                       # the zero point's byte
    uint8_t[:, ::1] columns,            # (pixels, C * KH * KW), overwritten
    int n_threads,
    /,
):
    cdef columns_t args
    if columns.shape[0] == 0 or columns.shape[1] == 0:
        return
    args.window = window_from(window)
    args.source = &x[0, 0, 0, 0] if x.size else NULL
    args.target = &columns[0, 0]
    args.zero_point = fill
    _set_steps(&args, channels_last)
    with nogil:
        parallel_for(_im2col_row, &args, columns.shape[0], n_threads)


cdef void _col2im_channel(const columns_t* c, Py_ssize_t index, column_t unused) noexcept nogil:
    """Sum, into one channel of one image, all window cells that lie over it."""
    cdef const window_t* w = &c.window
    cdef Py_ssize_t taps = w.kernel_height * w.kernel_width
    cdef Py_ssize_t channel = index % w.channels, image = index // w.channels
    cdef Py_ssize_t pixel, tap, row, column
    cdef int32_t* target = (
        <int32_t*> c.target + image * c.image_step + channel * c.channel_step
    )
    cdef const column_t* source = (
        <const column_t*> c.source
        + (image * w.out_height * w.out_width * w.channels + channel) * taps
    )
    for row in range(w.height):
        for column in range(w.width):
            target[row * c.row_step + column * c.column_step] = 0
    for pixel in range(w.out_height * w.out_width):
        for tap in range(taps):
            row = input_row(w, pixel // w.out_width, tap // w.kernel_width)
            column = input_column(w, pixel % w.out_width, tap % w.kernel_width)
            if row >= 0 and column >= 0:
                target[row * c.row_step + column * c.column_step] += (
                    <int32_t> source[tap] - c.zero_point
                )
        source += taps * w.channels


cdef void _col2im_int8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _col2im_channel(<const columns_t*> args, index, <int8_t> 0)


cdef void _col2im_uint8(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _col2im_channel(<const columns_t*> args, index, <uint8_t> 0)


cdef void _col2im_int32(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    _col2im_channel(<const columns_t*> args, index, <int32_t> 0)


def col2im(
    const column_t[:, ::1] columns,     # (pixels, C * KH * KW)
    tuple window,
    bint channels_last,
    int32_t zero_point,
    int32_t[:, :, :, ::1] sums,         # images, in either layout; overwritten
    int n_threads,
    /,
):
    cdef columns_t args
    cdef Py_ssize_t n_tasks = sums.shape[0]
    if sums.size == 0:
        return
    args.window = window_from(window)
    args.source = &columns[0, 0] if columns.size else NULL
    args.target = &sums[0, 0, 0, 0]
    args.zero_point = zero_point
    _set_steps(&args, channels_last)
    n_tasks *= args.window.channels
    with nogil:
        if column_t is int8_t:
            parallel_for(_col2im_int8, &args, n_tasks, n_threads)
        elif column_t is uint8_t:
            parallel_for(_col2im_uint8, &args, n_tasks, n_threads)
        else:
            parallel_for(_col2im_int32, &args, n_tasks, n_threads)
