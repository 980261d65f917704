"""Matrix product of quantized tensors: a method of `QuantizedTensor`."""

import numpy as np

from qcy import _validate, primitive
from qcy.tensor.elementwise import check_out_params, check_per_tensor
from qcy.tensor.quantization import QuantizationParams


def matmul(self, other, bias=None, out_params=None):
    """Return the matrix product, exact in int32 and then requantized, equations (7) and (9).

    Parameters
    ----------
    other : QuantizedTensor
        (..., K, N), per tensor, or per channel of its last axis.
    bias : (N,) Tensor or array, int32, optional
        In units of ``self.scale * other.scale``.
    out_params : QuantizationParams, optional
        Default: what covers the result itself; that takes a second pass over the sums.

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If operands do not fit.
    """
    check_per_tensor(self)
    if not isinstance(other, type(self)):
        raise TypeError(f"operand must be a QuantizedTensor, got {type(other).__name__}")
    if other.axis is not None and other.axis != other.ndim - 1:
        raise ValueError(f"operand must be per channel of its last axis, not of {other.axis}")
    a, b = self.codes.data, other.codes.data
    if self.ndim == 0 or other.ndim == 0:
        raise ValueError(f"matmul needs at least 1 dimension, got {self.shape} and {other.shape}")
    squeeze = []
    if a.ndim == 1:
        a, squeeze = a[None, :], [*squeeze, -2]
    if b.ndim == 1:
        if other.axis is not None:
            raise ValueError("a vector operand must have one scale")
        b, squeeze = b[:, None], [*squeeze, -1]
    bias = None if bias is None else np.asarray(bias)
    if out_params is None:
        acc = _accumulate(a, b, self, other, bias)
        codes, out_params = requantize_to_fit(
            acc, ("a_scale", self.scale), ("b_scale", other.scale), self.dtype
        )
    else:
        check_out_params(out_params)
        codes = primitive.gemm_batched_q8(
            a, b, a_scale=self.scale, b_scale=other.scale, out_scale=out_params.scale,
            a_zero_point=self.zero_point, b_zero_point=other.zero_point,
            out_zero_point=out_params.zero_point, bias=bias, out_dtype=out_params.dtype,
            clamp=(out_params.qmin, out_params.qmax),
        )
    return type(self)(np.squeeze(codes, tuple(squeeze)), out_params)


def _accumulate(a, b, left, right, bias):
    """Return the (..., M, N) int32 sums, leading axes broadcast."""
    _validate.same_inner(a.shape, b.shape)
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"a is {a.shape} and b is {b.shape}: leading axes disagree") from None
    a = np.broadcast_to(a, (*lead, *a.shape[-2:]))
    b = np.broadcast_to(b, (*lead, *b.shape[-2:]))
    acc = np.empty((*lead, a.shape[-2], b.shape[-1]), np.int32)
    for index in np.ndindex(lead):
        acc[index] = primitive.gemm_nn_q8_accum(
            a[index], b[index], a_zero_point=left.zero_point, b_zero_point=right.zero_point,
            bias=bias,
        )
    return acc


def requantize_to_fit(acc, a_scale, b_scale, dtype):
    """Return codes of int32 sums, channels last, and the parameters that just cover them.

    Scales come as (name, value), for what is said if they leave float32.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale = np.asarray(a_scale[1] * b_scale[1])
        reals = acc * np.asarray(scale, np.float64)
    low, high = (float(reals.min()), float(reals.max())) if acc.size else (0.0, 0.0)
    try:
        params = QuantizationParams.from_range(low, high, dtype)
    except ValueError as error:
        raise ValueError(
            f"the sums times the product of scales must be finite and fit float32, got {low} to "
            f"{high} with {a_scale[0]}={a_scale[1]} and {b_scale[0]}={b_scale[1]}"
        ) from error
    with np.errstate(over="ignore", under="ignore"):
        multiplier = np.float32(scale) / params.scale
    _validate.multipliers(np.asarray(multiplier), a_scale, b_scale, ("out_scale", params.scale))
    codes = primitive.requantize_q8(acc, multiplier, zero_point=params.zero_point, dtype=dtype)
    return codes, params
