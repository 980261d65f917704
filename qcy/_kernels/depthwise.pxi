"""Depthwise convolution of codes, channels last: each channel by itself, many side by side."""
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t
from libc.string cimport memset

from qcy._kernels._output cimport output_from, qcy_output
from qcy._kernels._tile cimport QCY_GROUP, QCY_LANES, QCY_LHS_ZERO
from qcy._kernels._window cimport cells_t, find_cells, point_at_cells, window_from, window_t
from qcy._rounding cimport round_code
from qcy._step cimport SCRATCH, Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "windows.h":
    enum:
        QCY_BLOCK
    ctypedef struct qcy_depthwise:
        Py_ssize_t n_channels
        Py_ssize_t n_groups
        const int8_t* weights
        const int32_t* offset
        const float* multiplier
        uint8_t x_flip
        qcy_output out
    Py_ssize_t qcy_block_start(Py_ssize_t b, Py_ssize_t n_channels) noexcept nogil
    Py_ssize_t qcy_n_blocks(Py_ssize_t n_channels) noexcept nogil
    Py_ssize_t qcy_lane_channel(Py_ssize_t v, Py_ssize_t j) noexcept nogil
    void qcy_depthwise_pixel(
        const uint8_t** taps, const qcy_depthwise* d, uint8_t* out
    ) noexcept nogil
    void qcy_depthwise_row(
        const uint8_t** cells, Py_ssize_t n_out, Py_ssize_t stride, Py_ssize_t dilation,
        const qcy_depthwise* d, uint8_t* out,
    ) noexcept nogil

cdef enum:
    DEPTHWISE_FEWEST = 262144   # below it, waking threads costs more than they save


cdef struct depthwise_t:
    window_t window
    cells_t cells
    qcy_depthwise kernel
    place_t x
    place_t out
    Py_ssize_t n_images
    # Where weights have zero points, plain loops do the work:
    const int8_t* weights       # (taps, C)
    const int32_t* w_zero       # (C,)
    const int32_t* bias         # (C,)
    const float* multiplier     # (C,), or NULL: the output is then int32
    int32_t x_zero              # as uint8
    bint is_plain
    bint by_column              # groups of taps are kernel columns
    # What one run adds:
    uint8_t** memories
    Py_ssize_t scratch_per_thread


cdef inline bint is_by_column(Py_ssize_t kernel_height) noexcept nogil:
    """Whether groups of four taps are kernel columns, or any four one after another."""
    return kernel_height == 3 or kernel_height == 4


cdef inline Py_ssize_t groups_of(Py_ssize_t kernel_height, Py_ssize_t kernel_width) noexcept nogil:
    if is_by_column(kernel_height):
        return kernel_width
    return (kernel_height * kernel_width + 3) // 4


cdef void _depthwise_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Compute one row of output pixels."""
    cdef const depthwise_t* conv = <const depthwise_t*> args
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t n_taps = w.kernel_height * w.kernel_width, i, pixel
    cdef Py_ssize_t width = 4 if conv.kernel.multiplier == NULL else 1
    cdef uint8_t* scratch = conv.memories[SCRATCH] + worker * conv.scratch_per_thread
    cdef const uint8_t** taps = <const uint8_t**> scratch
    cdef int32_t* acc = <int32_t*> (taps + max(n_taps, 4 * conv.kernel.n_groups))
    cdef uint8_t* out = <uint8_t*> at(conv.out, conv.memories)
    cdef const uint8_t* image = <const uint8_t*> at(conv.x, conv.memories)
    image += index // w.out_height * w.height * w.width * w.channels
    out += index * w.out_width * w.channels * width
    if conv.by_column:
        _point_at_columns(conv, image, index % w.out_height, taps)
        qcy_depthwise_row(
            taps, w.out_width, w.stride_width, w.dilation_width, &conv.kernel, out
        )
        return
    for i in range(n_taps, 4 * conv.kernel.n_groups):
        taps[i] = conv.cells.outside
    for pixel in range(w.out_width):
        point_at_cells(w, &conv.cells, image, index % w.out_height, pixel, taps)
        if conv.is_plain:
            _plain_pixel(conv, taps, acc, out)
        else:
            qcy_depthwise_pixel(taps, &conv.kernel, out)
        out += w.channels * width


cdef inline Py_ssize_t _n_columns(const window_t* w) noexcept nogil:
    """Return the image columns from the first under a row's windows to the last."""
    return (w.out_width - 1) * w.stride_width + (w.kernel_width - 1) * w.dilation_width + 1


