"""Quantized operators but products: between reals and codes, element by element, pooling."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy.nn.operators.code_products import (
    INT32, REALS, array_of, one_scale, one_zero, output_parameters, ratio, requantize, scales,
    times, zero_points,
)
from qcy.nn.operators.pooling import CODES, Windows, check_inside, combine, images, narrow
from qcy.nn.operators.registry import operator

#: Types by the numbers that ONNX gives them.
TYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 10: "float16"}
#: Those that are refused.
FOREIGN = {
    16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2",
    20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0",
    25: "uint2", 26: "int2", 27: "float6e2m3", 28: "float6e3m2",
}
WIDE_CODES = (*CODES, np.dtype(np.int16), np.dtype(np.uint16))


def _type(name, number, dtypes):
    """Return the dtype that ONNX gives a number."""
    dtype = TYPES.get(number)
    if dtype is None or np.dtype(dtype) not in dtypes:
        got = dtype or FOREIGN.get(number, number)
        raise ValueError(f"{name} must be one of {', '.join(map(str, dtypes))}, got {got}")
    return np.dtype(dtype)


def _spread(name, value, shape, axis, block_size):
    """Return parameters per axis or per block so that they broadcast to `shape`."""
    if np.ndim(value) == 0:
        return value
    axis = _validate.integer("axis", axis, -len(shape), len(shape) - 1) % len(shape)
    block_size = _validate.integer("block_size", block_size, 0)
    if block_size:
        blocks = list(shape)
        blocks[axis] = -(-shape[axis] // block_size)
        if value.shape != tuple(blocks):
            raise ValueError(
                f"{name} must have shape {tuple(blocks)}, one per {block_size} along axis {axis}, "
                f"got {value.shape}"
            )
        whole = np.repeat(value, block_size, axis)
        return whole[(slice(None),) * axis + (slice(shape[axis]),)]
    if value.shape != (shape[axis],):
        raise ValueError(f"{name} must have shape {(shape[axis],)}, got {value.shape}")
    return value.reshape(-1, *(1,) * (len(shape) - axis - 1))


def _same_shape(scale, zero, name):
    if zero is not None and np.size(zero) != 1 and np.shape(zero) != np.shape(scale):
        raise ValueError(
            f"{name} must have the scale's shape {np.shape(scale)}, got {np.shape(zero)}"
        )


@operator("QuantizeLinear", "com.microsoft:QuantizeLinear")
def quantize_linear(
    x, y_scale, y_zero_point=None, *, axis=1, block_size=0, output_dtype=0, precision=0,
    saturate=1,
):
    """Turn reals into codes, equation (4), in float32 unless `precision` says otherwise.

    `saturate` concerns only types that are refused.
    """
    x = array_of("x", x, (*REALS, INT32))
    dtype = None
    if y_zero_point is not None:
        dtype = array_of("y_zero_point", y_zero_point, WIDE_CODES).dtype
    if output_dtype:
        wanted = _type("output_dtype", output_dtype, WIDE_CODES)
        if dtype not in (None, wanted):
            raise ValueError(f"output_dtype must be that of y_zero_point, {dtype}, got {wanted}")
        dtype = wanted
    dtype = dtype or np.dtype(np.uint8)
    work = _type("precision", precision, REALS) if precision else REALS[0]
    _same_shape(y_scale, y_zero_point, "y_zero_point")
    scale = scales("y_scale", y_scale, (*REALS, INT32))
    zero = zero_points("y_zero_point", y_zero_point, dtype)
    if dtype in CODES and work == np.float32 and not block_size:
        over = None if not np.ndim(scale) and not np.ndim(zero) else axis
        return primitive.quantize_q8(x, scale, zero, axis=over, dtype=dtype)
    scale = np.asarray(_spread("y_scale", scale, x.shape, axis, block_size)).astype(work)
    if not scale.all():
        raise ValueError(f"y_scale must not be 0 in {work}, got {y_scale}")
    zero = _spread("y_zero_point", zero, x.shape, axis, block_size)
    with np.errstate(all="ignore"):
        steps = np.asarray(np.rint(x.astype(work) / scale), np.float32)
    if np.isnan(steps).any():
        raise ValueError(f"x must not hold NaN, got {np.isnan(steps).sum()} of them")
    limits = np.iinfo(dtype)
    steps = np.clip(steps, -(2.0**20), 2.0**20).astype(np.int32)
    return np.asarray(np.clip(steps + zero, limits.min, limits.max)).astype(dtype)


@operator("DequantizeLinear", "com.microsoft:DequantizeLinear")
def dequantize_linear(x, x_scale, x_zero_point=None, *, axis=1, block_size=0, output_dtype=0):
    """Turn codes into reals, equation (5): in float32, rounded to float16 if that is wanted."""
    x = array_of("x", x, (*WIDE_CODES, INT32))
    _same_shape(x_scale, x_zero_point, "x_zero_point")
    scale = array_of("x_scale", x_scale, REALS)
    dtype = _type("output_dtype", output_dtype, REALS) if output_dtype else scale.dtype
    scale = scale.astype(np.float32)
    scale = scale.reshape(-1)[0] if scale.size == 1 else scale
    if not np.isfinite(scale).all():
        raise ValueError("x_scale must be finite, got NaN or infinity")
    zero = zero_points("x_zero_point", x_zero_point, x.dtype)
    is_usual = x.dtype in CODES and not block_size and np.all(scale >= _validate.MIN_NORMAL)
    if is_usual:
        over = None if not np.ndim(scale) and not np.ndim(zero) else axis
        return narrow(primitive.dequantize_q8(x, scale, zero, axis=over), dtype)
    scale = _spread("x_scale", scale, x.shape, axis, block_size)
    zero = _spread("x_zero_point", zero, x.shape, axis, block_size)
    with np.errstate(over="ignore", under="ignore"):
        y = np.asarray(x.astype(np.int64) - zero).astype(np.float32) * scale
    return narrow(np.asarray(y), dtype)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(x):
    """Quantize to uint8 by the data's own range, equation (6)."""
    codes, scale, zero = primitive.quantize_dynamic_q8(array_of("x", x, REALS[:1]))
    return codes, np.array(scale, np.float32), np.array(zero, np.uint8)


