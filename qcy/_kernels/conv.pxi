"""Convolution of codes, channels last: products by tiles that read the image where it lies.

Design
------
a. A tile of the product takes its rows tap by tap, through pointers. So a convolution needs no
   matrix of windows: DIRECT, each kernel cell is a tap, and its pointer leads into the image, or,
   outside of it, to a cell of codes that stand for 0.0, equation (13).
b. Where codes must be made uint8, or 16 bits wide, or where few channels would make short taps,
   the rows of the image under some output rows are copied first, with a border: PADDED. A tap is
   then a whole kernel row, which lies in one piece.
c. Where a kernel row is short and no multiple of a word, words would be wasted on its end. Then
   weights are packed without gaps between kernel rows, and the windows of a few output pixels at a
   time are brought together from a PADDED copy: WHOLE.
d. GATHERED is the general way: the window of each output pixel is copied into a row of a matrix.
e. Groups take turns. Depthwise convolution has a loop of its own: depthwise.pxi.
"""
from libc.stdint cimport int16_t, int32_t, uint8_t
from libc.string cimport memset

from qcy._kernels._tile cimport (
    LEFT_BYTES, WHOLE_TILES, copy_left, multiply_rows, n_panels, out_bytes,
    padded_columns, padded_depth, row_sum, rows_t,
)
from qcy._kernels._window cimport (
    cells_t, find_cells, input_column, input_row, point_at_cells, window_from, window_t,
)
from qcy._product cimport Product, product_t
from qcy._step cimport SCRATCH, Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "windows.h":
    ctypedef struct qcy_windows:
        Py_ssize_t per_line
        Py_ssize_t step
        Py_ssize_t line_step
        Py_ssize_t row_step
        Py_ssize_t n_rows
        Py_ssize_t row_bytes
        Py_ssize_t bytes
    void qcy_bring_windows(
        const uint8_t* copy, const qcy_windows* w, Py_ssize_t first, Py_ssize_t n, uint8_t* out
    ) noexcept nogil

cdef enum:
    DIRECT
    PADDED
    WHOLE
    GATHERED
    WHOLE_PIXELS = 48           # windows that are brought together at a time, a multiple of tiles
    CONV_BLOCK_BYTES = 131072   # of images or windows that a task copies, or reads, at a time
    MOST_PIXELS = 120           # of a DIRECT block: their pointers stay in the first-level cache
    FEW_CHANNELS = 64           # up to here a tap of one cell is too short
    CONV_FEWEST = 262144        # below it, waking threads costs more than they save


cdef struct conv_t:
    window_t window
    product_t product           # of the first group
    place_t x
    place_t out
    cells_t cells               # of DIRECT
    int mode
    uint8_t flip                # 0x80: images are int8
    uint8_t fill                # the code that stands for 0.0, as uint8
    Py_ssize_t n_images
    Py_ssize_t n_groups
    Py_ssize_t depth            # channels of a group
    Py_ssize_t row_depth        # numbers of a kernel row of one group, filled up if not whole
    Py_ssize_t window_depth     # of all kernel rows of one group, filled up
    # What one run adds:
    uint8_t** memories
    Py_ssize_t pixels_per_task  # whole output rows, unless DIRECT
    Py_ssize_t tasks_per_image
    Py_ssize_t panels_per_task
    Py_ssize_t n_panel_tasks
    Py_ssize_t scratch_per_thread


cdef inline Py_ssize_t _padded_width(const window_t* w) noexcept nogil:
    """Return the columns of a PADDED row."""
    return (w.out_width - 1) * w.stride_width + w.kernel_width


cdef inline Py_ssize_t _padded_rows(const window_t* w, Py_ssize_t out_rows) noexcept nogil:
    """Return the image rows under some output rows."""
    return (out_rows - 1) * w.stride_height + (w.kernel_height - 1) * w.dilation_height + 1


cdef inline Py_ssize_t _up(Py_ssize_t size) noexcept nogil:
    return (size + 63) // 64 * 64


