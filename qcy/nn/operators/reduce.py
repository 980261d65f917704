"""Sums, extremes, softmax, sorting along axes."""

import functools
import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator

#: Rows at least this long are searched for their largest numbers without sorting all of them.
LONG = 256


def _checked(name, x, kinds="fiu"):
    """Return x as an array whose type is among `kinds`."""
    if x is None:
        raise TypeError(f"{name} lacks its input")
    x = np.asarray(x)
    if x.dtype.kind not in kinds:
        also = " or booleans" if "b" in kinds else ""
        numbers = "numbers" if "i" in kinds else "floats"
        raise TypeError(f"{name} takes {numbers}{also}, got {x.dtype}")
    return x


def _comparable(name, x):
    """Return x as an array of numbers or booleans."""
    return _checked(name, x, "fiub")


def _summable(name, x):
    """Return x as an array of numbers that are not soon too small for their sums."""
    x = _checked(name, x)
    if x.dtype.kind in "iu" and x.dtype.itemsize < 4:
        raise TypeError(f"{name} takes integers of 32 or 64 bits, got {x.dtype}")
    return x


def _whole(name, value):
    """Return an input that must be a single integer as one."""
    value = np.asarray(value)
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a single integer, got {value.dtype} of {value.shape}")
    return int(value.item())


def _axis_of(name, x, axis):
    """Return an axis of x counted from the front."""
    if x.ndim == 0:
        raise ValueError(f"{name} needs an array that has axes, got a single number")
    axis = _validate.integer(f"{name}'s axis", axis, -x.ndim, x.ndim - 1)
    return axis % x.ndim


def _reduced_axes(name, x, axes, noop_with_empty_axes):
    """Return the axes to reduce: those given, each once, or all, or none."""
    axes = np.asarray(() if axes is None else axes)
    if axes.size == 0 or x.ndim == 0:
        return () if noop_with_empty_axes else tuple(range(x.ndim))
    if axes.dtype.kind not in "iu" or axes.ndim > 1:
        raise TypeError(
            f"{name}'s axes must be a row of integers, got {axes.dtype} of shape {axes.shape}"
        )
    return tuple({_axis_of(name, x, axis) for axis in axes.reshape(-1).tolist()})


def _reduction(name, check=_summable):
    """Enter ``function(x, axes, keepdims)`` as an operator that reduces axes.

    The result gets the type of x. float16 is computed in float32. Infinities and NaN are results
    like others, of which nothing warns.
    """

    def enter(function):
        @functools.wraps(function)
        def call(x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
            x = check(name, x)
            axes = _reduced_axes(name, x, axes, noop_with_empty_axes)
            work = x.astype(np.float32) if x.dtype == np.float16 else x
            with np.errstate(all="ignore"):
                return np.asarray(function(work, axes, bool(keepdims)), x.dtype)

        return operator(name)(call)

    return enter


@_reduction("ReduceSum")
def reduce_sum(x, axes, keepdims):
    """Return sums; integers wrap around."""
    return np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


@_reduction("ReduceMean")
def reduce_mean(x, axes, keepdims):
    """Return means, of integers cut toward 0; of nothing there are none."""
    count = math.prod(x.shape[axis] for axis in axes)
    if x.dtype.kind == "f":
        return np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype) / x.dtype.type(count)
    if count == 0:
        raise ValueError(f"ReduceMean of integers needs some, got shape {x.shape}, axes {axes}")
    sums = np.sum(x, axis=axes, keepdims=keepdims)
    count = sums.dtype.type(count)
    return (sums - np.fmod(sums, count)) // count


@_reduction("ReduceProd")
def reduce_prod(x, axes, keepdims):
    """Return products; integers wrap around."""
    return np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


@_reduction("ReduceMax", _comparable)
def reduce_max(x, axes, keepdims):
    """Return the largest numbers; of nothing, the smallest that the type has."""
    return np.max(x, axis=axes, keepdims=keepdims, initial=_extreme(x.dtype, -1))


