"""Convolution of codes, channels last: products by tiles over blocks of gathered windows.

Design
------
a. A block of output pixels is gathered into a matrix (im2col) that stays in the cache, one row per
   pixel: kernel rows, then kernel columns, then channels. Outside the image it is filled with the
   zero point, equation (13). The block is multiplied at once by every panel of weights.
b. Groups take turns on one block. Depthwise convolution has a loop of its own: depthwise.pyx.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from qcy._kernels._tile cimport (
    QCY_LANES, multiply_rows, n_panels, padded_depth, product_t, row_sum, wide_size,
)
from qcy._kernels._window cimport input_column, input_row, window_from, window_t
from qcy._threads cimport parallel_for

cdef enum:
    BLOCK_BYTES = 65536         # of gathered windows, which tiles read again for every panel
    FEWEST_PRODUCTS = 1048576   # below it, waking threads costs more than they save


cdef struct conv_t:
    window_t window
    product_t product           # of the first group
    const uint8_t* x
    uint8_t fill                # the code that stands for 0.0
    Py_ssize_t n_groups
    Py_ssize_t n_pixels         # of the output, over all images
    Py_ssize_t pixels_per_task
    uint8_t* scratch            # one block per worker
    int32_t* row_sums           # one block per worker, or NULL
    int16_t* wide               # scratch per worker
    Py_ssize_t wide_size
    uint8_t* out


cdef inline void _copy(uint8_t* target, const uint8_t* source, Py_ssize_t n) noexcept nogil:
    """Copy bytes; a few of them by moves of a fixed size that may overlap, without a call."""
    if n > 32:
        memcpy(target, source, n)
    elif n >= 16:
        memcpy(target, source, 16)
        memcpy(target + n - 16, source + n - 16, 16)
    elif n >= 8:
        memcpy(target, source, 8)
        memcpy(target + n - 8, source + n - 8, 8)
    elif n >= 4:
        memcpy(target, source, 4)
        memcpy(target + n - 4, source + n - 4, 4)
    elif n > 0:
        target[0] = source[0]
        target[n >> 1] = source[n >> 1]
        target[n - 1] = source[n - 1]


cdef void _gather(
    const conv_t* conv, Py_ssize_t pixel, Py_ssize_t group, uint8_t* row
) noexcept nogil:
    """Write the window of one output pixel, for one group of channels."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t depth = w.channels // conv.n_groups
    cdef Py_ssize_t out_column = pixel % w.out_width
    cdef Py_ssize_t out_row = pixel // w.out_width % w.out_height
    cdef Py_ssize_t image = pixel // w.out_width // w.out_height
    cdef Py_ssize_t left = out_column * w.stride_width - w.pad_left
    cdef Py_ssize_t first = max(0, -left), last = min(w.kernel_width, w.width - left)
    cdef Py_ssize_t tap, y, x, column
    cdef bint is_run = conv.n_groups == 1 and w.dilation_width == 1 and first < last
    cdef const uint8_t* source
    for tap in range(w.kernel_height):
        y = input_row(w, out_row, tap)
        source = conv.x + (image * w.height + y) * w.width * w.channels
        if y < 0:
            memset(row, conv.fill, w.kernel_width * depth)
        elif is_run:                # the whole kernel row is one run of bytes
            if first > 0:
                memset(row, conv.fill, first * depth)
            _copy(row + first * depth, source + (left + first) * depth, (last - first) * depth)
            if last < w.kernel_width:
                memset(row + last * depth, conv.fill, (w.kernel_width - last) * depth)
        else:
            for x in range(w.kernel_width):
                column = input_column(w, out_column, x)
                if column < 0:
                    memset(row + x * depth, conv.fill, depth)
                else:
                    _copy(
                        row + x * depth, source + column * w.channels + group * depth, depth
                    )
        row += w.kernel_width * depth


cdef void _conv_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const conv_t* conv = <const conv_t*> args
    cdef Py_ssize_t first = index * conv.pixels_per_task, i, group
    cdef Py_ssize_t n_rows = min(conv.n_pixels - first, conv.pixels_per_task)
    cdef Py_ssize_t depth = conv.product.depth, n_cols = conv.product.n_cols
    cdef Py_ssize_t width = 4 if conv.product.multiplier == NULL else 1
    cdef Py_ssize_t padded = (n_cols + QCY_LANES - 1) // QCY_LANES * QCY_LANES
    cdef uint8_t* block = conv.scratch + worker * conv.pixels_per_task * depth
    cdef int32_t* row_sums = NULL
    cdef product_t product = conv.product
    if conv.row_sums != NULL:
        row_sums = conv.row_sums + worker * conv.pixels_per_task
    for group in range(conv.n_groups):
        for i in range(n_rows):
            _gather(conv, first + i, group, block + i * depth)
        if row_sums != NULL:
            for i in range(n_rows):
                row_sums[i] = row_sum(block + i * depth, depth)
        product.panels = conv.product.panels + group * padded * padded_depth(depth)
        product.offset = conv.product.offset + group * padded
        if conv.product.b_zero != NULL:
            product.b_zero = conv.product.b_zero + group * padded
        if conv.product.multiplier != NULL:
            product.multiplier = conv.product.multiplier + group * padded
        multiply_rows(
            &product, block, depth, row_sums, n_rows, 0, n_panels(n_cols),
            conv.wide + worker * conv.wide_size,
            conv.out + (first * conv.n_groups + group) * n_cols * width,
            n_cols * conv.n_groups,
        )