cdef Py_ssize_t _copy_bytes(const conv_t* conv, Py_ssize_t n_pixels) noexcept nogil:
    """Return the bytes that are copied for some output pixels."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t size
    if conv.mode == GATHERED:
        return LEFT_BYTES * n_pixels * conv.window_depth
    if conv.mode == DIRECT:
        return 0
    size = LEFT_BYTES * (
        _padded_rows(w, n_pixels // w.out_width) * _padded_width(w) * w.channels
    )
    if conv.mode == WHOLE:
        size = _up(size + 64) + LEFT_BYTES * WHOLE_PIXELS * conv.window_depth
    return size


cdef Py_ssize_t _conv_scratch(const conv_t* conv, Py_ssize_t n_pixels) noexcept nogil:
    """Return the bytes that a thread needs: pointers, a term for each row, and copies."""
    cdef Py_ssize_t size = _up(n_pixels * conv.product.n_taps * sizeof(void*))
    if conv.product.row_weight != NULL:
        size += _up(4 * n_pixels)
    # Tiles read whole words past the last kernel row of a copy.
    return size + _up(_copy_bytes(conv, n_pixels) + 64)


# ---------------------------------------------------------------------------------------- copies

cdef void _fill_left(uint8_t* left, uint8_t code, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef int16_t* wide = <int16_t*> left
    if LEFT_BYTES == 1:
        memset(left, code, n)
    else:
        for i in range(n):
            wide[i] = code


cdef void _copy_padded(
    const conv_t* conv, const uint8_t* image, Py_ssize_t first_row, Py_ssize_t n_rows,
    uint8_t* left,
) noexcept nogil:
    """Copy image rows, with a border; `first_row` may lie above the image."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t width = _padded_width(w), row, y
    cdef Py_ssize_t before = min(w.pad_left, width)
    cdef Py_ssize_t inside = max(0, min(w.width, width - before))
    cdef Py_ssize_t after = width - before - inside
    for row in range(n_rows):
        y = first_row + row
        if y < 0 or y >= w.height:
            _fill_left(left, conv.fill, width * w.channels)
        else:
            _fill_left(left, conv.fill, before * w.channels)
            copy_left(
                image + y * w.width * w.channels, inside * w.channels, conv.flip,
                left + before * w.channels * LEFT_BYTES,
            )
            _fill_left(
                left + (before + inside) * w.channels * LEFT_BYTES, conv.fill, after * w.channels
            )
        left += width * w.channels * LEFT_BYTES


