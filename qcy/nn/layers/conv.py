"""Convolution and transposed convolution, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import (
    ACTIVATIONS, Layer, QuantizedLayer, activate, activation_clamp,
)
from qcy.nn.layers.weights import (
    WEIGHT_SCHEME, PackedProduct, channel_array, check_multipliers, float_array, quantize_weight,
)
from qcy.primitive.windows import Window, from_nhwc, split_shape, to_nhwc

def float_windows(x, window):
    """Return the windows of (B, H, W, C) images as a view: (B, OH, OW, C, KH, KW)."""
    height, width = window.kernel
    (stride_y, stride_x), (step_y, step_x) = window.stride, window.dilation
    reach = (step_y * (height - 1) + 1, step_x * (width - 1) + 1)
    views = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(1, 2))
    return views[:, ::stride_y, ::stride_x, :, ::step_y, ::step_x]


def pad_nhwc(x, padding, value=0.0):
    """Return (B, H, W, C) images with cells added: top, left, bottom, right."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    return np.pad(
        x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value
    )


class Conv2D(Layer):
    """Convolution of images.

    Parameters
    ----------
    weight : (O, C / groups, KH, KW) array
    bias : (O,) array, optional
    stride, dilation : int or (int, int), default 1
    padding : int, (int, int) or (top, left, bottom, right), default 0
    groups : int, default 1
        Groups of channels that are convolved apart; as many as channels is depthwise.
    activation : {None, "relu", "relu6"}
        Fused into the layer.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of the images; weights are the same for either.

    Raises
    ------
    TypeError, ValueError
        If shapes disagree or a weight is not finite.

    Examples
    --------
    >>> conv = Conv2D(np.ones((8, 3, 3, 3)), stride=2, padding=1)
    >>> conv(np.zeros((1, 3, 32, 32))).shape
    (1, 8, 16, 16)
    """

    SETTINGS = ("stride", "padding", "dilation", "groups", "activation", "layout")
    ARRAYS = ("weight", "bias")

    def __init__(
        self, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None,
        layout="NCHW",
    ):
        self.weight = float_array("weight", weight, 4)
        self.bias = channel_array("bias", bias, self.weight.shape[0])
        self._window = Window.of(self.weight.shape[2:], stride, padding, dilation)
        self.stride, self.padding = self._window.stride, self._window.padding
        self.dilation = self._window.dilation
        self.groups = _validate.integer("groups", groups, 1)
        if self.weight.shape[0] % self.groups:
            raise ValueError(
                f"groups must divide the {self.weight.shape[0]} output channels, got {groups}"
            )
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        # Imported when they are first needed: who only runs 8-bit models starts sooner.
        from qcy.nn.operators.pooling import Windows
        from qcy.nn.operators.products import convolve

        _, height, width, _ = _image_shape(x, self.layout, self.weight.shape[1] * self.groups)
        self._window.out_size(height, width)
        windows = Windows.over(
            (height, width), self._window.kernel, self.stride, self.dilation, self.padding,
        )
        images = x if self.layout == "NCHW" else from_nhwc(x, "NCHW")
        y = convolve(images, self.weight, windows, self.groups)
        if self.bias is not None:
            y += self.bias[:, None, None]
        y = activate(y, self.activation)
        return y if self.layout == "NCHW" else to_nhwc(y, "NCHW")

    def quantized(self, in_params, out_params, weight_scheme=WEIGHT_SCHEME):
        """Return a `Conv2DQuantized`: int8 weights, per output channel unless told otherwise."""
        codes, params, bias = quantize_weight(
            self.weight, 0, self.bias, in_params, out_params, weight_scheme
        )
        return Conv2DQuantized(
            codes, params.scale, bias, in_params, out_params,
            weight_zero_point=params.zero_point, **self.settings(),
        )


