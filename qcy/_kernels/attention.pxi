"""Attention: for each head, the product of queries and keys, weights, the product with the values.

Keys and values are operands of products that are only known when the step runs, so they are packed
then, head by head; scores and weights of a block of queries never leave the first-level cache.
"""
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t
from libc.string cimport memset

from qcy._kernels._output cimport output_from, qcy_output
from qcy._kernels._tile cimport (
    LEFT_BYTES, QCY_GROUP, QCY_LHS_ZERO, QCY_PANEL, WHOLE_TILES, copy_left, multiply_rows, n_panels,
    padded_columns, padded_depth, rows_t,
)
from qcy._product cimport product_t
from qcy._step cimport SCRATCH, Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "rows.h":
    enum:
        QCY_BLOCK
    uint32_t qcy_attention_weights(
        const int32_t* scores, Py_ssize_t n, float step, uint8_t* weights
    ) noexcept nogil
    void qcy_attention_row(
        const int32_t* sums, Py_ssize_t n, int32_t shift, float factor, const qcy_output* output,
        uint8_t* out
    ) noexcept nogil

cdef enum:
    ATTENTION_FEWEST = 1048576      # below it, waking threads costs more than they save
    BLOCK_ROWS = WHOLE_TILES        # queries at a time


cdef struct attention_t:
    place_t q
    place_t k
    place_t v
    place_t out
    Py_ssize_t n_batch
    Py_ssize_t n_queries
    Py_ssize_t n_keys
    Py_ssize_t n_heads
    Py_ssize_t depth            # of queries and keys, of one head
    Py_ssize_t width            # of values, of one head
    int32_t q_zero              # as uint8, like all zero points
    int32_t v_zero
    uint8_t q_flip              # 0x80: int8
    uint8_t k_flip              # 0x80: uint8, which products take as int8
    uint8_t v_flip
    float step                  # powers of two in one step of a score
    float factor                # steps of the output in one step of a value
    qcy_output output
    # What one run adds:
    uint8_t** memories
    Py_ssize_t scratch_per_thread


# Where a thread keeps what it makes of one head, and of one block of its queries.
cdef struct scratch_t:
    int8_t* keys                # packed
    int8_t* values
    int32_t* key_offset         # (keys, padded)
    int32_t* value_offset       # (width, padded)
    int32_t* scores             # (BLOCK_ROWS, keys, padded)
    int32_t* sums               # (BLOCK_ROWS, width, padded)
    uint8_t* weights            # (keys, padded), where tiles do not read bytes
    uint8_t* left               # (BLOCK_ROWS, keys, padded) weights as tiles read them
    uint8_t* queries            # (BLOCK_ROWS, depth, padded) as tiles read them


cdef inline Py_ssize_t _blocks(Py_ssize_t n) noexcept nogil:
    """Round up to whole blocks."""
    return (n + QCY_BLOCK - 1) // QCY_BLOCK * QCY_BLOCK


cdef Py_ssize_t _plan_attention(
    const attention_t* run, uint8_t* start, scratch_t* scratch
) noexcept nogil:
    """Lay out the scratch memory of a thread from `start`, and return its size."""
    cdef Py_ssize_t size = 0, keys = _blocks(run.n_keys), width = _blocks(run.width)
    scratch.keys = <int8_t*> start
    size += _up(padded_columns(run.n_keys) * padded_depth(run.depth))
    scratch.values = <int8_t*> start + size
    size += _up(padded_columns(run.width) * padded_depth(run.n_keys))
    scratch.key_offset = <int32_t*> (start + size)
    size += 4 * keys
    scratch.value_offset = <int32_t*> (start + size)
    size += 4 * width
    scratch.scores = <int32_t*> (start + size)
    size += 4 * BLOCK_ROWS * keys
    scratch.sums = <int32_t*> (start + size)
    size += 4 * BLOCK_ROWS * width
    scratch.weights = start + size
    size += keys
    scratch.left = start + size
    size += BLOCK_ROWS * keys * LEFT_BYTES
    scratch.queries = start + size
    return size + _up(BLOCK_ROWS * padded_depth(run.depth) * LEFT_BYTES)


