"""Products of codes: exact integer sums, rounded as onnxruntime rounds them."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy.nn.operators.pooling import CODES, images, narrow
from qcy.nn.operators.products import check_broadcast, conv_windows, convolve
from qcy.nn.operators.registry import operator

REALS = (np.dtype(np.float32), np.dtype(np.float16))
INT32 = np.dtype(np.int32)


def array_of(name, value, dtypes):
    """Return `value` as an array of one of `dtypes`; say which one it has."""
    array = np.asarray(value)
    if array.dtype in dtypes:
        return array
    # What NumPy has no name for comes from another package: numbers of 8 bits and fewer.
    error = ValueError if array.dtype.kind == "V" else TypeError
    raise error(f"{name} must be one of {', '.join(map(str, dtypes))}, got {array.dtype}")


def scales(name, value, dtypes=REALS):
    """Return scales as float32, 0-d if there is but one."""
    array = array_of(name, value, dtypes)
    if array.size == 1:
        return _validate.scale(name, array.reshape(()))[()]
    return _validate.scale(name, array.reshape(-1)).reshape(array.shape)


def one_scale(name, value):
    """Return the one scale that there must be, as float32."""
    scale = scales(name, value)
    if np.ndim(scale):
        raise ValueError(f"{name} must be a number, got shape {scale.shape}")
    return scale


def zero_points(name, value, dtype):
    """Return zero points, of the codes' dtype: an int if there is but one, or an int32 array."""
    if value is None:
        return 0
    array = array_of(name, value, (dtype,))
    return int(array.reshape(())) if array.size == 1 else array.astype(np.int32)


def one_zero(name, value, dtype):
    """Return the one zero point that there must be, as int."""
    zero = zero_points(name, value, dtype)
    if np.ndim(zero):
        raise ValueError(f"{name} must be a number, got shape {zero.shape}")
    return zero


def output_parameters(scale, zero, dtype=None):
    """Return scale, zero point and dtype of an output, which its zero point tells."""
    if zero is None:
        return one_scale("y_scale", scale), 0, dtype or np.dtype(np.uint8)
    dtypes = CODES if dtype is None else (dtype,)
    dtype = array_of("y_zero_point", zero, dtypes).dtype
    return one_scale("y_scale", scale), one_zero("y_zero_point", zero, dtype), dtype


def requantize(sums, multiplier, zero, dtype):
    """Round sums to codes, equation (9), by multipliers that broadcast to them."""
    multiplier = np.asarray(multiplier, np.float32)
    if multiplier.ndim:
        multiplier = np.broadcast_to(multiplier, sums.shape).reshape(-1)
    codes = primitive.requantize_q8(sums.reshape(-1), multiplier, zero_point=zero, dtype=dtype)
    return codes.reshape(sums.shape)


def ratio(numerator, denominator):
    """Divide scales in float32; what leaves its range is found later, by the multiplier."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(numerator / denominator, np.float32)


def times(a, b):
    """Multiply scales in float32, as `ratio` divides them."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(a * b, np.float32)


def _conv_operands(x, w, b, zeros, attributes):
    """Return what a convolution of codes needs: operands, zero points, windows, groups."""
    x, w = images("x", x, CODES), array_of("w", w, CODES)
    b = None if b is None else array_of("B", b, (INT32,))
    windows, group = conv_windows(x, w, b, **attributes)
    x_zero = one_zero("x_zero_point", zeros[0], x.dtype)
    w_zero = zero_points("w_zero_point", zeros[1], w.dtype)
    if np.ndim(w_zero) and w_zero.shape != (len(w),):
        raise ValueError(f"w_zero_point must have shape {(len(w),)}, got {w_zero.shape}")
    return x, w, b, x_zero, w_zero, windows, group


def _as_images(x, w, windows):
    """Return a convolution along one axis as one of images, and how it goes over them."""
    more = (1,) * (4 - x.ndim)
    none = (0,) * len(more)
    x, w = (array.reshape(*array.shape[:2], *more, *array.shape[2:]) for array in (x, w))
    return x, w, {
        "stride": more + windows.strides, "dilation": more + windows.dilations,
        "padding": (*none, *windows.before, *none, *windows.after),
    }


def _conv_sums(x, w, x_zero, w_zero, windows, group):
    """Return the exact sums of a convolution along three axes or more, by float64 products."""
    w_zero = np.reshape(w_zero, (-1, *(1,) * (w.ndim - 1)))
    x, w = x.astype(np.float64) - x_zero, w.astype(np.float64) - w_zero
    return convolve(x, w, windows, group).astype(np.int64)