class Conv2DQuantized(PackedProduct, QuantizedLayer):
    """8-bit `Conv2D`: exact int32 sums, int32 bias, one rounding at the end.

    Parameters
    ----------
    weight : (O, C / groups, KH, KW) array, int8
    weight_scale : float or (O,) array
    bias : (O,) array, int32, or None
        In units of ``in_params.scale * weight_scale``.
    in_params, out_params : QuantizationParams
    weight_zero_point : int or (O,) array of int, default 0
    stride, padding, dilation, groups, activation, layout
        As for `Conv2D`.
    """

    SETTINGS = ("in_params", "out_params", *Conv2D.SETTINGS)
    ARRAYS = ("weight", "weight_scale", "bias", "weight_zero_point")

    def __init__(
        self, weight, weight_scale, bias, in_params, out_params, *, weight_zero_point=0, stride=1,
        padding=0, dilation=1, groups=1, activation=None, layout="NCHW",
    ):
        super().__init__(in_params, out_params)
        self._packed = primitive.pack_conv_q8(
            weight, w_zero_point=weight_zero_point, bias=bias, w_scale=weight_scale, groups=groups
        )
        window = Window.of(self._packed.shape[2:], stride, padding, dilation)
        self.stride, self.padding, self.dilation = window.stride, window.padding, window.dilation
        self.groups = self._packed.groups
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        check_multipliers(self.in_params[0], out_params, self._packed.scale)
        self._clamp = activation_clamp(activation, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return primitive.conv2d_q8(
            x, self._packed, x_scale=self.in_params[0].scale,
            x_zero_point=self.in_params[0].zero_point, out_scale=self.out_params.scale,
            out_zero_point=self.out_params.zero_point, out_dtype=self.out_params.dtype,
            stride=self.stride, padding=self.padding, dilation=self.dilation, layout=self.layout,
            clamp=self._clamp, out=out,
        )


class ConvTranspose2D(Layer):
    """Transposed convolution of images: each pixel adds its kernel, weighted, to the output.

    Parameters
    ----------
    weight : (C, O / groups, KH, KW) array
        Input channels first.
    bias : (O,) array, optional
    stride, dilation : int or (int, int), default 1
    padding : int, (int, int) or (top, left, bottom, right), default 0
        Cells cut off the output.
    output_padding : int or (int, int), default 0
        Rows and columns added at the bottom and right.
    groups : int, default 1
    activation : {None, "relu", "relu6"}
    layout : {"NCHW", "NHWC"}, default "NCHW"

    Raises
    ------
    TypeError, ValueError
        If shapes disagree or a weight is not finite.

    Examples
    --------
    >>> up = ConvTranspose2D(np.ones((4, 2, 2, 2)), stride=2)
    >>> up(np.zeros((1, 4, 5, 5))).shape
    (1, 2, 10, 10)
    """

    SETTINGS = (
        "stride", "padding", "output_padding", "dilation", "groups", "activation", "layout",
    )
    ARRAYS = ("weight", "bias")

    def __init__(
        self, weight, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1,
        activation=None, layout="NCHW",
    ):
        self.weight = float_array("weight", weight, 4)
        self.groups = _input_groups(self.weight, groups)
        self.bias = channel_array("bias", bias, self.weight.shape[1] * self.groups)
        window = Window.of(self.weight.shape[2:], stride, padding, dilation)
        self.stride, self.padding, self.dilation = window.stride, window.padding, window.dilation
        self.output_padding = _output_padding(output_padding, window)
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        n, height, width, _ = _image_shape(x, self.layout, self.weight.shape[0])
        x = to_nhwc(x, self.layout)
        (top, left, bottom, right), (step_y, step_x) = self.padding, self.dilation
        kernel_y, kernel_x = self.weight.shape[2:]
        full = [
            (size - 1) * stride + step * (kernel - 1) + 1 + extra
            for size, stride, step, kernel, extra in zip(
                (height, width), self.stride, self.dilation, (kernel_y, kernel_x),
                self.output_padding, strict=True,
            )
        ]
        n_out = self.weight.shape[1] * self.groups
        y = np.zeros((n, *full, n_out), np.float32)
        outs = np.split(y, self.groups, axis=3)
        for part, weight, out in zip(
            np.split(x, self.groups, axis=3), np.split(self.weight, self.groups), outs, strict=True
        ):
            for i in range(kernel_y):
                for j in range(kernel_x):
                    rows = slice(i * step_y, i * step_y + (height - 1) * self.stride[0] + 1,
                                 self.stride[0])
                    cells = slice(j * step_x, j * step_x + (width - 1) * self.stride[1] + 1,
                                  self.stride[1])
                    out[:, rows, cells] += part @ weight[:, :, i, j]
        if top + bottom >= full[0] or left + right >= full[1]:
            raise ValueError(f"padding must leave some output, got {self.padding} for {full}")
        y = y[:, top : full[0] - bottom, left : full[1] - right]
        y = y + (0 if self.bias is None else self.bias)
        return from_nhwc(activate(y, self.activation), self.layout)

    def quantized(self, in_params, out_params, weight_scheme=WEIGHT_SCHEME):
        """Return a `ConvTranspose2DQuantized`: int8 weights, per output channel by default."""
        # Output channels lie in two axes, groups and axis 1: bring them together, and back.
        n_in, n_out, height, width = self.weight.shape
        grouped = self.weight.reshape(self.groups, n_in // self.groups, n_out, height, width)
        by_out = np.ascontiguousarray(grouped.transpose(0, 2, 1, 3, 4)).reshape(
            self.groups * n_out, n_in // self.groups, height, width
        )
        codes, params, bias = quantize_weight(
            by_out, 0, self.bias, in_params, out_params, weight_scheme
        )
        codes = codes.reshape(self.groups, n_out, n_in // self.groups, height, width)
        codes = np.ascontiguousarray(codes.transpose(0, 2, 1, 3, 4)).reshape(self.weight.shape)
        return ConvTranspose2DQuantized(
            codes, params.scale, bias, in_params, out_params,
            weight_zero_point=params.zero_point, **self.settings(),
        )


class ConvTranspose2DQuantized(PackedProduct, QuantizedLayer):
    """8-bit `ConvTranspose2D`: int32 sums over all taps, then one rounding, equation (23).

    Parameters
    ----------
    weight : (C, O / groups, KH, KW) array, int8
    weight_scale : float or (O,) array
    bias : (O,) array, int32, or None
    in_params, out_params : QuantizationParams
    weight_zero_point : int or (O,) array of int, default 0
    stride, padding, output_padding, dilation, groups, activation, layout
        As for `ConvTranspose2D`.
    """

    SETTINGS = ("in_params", "out_params", *ConvTranspose2D.SETTINGS)
    IS_RECORDED = False
    ARRAYS = ("weight", "weight_scale", "bias", "weight_zero_point")

    def __init__(
        self, weight, weight_scale, bias, in_params, out_params, *, weight_zero_point=0, stride=1,
        padding=0, output_padding=0, dilation=1, groups=1, activation=None, layout="NCHW",
    ):
        super().__init__(in_params, out_params)
        self._packed = primitive.pack_conv_q8(
            weight, w_zero_point=weight_zero_point, bias=bias, w_scale=weight_scale,
            groups=groups, transposed=True,
        )
        window = Window.of(self._packed.shape[2:], stride, padding, dilation)
        self.stride, self.padding, self.dilation = window.stride, window.padding, window.dilation
        self.groups = self._packed.groups
        self.output_padding = _output_padding(output_padding, window)
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        check_multipliers(self.in_params[0], out_params, self.weight_scale)
        self._clamp = activation_clamp(activation, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return primitive.conv_transpose2d_q8(
            x, self._packed, x_scale=self.in_params[0].scale,
            x_zero_point=self.in_params[0].zero_point, out_scale=self.out_params.scale,
            out_zero_point=self.out_params.zero_point, out_dtype=self.out_params.dtype,
            stride=self.stride, padding=self.padding, output_padding=self.output_padding,
            dilation=self.dilation, layout=self.layout, clamp=self._clamp, out=out,
        )


def _input_groups(weight, groups):
    """Return `groups` if it divides the input channels of a transposed convolution's weight."""
    groups = _validate.integer("groups", groups, 1)
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide the {weight.shape[0]} input channels, got {groups}")
    return groups


def _output_padding(value, window):
    """Return rows and columns to add: fewer than a step, or they would belong to more input."""
    extra = _validate.pair("output_padding", value, 0)
    limits = map(max, window.stride, window.dilation)
    if any(n >= limit for n, limit in zip(extra, limits, strict=True)):
        raise ValueError(f"output_padding must be less than stride or dilation, got {value}")
    return extra


def _image_shape(x, layout, channels):
    """Return (B, H, W, C) of a batch of images, or say what is wrong with it."""
    if x.ndim != 4:
        raise ValueError(f"x must have 4 dimensions, {layout}, got shape {x.shape}")
    shape = split_shape(x.shape, layout)
    if shape[3] != channels:
        raise ValueError(f"x must have {channels} channels, {layout}, got shape {x.shape}")
    return shape
