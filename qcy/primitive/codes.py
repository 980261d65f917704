"""Between reals, 32-bit sums and codes: quantize, dequantize, requantize, look up, copy."""

import numpy as np

from qcy import _kernels, _validate
from qcy._step import check_apart
from qcy.primitive.binding import bindable


def flip_of(dtype):
    """Return what turns codes of `dtype` into uint8, as exclusive or, and shifts zero points."""
    return 0 if dtype == np.uint8 else 0x80


def clamp_codes(clamp, dtype):
    """Return the smallest and the largest output code: those of `clamp`, or of `dtype`."""
    qmin, qmax = _validate.code_range(dtype)
    if clamp is None:
        return qmin, qmax
    if not isinstance(clamp, (tuple, list, np.ndarray)):
        raise TypeError(f"clamp must be (low, high), got {clamp!r}")
    if len(clamp) != 2:
        raise ValueError(f"clamp must be (low, high), got {clamp!r}")
    low, high = clamp
    low = _validate.code("clamp[0]", low, dtype)
    high = _validate.code("clamp[1]", high, dtype)
    if low > high:
        raise ValueError(f"clamp must be (low, high) with low <= high, got {clamp}")
    return low, high


def output_target(dtype, zero_point, clamp=None):
    """Return how kernels fill an output: (zero_point, low, high, flip), all as uint8."""
    zero_point = _validate.code("out_zero_point", zero_point, dtype)
    low, high = clamp_codes(clamp, dtype)
    shift = flip_of(dtype)
    return zero_point + shift, low + shift, high + shift, shift


def _channels(shape, axis, scale_name, scale, zero_point, dtype):
    """Return per-channel arrays, and how many elements side by side share a channel."""
    if axis is not None:
        axis = _validate.integer("axis", axis, -len(shape), len(shape) - 1) % len(shape)
    length = None if axis is None else shape[axis]
    ndim = 0 if axis is None else None
    scale = _validate.scale(scale_name, scale, ndim, length)
    zero_point = _validate.zero_point(
        "zero_point", zero_point, *_validate.code_range(dtype), ndim, length
    )
    if axis is None:
        return scale.reshape(1), zero_point.reshape(1), 1
    n_channels = shape[axis]
    inner = int(np.prod(shape[axis + 1 :]))
    return (
        np.ascontiguousarray(np.broadcast_to(scale, (n_channels,))),
        np.ascontiguousarray(np.broadcast_to(zero_point, (n_channels,))),
        inner,
    )


@bindable
def quantize_q8(x, scale, zero_point=0, *, axis=None, dtype="uint8", out=None, n_threads=None):
    """Turn reals into codes: ``saturate(rint(x / scale) + zero_point)``, equation (4).

    Rounds half to even, by true division, before the zero point is added. Infinities saturate.

    Parameters
    ----------
    x : array, real
        Anything but float32 is rounded to float32 first.
    scale : float or (C,) array
        Real size of one step, one or one per channel.
    zero_point : int or (C,) array of int, default 0
        The code of 0.0.
    axis : int, optional
        Channel axis of `x`, if scales are per channel.
    dtype : {"uint8", "int8"}, default "uint8"
    out : array of `dtype`, shaped as `x`, optional
        Where to write the codes; C-ordered, writable, apart from `x`.
    n_threads : int, optional
        Threads to use. Default: see `qcy.threads`.

    Returns
    -------
    array of `dtype`, shaped as `x`
        This is `out`, if given.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or `x` holds a NaN (the content of `out` is then unspecified).

    Examples
    --------
    >>> quantize_q8(np.array([-1.0, 0.0, 0.25, 0.75, 9e9], np.float32), 0.5, 10)
    array([  8,  10,  10,  12, 255], dtype=uint8)
    """
    x = _validate.real_array("x", x)
    dtype = _validate.q8_dtype("dtype", dtype)
    scale, zero_point, inner = _channels(x.shape, axis, "scale", scale, zero_point, dtype)
    out = _validate.output("out", out, x.shape, dtype)
    step = _kernels.active.q8.quantize(
        x, x.size, scale, zero_point, inner, dtype == np.int8, *_validate.code_range(dtype), out
    )
    step.complaint = "x must not hold NaN, got {} of them"
    return step, out, None


@bindable
def dequantize_q8(codes, scale, zero_point=0, *, axis=None, out=None, n_threads=None):
    """Turn codes into reals: ``scale * float32(code - zero_point)``, equation (5).

    Parameters
    ----------
    codes : array, int8 or uint8
    scale : float or (C,) array
    zero_point : int or (C,) array of int, default 0
    axis : int, optional
        Channel axis of `codes`, if scales are per channel.
    out : float32 array, shaped as `codes`, optional
    n_threads : int, optional
        As for `quantize_q8`.

    Returns
    -------
    float32 array, shaped as `codes`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> dequantize_q8(np.array([8, 10, 12], np.uint8), 0.5, 10)
    array([-1.,  0.,  1.], dtype=float32)
    """
    codes = _validate.q8_array("codes", codes)
    scale, zero_point, inner = _channels(
        codes.shape, axis, "scale", scale, zero_point, codes.dtype
    )
    out = _validate.output("out", out, codes.shape, np.float32)
    step = _kernels.active.q8.dequantize(
        codes, codes.size, scale, zero_point, inner, codes.dtype == np.int8, out
    )
    return step, out, None