@_reduction("ReduceMin", _comparable)
def reduce_min(x, axes, keepdims):
    """Return the smallest numbers; of nothing, the largest that the type has."""
    return np.min(x, axis=axes, keepdims=keepdims, initial=_extreme(x.dtype, 1))


def _extreme(dtype, sign):
    """Return the largest number of a type, or the smallest if `sign` is negative."""
    if dtype.kind == "f":
        return sign * np.inf
    if dtype.kind == "b":
        return sign > 0
    return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min


@_reduction("ReduceL1")
def reduce_l1(x, axes, keepdims):
    """Return sums of absolute values."""
    return np.sum(np.abs(x), axis=axes, keepdims=keepdims, dtype=x.dtype)


@_reduction("ReduceL2")
def reduce_l2(x, axes, keepdims):
    """Return square roots of sums of squares, which are summed in float64."""
    squares = np.square(x, dtype=np.float64)
    return np.sqrt(np.sum(squares, axis=axes, keepdims=keepdims))


@_reduction("ReduceSumSquare")
def reduce_sum_square(x, axes, keepdims):
    """Return sums of squares; integers wrap around."""
    return np.sum(np.square(x), axis=axes, keepdims=keepdims, dtype=x.dtype)


@_reduction("ReduceLogSum")
def reduce_log_sum(x, axes, keepdims):
    """Return logarithms of sums."""
    return np.log(np.sum(x, axis=axes, keepdims=keepdims, dtype=_real_type(x)))


@_reduction("ReduceLogSumExp")
def reduce_log_sum_exp(x, axes, keepdims):
    """Return logarithms of sums of exponentials, which are taken of distances to the largest."""
    x = x.astype(_real_type(x), copy=False)
    largest = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, x.dtype.type(0))
    power = np.asarray(x - largest)
    np.exp(power, out=power)
    sums = np.sum(power, axis=axes, keepdims=keepdims)
    return np.log(sums) + largest.reshape(np.shape(sums))


def _real_type(x):
    """Return the type in which to compute reals from x."""
    return x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)


@operator("ArgMax")
def arg_max(x, *, axis=0, keepdims=1, select_last_index=0):
    """Return where the largest numbers along an axis are."""
    return _place("ArgMax", np.argmax, x, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x, *, axis=0, keepdims=1, select_last_index=0):
    """Return where the smallest numbers along an axis are."""
    return _place("ArgMin", np.argmin, x, axis, keepdims, select_last_index)


def _place(name, function, x, axis, keepdims, is_last):
    """Return the places that `function` finds along an axis, the last of equal ones if wanted."""
    x = _checked(name, x)
    axis = _axis_of(name, x, axis)
    if x.shape[axis] == 0:
        raise ValueError(f"{name} needs numbers along axis {axis}, got shape {x.shape}")
    if is_last:
        result = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        result = function(x, axis=axis)
    result = np.asarray(result, np.int64)
    return np.expand_dims(result, axis) if keepdims else result


@operator("TopK")
def top_k(x, k, *, axis=-1, largest=1, sorted=1):
    """Return the k largest or smallest numbers along an axis, sorted always, and their places.

    Of equal ones the first come first. NaN is the largest number.
    """
    x = _checked("TopK", x)
    axis = _axis_of("TopK", x, axis)
    k = _validate.integer("k", _whole("k", k), 0, x.shape[axis])
    rows = np.moveaxis(x, axis, -1)
    if k and rows.shape[-1] >= max(LONG, 4 * k) and not np.any(rows != rows):
        chosen = _among_best(rows, k, largest)
        order = _sorted_places(np.take_along_axis(rows, chosen, -1), largest)
        places = np.take_along_axis(chosen, order, -1)
    else:
        places = _sorted_places(rows, largest)[..., :k]
    values = np.take_along_axis(rows, places, -1)
    places = places.astype(np.int64, copy=False)
    return tuple(np.ascontiguousarray(np.moveaxis(y, -1, axis)) for y in (values, places))


