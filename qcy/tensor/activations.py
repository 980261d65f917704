"""Activation functions of quantized tensors: methods of `QuantizedTensor`."""

import math

import numpy as np

from qcy import primitive
from qcy.tensor.elementwise import check_out_params, check_per_tensor
from qcy.tensor.tables import sigmoid as real_sigmoid
from qcy.tensor.tables import sigmoid_params, table, tanh_params


def relu(self):
    """Return ``max(x, 0)``: the codes clamped at the zero point, parameters unchanged, (14)."""
    data = self.codes.data
    if self.axis is None:
        codes = primitive.clamp_q8(data, self.zero_point, self.params.qmax)
    else:
        zero = self.zero_point.reshape(self.params.channel_shape(self.ndim))
        codes = np.maximum(data, zero.astype(self.dtype))
    return type(self)(codes, self.params)


def sigmoid(self, out_params=None):
    """Return ``1 / (1 + exp(-x))`` by a table, equation (17).

    Parameters
    ----------
    out_params : QuantizationParams, optional
        Default: scale 1/256, zero point at the smallest code.
    """
    return _by_table(self, real_sigmoid, out_params or sigmoid_params(self.dtype))


def tanh(self, out_params=None):
    """Return ``tanh(x)`` by a table, equation (17).

    Parameters
    ----------
    out_params : QuantizationParams, optional
        Default: scale 1/128, zero point at the middle code.
    """
    return _by_table(self, math.tanh, out_params or tanh_params(self.dtype))


def _by_table(self, function, out_params):
    check_per_tensor(self)
    check_out_params(out_params)
    codes = primitive.lookup_q8(self.codes.data, table(function, self.params, out_params))
    return type(self)(codes, out_params)
