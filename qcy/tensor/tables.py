"""Functions of one code as tables of 256 entries, equation (17)."""

import math

import numpy as np

from qcy.tensor.quantization import QuantizationParams


def table(function, in_params, out_params):
    """Return ``saturate(rint(function(real) / out_scale) + out_zero_point)`` for every code.

    Computed in float64 with Python's own `math`, so that every machine gets the same bytes.

    Parameters
    ----------
    function : callable, float to float
    in_params, out_params : QuantizationParams, per tensor

    Returns
    -------
    (256,) array of the output's dtype
        Entry i is for the code ``qmin + i``.
    """
    scale, zero_point = float(in_params.scale), in_params.zero_point
    first = int(np.iinfo(in_params.dtype).min)
    out_scale = float(out_params.scale)
    codes = []
    for code in range(first, first + 256):
        real = function(scale * (code - zero_point)) / out_scale
        real = min(max(real, -1024.0), 1024.0)      # then what is beyond saturates
        codes.append(min(max(round(real) + out_params.zero_point, out_params.qmin),
                         out_params.qmax))
    return np.array(codes, out_params.dtype)


def requantize_table(in_params, out_params):
    """Return the table from codes to codes of the same number, equation (19)."""
    return table(lambda real: real, in_params, out_params)


def sigmoid(real):
    """Return ``1 / (1 + exp(-real))`` without overflow."""
    if real >= 0:
        return 1 / (1 + math.exp(-real))
    power = math.exp(real)
    return power / (1 + power)


def gelu(real):
    """Return ``real`` times the normal distribution's integral up to it."""
    return 0.5 * real * math.erfc(-real / math.sqrt(2))


def sigmoid_params(dtype):
    """Return the fixed output parameters of sigmoid and softmax: ``(1/256, qmin)``."""
    dtype = np.dtype(dtype)
    return QuantizationParams(1 / 256, int(np.iinfo(dtype).min), dtype)


def tanh_params(dtype):
    """Return the fixed output parameters of tanh: ``(1/128, the middle code)``."""
    dtype = np.dtype(dtype)
    return QuantizationParams(1 / 128, 0 if dtype == np.int8 else 128, dtype)
