"""Adding, multiplying and scaling quantized tensors: methods of `QuantizedTensor`."""

import math
from numbers import Real

import numpy as np

from qcy import primitive
from qcy.tensor.quantization import QuantizationParams
from qcy.tensor.tables import table


def add(self, other, out_params=None):
    """Return the sum, equation (15).

    Parameters
    ----------
    other : QuantizedTensor, per tensor
        Shapes broadcast.
    out_params : QuantizationParams, optional
        Default: what covers the sums of all numbers that the two parameters can represent.

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If `other` is not quantized, or shapes do not broadcast, or one is per channel.
    """
    check_per_tensor(self, other)
    if out_params is None:
        out_params = QuantizationParams.from_range(
            self.params.low + other.params.low, self.params.high + other.params.high, self.dtype
        )
    return _pair(primitive.add_q8, self, other, out_params)


def mul(self, other, out_params=None):
    """Return the element-wise product: equation (9) on ``(a - a_zero) * (b - b_zero)``.

    Parameters
    ----------
    other : QuantizedTensor, per tensor
        Shapes broadcast.
    out_params : QuantizationParams, optional
        Default: what covers the products of all numbers that the two parameters can represent.

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If `other` is not quantized, or shapes do not broadcast, or one is per channel.
    """
    check_per_tensor(self, other)
    if out_params is None:
        corners = [
            a * b
            for a in (self.params.low, self.params.high)
            for b in (other.params.low, other.params.high)
        ]
        out_params = QuantizationParams.from_range(min(corners), max(corners), self.dtype)
    return _pair(primitive.mul_q8, self, other, out_params)


def scale_by(self, factor):
    """Return the tensor times a number, equation (20).

    A positive factor keeps the codes and scales the scale; a negative one is a table.

    Parameters
    ----------
    factor : float
        Finite and not 0.

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If `factor` is not a number, 0, or not finite, or the scale leaves float32.
    """
    if not isinstance(factor, Real):
        raise TypeError(f"factor must be a real number, got {factor!r}")
    factor = float(factor)
    if factor == 0 or not math.isfinite(factor):
        raise ValueError(f"factor must be finite and not 0, got {factor}")
    params = self.params
    with np.errstate(over="ignore", under="ignore"):
        scale = np.float32(np.asarray(params.scale, np.float64) * abs(factor))
    scaled = QuantizationParams(
        scale, params.zero_point, params.dtype, params.axis, params.narrow_range
    )
    if factor > 0:
        return type(self)(self.codes, scaled)
    check_per_tensor(self)
    out = QuantizationParams.from_range(
        params.high * factor, params.low * factor, self.dtype
    )
    negated = table(lambda real: real * factor, params, out)
    return type(self)(primitive.lookup_q8(self.codes.data, negated), out)


def check_per_tensor(*tensors):
    """Check that operands are quantized, with one scale each."""
    for tensor in tensors:
        if not isinstance(tensor, type(tensors[0])):
            raise TypeError(f"operand must be a QuantizedTensor, got {type(tensor).__name__}")
        if tensor.axis is not None:
            raise ValueError(
                f"operand must have one scale, it has one per channel of axis {tensor.axis}: "
                "requantize it first"
            )


def check_out_params(out_params):
    """Check that output parameters are per tensor."""
    if not isinstance(out_params, QuantizationParams):
        raise TypeError(f"out_params must be QuantizationParams, got {out_params!r}")
    if out_params.axis is not None:
        raise ValueError(f"out_params must have one scale, got one per channel: {out_params}")


def _pair(operation, a, b, out_params):
    check_out_params(out_params)
    codes = operation(
        a.codes.data, b.codes.data, a_scale=a.scale, b_scale=b.scale, out_scale=out_params.scale,
        a_zero_point=a.zero_point, b_zero_point=b.zero_point,
        out_zero_point=out_params.zero_point, out_dtype=out_params.dtype,
        clamp=(out_params.qmin, out_params.qmax),
    )
    return type(a)(codes, out_params)
