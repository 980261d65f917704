"""Quantizing weights and biases for the layers that have them."""

import numpy as np

from qcy import _validate
from qcy.nn.layers.base import check_params, frozen, to_codes
from qcy.tensor.quantization import QuantizationParams, QuantizationScheme

#: How weights are quantized unless told otherwise.
WEIGHT_SCHEME = QuantizationScheme.SYMMETRIC | QuantizationScheme.PER_CHANNEL

#: A bias code stays below it, so that a sum has room for its products, equations (8) and (11).
MAX_BIAS = 2.0**30
#: A multiplier stays above it: a channel this weak never moves an output code.
MIN_MULTIPLIER = 2.0**-100
#: The product of an input's and a weight's scale stays above it: from 2**-126 down float32 holds it
#: ever less exactly, and below 2**-150 not at all. Here it still has ten bits.
MIN_SCALE_PRODUCT = 2.0**-140


class PackedWeight:
    """The weight of a layer as its constructor takes it, read back from its packed weights."""

    @property
    def weight(self):
        """The int8 codes, shaped as they were given."""
        return self._packed.codes

    @property
    def weight_scale(self):
        """Real size of one weight step: float32, 0-d or one per output channel."""
        return self._packed.scale


class PackedProduct(PackedWeight):
    """The same for a layer whose zero points and int32 bias are packed too."""

    @property
    def weight_zero_point(self):
        """One int32 per output channel, or one 0 if all are 0."""
        zero = self._packed.zero_point
        return zero if zero.any() else np.zeros((), np.int32)

    @property
    def bias(self):
        """One int32 per output channel, or None."""
        return self._packed.bias


def float_array(name, value, ndim=None):
    """Return a read-only float32 copy of weights."""
    array = _validate.real_array(name, value)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return frozen(array)


def channel_array(name, value, length):
    """Return one float32 number per channel, read-only; None stays None."""
    if value is None:
        return None
    array = float_array(name, value, 1)
    if array.size != length:
        raise ValueError(f"{name} must have {length} elements, one per channel, got {array.size}")
    return array


def quantize_weight(weight, axis, bias, in_params, out_params, scheme=WEIGHT_SCHEME):
    """Quantize a weight and its bias, so that no bias is lost and no multiplier underflows.

    A channel's scale is raised until its bias fits, equation (8): folded batch norms leave
    channels of tiny weights and ordinary biases.

    Parameters
    ----------
    weight : float32 array
    axis : int
        Axis of the output channels.
    bias : (C,) float32 array or None
    in_params, out_params : QuantizationParams
    scheme : QuantizationScheme

    Returns
    -------
    codes : int8 array, shaped as `weight`
    params : QuantizationParams
        Per channel of `axis`, or per tensor, as the scheme says.
    bias_codes : (C,) int32 array or None
        In units of ``in_scale * weight_scale``.
    """
    check_params("in_params", in_params)
    check_params("out_params", out_params)
    other = tuple(i for i in range(weight.ndim) if i != axis)
    low, high = weight.min(axis=other, initial=0), weight.max(axis=other, initial=0)
    in_scale, out_scale = np.float64(in_params.scale), np.float64(out_params.scale)
    least = np.full(low.shape, max(MIN_MULTIPLIER * out_scale, MIN_SCALE_PRODUCT) / in_scale)
    if bias is not None:
        least = np.maximum(least, np.abs(bias.astype(np.float64)) / (in_scale * MAX_BIAS))
    if not scheme.is_per_channel:
        low, high, least = low.min(initial=0), high.max(initial=0), least.max(initial=0)
        axis = None
    params = QuantizationParams.from_range(low, high, "int8", scheme, axis)
    if (params.scale < least).any():
        # One part in 2**20 more, since the new scale is rounded to float32 too.
        raised = (least * (1 + 2.0**-20)).astype(np.float32)
        scale = np.where(params.scale < least, raised, params.scale)
        zero = params.zero_point
        if not scheme.is_symmetric:
            zero = np.clip(np.rint(params.qmin - np.float64(low) / scale), params.qmin, params.qmax)
            zero = zero.astype(np.int32)
        params = QuantizationParams(scale, zero, "int8", axis, params.narrow_range)
    codes = to_codes(weight, params)
    bias_codes = None
    if bias is not None:
        units = in_scale * np.asarray(params.scale, np.float64)
        bias_codes = np.rint(bias.astype(np.float64) / units).astype(np.int32)
    return codes, params, bias_codes


def symmetric_codes(weight, axis, scheme):
    """Return int8 codes of a weight, and their parameters, whose zero points are 0.

    Parameters
    ----------
    weight : float32 array
    axis : int
        Of the channels that get scales of their own, if the scheme says so.
    scheme : QuantizationScheme
        A symmetric one.
    """
    if not scheme.is_symmetric:
        raise ValueError(f"weight_scheme must be symmetric, got {scheme}")
    axis = axis if scheme.is_per_channel else None
    other = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    params = QuantizationParams.from_range(
        weight.min(axis=other, initial=0), weight.max(axis=other, initial=0), "int8", scheme, axis
    )
    return to_codes(weight, params), params


def check_multipliers(in_params, out_params, weight_scale):
    """Check once that equation (9) has a multiplier for each output channel."""
    weight_scale = _validate.scale("weight_scale", weight_scale)
    with np.errstate(over="ignore", under="ignore"):
        multiplier = in_params.scale * weight_scale / out_params.scale
    _validate.multipliers(
        np.asarray(multiplier), ("input scale", in_params.scale), ("weight scale", weight_scale),
        ("output scale", out_params.scale),
    )
