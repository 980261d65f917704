"""Products by tiles, inlined into the kernels that rest on them: gemm and conv.

Everything here is uint8 times int8. Callers make the left operand uint8 and the right one int8 by
flipping the top bit, and shift the zero point with it.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint32_t

cdef extern from "microkernel.h":
    enum:
        QCY_LANES
        QCY_VECTORS
        QCY_PANEL
        QCY_ROWS
        QCY_ROWS_MAX
        QCY_GROUP
        QCY_LHS_ZERO
    ctypedef struct qcy_tile:
        Py_ssize_t n_taps
        Py_ssize_t depth
        const int8_t* panel
        const int32_t* offset
        const int32_t* b_zero
        const int32_t* row_sums
        const float* multiplier
        void* out
        Py_ssize_t stride
        Py_ssize_t n_columns
        int zero_point
        uint8_t low
        uint8_t high
        uint8_t flip
    ctypedef void (*qcy_tile_function)(const uint8_t** rows, const qcy_tile* tile) noexcept nogil
    qcy_tile_function qcy_tile_for(int vectors, Py_ssize_t n_rows, int* height) noexcept nogil


# The right operand and the output: what is the same for every row of a product.
cdef struct product_t:
    const int8_t* panels
    Py_ssize_t depth            # rows of the right operand
    Py_ssize_t n_cols
    const int32_t* offset       # (n_cols, padded) bias and zero points, folded
    const int32_t* b_zero       # (n_cols, padded) minus the zero points, or NULL for zeros
    const float* multiplier     # (n_cols, padded), or NULL: the output is then int32
    int zero_point              # of the output, as uint8
    uint8_t low                 # clamp of the output, as uint8
    uint8_t high
    uint8_t flip                # 0x80 turns uint8 output into int8


cdef inline Py_ssize_t padded_depth(Py_ssize_t depth) noexcept nogil:
    return (depth + QCY_GROUP - 1) // QCY_GROUP * QCY_GROUP


cdef inline Py_ssize_t wide_size(Py_ssize_t n_rows, Py_ssize_t depth) noexcept nogil:
    """Return the 16-bit numbers that `multiply_rows` needs room for: none where bytes multiply."""
    return n_rows * padded_depth(depth) if QCY_GROUP == 2 else 0


cdef inline void widen(const uint8_t* row, Py_ssize_t depth, int16_t* wide) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(depth):
        wide[k] = row[k]
    for k in range(depth, padded_depth(depth)):
        wide[k] = 0


cdef inline Py_ssize_t n_panels(Py_ssize_t n_cols) noexcept nogil:
    return (n_cols + QCY_PANEL - 1) // QCY_PANEL


cdef inline int32_t row_sum(const uint8_t* row, Py_ssize_t depth) noexcept nogil:
    cdef Py_ssize_t k
    cdef uint32_t total = 0             # may wrap, as equation (7) says
    for k in range(depth):
        total += row[k]
    return <int32_t> total


cdef inline void multiply_rows(
    const product_t* product,
    const uint8_t* a,               # first row of A
    Py_ssize_t a_stride,
    const int32_t* row_sums,        # of these rows; NULL if product.b_zero is
    Py_ssize_t n_rows,
    Py_ssize_t first_panel,
    Py_ssize_t last_panel,
    int16_t* wide,                  # scratch of `wide_size`
    uint8_t* out,                   # first row of the output, column 0
    Py_ssize_t out_stride,          # elements
) noexcept nogil:
    """Multiply some rows by some panels: panel by panel, so that each is read from memory once."""
    cdef Py_ssize_t panel, i, r, column, width = 4 if product.multiplier == NULL else 1
    cdef Py_ssize_t panel_bytes = padded_depth(product.depth) * QCY_PANEL
    cdef int height = 0, vectors
    cdef const uint8_t* rows[QCY_ROWS_MAX]
    cdef qcy_tile_function multiply
    cdef qcy_tile tile
    tile.n_taps = 1
    tile.depth = product.depth
    if QCY_GROUP == 2:
        for i in range(n_rows):
            widen(a + i * a_stride, product.depth, wide + i * padded_depth(product.depth))
        a = <const uint8_t*> wide
        a_stride = 2 * padded_depth(product.depth)
        tile.depth = a_stride
    tile.row_sums = NULL
    tile.b_zero = NULL
    tile.multiplier = NULL
    tile.stride = out_stride
    tile.zero_point = product.zero_point
    tile.low = product.low
    tile.high = product.high
    tile.flip = product.flip
    for panel in range(first_panel, last_panel):
        column = panel * QCY_PANEL
        tile.panel = product.panels + panel * panel_bytes
        tile.offset = product.offset + column
        if product.b_zero != NULL:
            tile.b_zero = product.b_zero + column
        if product.multiplier != NULL:
            tile.multiplier = product.multiplier + column
        tile.n_columns = min(QCY_PANEL, product.n_cols - column)
        vectors = <int> ((tile.n_columns + QCY_LANES - 1) // QCY_LANES)
        i = 0
        while i < n_rows:
            multiply = qcy_tile_for(vectors, n_rows - i, &height)
            for r in range(height):
                rows[r] = a + (i + r) * a_stride
            if row_sums != NULL:
                tile.row_sums = row_sums + i
            tile.out = out + (i * out_stride + column) * width
            multiply(rows, &tile)
            i += height
