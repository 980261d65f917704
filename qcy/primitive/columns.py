"""Between images and matrices of windows: im2col and col2im."""

import numpy as np

from qcy import _kernels, _validate
from qcy._step import check_apart
from qcy._threads import borrowed
from qcy.primitive.windows import Window, split_shape


def im2col_q8(
    x, kernel_size, *, zero_point, stride=1, padding=0, dilation=1, layout="NCHW", out=None,
    n_threads=None,
):
    """Lay out the windows of images as rows of a matrix.

    Parameters
    ----------
    x : (B, C, H, W) array, int8 or uint8; (B, H, W, C) for layout "NHWC"
        Images, codes.
    kernel_size : int or (int, int)
        Height and width of the windows.
    zero_point : int
        What stands outside the image: the code of 0.0, equation (13).
    stride, dilation : int or (int, int), default 1
    padding : int, (int, int) or (top, left, bottom, right), default 0
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of `x`.
    out : (B * OH * OW, C * KH * KW) array of `x`'s dtype, optional
    n_threads : int, optional

    Returns
    -------
    (B * OH * OW, C * KH * KW) array
        A row per output pixel: channels, kernel rows, kernel columns, for either layout.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> x = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> im2col_q8(x, 2, zero_point=0)
    array([[0, 1, 3, 4],
           [1, 2, 4, 5],
           [3, 4, 6, 7],
           [4, 5, 7, 8]], dtype=uint8)
    """
    check_apart(out, (x,))
    x = _validate.q8_array("x", x, 4)
    _validate.choice("layout", layout, _validate.LAYOUTS)
    window = Window.of(kernel_size, stride, padding, dilation)
    zero_point = _validate.code("zero_point", zero_point, x.dtype)
    n, height, width, channels = split_shape(x.shape, layout)
    sizes = window.sizes(height, width, channels)
    shape = _matrix_shape(n, sizes)
    out = _validate.output("out", out, shape, x.dtype)
    with borrowed(n_threads) as n_borrowed:
        _kernels.active.plain.im2col(
            x.view(np.uint8), sizes, layout == "NHWC", zero_point & 0xFF, out.view(np.uint8),
            n_borrowed,
        )
    return out


def col2im_q8(
    columns, shape, kernel_size, *, zero_point, stride=1, padding=0, dilation=1, layout="NCHW",
    out=None, n_threads=None,
):
    """Sum a matrix of windows back into images, less the zero point: the transpose of `im2col_q8`.

    Parameters
    ----------
    columns : (B * OH * OW, C * KH * KW) array, int8 or uint8
        Codes, a row per output pixel: channels, kernel rows, kernel columns.
    shape : (int, int, int, int)
        Shape of the images, in `layout`.
    kernel_size, stride, padding, dilation, layout, n_threads
        As for `im2col_q8`.
    zero_point : int
        The code of 0.0 of `columns`.
    out : int32 array of `shape`, optional

    Returns
    -------
    int32 array of `shape`
        Sums of ``code - zero_point``, equation (23): they would not fit 8 bits.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> columns = np.ones((4, 4), np.uint8)
    >>> col2im_q8(columns, (1, 1, 3, 3), 2, zero_point=0)[0, 0]
    array([[1, 2, 1],
           [2, 4, 2],
           [1, 2, 1]], dtype=int32)
    """
    check_apart(out, (columns,))
    columns = _validate.q8_array("columns", columns, 2)
    _validate.choice("layout", layout, _validate.LAYOUTS)
    window = Window.of(kernel_size, stride, padding, dilation)
    zero_point = _validate.code("zero_point", zero_point, columns.dtype)
    if np.ndim(shape) != 1 or len(shape) != 4:
        raise ValueError(f"shape must have 4 numbers, got {shape}")
    shape = tuple(_validate.integer("shape", size, 0) for size in shape)
    n, height, width, channels = split_shape(shape, layout)
    sizes = window.sizes(height, width, channels)
    if columns.shape != _matrix_shape(n, sizes):
        raise ValueError(
            f"columns must have shape {_matrix_shape(n, sizes)}, got {columns.shape}"
        )
    out = _validate.output("out", out, shape, np.int32)
    with borrowed(n_threads) as n_borrowed:
        _kernels.active.plain.col2im(
            columns, sizes, layout == "NHWC", zero_point, out, n_borrowed
        )
    return out


def _matrix_shape(n, sizes):
    _, _, channels, out_height, out_width, kernel_height, kernel_width, *_ = sizes
    return n * out_height * out_width, channels * kernel_height * kernel_width