@bindable
def requantize_q8(
    acc, multiplier, *, zero_point=0, dtype="uint8", bias=None, rounding="nearest_even",
    clamp=None, out=None, n_threads=None,
):
    """Turn 32-bit sums into codes: ``saturate(rint(float32(acc) * multiplier) + zero_point)``.

    Equation (9), or (10) for the roundings of TFLite.

    Parameters
    ----------
    acc : (..., N) array, int32
    multiplier : float or (N,) array
        ``a_scale * b_scale / out_scale``, one or one per channel of the last axis; finite and at
        least 2**-126.
    zero_point : int, default 0
        The output's code of 0.0.
    dtype : {"uint8", "int8"}, default "uint8"
    bias : (N,) array, int32, optional
        Added to `acc` first; for the roundings of TFLite the sum must fit int32.
    rounding : {"nearest_even", "tflite", "tflite_single"}, default "nearest_even"
    clamp : (int, int), optional
        Smallest and largest output code.
    out : array of `dtype`, shaped as `acc`, optional
    n_threads : int, optional
        As for `quantize_q8`.

    Returns
    -------
    array of `dtype`, shaped as `acc`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> requantize_q8(np.array([[1, 3, -5, 10**6]], np.int32), 0.5, zero_point=10)
    array([[ 10,  12,   8, 255]], dtype=uint8)
    """
    acc = _validate.int32_array("acc", acc)
    dtype = _validate.q8_dtype("dtype", dtype)
    _validate.choice("rounding", rounding, _validate.ROUNDINGS)
    n_cols = acc.shape[-1] if acc.ndim else 1
    multiplier = _validate.scale("multiplier", multiplier, length=n_cols)
    multiplier = np.ascontiguousarray(np.broadcast_to(multiplier, (n_cols,)))
    if bias is not None:
        bias = _validate.int32_array("bias", bias, (n_cols,))
    zero_point = _validate.code("zero_point", zero_point, dtype)
    low, high = clamp_codes(clamp, dtype)
    out = _validate.output("out", out, acc.shape, dtype)
    mode = _validate.ROUNDINGS.index(rounding)
    if mode and bias is not None and acc.size:
        _check_biased(acc.reshape(-1, n_cols), bias)
    fixed, shift = _fixed_point(multiplier) if mode else (None, None)
    step = _kernels.active.q8.requantize(
        acc, acc.size, bias, multiplier, fixed, shift, mode, np.array([zero_point], np.int32),
        low, high, out,
    )
    return step, out, None


def _check_biased(acc, bias):
    """Check that sums fit int32 with their bias, which the roundings of TFLite rest on."""
    for extreme in (acc.min(axis=0), acc.max(axis=0)):
        total = extreme.astype(np.int64) + bias
        if (total != total.astype(np.int32)).any():
            channel = int(np.argmax(total != total.astype(np.int32)))
            raise ValueError(
                f"acc + bias must fit int32 for the roundings of TFLite, got {total[channel]} in "
                f"channel {channel}"
            )


def _fixed_point(multiplier):
    """Split multipliers into ``fixed / 2**31 * 2**shift`` with fixed in [2**30, 2**31)."""
    fraction, shift = np.frexp(multiplier.astype(np.float64))
    fixed = np.rint(fraction * 2**31).astype(np.int64)
    carry = fixed == 2**31
    fixed[carry] //= 2
    shift = shift + carry
    fixed[shift < -31] = 0              # every sum rounds to zero
    fixed[shift > 10] = 2**31 - 1       # every sum but zero saturates
    return fixed.astype(np.int32), np.clip(shift, -31, 10).astype(np.int32)


