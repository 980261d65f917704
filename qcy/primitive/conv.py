"""Convolution and transposed convolution of codes."""

import numpy as np

from qcy import _kernels, _validate
from qcy._step import check_apart
from qcy._threads import borrowed
from qcy.primitive.binding import bindable
from qcy.primitive.codes import flip_of, output_target, requantize_q8
from qcy.primitive.packed import PackedWeights
from qcy.primitive.packing import pack_conv_q8, resolve
from qcy.primitive.windows import Window, bring_back, from_nhwc, layout_shape, split_shape, to_nhwc


@bindable
def conv2d_q8(
    x, w, *, x_scale, w_scale=None, out_scale, x_zero_point=0, w_zero_point=0, out_zero_point=0,
    bias=None, stride=1, padding=0, dilation=1, groups=1, layout="NCHW", out_dtype="uint8",
    rounding="nearest_even", clamp=None, out=None, n_threads=None,
):
    """Convolve images of codes and requantize the result.

    The sums are exact, and become codes by equation (9); outside the image the input is 0.0,
    equation (13).

    Parameters
    ----------
    x : (B, C, H, W) array, int8 or uint8; (B, H, W, C) for layout "NHWC"
        Images, codes.
    w : (O, C / groups, KH, KW) array, int8 or uint8, or PackedWeights
        Kernel, in this order for either layout. Packed by `pack_conv_q8` it carries its own
        scale, zero point, bias and groups; a plain array is packed inside the call.
    x_scale, out_scale : float
        Real size of one step of `x` and of the output.
    w_scale : float or (O,) array
        Real size of one step of `w`, one or one per output channel.
    x_zero_point, out_zero_point : int, default 0
        The code of 0.0.
    w_zero_point : int or (O,) array of int, default 0
    bias : (O,) array, int32, optional
        Added to the sums, in units of ``x_scale * w_scale``.
    stride, dilation : int or (int, int), default 1
        Height and width.
    padding : int, (int, int) or (top, left, bottom, right), default 0
    groups : int, default 1
        Groups of channels that are convolved apart; as many as channels is depthwise.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of `x` and of the output; "NHWC" is the faster.
    out_dtype : {"uint8", "int8"}, default "uint8"
    rounding : {"nearest_even", "tflite", "tflite_single"}, default "nearest_even"
    clamp : (int, int), optional
        Smallest and largest output code, as a fused activation needs.
    out : array of `out_dtype`, optional
        Where to write the result; C-ordered, writable, apart from the inputs.
    n_threads : int, optional
        Threads to use. Default: see `qcy.threads`.

    Returns
    -------
    (B, O, OH, OW) array of `out_dtype`; (B, OH, OW, O) for layout "NHWC"

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, a sum could leave int32 (equation 11), or a multiplier is not
        a normal float32.

    Examples
    --------
    >>> x = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    >>> w = np.ones((1, 1, 2, 2), np.int8)
    >>> conv2d_q8(x, w, x_scale=1.0, w_scale=1.0, out_scale=2.0)
    array([[[[ 4,  6],
             [10, 12]]]], dtype=uint8)
    """
    packed = _resolve(w, w_scale, w_zero_point, bias, groups, True)
    window, shape, out_shape = _shapes(x, packed, stride, padding, dilation, layout)
    x = _validate.q8_array("x", x, 4)
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    x_scale = _validate.scale("x_scale", x_scale, 0)
    out_scale = _validate.scale("out_scale", out_scale, 0)
    _validate.choice("rounding", rounding, _validate.ROUNDINGS)
    out = _validate.output("out", out, out_shape, out_dtype)
    target = output_target(out_dtype, out_zero_point, clamp)
    direct = out if layout == "NHWC" else np.empty(_nhwc(out_shape, layout), out_dtype)
    images = to_nhwc(x, layout)
    if rounding != "nearest_even":
        acc = np.empty(direct.shape, np.int32)

        def finish(n_threads):
            requantize_q8(
                acc, packed.multipliers(x_scale, out_scale), zero_point=out_zero_point,
                dtype=out_dtype, rounding=rounding, clamp=clamp, out=direct, n_threads=n_threads,
            )
            return from_nhwc(direct, layout, out)

        return step_of(images, packed, window, x_zero_point, acc), out, finish
    step = step_of(
        images, packed, window, x_zero_point, direct, (float(x_scale), float(out_scale)), target
    )
    return step, out, bring_back(direct, layout, out)


