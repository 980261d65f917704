"""Matrix product of codes: packing the right operand, and the product itself.

Packed layout, outermost first: panels of columns (the last one narrower, in whole vectors), groups
along the depth, columns, the weights of a group. Zeros fill up.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from qcy._kernels._tile cimport (
    QCY_GROUP, QCY_LANES, QCY_LHS_ZERO, QCY_PANEL, QCY_ROWS, multiply_rows, n_panels,
    padded_depth, product_t, row_sum, wide_size,
)
from qcy._threads cimport parallel_for

#: Columns of one vector: a packed operand has a multiple of it.
LANES = QCY_LANES
#: Columns of a panel of packed weights, and weights of one column that lie side by side.
PANEL = QCY_PANEL
GROUP = QCY_GROUP

cdef enum:
    BLOCK_BYTES = 262144    # of A that stay in the second-level cache while B streams past
    FEWEST_PRODUCTS = 1048576       # below it, waking threads costs more than they save
    TASKS_PER_THREAD = 4


def packed_size(Py_ssize_t n_inner, Py_ssize_t n_cols):
    """Return the bytes of packed weights and the padded number of columns."""
    cdef Py_ssize_t padded = (n_cols + QCY_LANES - 1) // QCY_LANES * QCY_LANES
    return padded * padded_depth(n_inner), padded


def pack(
    const uint8_t[:, ::1] b,        # (K, N) codes, whatever their dtype
    uint8_t flip,                   # 0x80 makes uint8 codes int8
    int8_t[::1] panels,             # packed_size; overwritten
    const int32_t[::1] zero_point,  # (N,) of the int8 codes
    int32_t[::1] sums,              # (N,) of the int8 codes; overwritten
    int64_t[::1] magnitudes,        # (N,) sum of |code - zero_point|; overwritten
):
    cdef Py_ssize_t n_inner = b.shape[0], n_cols = b.shape[1], panel
    if n_cols == 0:
        return
    with nogil:
        for panel in range(n_panels(n_cols)):
            _pack_panel(
                &b[0, 0] if n_inner else NULL, n_inner, n_cols, panel * QCY_PANEL, flip,
                &panels[0] + panel * QCY_PANEL * padded_depth(n_inner) if n_inner else NULL,
                &zero_point[0], &sums[0], &magnitudes[0],
            )


cdef void _pack_panel(
    const uint8_t* b,
    Py_ssize_t n_inner,
    Py_ssize_t n_cols,
    Py_ssize_t first,
    uint8_t flip,
    int8_t* panel,
    const int32_t* zero_point,
    int32_t* sums,
    int64_t* magnitudes,
) noexcept nogil:
    cdef Py_ssize_t valid = min(QCY_PANEL, n_cols - first), i, j, k, group
    cdef Py_ssize_t width = (valid + QCY_LANES - 1) // QCY_LANES * QCY_LANES
    cdef int8_t code
    cdef int32_t distance
    cdef int8_t* cell
    for j in range(first, first + valid):
        sums[j] = 0
        magnitudes[j] = 0
    for i in range(padded_depth(n_inner) // QCY_GROUP):
        group = i * QCY_GROUP
        cell = panel + group * width
        for j in range(width):
            for k in range(group, group + QCY_GROUP):
                code = 0
                if k < n_inner and j < valid:
                    code = <int8_t> (b[k * n_cols + first + j] ^ flip)
                    sums[first + j] = <int32_t> (<uint32_t> sums[first + j] + <uint32_t> code)
                    distance = code - zero_point[first + j]
                    magnitudes[first + j] += distance if distance > 0 else -distance
                cell[QCY_GROUP * j + k - group] = code


def fold(
    const int32_t[::1] sums,        # (N,) of the packed int8 codes
    const int32_t[::1] b_zero,      # (N,) zero points of the packed int8 codes
    const int32_t[::1] bias,        # (N,) or None
    int32_t a_zero,                 # zero point of A as uint8
    int32_t n_inner,
    int32_t[::1] offset,            # (N, padded); overwritten
    int32_t[::1] minus_b_zero,      # (N, padded); overwritten
):
    """Fold the bias and the zero points of equation (7); sums wrap, as the equation says."""
    cdef Py_ssize_t j, n_cols = sums.shape[0]
    cdef uint32_t total
    for j in range(offset.shape[0]):
        offset[j] = minus_b_zero[j] = 0
    for j in range(n_cols):
        total = <uint32_t> (QCY_LHS_ZERO - a_zero) * <uint32_t> sums[j]
        total += <uint32_t> n_inner * <uint32_t> a_zero * <uint32_t> b_zero[j]
        if bias is not None:
            total += <uint32_t> bias[j]
        offset[j] = <int32_t> total
        minus_b_zero[j] = -b_zero[j]


cdef struct gemm_t:
    product_t product
    const uint8_t* a
    Py_ssize_t n_rows
    const int32_t* row_sums
    uint8_t* out
    Py_ssize_t rows_per_block       # what one visit of a panel covers
    Py_ssize_t rows_per_task
    Py_ssize_t panels_per_task
    Py_ssize_t n_row_tasks
    int16_t* wide                   # scratch per worker
    Py_ssize_t wide_size


cdef void _gemm_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const gemm_t* gemm = <const gemm_t*> args
    cdef Py_ssize_t first = index % gemm.n_row_tasks * gemm.rows_per_task
    cdef Py_ssize_t last = min(gemm.n_rows, first + gemm.rows_per_task)
    cdef Py_ssize_t first_panel = index // gemm.n_row_tasks * gemm.panels_per_task
    cdef Py_ssize_t last_panel = min(
        n_panels(gemm.product.n_cols), first_panel + gemm.panels_per_task
    )
    cdef Py_ssize_t depth = gemm.product.depth, n_cols = gemm.product.n_cols
    cdef Py_ssize_t width = 4 if gemm.product.multiplier == NULL else 1
    while first < last:
        multiply_rows(
            &gemm.product, gemm.a + first * depth, depth,
            NULL if gemm.row_sums == NULL else gemm.row_sums + first,
            min(gemm.rows_per_block, last - first), first_panel, last_panel,
            gemm.wide + worker * gemm.wide_size,
            gemm.out + first * n_cols * width, n_cols,
        )
        first += gemm.rows_per_block


cdef int _gemm(gemm_t* gemm, int n_threads) except -1 nogil:
    """Cut the product into tasks and run them: rows if there are many, else panels."""
    cdef Py_ssize_t depth = gemm.product.depth, n_rows = gemm.n_rows, n_tasks = 1, i
    cdef Py_ssize_t panels = n_panels(gemm.product.n_cols)
    cdef int32_t* row_sums = NULL
    gemm.row_sums = NULL
    gemm.rows_per_block = max(24, BLOCK_BYTES // max(depth, 1) // 24 * 24)
    gemm.rows_per_task = n_rows
    gemm.panels_per_task = panels
    gemm.n_row_tasks = 1
    if <double> n_rows * depth * gemm.product.n_cols < FEWEST_PRODUCTS:
        n_threads = 1
    if n_threads > 1:
        n_tasks = n_threads * TASKS_PER_THREAD
        if n_rows >= 16 * QCY_ROWS * n_threads:
            gemm.rows_per_task = (n_rows // n_tasks + 23) // 24 * 24
            gemm.n_row_tasks = (n_rows + gemm.rows_per_task - 1) // gemm.rows_per_task
            n_tasks = gemm.n_row_tasks
        else:
            gemm.panels_per_task = (panels + n_tasks - 1) // n_tasks
            n_tasks = (panels + gemm.panels_per_task - 1) // gemm.panels_per_task
    gemm.wide_size = wide_size(min(gemm.rows_per_block, gemm.rows_per_task), depth)
    gemm.wide = <int16_t*> malloc(max(1, n_threads * gemm.wide_size) * sizeof(int16_t))
    if gemm.product.b_zero != NULL:
        row_sums = <int32_t*> malloc(n_rows * sizeof(int32_t))
    if gemm.wide == NULL or (gemm.product.b_zero != NULL and row_sums == NULL):
        free(gemm.wide)
        free(row_sums)
        raise MemoryError("no room for the scratch memory of a matrix product")
    if row_sums != NULL:
        for i in range(n_rows):
            row_sums[i] = row_sum(gemm.a + i * depth, depth)
        gemm.row_sums = row_sums
    parallel_for(_gemm_task, gemm, n_tasks, n_threads)
    free(gemm.wide)
    free(row_sums)
    return 0


def gemm_acc(
    const uint8_t[:, ::1] a,            # (M, K)
    const int8_t[::1] panels,
    const int32_t[::1] offset,          # (N, padded), from `fold`
    const int32_t[::1] minus_b_zero,    # (N, padded) or None if all are 0
    int32_t[:, ::1] acc,                # (M, N), overwritten
    int n_threads,
):
    cdef gemm_t gemm
    if acc.shape[0] == 0 or acc.shape[1] == 0:
        return
    gemm.a = &a[0, 0] if a.shape[1] else NULL
    gemm.n_rows = a.shape[0]
    gemm.product.panels = &panels[0] if a.shape[1] else NULL
    gemm.product.depth = a.shape[1]
    gemm.product.n_cols = acc.shape[1]
    gemm.product.offset = &offset[0]
    gemm.product.b_zero = NULL if minus_b_zero is None else &minus_b_zero[0]
    gemm.product.multiplier = NULL
    gemm.product.zero_point = gemm.product.low = gemm.product.high = gemm.product.flip = 0
    gemm.out = <uint8_t*> &acc[0, 0]
    with nogil:
        _gemm(&gemm, n_threads)


def gemm_codes(
    const uint8_t[:, ::1] a,            # (M, K)
    const int8_t[::1] panels,
    const int32_t[::1] offset,          # (N, padded), from `fold`
    const int32_t[::1] minus_b_zero,    # (N, padded) or None if all are 0
    const float[::1] multiplier,        # (N, padded)
    int zero_point,                     # of the output, as uint8
    uint8_t low,                        # clamp of the output, as uint8
    uint8_t high,
    uint8_t flip,                       # 0x80 makes the output int8
    uint8_t[:, ::1] codes,              # (M, N), overwritten
    int n_threads,
):
    cdef gemm_t gemm
    if codes.shape[0] == 0 or codes.shape[1] == 0:
        return
    gemm.a = &a[0, 0] if a.shape[1] else NULL
    gemm.n_rows = a.shape[0]
    gemm.product.panels = &panels[0] if a.shape[1] else NULL
    gemm.product.depth = a.shape[1]
    gemm.product.n_cols = codes.shape[1]
    gemm.product.offset = &offset[0]
    gemm.product.b_zero = NULL if minus_b_zero is None else &minus_b_zero[0]
    gemm.product.multiplier = &multiplier[0]
    gemm.product.zero_point = zero_point
    gemm.product.low = low
    gemm.product.high = high
    gemm.product.flip = flip
    gemm.out = &codes[0, 0]
    with nogil:
        _gemm(&gemm, n_threads)