@bindable
def lookup_q8(codes, table, *, out=None, n_threads=None):
    """Replace each code by its entry in a table: any function of one input, equation (17).

    Parameters
    ----------
    codes : array, int8 or uint8
    table : (256,) array, int8 or uint8
        Entry i is for the code ``qmin + i`` of `codes`' dtype.
    out : array of the table's dtype, shaped as `codes`, optional
    n_threads : int, optional
        As for `quantize_q8`.

    Returns
    -------
    array of the table's dtype, shaped as `codes`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> table = np.arange(256, dtype=np.uint8)[::-1]
    >>> lookup_q8(np.array([0, 1, 255], np.uint8), table)
    array([255, 254,   0], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    table = code_table(table)
    out = _validate.output("out", out, codes.shape, table.dtype)
    step = _kernels.active.q8.lookup(codes, codes.size, by_byte(table, codes.dtype), out)
    return step, out, None


def code_table(table):
    """Check a table of equation (17)."""
    table = _validate.q8_array("table", table, 1)
    if table.size != 256:
        raise ValueError(f"table must have 256 entries, got {table.size}")
    return table


def by_byte(table, dtype):
    """Return a table ordered by the byte of each code of `dtype`, as the kernels read it."""
    entries = table.view(np.uint8)
    return entries if dtype == np.uint8 else np.roll(entries, 128)


def copy_q8(x, out, n=None, *, stride_in=1, stride_out=1):
    """Copy codes between vectors, every `stride_in`-th to every `stride_out`-th.

    Parameters
    ----------
    x : 1-D array, int8 or uint8
    out : 1-D array of the same dtype
        Written in place; apart from `x`. Other elements stay as they are.
    n : int, optional
        How many codes. Default: as many as `x` holds at its stride.
    stride_in, stride_out : int, default 1
        Steps between codes, at least 1.

    Returns
    -------
    array
        `out`.

    Raises
    ------
    TypeError, ValueError
        If dtypes differ, or a vector is too short.

    Examples
    --------
    >>> out = np.zeros(6, np.uint8)
    >>> copy_q8(np.array([1, 2, 3], np.uint8), out, stride_out=2)
    array([1, 0, 2, 0, 3, 0], dtype=uint8)
    """
    for name, array in (("x", x), ("out", out)):
        if not isinstance(array, np.ndarray) or array.dtype not in _validate.Q8_DTYPES:
            raise TypeError(f"{name} must be an int8 or uint8 array, got {array!r}")
        if array.ndim != 1:
            raise ValueError(f"{name} must have 1 dimension, got shape {array.shape}")
    if x.dtype != out.dtype:
        raise TypeError(f"x and out must have one dtype, got {x.dtype} and {out.dtype}")
    stride_in = _validate.integer("stride_in", stride_in, 1)
    stride_out = _validate.integer("stride_out", stride_out, 1)
    n = -(-x.size // stride_in) if n is None else _validate.integer("n", n, 0)
    for name, array, stride in (("x", x, stride_in), ("out", out, stride_out)):
        if n and (n - 1) * stride >= array.size:
            raise ValueError(
                f"{name} must hold {n} codes at stride {stride}, it has {array.size} elements"
            )
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if np.shares_memory(x, out):
        raise ValueError("out must not overlap x")
    out[: n * stride_out : stride_out] = x[: n * stride_in : stride_in]
    return out


def quantize_dynamic_q8(x, *, per_row=False, out=None, n_threads=None):
    """Choose parameters from the data itself, and quantize it to uint8, equation (6).

    Float32 throughout, as ONNX's DynamicQuantizeLinear: ``scale = (max(0, max x) - min(0, min x))
    / 255``, ``zero_point = rint(clamp(-min / scale, 0, 255))``.

    Parameters
    ----------
    x : array, real
    per_row : bool, default False
        Whether each row, along the last axis, gets parameters of its own.
    out : uint8 array, shaped as `x`, optional
    n_threads : int, optional
        As for `quantize_q8`.

    Returns
    -------
    codes : uint8 array, shaped as `x`
    scale : float32, or float32 array of the shape of `x` without its last axis
    zero_point : int, or int32 array of that shape
        All-zero input gives scale 1 and zero point 0.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or `x` holds a NaN or an infinity.

    Examples
    --------
    >>> quantize_dynamic_q8(np.array([-1.0, 0.0, 1.55], np.float32))
    (array([  0, 100, 255], dtype=uint8), np.float32(0.01), 100)
    """
    check_apart(out, (x,))
    x = _validate.real_array("x", x)
    if per_row and x.ndim == 0:
        raise ValueError("x must have rows, got shape ()")
    over = -1 if per_row else None
    low = np.minimum(x.min(axis=over, initial=0), np.float32(0))
    high = np.maximum(x.max(axis=over, initial=0), np.float32(0))
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.asarray((high - low) / np.float32(255), np.float32)
    if not np.isfinite(scale).all():
        raise ValueError("x must be finite and its range fit float32")
    scale = np.where(high == low, np.float32(1), np.maximum(scale, _validate.MIN_NORMAL))
    with np.errstate(over="ignore"):
        zero_point = np.rint(np.clip(-low / scale, 0, 255)).astype(np.int32)
    if not per_row:
        codes = quantize_q8(x, scale, int(zero_point), out=out, n_threads=n_threads)
        return codes, np.float32(scale), int(zero_point)
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    out = _validate.output("out", out, x.shape, np.uint8)
    if out.size:
        quantize_q8(
            rows, scale.reshape(-1), zero_point.reshape(-1), axis=0, out=out.reshape(rows.shape),
            n_threads=n_threads,
        )
    return out, scale, zero_point