def step_of(images, packed, window, x_zero_point, out, scales=None, target=(0, 0, 255, 0)):
    """Return the step of a convolution of channels-last images.

    Parameters
    ----------
    images : (B, H, W, C) array or Place
    packed : PackedWeights
    window : Window
    x_zero_point : int
    out : array or Place
    scales : (x_scale, out_scale), optional
        For output in codes; without, it is int32.
    target : (zero_point, low, high, flip)
        Of output in codes, as uint8.
    """
    n, height, width, channels = images.shape
    flip = flip_of(images.dtype)
    zero = _validate.code("x_zero_point", x_zero_point, images.dtype) + flip
    kernels = packed._kernels.q8
    sizes = window.sizes(height, width, channels)
    if packed.is_depthwise:
        arrays, is_wild = packed.depthwise(zero, scales)
        kernel = kernels.depthwise if len(arrays) == 3 else kernels.plain_depthwise
        return kernel(images, n, sizes, flip, zero, *arrays, (*target, is_wild), out)
    right = packed.product(zero, scales, target)
    if _is_product(window, packed):
        return kernels.product(
            images, n * height * width, channels, flip, False, False, right, out
        )
    return kernels.convolution(
        images, n, sizes, flip, zero, packed.groups, right, packed.is_whole, out
    )


@bindable
def conv2d_q8_accum(
    x, w, *, x_zero_point=0, w_zero_point=0, bias=None, stride=1, padding=0, dilation=1, groups=1,
    layout="NCHW", out=None, n_threads=None,
):
    """Convolve images of codes into 32-bit sums, exactly.

    Parameters
    ----------
    x, w, x_zero_point, w_zero_point, bias, stride, padding, dilation, groups, layout, n_threads
        As for `conv2d_q8`.
    out : int32 array, optional

    Returns
    -------
    (B, O, OH, OW) array, int32; (B, OH, OW, O) for layout "NHWC"
        Sums in units of ``x_scale * w_scale``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> x = np.arange(25, dtype=np.uint8).reshape(1, 1, 5, 5)
    >>> w = np.array([[[[1, 2], [3, 4]]]], np.int8)
    >>> conv2d_q8_accum(x, w, stride=3)
    array([[[[ 41,  71],
             [191, 221]]]], dtype=int32)
    """
    packed = _resolve(w, None, w_zero_point, bias, groups, False)
    window, shape, out_shape = _shapes(x, packed, stride, padding, dilation, layout)
    x = _validate.q8_array("x", x, 4)
    out = _validate.output("out", out, out_shape, np.int32)
    direct = out if layout == "NHWC" else np.empty(_nhwc(out_shape, layout), np.int32)
    step = step_of(to_nhwc(x, layout), packed, window, x_zero_point, direct)
    return step, out, bring_back(direct, layout, out)


def conv_transpose2d_q8(
    x, w, *, x_scale, w_scale=None, out_scale, x_zero_point=0, w_zero_point=0, out_zero_point=0,
    bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1, layout="NCHW",
    out_dtype="uint8", rounding="nearest_even", clamp=None, out=None, n_threads=None,
):
    """Convolve backwards (the gradient of `conv2d_q8` by its input) and requantize.

    Each input pixel adds its kernel, weighted, to the output. The sums are exact int32 and are
    requantized once, equation (23).

    Parameters
    ----------
    x : (B, C, H, W) array, int8 or uint8; (B, H, W, C) for layout "NHWC"
    w : (C, O / groups, KH, KW) array, int8 or uint8, or PackedWeights
        Kernel: input channels first. Packed by `pack_conv_q8` with ``transposed=True``.
    padding : int, (int, int) or (top, left, bottom, right), default 0
        Cells cut off the output.
    output_padding : int or (int, int), default 0
        Rows and columns added at the bottom and right; less than stride or dilation.
    x_scale, w_scale, out_scale, x_zero_point, w_zero_point, out_zero_point, bias, stride, \
dilation, groups, layout, out_dtype, rounding, clamp, out, n_threads
        As for `conv2d_q8`; `w_scale`, `w_zero_point` and `bias` are per output channel.

    Returns
    -------
    (B, O, OH, OW) array of `out_dtype`; (B, OH, OW, O) for layout "NHWC"
        ``OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> x = np.array([[[[1, 2]]]], np.uint8)
    >>> w = np.array([[[[1, 3]]]], np.int8)
    >>> conv_transpose2d_q8(x, w, x_scale=1.0, w_scale=1.0, out_scale=1.0, stride=(1, 2))
    array([[[[1, 3, 2, 6]]]], dtype=uint8)
    """
    check_apart(out, (x, w, w_scale, w_zero_point, bias))
    x = _validate.q8_array("x", x, 4)
    _validate.choice("layout", layout, _validate.LAYOUTS)
    n, height, width, channels = split_shape(x.shape, layout)
    packed = _resolve(w, w_scale, w_zero_point, bias, groups, True, transposed=True)
    if not packed.transposed:
        raise ValueError("w must be packed by pack_conv_q8 with transposed=True, it is not")
    n_in, n_out, *kernel = packed.shape
    if n_in != channels:
        raise ValueError(f"w must have {channels} input channels, got shape {packed.shape}")
    n_out *= packed.groups
    window = Window.of(tuple(kernel), stride, padding, dilation)
    size = _transposed_size(window, height, width, padding, output_padding)
    x_scale = _validate.scale("x_scale", x_scale, 0)
    out_scale = _validate.scale("out_scale", out_scale, 0)
    multiplier = packed.multipliers(x_scale, out_scale)
    _validate.choice("rounding", rounding, _validate.ROUNDINGS)
    out_shape = layout_shape(layout, n, *size, n_out)
    out = _validate.output(
        "out", out, out_shape, _validate.q8_dtype("out_dtype", out_dtype)
    )
    output_target(out.dtype, out_zero_point, clamp)         # checks them
    columns = conv2d_q8_accum(
        to_nhwc(x, layout), packed.inner, x_zero_point=x_zero_point, layout="NHWC",
        n_threads=n_threads,
    )
    sums = np.empty((n, *size, n_out), np.int32)
    # The forward convolution whose gradient this is has the output's size as its input's.
    sizes = (*size, n_out, height, width, *window.kernel, *window.stride, *window.dilation,
             *window.padding[:2])
    with borrowed(n_threads) as count:
        _kernels.active.plain.col2im(
            columns.reshape(n * height * width, columns.shape[3]), sizes, True, 0, sums, count
        )
    codes = requantize_q8(
        sums, multiplier, zero_point=out_zero_point, dtype=out.dtype, bias=packed.bias,
        rounding=rounding, clamp=clamp, n_threads=n_threads,
    )
    return from_nhwc(codes, layout, out)