cdef void _pack_keys(
    const attention_t* run, const uint8_t* k, Py_ssize_t stride, scratch_t* scratch
) noexcept nogil:
    """Pack keys, which are columns, and fold the zero point of the queries."""
    cdef Py_ssize_t depth = padded_depth(run.depth), j, column, cell, i, width
    cdef Py_ssize_t whole = run.depth // QCY_GROUP
    cdef uint8_t flip = run.k_flip
    cdef int32_t total
    cdef const uint8_t* row
    cdef uint8_t* panel
    for j in range(run.n_keys):
        row = k + j * stride
        column = j % QCY_PANEL
        width = min(<Py_ssize_t> QCY_PANEL, padded_columns(run.n_keys - (j - column)))
        panel = <uint8_t*> scratch.keys + (j - column) * depth + column * QCY_GROUP
        total = 0
        for i in range(run.depth):
            total += <int8_t> (row[i] ^ flip)
        for cell in range(whole):
            for i in range(QCY_GROUP):
                panel[i] = row[cell * QCY_GROUP + i] ^ flip
            panel += width * QCY_GROUP
        if whole * QCY_GROUP < run.depth:
            for i in range(QCY_GROUP):
                panel[i] = 0
            for i in range(run.depth - whole * QCY_GROUP):
                panel[i] = row[whole * QCY_GROUP + i] ^ flip
        scratch.key_offset[j] = (QCY_LHS_ZERO - run.q_zero) * total