@operator("QLinearConv")
def qlinear_conv(
    x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, b=None,
    **attributes,
):
    """Convolve images of codes, and round the sums to codes, equation (9)."""
    x, w, b, x_zero, w_zero, windows, group = _conv_operands(
        x, w, b, (x_zero_point, w_zero_point), attributes
    )
    x_scale, w_scale = one_scale("x_scale", x_scale), scales("w_scale", w_scale)
    y_scale, y_zero, dtype = output_parameters(y_scale, y_zero_point)
    if np.ndim(w_scale) and w_scale.shape != (len(w),):
        raise ValueError(f"w_scale must have shape {(len(w),)}, got {w_scale.shape}")
    if x.ndim > 4:
        column = (-1, *(1,) * (x.ndim - 2))
        sums = _conv_sums(x, w, x_zero, w_zero, windows, group)
        sums += np.int64(0) if b is None else b.reshape(column)
        multiplier = ratio(times(x_scale, w_scale), y_scale).reshape(column)
        return requantize(sums, multiplier, y_zero, dtype)
    x, w, over = _as_images(x, w, windows)
    y = primitive.conv2d_q8(
        x, w, x_scale=x_scale, w_scale=w_scale, out_scale=y_scale, x_zero_point=x_zero,
        w_zero_point=w_zero, out_zero_point=y_zero, bias=b, groups=group, out_dtype=dtype, **over,
    )
    return y.reshape(*y.shape[:2], *windows.out)


@operator("ConvInteger")
def conv_integer(x, w, x_zero_point=None, w_zero_point=None, **attributes):
    """Convolve images of codes into int32 sums."""
    x, w, _, x_zero, w_zero, windows, group = _conv_operands(
        x, w, None, (x_zero_point, w_zero_point), attributes
    )
    if x.ndim > 4:
        return _validate.int32_array("y", _conv_sums(x, w, x_zero, w_zero, windows, group))
    x, w, over = _as_images(x, w, windows)
    y = primitive.conv2d_q8_accum(
        x, w, x_zero_point=x_zero, w_zero_point=w_zero, groups=group, **over
    )
    return y.reshape(*y.shape[:2], *windows.out)


def _matrices(a, b):
    """Return operands of a product as matrices, and the shape of what it gives."""
    a, b = array_of("A", a, CODES), array_of("B", b, CODES)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(
            f"A and B must have at least 1 dimension, got shapes {a.shape} and {b.shape}"
        )
    left = a[None] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    _validate.same_inner(left.shape, right.shape)
    try:
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(f"A is {a.shape} and B is {b.shape}: leading axes disagree") from None
    return left, right, (*lead, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))


def _by_row(name, value, a):
    """Return a number, or one per row of `a` as a column."""
    if np.ndim(value) == 1:
        value = value[:, None]
    if np.ndim(value):
        check_broadcast(name, value, (*a.shape[:-1], 1))
    return value


def _by_column(name, value, b):
    """Return a number, or one per column of `b`: 1-D if every matrix has the same."""
    if np.ndim(value):
        check_broadcast(name, value, (*b.shape[:-2], 1, b.shape[-1]))
        if value.size == b.shape[-1]:
            return value.reshape(-1)
    return value


def _zeros(a, b, a_zero_point, b_zero_point):
    """Return the zero points of both operands of a product."""
    return (
        _by_row("a_zero_point", zero_points("a_zero_point", a_zero_point, a.dtype), a),
        _by_column("b_zero_point", zero_points("b_zero_point", b_zero_point, b.dtype), b),
    )


def _sums(a, b, a_zero, b_zero):
    """Return the exact int32 sums of products of codes, (..., M, N)."""
    is_plain = not np.ndim(a_zero) and np.ndim(b_zero) < 2 and b.size == math.prod(b.shape[-2:])
    if not is_plain:
        sums = (a.astype(np.float64) - a_zero) @ (b.astype(np.float64) - b_zero)
        return _validate.int32_array("the sums", sums.astype(np.int64))
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    sums = primitive.gemm_nn_q8_accum(
        rows, b.reshape(b.shape[-2:]), a_zero_point=a_zero, b_zero_point=b_zero
    )
    return sums.reshape(*lead, a.shape[-2], b.shape[-1])


