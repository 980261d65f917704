"""Argument checks, in one voice. Public functions call these; nothing below them checks again."""

import operator
from numbers import Real

import numpy as np

from qcy._recorder import Recorder
from qcy._step import Place

Q8_DTYPES = (np.dtype(np.uint8), np.dtype(np.int8))
#: Smallest multiplier and scale: the smallest normal float32.
MIN_NORMAL = np.finfo(np.float32).tiny
ROUNDINGS = ("nearest_even", "tflite", "tflite_single")
LAYOUTS = ("NCHW", "NHWC")


def q8_dtype(name, dtype):
    """Return `dtype` as int8 or uint8."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        result = None
    if result not in Q8_DTYPES:
        raise TypeError(f"{name} must be int8 or uint8, got {dtype!r}")
    return result


def q8_array(name, array, ndim=None):
    """Return `array` as C-ordered int8 or uint8 codes, with `ndim` axes if given."""
    if type(array) is not np.ndarray and type(array) is not Place:
        array = np.asarray(array)
    if array.dtype not in Q8_DTYPES:
        raise TypeError(f"{name} must be int8 or uint8, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    if type(array) is Place or array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array)


def int32_array(name, array, shape=None):
    """Return `array` as C-ordered int32, of `shape` if given; other integers must fit."""
    given = np.asarray(array)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {given.dtype}")
    if shape is not None and given.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {given.shape}")
    if given.dtype != np.int32:
        outside = (given > 2**31 - 1) | (given < -(2**31))
        if outside.any():
            place = tuple(int(i) for i in np.argwhere(outside)[0])
            raise ValueError(f"{name} must fit int32, got {given[place]} in element {place}")
    return np.ascontiguousarray(given, np.int32) if given.ndim else given.astype(np.int32)


def real_array(name, array):
    """Return `array` as C-ordered float32; float64, float16 and integers are rounded to it."""
    if type(array) is Place and array.dtype == np.float32:
        return array
    given = np.asarray(array)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {given.dtype}")
    if given.dtype == np.float32 and given.flags.c_contiguous:
        return given
    with np.errstate(over="ignore"):        # becomes inf, which saturates
        return np.ascontiguousarray(given, np.float32).reshape(given.shape)


def same_inner(a, b):
    """Check that the inner dimensions of a product agree."""
    if a[-1] != b[-2]:
        raise ValueError(f"a is {tuple(a)} and b is {tuple(b)}: inner dimensions differ")


def output(name, out, shape, dtype):
    """Return `out` if it can hold the result as it is, or a new array if it is None."""
    if out is None:
        return np.empty(shape, dtype)
    shape = tuple(shape)
    if type(out) is np.ndarray and out.shape == shape and out.dtype == dtype and out.flags.carray:
        return out
    if type(out) is Recorder:
        return out.allocate(shape, dtype)
    if type(out) is Place and out.shape == shape and out.dtype == dtype:
        return out
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype or not out.flags.carray:
        kind = "" if out.flags.c_contiguous else "not C-ordered "
        kind += "" if out.flags.writeable else "read-only "
        raise ValueError(
            f"{name} must be a writable C-ordered {np.dtype(dtype)} array of shape {shape}, "
            f"got {kind}{out.dtype} of shape {out.shape}"
        )
    return out


def integer(name, value, low, high=None):
    """Return `value` as an int within ``[low, high]``."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
    if result < low or (high is not None and result > high):
        bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return result