cdef int _conv(conv_t* conv, int n_threads) except -1:
    """Cut the output into blocks of pixels, and run them."""
    cdef Py_ssize_t depth = max(conv.product.depth, 1)
    cdef double products = <double> conv.n_pixels * depth * conv.product.n_cols * conv.n_groups
    if products < FEWEST_PRODUCTS:
        n_threads = 1
    conv.pixels_per_task = max(24, BLOCK_BYTES // depth // 24 * 24)
    if n_threads > 1:               # enough blocks that threads end together
        conv.pixels_per_task = min(
            conv.pixels_per_task, (conv.n_pixels // (n_threads * 4) + 23) // 24 * 24
        )
    conv.pixels_per_task = max(1, min(conv.pixels_per_task, conv.n_pixels))
    conv.row_sums = NULL
    conv.scratch = <uint8_t*> malloc(n_threads * conv.pixels_per_task * depth)
    conv.wide_size = wide_size(conv.pixels_per_task, depth)
    conv.wide = <int16_t*> malloc(max(1, n_threads * conv.wide_size) * sizeof(int16_t))
    if conv.product.b_zero != NULL:
        conv.row_sums = <int32_t*> malloc(n_threads * conv.pixels_per_task * sizeof(int32_t))
    if conv.scratch == NULL or conv.wide == NULL or (
        conv.product.b_zero != NULL and conv.row_sums == NULL
    ):
        free(conv.scratch)
        free(conv.wide)
        free(conv.row_sums)
        raise MemoryError("no room for the gathered windows of a convolution")
    with nogil:
        parallel_for(
            _conv_task, conv, (conv.n_pixels + conv.pixels_per_task - 1) // conv.pixels_per_task,
            n_threads,
        )
    free(conv.scratch)
    free(conv.wide)
    free(conv.row_sums)
    return 0


def conv_acc(
    const uint8_t[:, :, :, ::1] x,      # (B, H, W, C)
    tuple window,
    uint8_t fill,
    Py_ssize_t n_groups,
    const int8_t[::1] panels,           # of one group after another
    const int32_t[::1] offset,          # (groups, N, padded), from `gemm.fold`
    const int32_t[::1] minus_b_zero,    # the same, or None if all are 0
    int32_t[:, ::1] acc,                # (pixels, groups * N), overwritten
    int n_threads,
):
    cdef conv_t conv
    if acc.shape[0] == 0 or acc.shape[1] == 0:
        return
    _set_input(&conv, x, window, fill, n_groups, panels, offset, minus_b_zero)
    conv.n_pixels = acc.shape[0]
    conv.product.n_cols = acc.shape[1] // n_groups
    conv.product.multiplier = NULL
    conv.product.zero_point = 0
    conv.product.low = conv.product.high = conv.product.flip = 0
    conv.out = <uint8_t*> &acc[0, 0]
    _conv(&conv, n_threads)


def conv_codes(
    const uint8_t[:, :, :, ::1] x,      # (B, H, W, C)
    tuple window,
    uint8_t fill,
    Py_ssize_t n_groups,
    const int8_t[::1] panels,           # of one group after another
    const int32_t[::1] offset,          # (groups, N, padded), from `gemm.fold`
    const int32_t[::1] minus_b_zero,    # the same, or None if all are 0
    const float[::1] multiplier,        # the same
    int zero_point,                     # of the output, as uint8
    uint8_t low,                        # clamp of the output, as uint8
    uint8_t high,
    uint8_t flip,                       # 0x80 makes the output int8
    uint8_t[:, ::1] codes,              # (pixels, groups * N), overwritten
    int n_threads,
):
    cdef conv_t conv
    if codes.shape[0] == 0 or codes.shape[1] == 0:
        return
    _set_input(&conv, x, window, fill, n_groups, panels, offset, minus_b_zero)
    conv.n_pixels = codes.shape[0]
    conv.product.n_cols = codes.shape[1] // n_groups
    conv.product.multiplier = &multiplier[0]
    conv.product.zero_point = zero_point
    conv.product.low = low
    conv.product.high = high
    conv.product.flip = flip
    conv.out = &codes[0, 0]
    _conv(&conv, n_threads)


cdef void _set_input(
    conv_t* conv,
    const uint8_t[:, :, :, ::1] x,
    tuple window,
    uint8_t fill,
    Py_ssize_t n_groups,
    const int8_t[::1] panels,
    const int32_t[::1] offset,
    const int32_t[::1] minus_b_zero,
):
    conv.window = window_from(window)
    conv.x = &x[0, 0, 0, 0] if x.size else NULL
    conv.fill = fill
    conv.n_groups = n_groups
    conv.product.panels = &panels[0] if panels.shape[0] else NULL
    conv.product.depth = (
        conv.window.kernel_height * conv.window.kernel_width * (conv.window.channels // n_groups)
    )
    conv.product.offset = &offset[0]
    conv.product.b_zero = NULL if minus_b_zero is None else &minus_b_zero[0]
