"""Arithmetic on codes, element by element: add, mul, clamp, softmax."""

import math
from functools import partial

import numpy as np

from qcy import _kernels, _validate
from qcy._step import Place
from qcy.primitive.binding import bindable
from qcy.primitive.codes import clamp_codes, flip_of, output_target
from qcy.primitive.move import strided_q8


@partial(bindable, n_read=2)
def add_q8(
    a, b, *, a_scale, b_scale, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0,
    out_dtype="uint8", clamp=None, out=None, n_threads=None,
):
    """Add codes: two float32 products, their sum, one rounding, equation (15).

    Parameters
    ----------
    a, b : array, int8 or uint8
        Codes; shapes broadcast.
    a_scale, b_scale, out_scale : float
    a_zero_point, b_zero_point, out_zero_point : int, default 0
    out_dtype : {"uint8", "int8"}, default "uint8"
    clamp : (int, int), optional
        Smallest and largest output code, as a fused activation needs.
    out : array of `out_dtype`, optional
    n_threads : int, optional

    Returns
    -------
    array of `out_dtype`, of the broadcast shape

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a ratio of scales is not a normal float32.

    Examples
    --------
    >>> a, b = np.array([10, 20], np.uint8), np.array([1, 2], np.uint8)
    >>> add_q8(a, b, a_scale=1.0, b_scale=10.0, out_scale=2.0)
    array([10, 20], dtype=uint8)
    """
    (a, b), operands = _operands(a, b, a_zero_point, b_zero_point)
    scales = [
        _validate.scale(name, value, 0)
        for name, value in (("a_scale", a_scale), ("b_scale", b_scale), ("out_scale", out_scale))
    ]
    with np.errstate(over="ignore", under="ignore"):
        multipliers = [
            _multiplier(scale / scales[2], f"{name}_scale", scale, scales[2])
            for name, scale in zip("ab", scales, strict=False)
        ]
    is_wild = 255 * sum(multipliers) >= 2.0**31
    out, target = _output(out, out_dtype, out_zero_point, clamp, a, b)
    step = _kernels.active.q8.add(
        a, b, a.size, *multipliers, operands, (*target, is_wild), out
    )
    return step, out, None


@partial(bindable, n_read=2)
def mul_q8(
    a, b, *, a_scale, b_scale, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0,
    out_dtype="uint8", clamp=None, out=None, n_threads=None,
):
    """Multiply codes: equation (9) with ``acc = (a - a_zero_point) * (b - b_zero_point)``.

    Parameters
    ----------
    a, b, a_scale, b_scale, out_scale, a_zero_point, b_zero_point, out_zero_point, out_dtype, \
clamp, out, n_threads
        As for `add_q8`.

    Returns
    -------
    array of `out_dtype`, of the broadcast shape

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the multiplier is not a normal float32.

    Examples
    --------
    >>> a, b = np.array([10, 20], np.uint8), np.array([1, 2], np.uint8)
    >>> mul_q8(a, b, a_scale=1.0, b_scale=0.5, out_scale=0.5)
    array([10, 40], dtype=uint8)
    """
    (a, b), operands = _operands(a, b, a_zero_point, b_zero_point)
    a_scale = _validate.scale("a_scale", a_scale, 0)
    b_scale = _validate.scale("b_scale", b_scale, 0)
    out_scale = _validate.scale("out_scale", out_scale, 0)
    with np.errstate(over="ignore", under="ignore"):
        multiplier = np.asarray(a_scale * b_scale / out_scale, np.float32)
    _validate.multipliers(
        multiplier, ("a_scale", a_scale), ("b_scale", b_scale), ("out_scale", out_scale)
    )
    is_wild = 255 * 255 * float(multiplier) >= 2.0**31
    out, target = _output(out, out_dtype, out_zero_point, clamp, a, b)
    step = _kernels.active.q8.mul(
        a, b, a.size, float(multiplier), operands, (*target, is_wild), out
    )
    return step, out, None