def real(name, value):
    """Return `value` as a float if it is a real number; NaN and infinities are."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return float(value)


def axis(name, value, ndim=None):
    """Return `value` as an axis counted from the front."""
    return integer(name, value, 0, None if ndim is None else ndim - 1)


def code(name, value, dtype):
    """Return `value` as an int that is a code of `dtype`."""
    return integer(name, value, *code_range(dtype))


def _number_or_channels(name, array, ndim, length):
    """Check that `array` is one number, or has one number per channel."""
    if ndim is not None and array.ndim != ndim:
        kind = "1-D, one per channel" if ndim else "a number"
        raise ValueError(f"{name} must be {kind}, got shape {array.shape}")
    if array.ndim > 1 or (length is not None and array.ndim == 1 and array.size != length):
        raise ValueError(
            f"{name} must be a number or have one per channel ({length}), got shape {array.shape}"
        )


def _first(given, bad):
    """Return the first bad number, and the channel if there are several."""
    where = f" in channel {int(np.argmax(bad))}" if given.ndim else ""
    return f"{given[bad].flat[0]}{where}"


def scale(name, value, ndim=None, length=None):
    """Return `value` as float32: one scale (0-d) or one per channel (1-D)."""
    if type(value) is float and not ndim and 1e-37 < value < 1e38:      # what it nearly always is
        return np.float32(value)
    try:
        given = np.asarray(value)
    except ValueError:                      # a ragged list
        given = np.asarray(None)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be a real number or an array of them, got {value!r}")
    _number_or_channels(name, given, ndim, length)
    with np.errstate(over="ignore", under="ignore"):
        result = given.astype(np.float32)
    bad = ~(np.isfinite(result) & (result >= MIN_NORMAL))
    if bad.any():
        raise ValueError(
            f"{name} must be positive, finite and at least 2**-126, got {_first(given, bad)}"
        )
    return np.ascontiguousarray(result).reshape(given.shape)


def zero_point(name, value, qmin, qmax, ndim=None, length=None):
    """Return `value` as int32: one zero point (0-d) or one per channel (1-D)."""
    if type(value) is int and not ndim and qmin <= value <= qmax:       # what it nearly always is
        return np.array(value, np.int32)
    given = np.asarray(value)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {value!r}")
    _number_or_channels(name, given, ndim, length)
    bad = (given < qmin) | (given > qmax)
    if bad.any():
        raise ValueError(f"{name} must be in [{qmin}, {qmax}], got {_first(given, bad)}")
    return np.ascontiguousarray(given, np.int32).reshape(given.shape)


def code_range(dtype):
    """Return the smallest and the largest code of `dtype`, int8 or uint8."""
    return (0, 255) if dtype == np.uint8 else (-128, 127)


def zero_points(name, value, dtype, length=None):
    """Return zero points for codes of `dtype`: 0-d, or 1-D of `length`."""
    return zero_point(name, value, *code_range(dtype), length=length)


def multipliers(multiplier, *scales, place="channel"):
    """Check equation (9): every multiplier is a normal number; name the channel that is not."""
    if type(multiplier) is np.float32 and MIN_NORMAL <= multiplier < np.inf:
        return multiplier
    bad = ~(np.isfinite(multiplier) & (multiplier >= MIN_NORMAL))
    if bad.any():
        channel = int(np.flatnonzero(np.atleast_1d(bad))[0])
        given = ", ".join(
            f"{name}={np.atleast_1d(s)[min(channel, np.size(s) - 1)]}" for name, s in scales
        )
        raise ValueError(
            f"the multiplier of {place} {channel} is {np.atleast_1d(multiplier)[channel]}, "
            f"it must be finite and at least 2**-126: {given}"
        )
    return multiplier


def scheme_and_axis(scheme, axis_):
    """Check that a per-channel scheme has an axis, and only then."""
    if not hasattr(scheme, "is_per_channel"):
        raise TypeError(f"scheme must be a QuantizationScheme, got {scheme!r}")
    if scheme.is_per_channel != (axis_ is not None):
        raise ValueError(f"PER_CHANNEL needs an axis, and only it: got {scheme}, axis={axis_}")
    if axis_ is not None:
        axis("axis", axis_)


def choice(name, value, allowed):
    """Return `value` if it is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def pair(name, value, low):
    """Return a number or a pair of them as (height, width)."""
    is_several = isinstance(value, (tuple, list)) or np.ndim(value)
    values = tuple(value) if is_several else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be a number or a pair, got {value!r}")
    return tuple(integer(name, v, low) for v in values)


def padding(name, value):
    """Return a number, a pair (height, width) or four sides as (top, left, bottom, right)."""
    values = tuple(value) if isinstance(value, (tuple, list)) or np.ndim(value) else (value,)
    if len(values) not in (1, 2, 4):
        raise ValueError(
            f"{name} must be a number, a pair or (top, left, bottom, right), got {value!r}"
        )
    values = tuple(integer(name, v, 0) for v in values)
    return values if len(values) == 4 else (values * 4 if len(values) == 1 else values * 2)