cdef void _point_at_columns(
    const depthwise_t* conv, const uint8_t* image, Py_ssize_t out_row, const uint8_t** cells
) noexcept nogil:
    """Write four pointers for each image column under a row of windows, outside it too."""
    cdef const window_t* w = &conv.window
    cdef const uint8_t* rows[4]
    cdef Py_ssize_t column, y
    cdef ptrdiff_t row
    for y in range(4):
        row = -1 if y >= w.kernel_height else conv.cells.rows[out_row * w.kernel_height + y]
        rows[y] = NULL if row < 0 else image + row
    for column in range(-w.pad_left, _n_columns(w) - w.pad_left):
        for y in range(4):
            cells[y] = (
                conv.cells.outside if rows[y] == NULL or column < 0 or column >= w.width
                else rows[y] + column * w.channels
            )
        cells += 4


cdef void _plain_pixel(
    const depthwise_t* conv, const uint8_t** taps, int32_t* acc, uint8_t* out
) noexcept nogil:
    """Compute one pixel with weights that have zero points."""
    cdef Py_ssize_t n = conv.window.channels, i, tap
    cdef const qcy_output* o = &conv.kernel.out
    cdef float low = <float> (o.low - o.zero_point), high = <float> (o.high - o.zero_point)
    if conv.multiplier == NULL:
        acc = <int32_t*> out
    for i in range(n):
        acc[i] = conv.bias[i]
    for tap in range(conv.window.kernel_height * conv.window.kernel_width):
        _add_products(
            taps[tap], conv.weights + tap * n, conv.w_zero, conv.x_zero, conv.kernel.x_flip, n, acc
        )
    if conv.multiplier != NULL:
        for i in range(n):
            out[i] = o.flip ^ <uint8_t> round_code(
                <float> acc[i] * conv.multiplier[i], low, high, o.zero_point
            )


