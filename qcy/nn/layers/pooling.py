"""Pooling layers, in float and in 8 bits."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, QuantizedLayer
from qcy.nn.layers.conv import float_windows, pad_nhwc
from qcy.primitive.windows import Window, from_nhwc, to_nhwc


def _pool_window(kernel_size, stride, padding, dilation=1):
    """Return the window of a pooling, whose padding must leave every window a cell inside."""
    window = Window.of(kernel_size, kernel_size if stride is None else stride, padding, dilation)
    reach = [d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True)]
    if any(side >= reach[i % 2] for i, side in enumerate(window.padding)):
        raise ValueError(f"padding must be less than the kernel {window.kernel}, got {padding}")
    return window


def _check_image(x):
    if x.ndim != 4:
        raise ValueError(f"x must have 4 dimensions, got shape {x.shape}")


class MaxPool2D(Layer):
    """The largest of each window of an image; cells outside do not take part.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        Default: `kernel_size`.
    padding : int, (int, int) or (top, left, bottom, right), default 0
    dilation : int or (int, int), default 1
    layout : {"NCHW", "NHWC"}, default "NCHW"

    Examples
    --------
    >>> MaxPool2D(2)(np.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    SETTINGS = ("kernel_size", "stride", "padding", "dilation", "layout")
    KEEPS_PARAMS = True

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, *, layout="NCHW"):
        self._window = _pool_window(kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = self._window.kernel, self._window.stride
        self.padding, self.dilation = self._window.padding, self._window.dilation
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        _check_image(x)
        x = to_nhwc(x, self.layout)
        self._window.out_size(*x.shape[1:3])
        if not self._window.always_meets(*x.shape[1:3]):
            raise ValueError(
                f"each window must have a cell inside the image, got padding {self.padding}, "
                f"dilation {self.dilation} over {x.shape[1]}x{x.shape[2]}"
            )
        windows = float_windows(pad_nhwc(x, self.padding, -np.inf), self._window)
        return from_nhwc(windows.max(axis=(4, 5)), self.layout)

    def quantized(self, in_params, out_params=None):
        """Return a `MaxPool2DQuantized`; its output keeps the input's parameters."""
        return MaxPool2DQuantized(in_params, out_params or in_params, **self.settings())


class MaxPool2DQuantized(QuantizedLayer):
    """8-bit `MaxPool2D`: the largest code, parameters unchanged, equations (13) and (14)."""

    SETTINGS = ("in_params", "out_params", *MaxPool2D.SETTINGS)
    KEEPS_PARAMS = True

    def __init__(
        self, in_params, out_params, kernel_size, stride=None, padding=0, dilation=1, *,
        layout="NCHW",
    ):
        super().__init__(in_params, out_params)
        if self.in_params[0] != out_params:
            raise ValueError(
                f"out_params must be the input's, {self.in_params[0]}, got {out_params}"
            )
        window = _pool_window(kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = window.kernel, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return primitive.max_pool2d_q8(
            x, self.kernel_size, stride=self.stride, padding=self.padding,
            dilation=self.dilation, layout=self.layout, out=out,
        )


class AvgPool2D(Layer):
    """The mean of each window of an image.

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        Default: `kernel_size`.
    padding : int, (int, int) or (top, left, bottom, right), default 0
    count_include_pad : bool, default False
        Whether cells outside the image count, as zeros.
    layout : {"NCHW", "NHWC"}, default "NCHW"

    Examples
    --------
    >>> AvgPool2D(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]], dtype=float32)
    """

    SETTINGS = ("kernel_size", "stride", "padding", "count_include_pad", "layout")

    def __init__(
        self, kernel_size, stride=None, padding=0, count_include_pad=False, *, layout="NCHW"
    ):
        self._window = _pool_window(kernel_size, stride, padding)
        self.kernel_size, self.stride = self._window.kernel, self._window.stride
        self.padding = self._window.padding
        self.count_include_pad = bool(count_include_pad)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        _check_image(x)
        x = to_nhwc(x, self.layout)
        self._window.out_size(*x.shape[1:3])
        sums = float_windows(pad_nhwc(x, self.padding), self._window).sum(axis=(4, 5))
        if self.count_include_pad:
            counts = np.float32(np.prod(self.kernel_size))
        else:
            inside = pad_nhwc(np.ones((1, *x.shape[1:3], 1), np.float32), self.padding)
            counts = float_windows(inside, self._window).sum(axis=(4, 5))
        return from_nhwc(sums / counts, self.layout)

    def quantized(self, in_params, out_params):
        """Return an `AvgPool2DQuantized`."""
        return AvgPool2DQuantized(in_params, out_params, **self.settings())


class AvgPool2DQuantized(QuantizedLayer):
    """8-bit `AvgPool2D`: exact sums, one rounding, equation (16)."""

    SETTINGS = ("in_params", "out_params", *AvgPool2D.SETTINGS)

    def __init__(
        self, in_params, out_params, kernel_size, stride=None, padding=0, count_include_pad=False,
        *, layout="NCHW",
    ):
        super().__init__(in_params, out_params)
        _check_one_dtype(self)
        window = _pool_window(kernel_size, stride, padding)
        self.kernel_size, self.stride, self.padding = window.kernel, window.stride, window.padding
        self.count_include_pad = bool(count_include_pad)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        _check_means(self, math.prod(self.kernel_size))

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return _mean_codes(
            self, x, self.kernel_size, out, stride=self.stride, padding=self.padding,
            count_include_pad=self.count_include_pad,
        )


class GlobalAvgPool2D(Layer):
    """The mean of each channel of an image: (B, C, H, W) to (B, C, 1, 1).

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}, default "NCHW"

    Examples
    --------
    >>> GlobalAvgPool2D()(np.ones((2, 3, 7, 7))).shape
    (2, 3, 1, 1)
    """

    SETTINGS = ("layout",)

    def __init__(self, *, layout="NCHW"):
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        _check_image(x)
        if self.layout == "NCHW":
            return x.mean(axis=(2, 3), keepdims=True)
        # Summed in the same order, so that either layout gives the same bits.
        return to_nhwc(from_nhwc(x, "NCHW").mean(axis=(2, 3), keepdims=True), "NCHW")

    def quantized(self, in_params, out_params):
        """Return a `GlobalAvgPool2DQuantized`."""
        return GlobalAvgPool2DQuantized(in_params, out_params, layout=self.layout)


class GlobalAvgPool2DQuantized(QuantizedLayer):
    """8-bit `GlobalAvgPool2D`: exact sums, one rounding, equation (16)."""

    SETTINGS = ("in_params", "out_params", "layout")

    def __init__(self, in_params, out_params, *, layout="NCHW"):
        super().__init__(in_params, out_params)
        _check_one_dtype(self)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        _check_means(self, 1)           # how many cells there are, each call tells

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_image(x)
        size = x.shape[2:] if self.layout == "NCHW" else x.shape[1:3]
        return _mean_codes(self, x, size, out)


def _check_one_dtype(layer):
    if layer.in_params[0].dtype != layer.out_params.dtype:
        raise TypeError(
            f"out_params must be {layer.in_params[0].dtype} as the input, got "
            f"{layer.out_params.dtype}"
        )


def _check_means(layer, n_cells):
    """Check that equation (16) has a multiplier for the mean of up to `n_cells` cells."""
    source, target = layer.in_params[0].scale, layer.out_params.scale
    counts = np.maximum(np.arange(n_cells + 1, dtype=np.float32), 1)
    with np.errstate(over="ignore", under="ignore"):
        multipliers = source / (counts * target)
    _validate.multipliers(
        multipliers, ("input scale", source), ("output scale", target), place="cell count"
    )


def _mean_codes(layer, x, kernel_size, out, **window):
    source, target = layer.in_params[0], layer.out_params
    codes = primitive.avg_pool2d_q8(
        x, kernel_size, x_scale=source.scale, x_zero_point=source.zero_point,
        out_scale=target.scale, out_zero_point=target.zero_point, layout=layer.layout, out=out,
        **window,
    )
    return np.maximum(codes, target.qmin, out=codes) if target.narrow_range else codes