def _transposed_size(window, height, width, padding, output_padding):
    """Return the output's (height, width) of a transposed convolution."""
    extra = _validate.pair("output_padding", output_padding, 0)
    for axis in range(2):
        if extra[axis] >= max(window.stride[axis], window.dilation[axis]):
            raise ValueError(
                f"output_padding must be less than stride or dilation, got {output_padding}"
            )
    size = [
        (length - 1) * window.stride[axis] - window.padding[axis] - window.padding[axis + 2]
        + window.dilation[axis] * (window.kernel[axis] - 1) + extra[axis] + 1
        for axis, length in enumerate((height, width))
    ]
    if min(size) < 1:
        raise ValueError(f"padding must leave some output, got {padding} for {size}")
    return size


def _resolve(w, scale, zero_point, bias, groups, needs_scale, transposed=False):
    if isinstance(w, PackedWeights) and w.groups is not None and groups not in (1, w.groups):
        raise ValueError(f"groups must be the {w.groups} that w was packed with, got {groups}")
    return resolve(
        ("w", "w_scale", "w_zero_point"), w, scale,
        zero_point if np.ndim(zero_point) or zero_point else None, bias,
        lambda codes: pack_conv_q8(
            codes, w_zero_point=zero_point, bias=bias, w_scale=scale, groups=groups,
            transposed=transposed,
        ),
        needs_scale,
    )


def _shapes(x, packed, stride, padding, dilation, layout):
    """Check a convolution; return its window, (B, H, W, C) and the output's shape."""
    _validate.choice("layout", layout, _validate.LAYOUTS)
    if packed.groups is None:
        raise ValueError("w must be packed by pack_conv_q8, it was packed for a matrix product")
    if packed.transposed:
        raise ValueError("w must not be packed for a transposed convolution")
    shape = x.shape if hasattr(x, "shape") else np.shape(x)
    if len(shape) != 4:
        raise ValueError(f"x must have 4 dimensions, got shape {shape}")
    window = Window.of(packed.shape[2:], stride, padding, dilation)
    n, height, width, channels = split_shape(shape, layout)
    if channels != packed.shape[1] * packed.groups:
        raise ValueError(
            f"x must have {packed.shape[1] * packed.groups} channels for w of shape "
            f"{packed.shape} and groups {packed.groups}, got {channels}"
        )
    out = layout_shape(layout, n, *window.out_size(height, width), packed.shape[0])
    return window, (n, height, width, channels), out


def _nhwc(shape, layout):
    return layout_shape("NHWC", *split_shape(shape, layout))


def _is_product(window, packed):
    """Whether a convolution is a plain matrix product over pixels."""
    return (
        packed.groups == 1 and window.kernel == (1, 1) and window.stride == (1, 1)
        and not any(window.padding)
    )