cdef void _pack_values(
    const attention_t* run, const uint8_t* v, Py_ssize_t stride, scratch_t* scratch
) noexcept nogil:
    """Pack values, whose rows lie along the depth of the product."""
    cdef Py_ssize_t depth = padded_depth(run.n_keys), first, valid, width, cell, i, j, k, n
    cdef uint8_t flip = run.v_flip
    cdef uint8_t* panel
    cdef const uint8_t* rows
    for j in range(_blocks(run.width)):
        scratch.value_offset[j] = 0
    for n in range(n_panels(run.width)):
        first = n * QCY_PANEL
        valid = min(<Py_ssize_t> QCY_PANEL, run.width - first)
        width = padded_columns(valid)
        panel = <uint8_t*> scratch.values + first * depth
        for cell in range(run.n_keys // QCY_GROUP):
            rows = v + cell * QCY_GROUP * stride + first
            for j in range(valid):
                for i in range(QCY_GROUP):
                    panel[j * QCY_GROUP + i] = rows[i * stride + j] ^ flip
            panel += width * QCY_GROUP
        k = run.n_keys // QCY_GROUP * QCY_GROUP
        if k < run.n_keys:
            for j in range(valid):
                for i in range(QCY_GROUP):
                    panel[j * QCY_GROUP + i] = 0
                for i in range(run.n_keys - k):
                    panel[j * QCY_GROUP + i] = v[(k + i) * stride + first + j] ^ flip
    if QCY_LHS_ZERO != 0:
        for k in range(run.n_keys):
            for j in range(run.width):
                scratch.value_offset[j] += QCY_LHS_ZERO * <int8_t> (v[k * stride + j] ^ flip)


cdef void _multiply(
    const int8_t* panels, const int32_t* offset, Py_ssize_t depth, Py_ssize_t n_cols,
    const uint8_t* left, Py_ssize_t stride, Py_ssize_t n_rows, int32_t* out, Py_ssize_t out_stride,
) noexcept nogil:
    """Multiply into sums."""
    cdef product_t product
    cdef rows_t rows
    memset(&product, 0, sizeof(product))
    memset(&rows, 0, sizeof(rows))
    product.panels = panels
    product.n_taps = 1
    product.depth = depth
    product.n_cols = n_cols
    product.offset = offset
    rows.first = left
    rows.stride = stride
    rows.n = n_rows
    multiply_rows(&product, &rows, 0, n_panels(n_cols), <uint8_t*> out, out_stride)


cdef inline void _copy_rows(
    const uint8_t* codes, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t depth, uint8_t flip,
    uint8_t* left,
) noexcept nogil:
    """Write rows as tiles read them, with zeros up to the next whole group."""
    cdef Py_ssize_t i, k
    for i in range(n_rows):
        copy_left(codes + i * stride, depth, flip, left)
        for k in range(depth * LEFT_BYTES, padded_depth(depth) * LEFT_BYTES):
            left[k] = 0
        left += padded_depth(depth) * LEFT_BYTES


cdef void _head(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const attention_t* run = <const attention_t*> args
    cdef Py_ssize_t batch = index // run.n_heads, head = index % run.n_heads
    cdef Py_ssize_t stride = run.n_heads * run.depth, v_stride = run.n_heads * run.width
    cdef Py_ssize_t keys = _blocks(run.n_keys), width = _blocks(run.width)
    cdef Py_ssize_t left_stride = keys * LEFT_BYTES, first = 0, n, i
    cdef const uint8_t* q = <const uint8_t*> at(run.q, run.memories)
    cdef const uint8_t* k = <const uint8_t*> at(run.k, run.memories)
    cdef const uint8_t* v = <const uint8_t*> at(run.v, run.memories)
    cdef uint8_t* out = <uint8_t*> at(run.out, run.memories)
    cdef const uint8_t* queries
    cdef Py_ssize_t query_stride
    cdef uint8_t* weights
    cdef uint32_t total[BLOCK_ROWS]
    cdef bint is_copied = LEFT_BYTES != 1 or run.q_flip != 0
    cdef scratch_t scratch
    _plan_attention(run, run.memories[SCRATCH] + worker * run.scratch_per_thread, &scratch)
    q += batch * run.n_queries * stride + head * run.depth
    k += batch * run.n_keys * stride + head * run.depth
    v += batch * run.n_keys * v_stride + head * run.width
    out += batch * run.n_queries * v_stride + head * run.width
    _pack_keys(run, k, stride, &scratch)
    _pack_values(run, v, v_stride, &scratch)
    while first < run.n_queries:
        n = min(<Py_ssize_t> BLOCK_ROWS, run.n_queries - first)
        queries = q + first * stride
        query_stride = stride
        if is_copied:
            _copy_rows(queries, stride, n, run.depth, run.q_flip, scratch.queries)
            queries = scratch.queries
            query_stride = padded_depth(run.depth) * LEFT_BYTES
        _multiply(
            scratch.keys, scratch.key_offset, padded_depth(run.depth) if is_copied else run.depth,
            run.n_keys, queries, query_stride, n, scratch.scores, keys,
        )
        for i in range(n):
            weights = scratch.left + i * left_stride if LEFT_BYTES == 1 else scratch.weights
            total[i] = qcy_attention_weights(
                scratch.scores + i * keys, run.n_keys, run.step, weights
            )
            if LEFT_BYTES == 1:
                memset(weights + run.n_keys, 0, padded_depth(run.n_keys) - run.n_keys)
            else:
                _copy_rows(weights, 0, 1, run.n_keys, 0, scratch.left + i * left_stride)
        _multiply(
            scratch.values, scratch.value_offset, padded_depth(run.n_keys), run.width,
            scratch.left, left_stride, n, scratch.sums, width,
        )
        for i in range(n):
            qcy_attention_row(
                scratch.sums + i * width, run.width,
                (run.v_zero - 128) * <int32_t> total[i], run.factor / <float> total[i],
                &run.output, out + (first + i) * v_stride,
            )
        first += n


cdef long _run_attention(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef attention_t run = (<const attention_t*> args)[0]
    cdef scratch_t unused
    run.memories = memories
    run.scratch_per_thread = _plan_attention(&run, NULL, &unused)
    if run.n_queries > 0 and run.width > 0:
        parallel_for(_head, &run, run.n_batch * run.n_heads, n_threads)
    return 0


def attention(
    object q,                   # (B, S, H * D)
    object k,                   # (B, T, H * D)
    object v,                   # (B, T, H * W)
    tuple sizes,                # B, S, T, H, D, W
    tuple zeros,                # zero points of q and v, as uint8
    tuple flips,                # 0x80 for each of q, k and v that is int8
    float step,                 # powers of two in one step of a score
    float factor,               # steps of the output in one step of a value
    tuple target,               # zero point, low, high, flip as uint8; and wild
    object out,                 # (B, S, H * W)
    /,
):
    """Return the step of equation (25)."""
    cdef attention_t run
    cdef scratch_t unused
    cdef Step step_made
    cdef list owners = []
    memset(&run, 0, sizeof(run))
    run.q = place_of(q, owners)
    run.k = place_of(k, owners)
    run.v = place_of(v, owners)
    run.out = place_of(out, owners)
    run.n_batch, run.n_queries, run.n_keys, run.n_heads, run.depth, run.width = sizes
    run.q_zero, run.v_zero = zeros
    run.q_flip = flips[0]
    run.k_flip = flips[1] ^ 0x80
    run.v_flip = flips[2] ^ 0x80
    run.step = step
    run.factor = factor
    run.output = output_from(target)
    step_made = new_step(_run_attention, &run, sizeof(run), owners)
    step_made.scratch_per_thread = _plan_attention(&run, NULL, &unused)
    if (
        <double> run.n_batch * run.n_heads * run.n_queries * run.n_keys * (run.depth + run.width)
        < ATTENTION_FEWEST
    ):
        step_made.most_threads = 1
    return step_made