@bindable
def clamp_q8(codes, low, high, *, out=None, n_threads=None):
    """Clamp codes: ReLU is ``clamp_q8(codes, zero_point, qmax)``, equation (14).

    Parameters
    ----------
    codes : array, int8 or uint8
    low, high : int
        Smallest and largest code of the output.
    out : array of `codes`' dtype and shape, optional
    n_threads : int, optional

    Returns
    -------
    array of `codes`' dtype and shape

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> clamp_q8(np.array([1, 100, 200], np.uint8), 50, 150)
    array([ 50, 100, 150], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    low, high = clamp_codes((low, high), codes.dtype)
    out = _validate.output("out", out, codes.shape, codes.dtype)
    shift = flip_of(codes.dtype)
    step = _kernels.active.q8.clamp(
        codes, codes.size, low + shift, high + shift, shift, out
    )
    return step, out, None


def softmax_table(scale):
    """Return ``E[d] = rint(2**24 * exp(-scale * d))``, d = 0..255, of equation (18)."""
    scale = float(_validate.scale("scale", scale, 0))
    return np.array([round(2**24 * math.exp(-scale * d)) for d in range(256)], np.int32)


@bindable
def softmax_q8(codes, table, *, out_dtype="uint8", out=None, n_threads=None):
    """Take the softmax over the last axis, in integers, equation (18).

    Parameters
    ----------
    codes : (..., N) array, int8 or uint8
    table : (256,) int32 array
        From `softmax_table` with the scale of `codes`. (Their zero point cancels.)
    out_dtype : {"uint8", "int8"}, default "uint8"
        The output's scale is 1/256 and its zero point the smallest code.
    out : (..., N) array of `out_dtype`, optional
    n_threads : int, optional

    Returns
    -------
    (..., N) array of `out_dtype`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> softmax_q8(np.array([[7, 7]], np.uint8), softmax_table(0.1))
    array([[128, 128]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    if codes.ndim == 0:
        raise ValueError("codes must have at least 1 dimension, got shape ()")
    table = _validate.int32_array("table", table, (256,))
    if table.min() < 0:
        raise ValueError(f"table must hold no negative number, got {table.min()}")
    if table[0] == 0:           # each row sums it at least once, and divides by the sum
        raise ValueError("table[0] must be positive, got 0")
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    out = _validate.output("out", out, codes.shape, out_dtype)
    n_rows = codes.size // codes.shape[-1] if codes.size else 0
    step = _kernels.active.q8.softmax(
        codes, n_rows, codes.shape[-1], table, flip_of(codes.dtype),
        *_validate.code_range(out_dtype), out,
    )
    return step, out, None


def _operands(a, b, a_zero_point, b_zero_point):
    """Return both operands broadcast; and their zero points, and whether they are int8."""
    arrays, zeros, signed = [], [], []
    for name, codes, zero in (("a", a, a_zero_point), ("b", b, b_zero_point)):
        codes = _validate.q8_array(name, codes)
        zeros.append(_validate.code(f"{name}_zero_point", zero, codes.dtype))
        signed.append(codes.dtype == np.int8)
        arrays.append(codes)
    if arrays[0].shape != arrays[1].shape:
        shapes = [array.shape for array in arrays]
        try:
            shape = np.broadcast_shapes(*shapes)
            arrays = [_spread(array, shape) for array in arrays]
        except ValueError:
            raise ValueError(
                f"a is {shapes[0]} and b is {shapes[1]}: shapes do not broadcast"
            ) from None
    return arrays, (*zeros, *signed)


def _spread(codes, shape):
    """Return codes repeated along axes in which there is one of them."""
    if codes.shape == shape:
        return codes
    if type(codes) is not Place:
        return np.ascontiguousarray(np.broadcast_to(codes, shape))
    sizes = (1,) * (len(shape) - codes.ndim) + codes.shape
    steps = [int(np.prod(sizes[i + 1 :], dtype=np.int64)) for i in range(len(sizes))]
    return strided_q8(codes, shape, [0 if n == 1 else s for n, s in zip(sizes, steps, strict=True)])


def _output(out, dtype, zero_point, clamp, a, b):
    dtype = _validate.q8_dtype("out_dtype", dtype)
    out = _validate.output("out", out, a.shape, dtype)
    return out, output_target(dtype, zero_point, clamp)


def _multiplier(ratio, name, scale, out_scale):
    _validate.multipliers(np.float32(ratio), (name, scale), ("out_scale", out_scale))
    return float(ratio)