@operator("com.microsoft:QLinearAdd")
def qlinear_add(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point=None
):
    """Add codes, equation (15)."""
    return _binary(
        primitive.add_q8, (a, a_scale, a_zero_point), (b, b_scale, b_zero_point),
        (c_scale, c_zero_point),
    )


@operator("com.microsoft:QLinearMul")
def qlinear_mul(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point=None
):
    """Multiply codes element by element, equation (15)."""
    return _binary(
        primitive.mul_q8, (a, a_scale, a_zero_point), (b, b_scale, b_zero_point),
        (c_scale, c_zero_point),
    )


def _binary(function, left, right, target):
    """Call a primitive of two operands; all have one dtype."""
    a = array_of("A", left[0], CODES)
    b = array_of("B", right[0], (a.dtype,))
    c_scale, c_zero, _ = output_parameters(*target, a.dtype)
    return function(
        a, b, a_scale=one_scale("A_scale", left[1]), b_scale=one_scale("B_scale", right[1]),
        a_zero_point=one_zero("A_zero_point", left[2], a.dtype),
        b_zero_point=one_zero("B_zero_point", right[2], b.dtype),
        out_scale=c_scale, out_zero_point=c_zero, out_dtype=a.dtype,
    )


def _table(function, source, target):
    """Return the table of a function from codes to codes, equation (17).

    `source` and `target` are (scale, zero point, dtype).
    """
    (scale, zero, dtype), (out_scale, out_zero, out_dtype) = source, target
    low, high = _validate.code_range(dtype)
    reals = [function(float(scale) * (code - zero)) for code in range(low, high + 1)]
    steps = np.rint(np.array(reals) / float(out_scale)) + out_zero
    return np.clip(steps, *_validate.code_range(out_dtype)).astype(out_dtype)


def _look_up(function, x, x_scale, x_zero_point, y_scale, y_zero_point):
    """Apply a function of one number to codes; the output has their dtype."""
    x = array_of("X", x, CODES)
    source = one_scale("X_scale", x_scale), one_zero("X_zero_point", x_zero_point, x.dtype), x.dtype
    target = output_parameters(y_scale, y_zero_point, x.dtype)
    return primitive.lookup_q8(x, _table(function, source, target))


def _sigmoid(x):
    """Return ``1 / (1 + exp(-x))`` without an overflow."""
    small = math.exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1.0 + small)


@operator("com.microsoft:QLinearSigmoid")
def qlinear_sigmoid(x, x_scale, x_zero_point, y_scale, y_zero_point=None):
    """Take the sigmoid of codes by a table."""
    return _look_up(_sigmoid, x, x_scale, x_zero_point, y_scale, y_zero_point)


@operator("com.microsoft:QLinearLeakyRelu")
def qlinear_leaky_relu(x, x_scale, x_zero_point, y_scale, y_zero_point=None, *, alpha=0.01):
    """Multiply negative numbers by `alpha`, by a table."""
    alpha = _validate.real("alpha", alpha)
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha}")
    return _look_up(
        lambda real: real if real >= 0 else alpha * real, x, x_scale, x_zero_point, y_scale,
        y_zero_point,
    )