cdef void _gather(
    const conv_t* conv, const uint8_t* image, Py_ssize_t pixel, Py_ssize_t group, uint8_t* left
) noexcept nogil:
    """Write the window of one output pixel, for one group of channels."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t tap, x, row, column, rest = conv.row_depth - w.kernel_width * conv.depth
    cdef Py_ssize_t end = conv.window_depth - w.kernel_height * conv.row_depth
    for tap in range(w.kernel_height):
        row = input_row(w, pixel // w.out_width, tap)
        for x in range(w.kernel_width):
            column = input_column(w, pixel % w.out_width, x)
            if row < 0 or column < 0:
                _fill_left(left, conv.fill, conv.depth)
            else:
                copy_left(
                    image + (row * w.width + column) * w.channels + group * conv.depth,
                    conv.depth, conv.flip, left,
                )
            left += conv.depth * LEFT_BYTES
        _fill_left(left, 0, rest)
        left += rest * LEFT_BYTES
    _fill_left(left, 0, end)


cdef void _bring(
    const conv_t* conv, const uint8_t* copy, Py_ssize_t first, Py_ssize_t n, uint8_t* left
) noexcept nogil:
    """Write the windows of some pixels of a padded copy, which begins with a row of pixels."""
    cdef const window_t* w = &conv.window
    cdef qcy_windows windows
    windows.per_line = w.out_width
    windows.step = w.stride_width * w.channels * LEFT_BYTES
    windows.line_step = w.stride_height * _copy_line(conv)
    windows.row_step = w.dilation_height * _copy_line(conv)
    windows.n_rows = w.kernel_height
    windows.row_bytes = conv.row_depth * LEFT_BYTES
    windows.bytes = conv.window_depth * LEFT_BYTES
    qcy_bring_windows(copy, &windows, first, n, left)


# ----------------------------------------------------------------------------------------- tasks

cdef inline Py_ssize_t _copy_line(const conv_t* conv) noexcept nogil:
    """Return the bytes of a row of a padded copy."""
    return _padded_width(&conv.window) * conv.window.channels * LEFT_BYTES


cdef void _point(
    const conv_t* conv, const uint8_t* source, Py_ssize_t first, Py_ssize_t n, Py_ssize_t group,
    const uint8_t** pointers,
) noexcept nogil:
    """Write the pointers to some pixels: to each tap in the image, or to the window in a copy."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t row = first // w.out_width, column = first % w.out_width, i
    cdef Py_ssize_t step = w.stride_width * w.channels * LEFT_BYTES, line = _copy_line(conv)
    for i in range(n):
        if conv.mode == DIRECT:
            point_at_cells(
                w, &conv.cells, source + group * conv.depth, row, column,
                pointers + i * conv.product.n_taps,
            )
        else:
            pointers[i] = source + column * step
        column += 1
        if column == w.out_width:
            column = 0
            row += 1
            source += 0 if conv.mode == DIRECT else w.stride_height * line


cdef void _sum_rows(const conv_t* conv, const rows_t* rows, int32_t* term) noexcept nogil:
    """Sum what the tiles will read, less what only fills up."""
    cdef Py_ssize_t i, tap, depth = conv.depth, n_taps = conv.product.n_taps
    cdef const uint8_t* row
    if conv.mode == PADDED:
        depth *= conv.window.kernel_width
    elif conv.mode == GATHERED:
        depth = conv.product.depth          # filled up with zeros
    for i in range(rows.n):
        term[i] = 0
        for tap in range(n_taps):
            if conv.mode == DIRECT:
                row = rows.pointers[i * n_taps + tap]
            elif conv.mode == PADDED:
                row = rows.pointers[i] + tap * rows.tap_bytes
            else:
                row = rows.first + i * rows.stride
            # May wrap, as equation (7) says.
            term[i] = <int32_t> (<unsigned int> term[i] + <unsigned int> row_sum(row, depth))


cdef void _multiply_whole(
    const conv_t* conv, const uint8_t* copy, uint8_t* windows, Py_ssize_t n, int32_t* term,
    Py_ssize_t first_panel, Py_ssize_t last_panel, uint8_t* out,
) noexcept nogil:
    """Multiply the windows of n pixels of a padded copy, some at a time."""
    cdef Py_ssize_t n_cols = conv.product.n_cols, first = 0, i, depth = conv.depth
    cdef rows_t rows
    memset(&rows, 0, sizeof(rows))
    rows.first = windows
    rows.stride = conv.window_depth * LEFT_BYTES
    depth *= conv.window.kernel_height * conv.window.kernel_width
    while first < n:
        rows.n = min(<Py_ssize_t> WHOLE_PIXELS, n - first)
        _bring(conv, copy, first, rows.n, windows)
        if conv.product.row_weight != NULL:
            for i in range(rows.n):
                term[i] = row_sum(windows + i * rows.stride, depth)
            rows.term = term
        multiply_rows(
            &conv.product, &rows, first_panel, last_panel,
            out + first * n_cols * out_bytes(&conv.product), n_cols,
        )
        first += rows.n


