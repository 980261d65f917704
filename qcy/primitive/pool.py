"""Pooling of codes: the largest, or the mean, of windows."""

import numpy as np

from qcy import _kernels, _validate
from qcy.primitive.binding import bindable
from qcy.primitive.codes import flip_of, output_target
from qcy.primitive.packed import MAX_SUM
from qcy.primitive.windows import Window, bring_back, layout_shape, split_shape, to_nhwc


@bindable
def max_pool2d_q8(
    x, kernel_size, *, stride=None, padding=0, dilation=1, layout="NCHW", out=None, n_threads=None
):
    """Take the largest code of each window; cells outside the image do not take part.

    Parameters
    ----------
    x : (B, C, H, W) array, int8 or uint8; (B, H, W, C) for layout "NHWC"
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        Default: `kernel_size`.
    padding : int, (int, int) or (top, left, bottom, right), default 0
        Less than the dilated kernel, so that each window has a cell inside.
    dilation : int or (int, int), default 1
    layout : {"NCHW", "NHWC"}, default "NCHW"
    out : array of `x`'s dtype, optional
    n_threads : int, optional

    Returns
    -------
    (B, C, OH, OW) array of `x`'s dtype; (B, OH, OW, C) for layout "NHWC"
        Its scale and zero point are those of `x`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    >>> max_pool2d_q8(x, 2)[0, 0]
    array([[ 5,  7],
           [13, 15]], dtype=uint8)
    """
    x = _validate.q8_array("x", x, 4)
    _validate.choice("layout", layout, _validate.LAYOUTS)
    sizes, out_shape = _sizes(x, kernel_size, stride, padding, dilation, layout)
    out = _validate.output("out", out, out_shape, x.dtype)
    direct = _direct(out, layout)
    step = _kernels.active.q8.max_pool(
        to_nhwc(x, layout), len(x), sizes, flip_of(x.dtype), direct
    )
    return step, out, bring_back(direct, layout, out)


@bindable
def avg_pool2d_q8(
    x, kernel_size, *, x_scale, out_scale, x_zero_point=0, out_zero_point=0, stride=None,
    padding=0, count_include_pad=False, layout="NCHW", out=None, n_threads=None,
):
    """Take the mean of each window and requantize it.

    Exact int32 sums of ``code - x_zero_point``, then equation (9) with
    ``multiplier = x_scale / (count * out_scale)`` in float32, equation (16).

    Parameters
    ----------
    x : (B, C, H, W) array, int8 or uint8; (B, H, W, C) for layout "NHWC"
    kernel_size : int or (int, int)
    x_scale, out_scale : float
    x_zero_point, out_zero_point : int, default 0
        Of `x`'s dtype, which is also the output's.
    stride : int or (int, int), optional
        Default: `kernel_size`.
    padding : int, (int, int) or (top, left, bottom, right), default 0
        Less than the kernel.
    count_include_pad : bool, default False
        Whether `count` is the whole kernel also where it reaches outside the image.
    layout : {"NCHW", "NHWC"}, default "NCHW"
    out : array of `x`'s dtype, optional
    n_threads : int, optional

    Returns
    -------
    (B, C, OH, OW) array of `x`'s dtype; (B, OH, OW, C) for layout "NHWC"

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a multiplier is not a normal float32.

    Examples
    --------
    >>> x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    >>> avg_pool2d_q8(x, 4, x_scale=1.0, out_scale=0.5)
    array([[[[15]]]], dtype=uint8)
    """
    x = _validate.q8_array("x", x, 4)
    _validate.choice("layout", layout, _validate.LAYOUTS)
    x_zero_point = _validate.code("x_zero_point", x_zero_point, x.dtype)
    out_zero_point = _validate.code("out_zero_point", out_zero_point, x.dtype)
    x_scale = _validate.scale("x_scale", x_scale, 0)
    out_scale = _validate.scale("out_scale", out_scale, 0)
    sizes, out_shape = _sizes(x, kernel_size, stride, padding, 1, layout)
    n_cells = sizes[5] * sizes[6]
    if 255 * n_cells > MAX_SUM:
        raise ValueError(
            f"kernel_size must cover at most {MAX_SUM // 255} cells, whose sum fits int32, "
            f"got {n_cells}"
        )
    counts = np.arange(n_cells + 1, dtype=np.float32)
    counts[0] = 1
    with np.errstate(over="ignore", under="ignore"):
        multipliers = (x_scale / (counts * out_scale)).astype(np.float32)
    _validate.multipliers(
        multipliers, ("x_scale", x_scale), ("out_scale", out_scale), place="cell count"
    )
    out = _validate.output("out", out, out_shape, x.dtype)
    direct = _direct(out, layout)
    flip = flip_of(x.dtype)
    is_wild = 255 * n_cells * float(multipliers[1]) >= 2.0**31
    target = (*output_target(x.dtype, out_zero_point), is_wild)
    step = _kernels.active.q8.avg_pool(
        to_nhwc(x, layout), len(x), sizes, flip, bool(count_include_pad), x_zero_point + flip,
        multipliers, target, direct,
    )
    return step, out, bring_back(direct, layout, out)


def _sizes(x, kernel_size, stride, padding, dilation, layout):
    """Return what the kernels need to know of a pooling, and the output's shape."""
    window = Window.of(kernel_size, kernel_size if stride is None else stride, padding, dilation)
    reach = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
    if any(side >= reach[i % 2] for i, side in enumerate(window.padding)):
        raise ValueError(f"padding must be less than the kernel {window.kernel}, got {padding}")
    n, height, width, channels = split_shape(x.shape, layout)
    sizes = window.sizes(height, width, channels)
    if not window.always_meets(height, width):
        raise ValueError(
            f"each window must have a cell inside the image, got padding {padding}, dilation "
            f"{dilation} over {height}x{width}"
        )
    return sizes, layout_shape(layout, n, *sizes[3:5], channels)


def _direct(out, layout):
    """Return where a channels-last result goes: `out` itself if it is channels last."""
    if layout == "NHWC":
        return out
    n, height, width, channels = split_shape(out.shape, layout)
    return np.empty((n, height, width, channels), out.dtype)