@operator("com.microsoft:QLinearSoftmax")
def qlinear_softmax(x, x_scale, x_zero_point, y_scale, y_zero_point=None, *, opset, axis=-1):
    """Take the softmax along an axis, or before opset 13 over all axes from that one on."""
    x = array_of("X", x, CODES)
    axis = _validate.integer("axis", axis, -x.ndim, x.ndim - 1) % max(1, x.ndim)
    one_zero("x_zero_point", x_zero_point, x.dtype)         # cancels
    y_scale, y_zero, dtype = output_parameters(y_scale, y_zero_point, x.dtype)
    axes = axis if opset >= 13 else tuple(range(axis, x.ndim))
    if not x.size:
        return x.copy()
    # Exponentials as whole numbers, equation (18): their sums are exact in any order.
    table = primitive.softmax_table(one_scale("X_scale", x_scale)).astype(np.int64)
    steps = x.astype(np.int16)
    exponentials = table[steps.max(axis=axes, keepdims=True) - steps]
    shares = exponentials / exponentials.sum(axis=axes, keepdims=True)
    codes = np.rint(shares / float(y_scale)) + y_zero
    return np.clip(codes, *_validate.code_range(dtype)).astype(dtype)


@operator("com.microsoft:QLinearConcat")
def qlinear_concat(y_scale, y_zero_point, *inputs, axis):
    """Put codes side by side; those with other parameters are requantized, equation (21)."""
    if not inputs or len(inputs) % 3:
        raise ValueError(
            f"inputs must be tensors with a scale and a zero point each, got {len(inputs)}"
        )
    target = output_parameters(y_scale, y_zero_point)
    parts = []
    for codes, scale, zero in zip(*(inputs[i::3] for i in range(3)), strict=True):
        codes = array_of("inputs", codes, CODES)
        source = one_scale("scale", scale), one_zero("zero_point", zero, codes.dtype), codes.dtype
        if source != target:
            codes = primitive.lookup_q8(codes, _table(float, source, target))
        parts.append(codes)
    axis = _validate.integer("axis", axis, -parts[0].ndim, parts[0].ndim - 1)
    return np.concatenate(parts, axis)


@operator("com.microsoft:QLinearAveragePool")
def qlinear_average_pool(
    x, x_scale, x_zero_point, y_scale, y_zero_point=None, *, auto_pad="NOTSET", ceil_mode=0,
    channels_last=0, count_include_pad=0, kernel_shape=None, pads=None, strides=None,
):
    """Take the mean of each window, exact sums rounded once, equation (16)."""
    x = images("X", x, CODES)
    x = np.moveaxis(x, -1, 1) if channels_last else x
    windows = Windows.over(
        x.shape[2:], kernel_shape, strides, None, pads, auto_pad, ceil_mode
    )
    if not count_include_pad:
        check_inside(windows)
    zero = one_zero("x_zero_point", x_zero_point, x.dtype)
    sums = combine(x.astype(np.int32) - np.int32(zero), windows, 0, np.add)
    # As onnxruntime, which defines this operator: the whole kernel, also where it ends outside.
    counts = np.array(math.prod(windows.kernel)) if count_include_pad else windows.counts()
    return _means(sums, counts, x_scale, y_scale, y_zero_point, x.dtype, channels_last)


@operator("com.microsoft:QLinearGlobalAveragePool")
def qlinear_global_average_pool(
    x, x_scale, x_zero_point, y_scale, y_zero_point=None, *, channels_last=0
):
    """Take the mean of each channel, exact sums rounded once, equation (16)."""
    x = images("X", x, CODES)
    x = np.moveaxis(x, -1, 1) if channels_last else x
    count = math.prod(x.shape[2:])
    if not count:
        raise ValueError(f"X must have cells in its images, got shape {x.shape}")
    zero = one_zero("x_zero_point", x_zero_point, x.dtype)
    sums = x.sum(axis=tuple(range(2, x.ndim)), dtype=np.int64, keepdims=True) - count * zero
    return _means(sums, np.array(count), x_scale, y_scale, y_zero_point, x.dtype, channels_last)


def _means(sums, counts, x_scale, y_scale, y_zero_point, dtype, channels_last):
    """Round sums over windows, of which `counts` tells the cells, to codes of their means."""
    y_scale, y_zero, dtype = output_parameters(y_scale, y_zero_point, dtype)
    multiplier = ratio(one_scale("x_scale", x_scale), times(counts.astype(np.float32), y_scale))
    codes = requantize(sums, multiplier, y_zero, dtype)
    return np.ascontiguousarray(np.moveaxis(codes, 1, -1)) if channels_last else codes
