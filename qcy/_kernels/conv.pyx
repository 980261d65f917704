"""Convolution of codes, channels last: products by tiles over blocks of gathered windows.

Design
------
a. A block of output pixels is gathered into a matrix (im2col) that stays in the cache, one row per
   pixel: kernel rows, then kernel columns, then channels. Outside the image it is filled with the
   zero point, equation (13). The block is multiplied at once by every panel of weights.
b. Groups take turns on one block. Depthwise convolution has a loop of its own over channels.
c. `im2col` and `col2im` are the public forms, channels outermost as their users expect.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from qcy._kernels._tile cimport (
    QCY_LANES, multiply_rows, n_panels, padded_depth, product_t, row_sum, wide_size,
)
from qcy._kernels._window cimport input_column, input_row, window_from, window_t
from qcy._rounding cimport round_code
from qcy._threads cimport parallel_for

cdef enum:
    BLOCK_BYTES = 65536         # of gathered windows, which tiles read again for every panel
    FEWEST_PRODUCTS = 1048576   # below it, waking threads costs more than they save
    CHANNELS = 64               # of a depthwise convolution, summed side by side


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


# ------------------------------------------------------------------------------------ depthwise

cdef struct depthwise_t:
    window_t window
    const uint8_t* x
    const int8_t* weights       # (taps, C)
    const int32_t* bias         # (C,)
    const int32_t* w_zero       # (C,)
    const float* multiplier     # (C,), or NULL: the output is then int32
    int32_t x_zero
    int32_t zero_point
    float low                   # clamp of the output, less the zero point
    float high
    uint8_t flip
    uint8_t* out


cdef void _depthwise_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Compute one row of output pixels."""
    cdef const depthwise_t* conv = <const depthwise_t*> args
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t out_row = index % w.out_height, image = index // w.out_height
    cdef Py_ssize_t pixel, block, channel, n, i
    cdef int32_t acc[CHANNELS]
    for pixel in range(w.out_width):
        for block in range((w.channels + CHANNELS - 1) // CHANNELS):
            channel = block * CHANNELS
            n = min(CHANNELS, w.channels - channel)
            i = (index * w.out_width + pixel) * w.channels + channel
            if conv.multiplier == NULL:
                _depthwise_sums(
                    conv, image, out_row, pixel, channel, n, <int32_t*> conv.out + i
                )
            else:
                _depthwise_sums(conv, image, out_row, pixel, channel, n, acc)
                _depthwise_codes(conv, acc, conv.multiplier + channel, n, conv.out + i)


cdef void _depthwise_sums(
    const depthwise_t* conv,
    Py_ssize_t image,
    Py_ssize_t out_row,
    Py_ssize_t out_column,
    Py_ssize_t channel,
    Py_ssize_t n,
    int32_t* acc,
) noexcept nogil:
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t tap_row, tap_column, row, column, i
    cdef const uint8_t* x
    cdef const int8_t* weights
    for i in range(n):
        acc[i] = conv.bias[channel + i]
    for tap_row in range(w.kernel_height):
        row = input_row(w, out_row, tap_row)
        if row < 0:
            continue                # outside, inputs are 0.0
        for tap_column in range(w.kernel_width):
            column = input_column(w, out_column, tap_column)
            if column < 0:
                continue
            x = conv.x + ((image * w.height + row) * w.width + column) * w.channels + channel
            weights = (
                conv.weights + (tap_row * w.kernel_width + tap_column) * w.channels + channel
            )
            _add_products(x, weights, conv.w_zero + channel, conv.x_zero, n, acc)


cdef void _add_products(
    const uint8_t* x, const int8_t* weights, const int32_t* w_zero, int32_t x_zero, Py_ssize_t n,
    int32_t* acc,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        acc[i] += (<int32_t> x[i] - x_zero) * (<int32_t> weights[i] - w_zero[i])


cdef void _depthwise_codes(
    const depthwise_t* conv, const int32_t* acc, const float* multiplier, Py_ssize_t n,
    uint8_t* codes,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        codes[i] = conv.flip ^ <uint8_t> round_code(
            <float> acc[i] * multiplier[i], conv.low, conv.high, conv.zero_point
        )


def depthwise(
    const uint8_t[:, :, :, ::1] x,      # (B, H, W, C)
    tuple window,
    int32_t x_zero,
    const int8_t[:, ::1] weights,       # (taps, C)
    const int32_t[::1] w_zero,          # (C,)
    const int32_t[::1] bias,            # (C,)
    int32_t[:, ::1] acc,                # (pixels, C), overwritten; or None
    const float[::1] multiplier,        # (C,), or None with acc
    int32_t zero_point,                 # of the output, as uint8
    uint8_t low,
    uint8_t high,
    uint8_t flip,
    uint8_t[:, ::1] codes,              # (pixels, C), overwritten; or None with acc
    int n_threads,
):
    cdef depthwise_t conv
    cdef Py_ssize_t n_rows = x.shape[0]
    conv.window = window_from(window)
    n_rows *= conv.window.out_height
    if n_rows == 0 or conv.window.out_width == 0 or conv.window.channels == 0:
        return
    conv.x = &x[0, 0, 0, 0] if x.size else NULL
    conv.x_zero = x_zero
    conv.weights = &weights[0, 0] if weights.size else NULL
    conv.w_zero = &w_zero[0]
    conv.bias = &bias[0]
    conv.multiplier = NULL if multiplier is None else &multiplier[0]
    conv.zero_point = zero_point
    conv.low = <float> (low - zero_point)
    conv.high = <float> (high - zero_point)
    conv.flip = flip
    conv.out = <uint8_t*> &acc[0, 0] if codes is None else &codes[0, 0]
    if <double> n_rows * conv.window.out_width * weights.size < FEWEST_PRODUCTS // 8:
        n_threads = 1
    with nogil:
        parallel_for(_depthwise_row, &conv, n_rows, n_threads)


# ------------------------------------------------------------------------------ im2col and col2im

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
        source = (
            <const uint8_t*> c.source + image * c.image_step + row * c.row_step
            + column * c.column_step
        )
        for channel in range(w.channels):
            target[channel * taps + tap] = (
                <uint8_t> c.zero_point if row < 0 or column < 0
                else source[channel * c.channel_step]
            )


def im2col(
    const uint8_t[:, :, :, ::1] x,      # images, in either layout
    tuple window,
    bint channels_last,
    uint8_t fill,                       # the zero point's byte
    uint8_t[:, ::1] columns,            # (pixels, C * KH * KW), overwritten
    int n_threads,
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
