"""Matrix product: codes, or reals that become codes on the way, times packed weights."""
from libc.stdint cimport int16_t, int32_t, uint8_t

from qcy._kernels._tile cimport (
    LEFT_BYTES, QCY_LHS_ZERO, QCY_ROWS, WHOLE_TILES, copy_left, multiply_rows, n_panels, out_bytes,
    padded_depth, row_sum, rows_t,
)
from qcy._product cimport Product, product_t
from qcy._step cimport SCRATCH, Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "elementwise.h":
    ctypedef struct qcy_dynamic:
        float scale
        int zero_point
    void qcy_range_run(const float* x, Py_ssize_t n, float* low, float* high) noexcept nogil
    int qcy_dynamic_params(float low, float high, qcy_dynamic* params) noexcept nogil
    int qcy_dynamic_run(
        const float* x, Py_ssize_t n, const qcy_dynamic* params, uint8_t* codes
    ) noexcept nogil

cdef enum:
    GEMM_BLOCK_BYTES = 262144       # of A that stay in the second-level cache while B streams past
    GEMM_FEWEST = 262144            # below it, waking threads costs more than they save
    TASKS_PER_THREAD = 8
    ROWS_AT_ONCE = 8                # whose parameters are computed together
    FINE_TILES = WHOLE_TILES // 2   # rows of a task are a multiple of it


cdef struct gemm_t:
    product_t product
    place_t a
    place_t out
    Py_ssize_t n_rows
    Py_ssize_t depth                # of A as given
    uint8_t a_flip                  # 0x80: A is int8
    bint is_copied                  # blocks of A are made uint8, or 16 bits wide, or both
    bint is_real                    # A is float32, quantized on the way
    bint per_row                    # each row by parameters of its own
    Py_ssize_t rows_per_block       # what one visit of a panel covers
    # What one run adds:
    uint8_t** memories
    qcy_dynamic params              # of all of A, unless per row
    Py_ssize_t rows_per_task
    Py_ssize_t panels_per_task
    Py_ssize_t n_row_tasks
    Py_ssize_t scratch_per_thread
    long* failed


cdef Py_ssize_t _left_stride(const gemm_t* gemm) noexcept nogil:
    """Return the bytes of one row of a block of A that was copied."""
    return padded_depth(gemm.depth) * LEFT_BYTES


cdef Py_ssize_t _gemm_scratch(const gemm_t* gemm) noexcept nogil:
    """Return the bytes that a thread needs: a term and a scale for each row, and the rows."""
    cdef Py_ssize_t size = 0
    if gemm.product.row_weight != NULL:
        size += 8
    if gemm.is_copied or gemm.is_real:
        size += _left_stride(gemm)
    return (size * gemm.rows_per_block + 127) // 64 * 64 if size else 0


cdef void _gemm_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const gemm_t* gemm = <const gemm_t*> args
    cdef Py_ssize_t first = index % gemm.n_row_tasks * gemm.rows_per_task
    cdef Py_ssize_t last = min(gemm.n_rows, first + gemm.rows_per_task)
    cdef Py_ssize_t first_panel = index // gemm.n_row_tasks * gemm.panels_per_task
    cdef Py_ssize_t last_panel = min(
        n_panels(gemm.product.n_cols), first_panel + gemm.panels_per_task
    )
    cdef Py_ssize_t n_cols = gemm.product.n_cols, i
    cdef uint8_t* scratch = gemm.memories[SCRATCH] + worker * gemm.scratch_per_thread
    cdef int32_t* term = <int32_t*> scratch
    cdef float* scale = <float*> (term + gemm.rows_per_block)
    cdef uint8_t* out = <uint8_t*> at(gemm.out, gemm.memories)
    cdef const uint8_t* a = <const uint8_t*> at(gemm.a, gemm.memories)
    cdef uint8_t* left = scratch
    cdef rows_t rows
    if gemm.product.row_weight != NULL:
        left += 8 * gemm.rows_per_block
    rows.pointers = NULL
    rows.tap_bytes = 0
    rows.blank = NULL
    rows.term = NULL
    rows.scale = NULL
    while first < last:
        rows.n = min(gemm.rows_per_block, last - first)
        if gemm.is_real:
            _quantize_rows(gemm, <const float*> a + first * gemm.depth, rows.n, term, scale, left)
            rows.first = left
            rows.stride = _left_stride(gemm)
            rows.term = term
            rows.scale = scale
        elif gemm.is_copied:
            rows.first = left
            rows.stride = _left_stride(gemm)
            for i in range(rows.n):
                copy_left(
                    a + (first + i) * gemm.depth, gemm.depth, gemm.a_flip, left + i * rows.stride
                )
                _clear_rest(gemm.depth, left + i * rows.stride)
        else:
            rows.first = a + first * gemm.depth
            rows.stride = gemm.depth
        if gemm.product.row_weight != NULL and not gemm.is_real:
            for i in range(rows.n):
                term[i] = row_sum(rows.first + i * rows.stride, gemm.depth)
            rows.term = term
        multiply_rows(
            &gemm.product, &rows, first_panel, last_panel,
            out + first * n_cols * out_bytes(&gemm.product), n_cols,
        )
        first += rows.n


cdef inline void _clear_rest(Py_ssize_t depth, uint8_t* left) noexcept nogil:
    """Write zeros between the depth and the next whole group."""
    cdef Py_ssize_t k
    for k in range(depth * LEFT_BYTES, padded_depth(depth) * LEFT_BYTES):
        left[k] = 0