cdef void _conv_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const conv_t* conv = <const conv_t*> args
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t n_pixels = w.out_height * w.out_width, n_cols = conv.product.n_cols
    cdef Py_ssize_t first_panel = index % conv.n_panel_tasks * conv.panels_per_task
    cdef Py_ssize_t last_panel = min(n_panels(n_cols), first_panel + conv.panels_per_task)
    cdef Py_ssize_t block = index // conv.n_panel_tasks
    cdef Py_ssize_t image = block // conv.tasks_per_image
    cdef Py_ssize_t first = block % conv.tasks_per_image * conv.pixels_per_task
    cdef Py_ssize_t width = out_bytes(&conv.product), padded = padded_columns(n_cols), group, i
    cdef uint8_t* scratch = conv.memories[SCRATCH] + worker * conv.scratch_per_thread
    cdef const uint8_t** pointers = <const uint8_t**> scratch
    cdef const uint8_t* x = (
        <const uint8_t*> at(conv.x, conv.memories) + image * w.height * w.width * w.channels
    )
    cdef uint8_t* out = <uint8_t*> at(conv.out, conv.memories)
    cdef int32_t* term
    cdef uint8_t* copy
    cdef uint8_t* windows
    cdef const uint8_t* source = x
    cdef product_t product
    cdef rows_t rows
    scratch += _up(conv.pixels_per_task * conv.product.n_taps * sizeof(void*))
    term = <int32_t*> scratch
    copy = scratch if conv.product.row_weight == NULL else scratch + _up(4 * conv.pixels_per_task)
    rows.n = min(conv.pixels_per_task, n_pixels - first)
    rows.pointers = NULL if conv.mode == GATHERED else pointers
    rows.tap_bytes = w.dilation_height * _copy_line(conv) if conv.mode == PADDED else 0
    rows.first = copy
    rows.stride = conv.window_depth * LEFT_BYTES
    rows.term = NULL
    rows.scale = NULL
    # A tap wholly outside the image adds nothing where 0.0 is code 0.
    rows.blank = conv.cells.outside if conv.mode == DIRECT and conv.fill == 0 else NULL
    out += (image * n_pixels + first) * conv.n_groups * n_cols * width
    if conv.mode != DIRECT:
        source = copy
    if conv.mode == PADDED or conv.mode == WHOLE:
        _copy_padded(
            conv, x, first // w.out_width * w.stride_height - w.pad_top,
            _padded_rows(w, rows.n // w.out_width), copy,
        )
    if conv.mode == WHOLE:
        windows = copy + _up(_copy_bytes(conv, rows.n)
                             - LEFT_BYTES * WHOLE_PIXELS * conv.window_depth)
        _multiply_whole(conv, copy, windows, rows.n, term, first_panel, last_panel, out)
        return
    for group in range(conv.n_groups):
        product = conv.product
        product.panels += group * padded * product.n_taps * padded_depth(product.depth)
        product.offset += group * padded
        if product.multiplier != NULL:
            product.multiplier += group * padded
        if conv.mode == GATHERED:
            for i in range(rows.n):
                _gather(
                    conv, x, first + i, group,
                    copy + i * conv.window_depth * LEFT_BYTES,
                )
        if conv.mode == DIRECT or (conv.mode == PADDED and group == 0):
            _point(conv, source, first, rows.n, group, pointers)
        if product.row_weight != NULL:
            product.row_weight += group * padded
            _sum_rows(conv, &rows, term)
            rows.term = term
        multiply_rows(
            &product, &rows, first_panel, last_panel, out + group * n_cols * width,
            n_cols * conv.n_groups,
        )


cdef void _cut(conv_t* conv, int n_threads) noexcept nogil:
    """Cut the output into tasks: blocks of pixels of one image, and panels if those are few."""
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t n_pixels = w.out_height * w.out_width, unit = WHOLE_TILES, most, wanted
    cdef Py_ssize_t panels = max(1, n_panels(conv.product.n_cols))
    if conv.mode == DIRECT:
        most = MOST_PIXELS
    else:
        if conv.mode != GATHERED:
            unit = w.out_width
        most = CONV_BLOCK_BYTES // max(_copy_bytes(conv, unit), 1)
        most = max(1, min(most, 2 * MOST_PIXELS // unit))
        most *= unit
    if n_threads > 1:               # enough blocks that threads end together
        wanted = conv.n_images * n_pixels // (n_threads * 4)
        most = min(most, max(unit, wanted // unit * unit))
    conv.pixels_per_task = min(most, n_pixels)
    conv.tasks_per_image = (n_pixels + conv.pixels_per_task - 1) // conv.pixels_per_task
    conv.panels_per_task = panels
    if n_threads > 1 and conv.n_images * conv.tasks_per_image < 2 * n_threads:
        conv.panels_per_task = max(1, panels // (2 * n_threads))
    conv.n_panel_tasks = (panels + conv.panels_per_task - 1) // conv.panels_per_task
    conv.scratch_per_thread = _conv_scratch(conv, conv.pixels_per_task)


cdef long _run_conv(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef conv_t conv = (<const conv_t*> args)[0]
    if conv.n_images == 0 or conv.product.n_cols == 0:
        return 0
    conv.memories = memories
    _cut(&conv, n_threads)
    parallel_for(
        _conv_task, &conv, conv.n_images * conv.tasks_per_image * conv.n_panel_tasks, n_threads
    )
    return 0


def convolution(
    object x,                       # (B, H, W, C) codes
    Py_ssize_t n_images,
    tuple window,
    uint8_t flip,                   # 0x80: x is int8
    uint8_t fill,                   # the code that stands for 0.0, as uint8
    Py_ssize_t n_groups,
    Product right not None,         # of one group after another
    bint is_whole,                  # weights are packed without gaps between kernel rows
    object out,                     # (B, OH, OW, groups * N), of a kind that follows from `right`
    /,
):
    """Return the step of a convolution."""
    cdef conv_t conv
    cdef Step step
    cdef list owners = [right]
    cdef const window_t* w = &conv.window
    cdef double products
    memset(&conv, 0, sizeof(conv))
    conv.window = window_from(window)
    conv.product = right.bound
    conv.x = place_of(x, owners)
    conv.out = place_of(out, owners)
    conv.flip = flip
    conv.fill = fill
    conv.n_images = n_images
    conv.n_groups = n_groups
    conv.depth = w.channels // n_groups
    conv.row_depth = w.kernel_width * conv.depth
    if not is_whole:
        conv.row_depth = padded_depth(conv.row_depth)
    conv.window_depth = padded_depth(w.kernel_height * conv.row_depth)
    if is_whole and n_groups == 1 and w.dilation_width == 1:
        conv.mode = WHOLE
        conv.product.n_taps = 1
        conv.product.depth = conv.window_depth
    elif LEFT_BYTES == 1 and flip == 0 and conv.depth % 4 == 0 and not is_whole and (
        conv.depth > FEW_CHANNELS or n_groups > 1 or w.dilation_width > 1
        or w.kernel_height * w.kernel_width == 1
    ):
        conv.mode = DIRECT
        conv.product.n_taps = w.kernel_height * w.kernel_width
        conv.product.depth = conv.depth
        conv.cells = find_cells(w, fill, owners)
    elif n_groups == 1 and w.dilation_width == 1 and not is_whole:
        conv.mode = PADDED
        conv.product.n_taps = w.kernel_height
        conv.product.depth = conv.row_depth
    else:
        conv.mode = GATHERED
        conv.product.n_taps = 1
        conv.product.depth = conv.window_depth
    step = new_step(_run_conv, &conv, sizeof(conv), owners)
    products = <double> n_images * w.out_height * w.out_width * w.kernel_height * w.kernel_width
    products *= <double> conv.depth * conv.product.n_cols * n_groups
    if products < CONV_FEWEST:
        step.most_threads = 1
    _cut(&conv, 1)              # no cut for more threads has larger blocks
    step.scratch_per_thread = conv.scratch_per_thread
    return step