cdef void _add_products(
    const uint8_t* x, const int8_t* weights, const int32_t* w_zero, int32_t x_zero,
    uint8_t flip, Py_ssize_t n, int32_t* acc,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        acc[i] += (<int32_t> (x[i] ^ flip) - x_zero) * (<int32_t> weights[i] - w_zero[i])


cdef long _run_depthwise(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef depthwise_t conv = (<const depthwise_t*> args)[0]
    if conv.window.channels == 0:
        return 0
    conv.memories = memories
    conv.scratch_per_thread = _depthwise_scratch(&conv)
    parallel_for(_depthwise_row, &conv, conv.n_images * conv.window.out_height, n_threads)
    return 0


cdef Py_ssize_t _depthwise_scratch(const depthwise_t* conv) noexcept nogil:
    """Return the bytes that a thread needs: pointers to cells, and the sums of a plain pixel."""
    cdef Py_ssize_t size = 4 * <Py_ssize_t> sizeof(void*) * (
        _n_columns(&conv.window) if conv.by_column
        else max(
            conv.kernel.n_groups, (conv.window.kernel_height * conv.window.kernel_width + 3) // 4
        )
    )
    if conv.is_plain:
        size += 4 * conv.window.channels
    return (size + 63) // 64 * 64


def packed_depthwise_size(
    Py_ssize_t n_channels, Py_ssize_t kernel_height, Py_ssize_t kernel_width, /
):
    """Return how long what `pack_depthwise` writes is: weights, and one number a channel."""
    cdef Py_ssize_t n = qcy_n_blocks(n_channels) * QCY_BLOCK
    return n * 4 * groups_of(kernel_height, kernel_width), n


def pack_depthwise(
    const int8_t[:, :, ::1] weights,    # (KH, KW, C)
    const int32_t[::1] bias,            # (C,)
    const float[::1] multiplier,        # (C,), or None: the output is int32
    int32_t x_zero,                     # of the images, as uint8
    int8_t[::1] packed,                 # `packed_depthwise_size` zeros, as all that follow
    int32_t[::1] offset,
    float[::1] factor,
    /,
):
    """Bring weights, sums and multipliers into the order of the kernel's blocks."""
    cdef Py_ssize_t height = weights.shape[0], width = weights.shape[1], n = weights.shape[2]
    cdef Py_ssize_t n_groups = groups_of(height, width), b, g, v, j, y, x, t, channel, lane
    cdef uint32_t total
    for b in range(qcy_n_blocks(n)):
        for v in range(4):
            for j in range(QCY_LANES):
                channel = qcy_block_start(b, n) + qcy_lane_channel(v, j)
                if channel >= n:
                    continue
                total = <uint32_t> bias[channel]
                for y in range(height):
                    for x in range(width):
                        t = 4 * x + y if is_by_column(height) else y * width + x
                        g = b * n_groups + t // 4
                        lane = (t % 4 // QCY_GROUP * 4 + v) * QCY_LANES + j
                        packed[g * 4 * QCY_BLOCK + lane * QCY_GROUP + t % QCY_GROUP] = (
                            weights[y, x, channel]
                        )
                        total += <uint32_t> (QCY_LHS_ZERO - x_zero) * <uint32_t> (
                            <int32_t> weights[y, x, channel]
                        )
                lane = b * QCY_BLOCK + v * QCY_LANES + j
                offset[lane] = <int32_t> total
                if multiplier is not None:
                    factor[lane] = multiplier[channel]


cdef Step _depthwise_step(
    depthwise_t* conv, object x, Py_ssize_t n_images, tuple window, uint8_t flip, int32_t x_zero,
    tuple target, object out, list owners,
):
    cdef Step step
    cdef const window_t* w = &conv.window
    cdef double products
    conv.window = window_from(window)
    conv.cells = find_cells(w, <uint8_t> x_zero ^ flip, owners)
    conv.x = place_of(x, owners)
    conv.out = place_of(out, owners)
    conv.n_images = n_images
    conv.x_zero = x_zero
    conv.kernel.n_channels = w.channels
    conv.by_column = not conv.is_plain and is_by_column(w.kernel_height)
    conv.kernel.n_groups = groups_of(w.kernel_height, w.kernel_width)
    conv.kernel.x_flip = flip
    conv.kernel.out = output_from(target)
    step = new_step(_run_depthwise, conv, sizeof(depthwise_t), owners)
    step.scratch_per_thread = _depthwise_scratch(conv)
    products = <double> n_images * w.out_height * w.out_width * w.channels
    if products * w.kernel_height * w.kernel_width < DEPTHWISE_FEWEST:
        step.most_threads = 1
    return step


def depthwise(
    object x,                           # (B, H, W, C) codes
    Py_ssize_t n_images,
    tuple window,
    uint8_t flip,                       # 0x80: x is int8
    int32_t x_zero,                     # as uint8
    const int8_t[::1] weights,          # from `pack_depthwise`
    const int32_t[::1] offset,
    const float[::1] factor,            # None: the output is int32
    tuple target,                       # zero point, low, high, flip as uint8; and wild
    object out,                         # (B, OH, OW, C)
    /,
):
    """Return the step of a depthwise convolution."""
    cdef depthwise_t conv
    memset(&conv, 0, sizeof(conv))
    if weights.shape[0]:
        conv.kernel.weights = &weights[0]
        conv.kernel.offset = &offset[0]
        conv.kernel.multiplier = NULL if factor is None else &factor[0]
    return _depthwise_step(
        &conv, x, n_images, window, flip, x_zero, target, out, [weights, offset, factor]
    )


def plain_depthwise(
    object x,                           # (B, H, W, C) codes
    Py_ssize_t n_images,
    tuple window,
    uint8_t flip,                       # 0x80: x is int8
    int32_t x_zero,                     # as uint8
    const int8_t[:, ::1] weights,       # (taps, C)
    const int32_t[::1] w_zero,          # (C,)
    const int32_t[::1] bias,            # (C,)
    const float[::1] multiplier,        # (C,), or None: the output is int32
    tuple target,                       # zero point, low, high, flip as uint8; and wild
    object out,                         # (B, OH, OW, C)
    /,
):
    """Return the step of a depthwise convolution whose weights have zero points."""
    cdef depthwise_t conv
    memset(&conv, 0, sizeof(conv))
    conv.is_plain = True
    if weights.size:
        conv.weights = &weights[0, 0]
        conv.w_zero = &w_zero[0]
        conv.bias = &bias[0]
        conv.multiplier = NULL if multiplier is None else &multiplier[0]
        conv.kernel.multiplier = conv.multiplier
    return _depthwise_step(
        &conv, x, n_images, window, flip, x_zero, target, out,
        [weights, w_zero, bias, multiplier],
    )