cdef void _quantize_rows(
    const gemm_t* gemm, const float* x, Py_ssize_t n, int32_t* term, float* scale, uint8_t* left
) noexcept nogil:
    """Quantize rows of reals, equation (6): codes, and for each row its scale and zero point.

    Ranges and parameters of some rows come first: they do not wait for each other.
    """
    cdef qcy_dynamic params[ROWS_AT_ONCE]
    cdef Py_ssize_t i, k, first = 0, last
    cdef float low, high
    cdef uint8_t* codes
    cdef int16_t* wide
    cdef bint failed = False
    while first < n:
        last = min(n, first + ROWS_AT_ONCE)
        for i in range(last - first):
            params[i] = gemm.params
            if gemm.per_row:
                qcy_range_run(x + i * gemm.depth, gemm.depth, &low, &high)
                failed |= qcy_dynamic_params(low, high, &params[i])
        for i in range(last - first):
            # Where numbers are 16 bits wide, codes go to the second half and are spread out.
            codes = left + (LEFT_BYTES - 1) * padded_depth(gemm.depth)
            failed |= qcy_dynamic_run(x, gemm.depth, &params[i], codes)
            if LEFT_BYTES == 2:
                wide = <int16_t*> left
                for k in range(gemm.depth):
                    wide[k] = codes[k]
            _clear_rest(gemm.depth, left)
            term[first + i] = params[i].zero_point - QCY_LHS_ZERO
            scale[first + i] = params[i].scale
            x += gemm.depth
            left += _left_stride(gemm)
        first = last
    if failed:
        gemm.failed[0] = 1              # any thread may: it is only ever set


cdef long _run_gemm(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    """Cut the product into tasks and run them: rows if there are many, else panels."""
    cdef gemm_t gemm = (<const gemm_t*> args)[0]
    cdef Py_ssize_t panels = n_panels(gemm.product.n_cols), n_tasks = 1, few
    cdef long failed = 0
    cdef float low, high
    if gemm.n_rows == 0 or panels == 0:
        return 0
    gemm.memories = memories
    gemm.failed = &failed
    gemm.scratch_per_thread = _gemm_scratch(&gemm)
    gemm.rows_per_task = gemm.n_rows
    gemm.panels_per_task = panels
    gemm.n_row_tasks = 1
    if gemm.is_real and not gemm.per_row:
        qcy_range_run(
            <const float*> at(gemm.a, memories), gemm.n_rows * gemm.depth, &low, &high
        )
        if qcy_dynamic_params(low, high, &gemm.params):
            return 1
    if n_threads > 1:
        n_tasks = n_threads * TASKS_PER_THREAD
        # Panels, if rows are few; but then every task makes its own copy of all rows.
        few = 2 if gemm.is_copied or gemm.is_real else 16
        if gemm.n_rows >= few * QCY_ROWS * n_threads:
            gemm.rows_per_task = (gemm.n_rows // n_tasks + FINE_TILES - 1) // FINE_TILES
            gemm.rows_per_task *= FINE_TILES
            gemm.n_row_tasks = (gemm.n_rows + gemm.rows_per_task - 1) // gemm.rows_per_task
            n_tasks = gemm.n_row_tasks
        else:
            if gemm.is_copied or gemm.is_real:
                n_tasks = 2 * n_threads
            gemm.panels_per_task = (panels + n_tasks - 1) // n_tasks
            n_tasks = (panels + gemm.panels_per_task - 1) // gemm.panels_per_task
    parallel_for(_gemm_task, &gemm, n_tasks, n_threads)
    return failed


def product(
    object a,                       # (M, K) uint8, or int8, or float32
    Py_ssize_t n_rows,
    Py_ssize_t depth,
    uint8_t a_flip,                 # 0x80: a is int8
    bint is_real,                   # a is float32, quantized on the way, equation (6)
    bint per_row,                   # ... with parameters of its own for each row
    Product right not None,
    object out,                     # (M, N), of a kind that follows from `right`
    /,
):
    """Return the step of a matrix product."""
    cdef gemm_t gemm
    cdef Step step
    cdef list owners = [right]
    gemm.product = right.bound
    gemm.product.n_taps = 1
    gemm.a = place_of(a, owners)
    gemm.out = place_of(out, owners)
    gemm.n_rows = n_rows
    gemm.depth = depth
    gemm.a_flip = a_flip
    gemm.is_real = is_real
    gemm.per_row = per_row
    gemm.is_copied = a_flip != 0 or LEFT_BYTES != 1
    # Zeros fill up a copy; given rows end where they end.
    gemm.product.depth = padded_depth(depth) if gemm.is_copied or is_real else depth
    gemm.rows_per_block = GEMM_BLOCK_BYTES // max(depth, 1) // WHOLE_TILES * WHOLE_TILES
    gemm.rows_per_block = min(max(<Py_ssize_t> WHOLE_TILES, gemm.rows_per_block), max(n_rows, 1))
    step = new_step(_run_gemm, &gemm, sizeof(gemm), owners)
    step.scratch_per_thread = _gemm_scratch(&gemm)
    if <double> n_rows * depth * gemm.product.n_cols < GEMM_FEWEST:
        step.most_threads = 1
    return step
