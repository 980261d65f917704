"""The geometry that convolution and pooling share: windows that slide over channels-last images."""
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint8_t
from libc.string cimport memset
from cpython.bytearray cimport PyByteArray_AsString, PyByteArray_FromStringAndSize

cdef struct window_t:
    Py_ssize_t height           # of the input
    Py_ssize_t width
    Py_ssize_t channels
    Py_ssize_t out_height
    Py_ssize_t out_width
    Py_ssize_t kernel_height
    Py_ssize_t kernel_width
    Py_ssize_t stride_height
    Py_ssize_t stride_width
    Py_ssize_t dilation_height
    Py_ssize_t dilation_width
    Py_ssize_t pad_top
    Py_ssize_t pad_left


cdef inline window_t window_from(tuple sizes):
    """Unpack what `qcy.primitive.windows.Window.sizes` packed, in the order of the struct."""
    cdef window_t window
    cdef Py_ssize_t* size = <Py_ssize_t*> &window
    cdef size_t i
    for i in range(sizeof(window_t) // sizeof(Py_ssize_t)):
        size[i] = sizes[i]
    return window


cdef inline Py_ssize_t input_row(
    const window_t* window, Py_ssize_t out_row, Py_ssize_t tap
) noexcept nogil:
    """Return the input row under one tap, or -1 if it lies outside the image."""
    cdef Py_ssize_t row = (
        out_row * window.stride_height - window.pad_top + tap * window.dilation_height
    )
    return row if 0 <= row < window.height else -1


cdef inline Py_ssize_t input_column(
    const window_t* window, Py_ssize_t out_column, Py_ssize_t tap
) noexcept nogil:
    """Return the input column under one tap, or -1 if it lies outside the image."""
    cdef Py_ssize_t column = (
        out_column * window.stride_width - window.pad_left + tap * window.dilation_width
    )
    return column if 0 <= column < window.width else -1


cdef inline void* room(list owners, Py_ssize_t size) except NULL:
    """Return memory of a step's own, on a cache line, kept alive by `owners`."""
    cdef bytearray memory = PyByteArray_FromStringAndSize(NULL, size + 128)
    owners.append(memory)
    return <void*> ((<size_t> PyByteArray_AsString(memory) + 63) & ~<size_t> 63)


# Where the cells of each window lie: an offset for its row and one for its column.
cdef struct cells_t:
    const ptrdiff_t* rows       # (OH, KH) bytes from the image's start, or -1 outside
    const ptrdiff_t* columns    # (OW, KW) bytes from a row's start, or -1 outside
    const uint8_t* outside      # a cell of a code that stands for what is not there


cdef inline cells_t find_cells(const window_t* w, uint8_t outside, list owners) except *:
    """Look up, once, where windows lie over an image."""
    cdef cells_t cells
    cdef Py_ssize_t n_rows = w.out_height * w.kernel_height
    cdef Py_ssize_t n_columns = w.out_width * w.kernel_width
    cdef Py_ssize_t i, tap, place
    cdef ptrdiff_t* table = <ptrdiff_t*> room(owners, (n_rows + n_columns) * sizeof(ptrdiff_t))
    cdef uint8_t* cell = <uint8_t*> room(owners, w.channels)
    memset(cell, outside, w.channels)
    cells.rows = table
    cells.columns = table + n_rows
    cells.outside = cell
    for i in range(w.out_height):
        for tap in range(w.kernel_height):
            place = input_row(w, i, tap)
            table[i * w.kernel_height + tap] = (
                -1 if place < 0 else place * w.width * w.channels
            )
    table += n_rows
    for i in range(w.out_width):
        for tap in range(w.kernel_width):
            place = input_column(w, i, tap)
            table[i * w.kernel_width + tap] = -1 if place < 0 else place * w.channels
    return cells


cdef inline void point_at_cells(
    const window_t* w,
    const cells_t* cells,
    const uint8_t* image,
    Py_ssize_t out_row,
    Py_ssize_t out_column,
    const uint8_t** taps,
) noexcept nogil:
    """Write a pointer to each cell of one window: kernel rows, then kernel columns."""
    cdef Py_ssize_t y, x, i = 0
    cdef ptrdiff_t row, column
    cdef const ptrdiff_t* rows = cells.rows + out_row * w.kernel_height
    cdef const ptrdiff_t* columns = cells.columns + out_column * w.kernel_width
    for y in range(w.kernel_height):
        row = rows[y]
        for x in range(w.kernel_width):
            column = columns[x]
            taps[i] = cells.outside if (row | column) < 0 else image + row + column
            i += 1
