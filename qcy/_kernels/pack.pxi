"""Packing the right operand of products: panels, sums of columns, and what zero points add.

Packed layout, outermost first: panels of columns (the last one narrower, in whole vectors), taps,
groups along the depth of a tap, columns, the weights of a group. Zeros fill up.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from qcy._kernels._tile cimport (
    QCY_GROUP, QCY_LANES, QCY_LHS_ZERO, QCY_PANEL, n_panels, padded_columns, padded_depth,
)

#: Columns of one vector: a packed operand has a multiple of it.
LANES = QCY_LANES
#: Columns of a panel of packed weights, and weights of one column that lie side by side.
PANEL = QCY_PANEL
GROUP = QCY_GROUP

cdef enum:
    SUM_RUN = 1048576       # numbers whose magnitudes an int32 can hold


def packed_size(Py_ssize_t n_taps, Py_ssize_t depth, Py_ssize_t n_cols, /):
    """Return the bytes of packed weights and the padded number of columns."""
    return padded_columns(n_cols) * n_taps * padded_depth(depth), padded_columns(n_cols)


# Codes as they lie before they are packed: for each tap, `width` runs of `depth` numbers. A step of
# each kind, so that convolution kernels are read as they are, and not transposed first.
cdef struct weights_t:
    const uint8_t* first
    Py_ssize_t width
    Py_ssize_t depth
    Py_ssize_t tap_step
    Py_ssize_t width_step
    Py_ssize_t depth_step
    Py_ssize_t column_step
    Py_ssize_t n_cols
    uint8_t flip


def pack(
    const uint8_t[:, :, :, :] b,    # (taps, width, depth, N) codes, whatever their dtype
    uint8_t flip,                   # 0x80 makes uint8 codes int8
    int8_t[::1] panels,             # packed_size of taps and width * depth; overwritten
    /,
):
    cdef weights_t weights
    cdef Py_ssize_t n_taps = b.shape[0], panel
    cdef Py_ssize_t size = n_taps * padded_depth(b.shape[1] * b.shape[2])
    if size == 0 or b.shape[3] == 0:
        return
    weights.first = &b[0, 0, 0, 0]
    weights.width = b.shape[1]
    weights.depth = b.shape[2]
    weights.n_cols = b.shape[3]
    weights.tap_step = b.strides[0]
    weights.width_step = b.strides[1]
    weights.depth_step = b.strides[2]
    weights.column_step = b.strides[3]
    weights.flip = flip
    with nogil:
        for panel in range(n_panels(weights.n_cols)):
            _pack_panel(&weights, n_taps, panel * QCY_PANEL, &panels[0] + panel * QCY_PANEL * size)


cdef void _pack_panel(
    const weights_t* w, Py_ssize_t n_taps, Py_ssize_t first, int8_t* panel
) noexcept nogil:
    cdef Py_ssize_t n = min(QCY_PANEL, w.n_cols - first), width = padded_columns(n), tap, x, i, k
    cdef const uint8_t* rows[QCY_GROUP]
    for tap in range(n_taps):
        k = 0                       # rows of a group that are known by now
        for x in range(w.width):
            for i in range(w.depth):
                rows[k] = (
                    w.first + tap * w.tap_step + x * w.width_step + i * w.depth_step
                    + first * w.column_step
                )
                k += 1
                if k == QCY_GROUP or (x == w.width - 1 and i == w.depth - 1):
                    _pack_group(rows, k, w.column_step, w.flip, n, width, panel)
                    panel += QCY_GROUP * width
                    k = 0


cdef void _pack_group(
    const uint8_t** rows, Py_ssize_t n_rows, Py_ssize_t step, uint8_t flip, Py_ssize_t n,
    Py_ssize_t width, int8_t* cell,
) noexcept nogil:
    """Pack a group of each column, and zeros where there is no row or no column."""
    cdef const uint8_t* row[QCY_GROUP]      # of its own: bytes that are written may lie anywhere
    cdef int8_t codes[QCY_GROUP]
    cdef Py_ssize_t j, k
    if n_rows < QCY_GROUP or n < width:
        memset(cell, 0, QCY_GROUP * width)
    if n_rows < QCY_GROUP:
        for j in range(n):
            for k in range(n_rows):
                cell[QCY_GROUP * j + k] = <int8_t> (rows[k][j * step] ^ flip)
        return
    for k in range(QCY_GROUP):
        row[k] = rows[k]
    for j in range(n):
        for k in range(QCY_GROUP):
            codes[k] = <int8_t> (row[k][j * step] ^ flip)
        memcpy(cell + QCY_GROUP * j, codes, QCY_GROUP)


def sum_columns(
    const uint8_t[:, :] b,          # (N, K) codes, whatever their dtype; one axis is contiguous
    uint8_t flip,                   # 0x80 makes uint8 codes int8
    const int32_t[::1] zero_point,  # (N,) of the int8 codes
    int32_t[::1] sums,              # (N,) of the int8 codes; overwritten
    int64_t[::1] magnitudes,        # (N,) sum of |code - zero_point|; overwritten
    /,
):
    cdef Py_ssize_t n_cols = b.shape[0], n = b.shape[1], j, k, first
    for j in range(n_cols):
        sums[j] = 0
        magnitudes[j] = 0
    if n == 0 or n_cols == 0:
        return
    with nogil:
        if b.strides[1] == 1:
            for j in range(n_cols):
                first = 0
                while first < n:
                    _sum_column(
                        &b[j, first], min(<Py_ssize_t> SUM_RUN, n - first), flip, zero_point[j],
                        &sums[j], &magnitudes[j],
                    )
                    first += SUM_RUN
        else:
            for k in range(n):
                _sum_row(&b[0, k], n_cols, flip, &zero_point[0], &sums[0], &magnitudes[0])


cdef void _sum_column(
    const uint8_t* codes, Py_ssize_t n, uint8_t flip, int32_t zero_point, int32_t* sums,
    int64_t* magnitudes,
) noexcept nogil:
    cdef int32_t total = 0, reach = 0, code, distance
    cdef Py_ssize_t i
    for i in range(n):
        code = <int8_t> (codes[i] ^ flip)
        distance = code - zero_point
        total += code
        reach += distance if distance > 0 else -distance
    sums[0] = <int32_t> (<uint32_t> sums[0] + <uint32_t> total)
    magnitudes[0] += reach


cdef void _sum_row(
    const uint8_t* codes, Py_ssize_t n, uint8_t flip, const int32_t* zero_point, int32_t* sums,
    int64_t* magnitudes,
) noexcept nogil:
    cdef int32_t code, distance
    cdef Py_ssize_t j
    for j in range(n):
        code = <int8_t> (codes[j] ^ flip)
        distance = code - zero_point[j]
        sums[j] = <int32_t> (<uint32_t> sums[j] + <uint32_t> code)
        magnitudes[j] += distance if distance > 0 else -distance


def fold(
    const int32_t[::1] sums,        # (N,) of the packed int8 codes
    const int32_t[::1] b_zero,      # (N,) zero points of the packed int8 codes
    const int32_t[::1] bias,        # (N,) or None
    int32_t a_zero,                 # zero point of A as uint8
    int32_t n_inner,
    int32_t[::1] offset,            # (N, padded); overwritten
    int32_t[::1] minus_b_zero,      # (N, padded); overwritten
    /,
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