@operator("MatMulInteger")
def matmul_integer(a, b, a_zero_point=None, b_zero_point=None):
    """Multiply matrices of codes into int32 sums."""
    a, b, shape = _matrices(a, b)
    return _sums(a, b, *_zeros(a, b, a_zero_point, b_zero_point)).reshape(shape)


@operator("QLinearMatMul")
def qlinear_matmul(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point
):
    """Multiply matrices of codes, and round the sums to codes, equation (9)."""
    a, b, shape = _matrices(a, b)
    a_zero, b_zero = _zeros(a, b, a_zero_point, b_zero_point)
    a_scale = _by_row("a_scale", scales("a_scale", a_scale), a)
    b_scale = _by_column("b_scale", scales("b_scale", b_scale), b)
    y_scale, y_zero, dtype = output_parameters(y_scale, y_zero_point)
    if np.ndim(a_zero) or np.ndim(a_scale) or np.ndim(b_zero) > 1 or np.ndim(b_scale) > 1:
        multiplier = ratio(times(a_scale, b_scale), y_scale)
        sums = _sums(a, b, a_zero, b_zero)
        return requantize(sums, multiplier, y_zero, dtype).reshape(shape)
    return primitive.gemm_batched_q8(
        a, b, a_scale=a_scale, b_scale=b_scale, out_scale=y_scale, a_zero_point=a_zero,
        b_zero_point=b_zero, out_zero_point=y_zero, out_dtype=dtype,
    ).reshape(shape)


@operator("com.microsoft:QGemm")
def qgemm(
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, c=None, y_scale=None, y_zero_point=None, *,
    alpha=1.0, transA=0, transB=0,
):
    """Compute ``alpha * A @ B + C`` of codes; reals if no scale of the output is given."""
    a, b = array_of("A", a, CODES), array_of("B", b, CODES)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"A and B must have 2 dimensions, got shapes {a.shape} and {b.shape}")
    a, b, shape = _matrices(a.T if transA else a, b.T if transB else b)
    sums = _sums(a, b, *_zeros(a, b, a_zero_point, b_zero_point))
    if c is not None:
        c = array_of("C", c, (INT32,))
        check_broadcast("C", c, shape)
        sums = _validate.int32_array("the sums", sums + c.astype(np.int64))
    factor = np.float32(_validate.real("alpha", alpha))
    unit = times(
        times(factor, one_scale("a_scale", a_scale)),
        _by_column("b_scale", scales("b_scale", b_scale), b),
    )
    if y_scale is None and y_zero_point is None:
        return sums.astype(np.float32) * unit
    if y_scale is None or y_zero_point is None:
        raise ValueError("y_scale and y_zero_point must be given together, got one of them")
    y_scale, y_zero, dtype = output_parameters(y_scale, y_zero_point)
    return requantize(sums, ratio(unit, y_scale), y_zero, dtype)


@operator("com.microsoft:MatMulIntegerToFloat")
def matmul_integer_to_float(
    a, b, a_scale, b_scale, a_zero_point=None, b_zero_point=None, bias=None
):
    """Multiply matrices of codes and give reals, equation (22)."""
    dtype = array_of("a_scale", a_scale, REALS).dtype
    a, b, shape = _matrices(a, b)
    sums = _sums(a, b, *_zeros(a, b, a_zero_point, b_zero_point))
    unit = times(
        _by_row("a_scale", scales("a_scale", a_scale, (dtype,)), a),
        _by_column("b_scale", scales("b_scale", b_scale, (dtype,)), b),
    )
    y = sums.astype(np.float32) * unit
    if bias is not None:
        bias = array_of("bias", bias, (dtype,))
        if bias.shape != b.shape[-1:]:
            raise ValueError(f"bias must have shape {b.shape[-1:]}, got {bias.shape}")
        y += bias.astype(np.float32)
    return narrow(y.reshape(shape), dtype)


@operator("com.microsoft:DynamicQuantizeMatMul")
def dynamic_quantize_matmul(a, b, b_scale, b_zero_point=None, bias=None):
    """Quantize the left operand by its own range, and multiply by codes: reals, equation (22)."""
    a, scale, zero = primitive.quantize_dynamic_q8(array_of("A", a, REALS[:1]))
    return matmul_integer_to_float(
        a, b, np.float32(scale), b_scale, np.uint8(zero), b_zero_point, bias
    )
