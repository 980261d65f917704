"""Fully connected layer, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import (
    ACTIVATIONS, Layer, QuantizedLayer, activate, activation_clamp,
)
from qcy.nn.layers.weights import (
    WEIGHT_SCHEME, PackedProduct, PackedWeight, channel_array, check_multipliers, float_array,
    quantize_weight, symmetric_codes,
)


class Dense(Layer):
    """``y = x @ weight + bias``, over the last axis.

    Parameters
    ----------
    weight : (n_in, n_out) array
    bias : (n_out,) array, optional
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Raises
    ------
    TypeError, ValueError
        If shapes disagree or a weight is not finite.

    Examples
    --------
    >>> Dense([[1.0, 2.0], [3.0, 4.0]], bias=[0.5, 0.0])([[1.0, 1.0]])
    array([[4.5, 6. ]], dtype=float32)
    """

    SETTINGS = ("activation",)
    ARRAYS = ("weight", "bias")

    def __init__(self, weight, bias=None, *, activation=None):
        self.weight = float_array("weight", weight, 2)
        self.bias = channel_array("bias", bias, self.weight.shape[1])
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)

    def _forward(self, x):
        _check_features(x, self.weight.shape[0])
        y = x @ self.weight
        if self.bias is not None:
            y += self.bias
        return activate(y, self.activation)

    def quantized(self, in_params, out_params, weight_scheme=WEIGHT_SCHEME):
        """Return a `DenseQuantized`: int8 weights, per output channel unless told otherwise."""
        codes, params, bias = quantize_weight(
            self.weight, 1, self.bias, in_params, out_params, weight_scheme
        )
        return DenseQuantized(
            codes, params.scale, bias, in_params, out_params,
            weight_zero_point=params.zero_point, activation=self.activation,
        )

    def dynamic(self, weight_scheme=WEIGHT_SCHEME):
        """Return a `DenseDynamic`: int8 weights, and no need to know the inputs beforehand.

        Parameters
        ----------
        weight_scheme : QuantizationScheme, default ``SYMMETRIC | PER_CHANNEL``
            A symmetric one.
        """
        codes, params = symmetric_codes(self.weight, 1, weight_scheme)
        return DenseDynamic(codes, params.scale, self.bias, activation=self.activation)


class DenseDynamic(PackedWeight, Layer):
    """`Dense` with 8-bit weights, whose input is quantized row by row as it comes, equation (22).

    Reals in and out. Each row of the input gets a scale and a zero point of its own, equation (6).

    Parameters
    ----------
    weight : (n_in, n_out) array, int8
    weight_scale : float or (n_out,) array
    bias : (n_out,) array, optional
    activation : {None, "relu", "relu6"}

    Examples
    --------
    >>> layer = Dense([[1.27], [-0.64]]).dynamic()
    >>> layer([[1.0, 0.0], [1000.0, 1000.0]]).round(2)     # as well as if each came alone
    array([[  1.27],
           [630.  ]], dtype=float32)
    """

    SETTINGS = ("activation",)
    ARRAYS = ("weight", "weight_scale", "bias")

    def __init__(self, weight, weight_scale, bias=None, *, activation=None):
        weight_scale = _validate.scale("weight_scale", weight_scale)
        self._packed = primitive.pack_q8(weight, b_scale=weight_scale)
        if self._packed.dtype != np.int8:
            raise TypeError(f"weight must be int8, got {self._packed.dtype}")
        self.bias = channel_array("bias", bias, self._packed.shape[1])
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)

    def _forward(self, x):
        n_in, n_out = self._packed.shape
        _check_features(x, n_in)
        rows = x.reshape(int(np.prod(x.shape[:-1])), n_in)
        y = primitive.gemm_dynamic_q8(rows, self._packed, bias=self.bias)
        return activate(y, self.activation).reshape(*x.shape[:-1], n_out)


class DenseQuantized(PackedProduct, QuantizedLayer):
    """8-bit `Dense`: exact int32 sums, int32 bias, one rounding at the end.

    Parameters
    ----------
    weight : (n_in, n_out) array, int8
    weight_scale : float or (n_out,) array
    bias : (n_out,) array, int32, or None
        In units of ``in_params.scale * weight_scale``.
    in_params, out_params : QuantizationParams
    weight_zero_point : int or (n_out,) array of int, default 0
    activation : {None, "relu", "relu6"}
    """

    SETTINGS = ("in_params", "out_params", "activation")
    ARRAYS = ("weight", "weight_scale", "bias", "weight_zero_point")

    def __init__(
        self, weight, weight_scale, bias, in_params, out_params, *, weight_zero_point=0,
        activation=None,
    ):
        super().__init__(in_params, out_params)
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self._packed = primitive.pack_q8(
            weight, b_zero_point=weight_zero_point, bias=bias, b_scale=weight_scale
        )
        check_multipliers(self.in_params[0], out_params, self._packed.scale)
        self._clamp = activation_clamp(activation, out_params)

    def forward_codes(self, x, out=None, table=None):
        """Compute the layer on plain arrays of codes; `table` is of a layer that follows."""
        n_in, n_out = self._packed.shape
        _check_features(x, n_in)
        y = primitive.gemm_nn_q8(
            x.reshape(int(np.prod(x.shape[:-1])), n_in), self._packed,
            a_scale=self.in_params[0].scale, a_zero_point=self.in_params[0].zero_point,
            out_scale=self.out_params.scale, out_zero_point=self.out_params.zero_point,
            out_dtype=self.out_params.dtype, clamp=self._clamp, table=table, out=out,
        )
        return y.reshape(*x.shape[:-1], n_out)


def _check_features(x, n_in):
    """Check the last axis."""
    if x.ndim < 1 or x.shape[-1] != n_in:
        raise ValueError(
            f"x must have at least 1 dimension and {n_in} features in the last, got shape {x.shape}"
        )
