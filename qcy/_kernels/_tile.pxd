"""Products by tiles, inlined into the kernels that rest on them: gemm and conv.

Everything here is uint8 times int8. Callers make the left operand uint8 and the right one int8 by
flipping the top bit, and shift the zero point with it.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint32_t

from qcy._product cimport product_t

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
        Py_ssize_t row_step
        Py_ssize_t tap_step
        Py_ssize_t tap_bytes
        const uint8_t* blank
        const int8_t* panel
        const int32_t* offset
        const int32_t* row_weight
        const int32_t* row_term
        const float* multiplier
        const float* row_scale
        const float* bias
        const uint8_t* table
        void* out
        Py_ssize_t stride
        Py_ssize_t n_columns
        int zero_point
        uint8_t low
        uint8_t high
        uint8_t flip
        uint8_t is_wild
        uint8_t is_far
    ctypedef void (*qcy_tile_function)(const uint8_t** rows, const qcy_tile* tile) noexcept nogil
    qcy_tile_function qcy_tile_for(int vectors, Py_ssize_t n_rows, int* height) noexcept nogil

cdef enum:
    # A multiple of the height of every tile, so that blocks of rows end where tiles do.
    WHOLE_TILES = 24
    # Bytes of one number of the left operand, as tiles read it.
    LEFT_BYTES = 4 // QCY_GROUP
    # Bytes of weights from which a single row fetches them ahead: about the second-level cache.
    FAR_BYTES = 1572864


# Some rows of the left operand: evenly spaced; or each by itself, its taps evenly spaced; or each
# tap of each row by itself.
cdef struct rows_t:
    const uint8_t* first
    Py_ssize_t stride           # bytes
    const uint8_t** pointers    # to rows, or to taps row after row; or NULL
    Py_ssize_t tap_bytes        # between the taps of a row; 0: each has a pointer
    const uint8_t* blank        # a tap that lies here adds nothing; or NULL
    const int32_t* term         # one for each row, with product_t.row_weight
    const float* scale          # one for each row, with product_t.bias
    Py_ssize_t n


cdef inline Py_ssize_t padded_depth(Py_ssize_t depth) noexcept nogil:
    return (depth + QCY_GROUP - 1) // QCY_GROUP * QCY_GROUP


cdef inline Py_ssize_t padded_columns(Py_ssize_t n_cols) noexcept nogil:
    return (n_cols + QCY_LANES - 1) // QCY_LANES * QCY_LANES


cdef inline Py_ssize_t n_panels(Py_ssize_t n_cols) noexcept nogil:
    return (n_cols + QCY_PANEL - 1) // QCY_PANEL


cdef inline Py_ssize_t out_bytes(const product_t* product) noexcept nogil:
    """Return the bytes of one number of the output."""
    return 1 if product.multiplier != NULL and product.bias == NULL else 4


cdef inline int32_t row_sum(const uint8_t* row, Py_ssize_t depth) noexcept nogil:
    """Sum numbers as tiles read them: bytes, or 16-bit numbers."""
    cdef Py_ssize_t k
    cdef uint32_t total = 0             # may wrap, as equation (7) says
    cdef const int16_t* wide = <const int16_t*> row
    if LEFT_BYTES == 1:
        for k in range(depth):
            total += row[k]
    else:
        for k in range(depth):
            total += <uint32_t> wide[k]
    return <int32_t> total


cdef inline void copy_left(
    const uint8_t* codes, Py_ssize_t n, uint8_t flip, uint8_t* left
) noexcept nogil:
    """Write codes as tiles read them: uint8, and widened where bytes do not multiply."""
    cdef Py_ssize_t k
    cdef int16_t* wide = <int16_t*> left
    if LEFT_BYTES == 1:
        for k in range(n):
            left[k] = codes[k] ^ flip
    else:
        for k in range(n):
            wide[k] = codes[k] ^ flip


cdef inline void multiply_rows(
    const product_t* product,
    const rows_t* rows,
    Py_ssize_t first_panel,
    Py_ssize_t last_panel,
    uint8_t* out,                   # first row of the output, column 0
    Py_ssize_t out_stride,          # elements
) noexcept nogil:
    """Multiply some rows by some panels: panel by panel, so that each is read from memory once."""
    cdef Py_ssize_t panel, i, r, column, width = out_bytes(product)
    cdef Py_ssize_t panel_bytes = (
        product.n_taps * padded_depth(product.depth) * QCY_PANEL
    )
    cdef int height = 0, vectors
    cdef const uint8_t* even[QCY_ROWS_MAX]
    cdef const uint8_t** pointers
    cdef Py_ssize_t per_row = 1
    cdef qcy_tile_function multiply
    cdef qcy_tile tile
    tile.n_taps = product.n_taps
    tile.depth = product.depth * LEFT_BYTES
    if rows.pointers != NULL and rows.tap_bytes == 0:
        per_row = product.n_taps
    tile.row_step = per_row
    tile.tap_step = 0 if per_row == 1 else 1
    tile.tap_bytes = rows.tap_bytes
    tile.blank = rows.blank
    tile.row_term = NULL
    tile.row_scale = NULL
    tile.row_weight = NULL
    tile.multiplier = NULL
    tile.bias = NULL
    tile.table = product.table
    tile.stride = out_stride
    tile.zero_point = product.zero_point
    tile.low = product.low
    tile.high = product.high
    tile.flip = product.flip
    tile.is_wild = product.is_wild
    tile.is_far = panel_bytes * n_panels(product.n_cols) > FAR_BYTES
    for panel in range(first_panel, last_panel):
        column = panel * QCY_PANEL
        tile.panel = product.panels + panel * panel_bytes
        tile.offset = product.offset + column
        if product.row_weight != NULL:
            tile.row_weight = product.row_weight + column
        if product.multiplier != NULL:
            tile.multiplier = product.multiplier + column
        if product.bias != NULL:
            tile.bias = product.bias + column
        tile.n_columns = min(QCY_PANEL, product.n_cols - column)
        vectors = <int> ((tile.n_columns + QCY_LANES - 1) // QCY_LANES)
        i = 0
        while i < rows.n:
            multiply = qcy_tile_for(vectors, rows.n - i, &height)
            if rows.pointers != NULL:
                pointers = rows.pointers + i * per_row
            else:
                pointers = even
                for r in range(height):
                    even[r] = rows.first + (i + r) * rows.stride
            if rows.term != NULL:
                tile.row_term = rows.term + i
            if rows.scale != NULL:
                tile.row_scale = rows.scale + i
            tile.out = out + (i * out_stride + column) * width
            multiply(pointers, &tile)
            i += height
