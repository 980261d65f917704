"""Layers with int8 weights that compute in float32: a quarter of the file, no faster."""

import numpy as np

from qcy import _validate
from qcy.nn.layers.base import Layer, frozen
from qcy.nn.layers.conv import Conv2D
from qcy.nn.layers.dense import Dense
from qcy.nn.layers.weights import channel_array, symmetric_codes


class _WeightOnly(Layer):
    """A layer whose weights are codes, one scale per output channel or one for all."""

    ARRAYS = ("weight", "weight_scale", "bias")
    _FLOAT = None
    _AXIS = 0

    def __init__(self, weight, weight_scale, bias=None, **settings):
        self.weight = frozen(_validate.q8_array("weight", weight, 2 if self._AXIS else 4))
        if self.weight.dtype != np.int8:
            raise TypeError(f"weight must be int8, got {self.weight.dtype}")
        n = self.weight.shape[self._AXIS]
        self.weight_scale = frozen(_validate.scale("weight_scale", weight_scale, length=n))
        self.bias = channel_array("bias", bias, n)
        shape = [-1 if i == self._AXIS else 1 for i in range(self.weight.ndim)]
        reals = self.weight.astype(np.float32) * (
            self.weight_scale.reshape(shape) if self.weight_scale.ndim else self.weight_scale
        )
        self._plain = self._FLOAT(reals, self.bias, **settings)
        self.__dict__.update(self._plain.settings())

    def _forward(self, x):
        return self._plain._forward(x)


class DenseWeightOnly(_WeightOnly):
    """`Dense` with weights in 8 bits.

    Parameters
    ----------
    weight : (n_in, n_out) array, int8
    weight_scale : float or (n_out,) array
    bias : (n_out,) array, optional
    activation : {None, "relu", "relu6"}

    Examples
    --------
    >>> DenseWeightOnly(np.int8([[100], [-50]]), 0.01)([[1.0, 1.0]])
    array([[0.5]], dtype=float32)
    """

    SETTINGS = Dense.SETTINGS
    _FLOAT = Dense
    _AXIS = 1


class Conv2DWeightOnly(_WeightOnly):
    """`Conv2D` with weights in 8 bits.

    Parameters
    ----------
    weight : (O, C / groups, KH, KW) array, int8
    weight_scale : float or (O,) array
    bias : (O,) array, optional
    stride, padding, dilation, groups, activation, layout
        As for `Conv2D`.

    Examples
    --------
    >>> conv = Conv2DWeightOnly(np.ones((1, 1, 2, 2), np.int8), 0.5)
    >>> conv(np.ones((1, 1, 2, 2)))
    array([[[[2.]]]], dtype=float32)
    """

    SETTINGS = Conv2D.SETTINGS
    _FLOAT = Conv2D


def weight_only(layer, weight_scheme):
    """Return a `DenseWeightOnly` or a `Conv2DWeightOnly` of a float layer."""
    twin = {Dense: DenseWeightOnly, Conv2D: Conv2DWeightOnly}[type(layer)]
    codes, params = symmetric_codes(layer.weight, twin._AXIS, weight_scheme)
    return twin(codes, params.scale, layer.bias, **layer.settings())