def _sorted_places(rows, is_descending):
    """Return the order of each row's numbers, in which equal ones stay as they were."""
    if not is_descending:
        return np.argsort(rows, axis=-1, kind="stable")
    backward = np.argsort(rows[..., ::-1], axis=-1, kind="stable")
    return rows.shape[-1] - 1 - backward[..., ::-1]


def _among_best(rows, k, is_largest):
    """Return the places of each row's k best numbers, of equal ones the first, as they come."""
    at = rows.shape[-1] - k if is_largest else k - 1
    bound = np.partition(rows, at, axis=-1)[..., at:at + 1]
    chosen = rows > bound if is_largest else rows < bound
    equal = rows == bound
    equal &= np.cumsum(equal, axis=-1) <= k - np.count_nonzero(chosen, axis=-1, keepdims=True)
    chosen |= equal
    return np.nonzero(chosen)[-1].reshape(*rows.shape[:-1], k)


def _along_rows(name):
    """Enter ``function(rows, axis)`` of floats as an operator along one axis.

    With the attribute `flattened`, which is not ONNX's, the array is first made a matrix, of which
    the columns are the axes from `axis` on: so it was in operator sets below 13.
    """

    def enter(function):
        @functools.wraps(function)
        def call(x, *, axis=-1, flattened=0):
            x = _checked(name, x, "f")
            axis = _axis_of(name, x, axis)
            work = x.astype(np.float32) if x.dtype == np.float16 else x
            if flattened:
                work = work.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
                axis = 1
            if work.size == 0:
                return np.empty_like(x)
            with np.errstate(all="ignore"):
                return np.asarray(function(work, axis), x.dtype).reshape(x.shape)

        return operator(name)(call)

    return enter


@_along_rows("Softmax")
def softmax(x, axis):
    """Return exponentials, of which those along an axis are divided by their sum."""
    power = x - np.max(x, axis=axis, keepdims=True)
    np.exp(power, out=power)
    power /= np.sum(power, axis=axis, keepdims=True)
    return power


@_along_rows("LogSoftmax")
def log_softmax(x, axis):
    """Return the logarithms of `softmax`."""
    y = x - np.max(x, axis=axis, keepdims=True)
    y -= np.log(np.sum(np.exp(y), axis=axis, keepdims=True))
    return y


@_along_rows("Hardmax")
def hardmax(x, axis):
    """Return 1 for the first of the largest numbers along an axis, and 0 for the others."""
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(np.argmax(x, axis=axis), axis), 1, axis)
    return y


@operator("CumSum")
def cum_sum(x, axis, *, exclusive=0, reverse=0):
    """Return the sums of the numbers up to each one, or before it, or from the end."""
    x = _summable("CumSum", x)
    axis = _axis_of("CumSum", x, _whole("CumSum's axis", axis))
    rows = np.moveaxis(x, axis, -1)
    y = np.zeros(x.shape, np.float32 if x.dtype == np.float16 else x.dtype)
    sums = np.moveaxis(y, axis, -1)
    if reverse:
        rows, sums = rows[..., ::-1], sums[..., ::-1]
    if exclusive:
        rows, sums = rows[..., :-1], sums[..., 1:]
    with np.errstate(all="ignore"):
        np.cumsum(rows, axis=-1, dtype=y.dtype, out=sums)
        return y.astype(x.dtype, copy=False)


@operator("NonZero")
def non_zero(x):
    """Return where numbers are not 0: a row of indices per axis; without axes there are no rows."""
    x = _comparable("NonZero", x)
    if x.ndim == 0:
        return np.zeros((0, int(x.item() != 0)), np.int64)
    return np.asarray(np.nonzero(x), np.int64)
