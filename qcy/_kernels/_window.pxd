"""The geometry that convolution and pooling share: windows that slide over channels-last images."""

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
    (
        window.height, window.width, window.channels, window.out_height, window.out_width,
        window.kernel_height, window.kernel_width, window.stride_height, window.stride_width,
        window.dilation_height, window.dilation_width, window.pad_top, window.pad_left,
    ) = sizes
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
