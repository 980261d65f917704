"""Normalization, of channels by constants and of rows by themselves, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import (
    ACTIVATIONS, Layer, QuantizedLayer, activate, activation_clamp, frozen,
)
from qcy.nn.layers.weights import (
    channel_array, check_multipliers, float_array, quantize_weight,
)
from qcy.primitive.norm import MOST_FEATURES, in_steps


class BatchNorm(Layer):
    """``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta``, per channel.

    After a convolution or a dense layer `quantize_model` folds it away.

    Parameters
    ----------
    gamma, beta, mean, variance : (C,) array
    epsilon : float, default 1e-5
    activation : {None, "relu", "relu6"}
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of images; arrays with fewer than 4 axes have their channels in axis 1.

    Raises
    ------
    TypeError, ValueError
        If lengths differ, a value is not finite, or a variance plus epsilon is not positive.

    Examples
    --------
    >>> norm = BatchNorm(gamma=[2.0], beta=[1.0], mean=[0.0], variance=[1.0], epsilon=0.0)
    >>> norm([[3.0]])
    array([[7.]], dtype=float32)
    """

    SETTINGS = ("epsilon", "activation", "layout")
    ARRAYS = ("gamma", "beta", "mean", "variance")

    def __init__(
        self, gamma, beta, mean, variance, *, epsilon=1e-5, activation=None, layout="NCHW"
    ):
        self.gamma = float_array("gamma", gamma, 1)
        self.beta = channel_array("beta", beta, self.gamma.size)
        self.mean = channel_array("mean", mean, self.gamma.size)
        self.variance = channel_array("variance", variance, self.gamma.size)
        self.epsilon = _validate.real("epsilon", epsilon)
        if not (self.variance + self.epsilon > 0).all():
            raise ValueError(
                f"variance + epsilon must be positive, got {self.variance.min() + self.epsilon}"
            )
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def affine(self):
        """Return float64 (factor, offset) per channel: ``y = factor * x + offset``."""
        factor = self.gamma / np.sqrt(self.variance.astype(np.float64) + self.epsilon)
        return factor, self.beta - factor * self.mean

    def _forward(self, x):
        shape = _channel_shape(x, self.layout, self.gamma.size)
        factor, offset = (part.astype(np.float32).reshape(shape) for part in self.affine())
        return activate(x * factor + offset, self.activation)

    def quantized(self, in_params, out_params):
        """Return a `BatchNormQuantized`: a 1x1 depthwise product with an int32 bias."""
        factor, offset = (part.astype(np.float32) for part in self.affine())
        codes, params, bias = quantize_weight(
            factor.reshape(-1, 1, 1, 1), 0, offset, in_params, out_params
        )
        return BatchNormQuantized(
            codes.reshape(-1), params.scale, bias, in_params, out_params,
            activation=self.activation, layout=self.layout,
        )


class BatchNormQuantized(QuantizedLayer):
    """8-bit `BatchNorm`: each channel times its int8 factor, plus its int32 bias.

    Parameters
    ----------
    weight : (C,) array, int8
    weight_scale : (C,) array
    bias : (C,) array, int32
    in_params, out_params : QuantizationParams
    activation, layout
        As for `BatchNorm`.
    """

    SETTINGS = ("in_params", "out_params", "activation", "layout")
    ARRAYS = ("weight", "weight_scale", "bias")

    def __init__(
        self, weight, weight_scale, bias, in_params, out_params, *, activation=None, layout="NCHW"
    ):
        super().__init__(in_params, out_params)
        self.weight = frozen(_validate.q8_array("weight", weight, 1))
        self._packed = primitive.pack_conv_q8(
            self.weight.reshape(-1, 1, 1, 1), bias=bias, w_scale=weight_scale,
            groups=max(1, self.weight.size),
        )
        self.weight_scale, self.bias = self._packed.scale, self._packed.bias
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        check_multipliers(self.in_params[0], out_params, self.weight_scale)
        self._clamp = activation_clamp(activation, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        _channel_shape(x, self.layout, self.weight.size)
        channels_last = x.ndim == 4 and self.layout == "NHWC"
        rows = x if channels_last else np.moveaxis(x, 1, -1)
        rows = np.ascontiguousarray(rows)
        y = primitive.conv2d_q8(
            rows.reshape(int(np.prod(rows.shape[:-1])), 1, 1, rows.shape[-1]), self._packed,
            x_scale=self.in_params[0].scale, x_zero_point=self.in_params[0].zero_point,
            out_scale=self.out_params.scale, out_zero_point=self.out_params.zero_point,
            out_dtype=self.out_params.dtype, clamp=self._clamp, layout="NHWC",
        ).reshape(rows.shape)
        return y if channels_last else np.ascontiguousarray(np.moveaxis(y, -1, 1))


class LayerNorm(Layer):
    """``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta``, over the last axis.

    Parameters
    ----------
    gamma, beta : (C,) array
    epsilon : float, default 1e-5

    Raises
    ------
    TypeError, ValueError
        If lengths differ or are 0, a value is not finite, or epsilon is negative.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv:1607.06450.

    Examples
    --------
    >>> LayerNorm(gamma=[1.0, 1.0], beta=[0.0, 1.0], epsilon=0.0)([[3.0, 5.0]])
    array([[-1.,  2.]], dtype=float32)
    """

    SETTINGS = ("epsilon",)
    ARRAYS = ("gamma", "beta")

    def __init__(self, gamma, beta, *, epsilon=1e-5):
        self.gamma = float_array("gamma", gamma, 1)
        if not self.gamma.size:
            raise ValueError("gamma must have at least 1 feature, got none")
        self.beta = channel_array("beta", beta, self.gamma.size)
        self.epsilon = _validate.real("epsilon", epsilon)
        if not self.epsilon >= 0:
            raise ValueError(f"epsilon must not be negative, got {self.epsilon}")

    def _forward(self, x):
        _check_features(x, self.gamma.size)
        # In float64, so that the mean of equal numbers is that number.
        centred = x - x.mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
        spread = np.square(centred).mean(axis=-1, keepdims=True) + np.float32(self.epsilon)
        # Where all are equal and epsilon is 0, they are at the mean.
        root = np.sqrt(spread, where=spread > 0, out=np.ones_like(spread))
        return centred / root * self.gamma + self.beta

    def quantized(self, in_params, out_params):
        """Return a `LayerNormQuantized`."""
        return LayerNormQuantized(
            self.gamma, self.beta, in_params, out_params, epsilon=self.epsilon
        )


class LayerNormQuantized(QuantizedLayer):
    """8-bit `LayerNorm`: exact integer sums, a handful of roundings to float32, equation (24).

    Parameters
    ----------
    gamma, beta : (C,) array, float32
    in_params, out_params : QuantizationParams
    epsilon : float, default 1e-5
    """

    SETTINGS = ("in_params", "out_params", "epsilon")
    ARRAYS = LayerNorm.ARRAYS

    def __init__(self, gamma, beta, in_params, out_params, *, epsilon=1e-5):
        super().__init__(in_params, out_params)
        plain = LayerNorm(gamma, beta, epsilon=epsilon)
        self.gamma, self.beta, self.epsilon = plain.gamma, plain.beta, plain.epsilon
        if self.gamma.size > MOST_FEATURES:
            raise ValueError(
                f"gamma must have at most {MOST_FEATURES} features, got {self.gamma.size}"
            )
        in_steps(self.gamma, self.beta, self.gamma.size, out_params.scale)
        self._clamp = activation_clamp(None, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_features(x, self.gamma.size)
        return primitive.layer_norm_q8(
            x, self.gamma, self.beta, scale=self.in_params[0].scale,
            out_scale=self.out_params.scale, out_zero_point=self.out_params.zero_point,
            epsilon=self.epsilon, out_dtype=self.out_params.dtype, clamp=self._clamp, out=out,
        )


def _check_features(x, n):
    """Check the last axis."""
    if x.ndim < 1 or x.shape[-1] != n:
        raise ValueError(
            f"x must have at least 1 dimension and {n} features in the last, got shape {x.shape}"
        )


def _channel_shape(x, layout, channels):
    """Return the shape in which per-channel numbers broadcast against `x`."""
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, got shape {x.shape}")
    axis = 3 if x.ndim == 4 and layout == "NHWC" else 1
    if x.shape[axis] != channels:
        raise ValueError(f"x must have {channels} channels in axis {axis}, got shape {x.shape}")
    return tuple(-1 if i == axis else 1 for i in range(x.ndim))
