"""Operators that give numbers another shape or another place."""

import functools
import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator

#: More elements than this no operator allocates because a shape says so.
LARGEST = 2**31
#: NumPy's types by the numbers that ONNX gives them.
DTYPES = {
    number: np.dtype(name) for number, name in {
        1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
        9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    }.items()
}


# ---------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------

def array_of(name, values):
    """Return an input as an array of numbers or of bool."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers or bool, got {values.dtype}")
    return values


def axis_of(name, axis, ndim):
    """Return an axis counted from the front; a negative one counts from the back."""
    if not ndim:
        raise ValueError(f"{name} is {axis}, but a number has no axes")
    axis = _validate.integer(name, axis, -ndim, ndim - 1)
    return axis + ndim if axis < 0 else axis


def axes_of(name, axes, ndim, repeated=False):
    """Return several axes counted from the front, which must differ unless `repeated`."""
    found = [axis_of(name, axis, ndim) for axis in integers(name, axes)]
    if len(set(found)) < len(found) and not repeated:
        raise ValueError(f"{name} must differ, got {list(integers(name, axes))}")
    return found


def integers(name, values):
    """Return a list of Python ints from an array of at most one axis."""
    values = np.asarray(values)
    if values.ndim > 1:
        raise ValueError(f"{name} must be 1-D, got shape {values.shape}")
    if values.size and values.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {values.dtype}")
    return values.ravel().tolist()


def whole(name, value):
    """Return the one integer that an array or a number holds."""
    values = integers(name, value)
    if len(values) != 1:
        raise ValueError(f"{name} must be one integer, got {len(values)}")
    return values[0]


def flag(name, value):
    """Return an attribute that is 0 or 1 as a bool."""
    return bool(_validate.integer(name, int(value) if isinstance(value, bool) else value, 0, 1))


def within_limits(shape):
    """Return `shape` as a tuple unless it is negative or too large to allocate."""
    shape = tuple(shape)
    if any(not 0 <= size <= LARGEST for size in shape):
        raise ValueError(f"sizes must be in [0, 2**31], got {shape}")
    if math.prod(shape) > LARGEST:
        raise ValueError(f"a result may have 2**31 elements, shape {shape} has {math.prod(shape)}")
    if len(shape) > 32:
        raise ValueError(f"a result may have 32 axes, got {len(shape)}")
    return shape


def same_dtype(name, array, dtype):
    """Check that an input has the type of another one."""
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} as the first input is, got {array.dtype}")


def quiet(function):
    """Return a function that computes infinities and NaN without a warning, as ONNX does."""

    @functools.wraps(function)
    def silent(*inputs, **attributes):
        with np.errstate(all="ignore"):
            return function(*inputs, **attributes)

    return silent


# ---------------------------------------------------------------------------------------------
# Other shapes for the same numbers
# ---------------------------------------------------------------------------------------------

@operator("Reshape", kind="moves")
def reshape(data, shape, *, allowzero=0):
    """Return the numbers in another shape: 0 keeps a size, -1 is what is left."""
    data = array_of("data", data)
    wanted = integers("shape", shape)
    if any(size < -1 for size in wanted) or wanted.count(-1) > 1:
        raise ValueError(f"shape may have one -1 and no other negative size, got {wanted}")
    allowzero = flag("allowzero", allowzero)
    if allowzero and 0 in wanted and -1 in wanted:
        raise ValueError(f"shape may not have both 0 and -1 if allowzero is 1, got {wanted}")
    kept = [] if allowzero else [axis for axis, size in enumerate(wanted) if size == 0]
    if kept and kept[-1] >= data.ndim:
        raise ValueError(f"shape {wanted} keeps axis {kept[-1]} of an x of shape {data.shape}")
    result = [data.shape[axis] if axis in kept else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        left = math.prod(size for axis, size in enumerate(data.shape) if axis not in kept)
        known = -math.prod(size for axis, size in enumerate(wanted) if axis not in kept)
        if left % known:
            raise ValueError(f"x of shape {data.shape} does not fit shape {wanted}")
        result[wanted.index(-1)] = left // known
    if math.prod(result) != data.size:
        raise ValueError(f"x of shape {data.shape} does not fit shape {wanted}")
    return data.reshape(within_limits(result))


@operator("Flatten", kind="moves")
def flatten(x, *, axis=1):
    """Return a matrix: the axes before `axis` are its rows, the others its columns."""
    x = array_of("x", x)
    axis = _validate.integer("axis", axis, -x.ndim, x.ndim)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze", kind="moves")
def squeeze(data, axes=None):
    """Return the numbers without axes of size 1: those named, or all if none is."""
    data = array_of("data", data)
    if axes is None or np.size(axes) == 0:
        axes = [axis for axis, size in enumerate(data.shape) if size == 1]
    else:
        axes = axes_of("axes", axes, data.ndim, repeated=True)
    for axis in axes:
        if data.shape[axis] != 1:
            raise ValueError(f"axis {axis} of shape {data.shape} is not 1 and cannot be squeezed")
    return data.reshape([size for axis, size in enumerate(data.shape) if axis not in axes])


@operator("Unsqueeze", kind="moves")
def unsqueeze(data, axes):
    """Return the numbers with further axes of size 1, counted in the result."""
    data = array_of("data", data)
    ndim = data.ndim + np.size(axes)
    axes = axes_of("axes", axes, ndim)
    sizes = iter(data.shape)
    return data.reshape(within_limits(1 if axis in axes else next(sizes) for axis in range(ndim)))


@operator("Transpose", kind="moves")
def transpose(data, *, perm=None):
    """Return the numbers with axes in another order, reversed if none is given."""
    data = array_of("data", data)
    if perm is None:
        return data.transpose()
    perm = integers("perm", perm)
    if sorted(perm) != list(range(data.ndim)):
        raise ValueError(f"perm must have each axis of shape {data.shape} once, got {perm}")
    return data.transpose(perm)


@operator("Expand", kind="moves")
def expand(x, shape):
    """Return the numbers repeated along axes of size 1, as broadcasting does: a view."""
    x = array_of("x", x)
    wanted = within_limits(integers("shape", shape))
    ndim = max(x.ndim, len(wanted))
    pairs = zip((1,) * (ndim - x.ndim) + x.shape, (1,) * (ndim - len(wanted)) + wanted, strict=True)
    result = []
    for have, want in pairs:
        if have != want and 1 not in (have, want):
            raise ValueError(f"x of shape {x.shape} cannot be expanded to {wanted}")
        result.append(want if have == 1 else have)
    return np.broadcast_to(x, within_limits(result))


@operator("Tile", kind="moves")
def tile(x, repeats):
    """Return the array several times along every axis."""
    x = array_of("x", x)
    repeats = integers("repeats", repeats)
    if len(repeats) != x.ndim:
        raise ValueError(f"repeats must have one number per axis of shape {x.shape}, got {repeats}")
    if any(count < 0 for count in repeats):
        raise ValueError(f"repeats must be at least 0, got {repeats}")
    result = within_limits(size * count for size, count in zip(x.shape, repeats, strict=True))
    if 0 in result:
        return np.empty(result, x.dtype)
    several = [axis for axis, count in enumerate(repeats) if count > 1]
    apart, together = list(x.shape), list(x.shape)
    for axis in reversed(several):
        apart.insert(axis, 1)
        together.insert(axis, repeats[axis])
    return np.broadcast_to(x.reshape(apart), together).reshape(result)


# ---------------------------------------------------------------------------------------------
# Putting together and cutting
# ---------------------------------------------------------------------------------------------

@operator("Concat")
def concat(*inputs, axis):
    """Return the inputs side by side along `axis`."""
    if not inputs:
        raise ValueError("Concat must have at least one input, got none")
    inputs = [array_of("every input", x) for x in inputs]
    first = inputs[0]
    axis = axis_of("axis", axis, first.ndim)
    for x in inputs[1:]:
        same_dtype("every input", x, first.dtype)
        if x.ndim != first.ndim or any(
            a != b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
        ):
            raise ValueError(
                f"inputs must have one shape but for axis {axis}, got {first.shape} and {x.shape}"
            )
    return np.concatenate(inputs, axis)


@operator("Split", kind="moves", counts_outputs=True)
def split(x, split=None, *, axis=0, num_outputs=None, n_outputs=None):
    """Return several parts along `axis`: of the sizes in `split`, or of one size."""
    x = array_of("x", x)
    axis = axis_of("axis", axis, x.ndim)
    size = x.shape[axis]
    if split is not None and num_outputs is not None:
        raise ValueError(f"give either split or num_outputs, got {split} and {num_outputs}")
    if split is not None:
        sizes = integers("split", split)
        if any(part < 0 for part in sizes) or sum(sizes) != size:
            raise ValueError(f"split must be at least 0 and add up to {size}, got {sizes}")
    else:
        sizes = _equal_parts(size, num_outputs, n_outputs)
    if n_outputs is not None and n_outputs != len(sizes):
        raise ValueError(f"the split has {len(sizes)} parts, but the outputs are {n_outputs}")
    before = (slice(None),) * axis
    ends = np.cumsum(sizes).tolist()
    return tuple(
        x[(*before, slice(end - part, end))] for end, part in zip(ends, sizes, strict=True)
    )


def _equal_parts(size, num_outputs, n_outputs):
    """Return the sizes of equal parts; the last may be smaller if `num_outputs` says how many."""
    if num_outputs is None and n_outputs is None:
        raise ValueError("Split must be told split, num_outputs or n_outputs")
    count = n_outputs if num_outputs is None else num_outputs
    count = _validate.integer("num_outputs", count, 1, max(size, 2**16))
    part = -(-size // count)
    last = size - part * (count - 1)
    if last < 0 or (num_outputs is None and last != part):
        raise ValueError(f"an axis of {size} cannot be split into {count} equal parts")
    return [part] * (count - 1) + [last]


@operator("Slice", kind="moves")
def slice_(data, starts, ends, axes=None, steps=None):
    """Return a part of the array, by start, end and step along axes: a view."""
    data = array_of("data", data)
    starts, ends = integers("starts", starts), integers("ends", ends)
    if axes is None:
        axes = np.arange(len(starts))
    axes = axes_of("axes", axes, data.ndim) if np.size(axes) else []
    steps = [1] * len(starts) if steps is None else integers("steps", steps)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError(
            "starts, ends, axes and steps must have one length, "
            f"got {len(starts)}, {len(ends)}, {len(axes)} and {len(steps)}"
        )
    if 0 in steps:
        raise ValueError(f"steps must not be 0, got {steps}")
    where = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = _clamped(start, end, step, data.shape[axis])
    return data[(*where, ...)]


def _clamped(start, end, step, size):
    """Return a slice whose ends are within an axis, as ONNX clamps them.

    The largest int32 and int64 mean the end that a step leads to, as in onnxruntime.
    """
    if size == 0:
        return slice(0, 0)
    if step < 0 and end in (2**31 - 1, 2**63 - 1):
        end = -(2**63)
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start, end = start + size if start < 0 else start, end + size if end < 0 else end
    start, end = min(max(start, 0), high), min(max(end, low), high)
    return slice(start, None if end < 0 else end, min(max(step, -size), size))


# ---------------------------------------------------------------------------------------------
# Padding
# ---------------------------------------------------------------------------------------------

@operator("Pad", kind="moves")
def pad(data, pads, constant_value=None, axes=None, *, mode="constant"):
    """Return the array with more numbers around it, or fewer where a pad is negative."""
    data = array_of("data", data)
    _validate.choice("mode", mode, ("constant", "reflect", "edge", "wrap"))
    axes = list(range(data.ndim)) if axes is None else axes_of("axes", axes, data.ndim)
    pads = integers("pads", pads)
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads must have 2 numbers per axis, got {len(pads)} for {len(axes)}")
    before, after = [0] * data.ndim, [0] * data.ndim
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    shape = within_limits(map(sum, zip(data.shape, before, after, strict=True)))
    if mode == "constant":
        value = _constant("constant_value", constant_value, data.dtype)
        return _pad_constant(data, shape, before, value)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            first, last = max(-low, 0), data.shape[axis] - max(-high, 0)
            places = np.arange(shape[axis]) - max(low, 0)
            data = data.take(_source(places, last - first, mode) + first, axis)
    return data


def _constant(name, value, dtype):
    """Return the one number that a pad is filled with, of the array's type."""
    if value is None:
        return np.zeros((), dtype)
    is_typed = isinstance(value, (np.ndarray, np.generic))
    value = np.asarray(value)
    if value.size != 1:
        raise ValueError(f"{name} must be one number, got shape {value.shape}")
    if is_typed:
        same_dtype(name, value, dtype)
    elif dtype.kind in "iub":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not low <= value <= high or value != value.astype(dtype):
            raise ValueError(f"{name} must be a number of type {dtype}, got {value}")
    return value.astype(dtype).reshape(())


def _pad_constant(data, shape, before, value):
    """Return what of `data` lies in a shape that begins before it, among constants."""
    targets, sources = [], []
    for size, result, low in zip(data.shape, shape, before, strict=True):
        first = min(max(low, 0), result)
        last = max(min(low + size, result), first)
        targets.append(slice(first, last))
        sources.append(slice(first - low, last - low))
    data = data[(*sources, ...)]
    if data.shape == shape:
        return data
    out = np.full(shape, value, data.dtype)
    out[(*targets, ...)] = data
    return out


def _source(places, size, mode):
    """Return which element of an axis stands at places outside of it."""
    if size <= 0 and places.size:
        raise ValueError(f"pads leave nothing of an axis that mode {mode!r} could repeat")
    if size <= 0:
        return places
    if mode == "edge":
        return places.clip(0, size - 1)
    if mode == "wrap":
        return places % size
    turn = max(2 * size - 2, 1)
    places = places % turn
    return np.minimum(places, turn - places) if size > 1 else places


# ---------------------------------------------------------------------------------------------
# Shapes as numbers, and numbers from shapes
# ---------------------------------------------------------------------------------------------

@operator("Shape")
def shape(data, *, start=0, end=None):
    """Return the sizes of the axes from `start` to before `end`."""
    sizes = array_of("data", data).shape
    start = _validate.integer("start", start, -(2**63))
    end = None if end is None else _validate.integer("end", end, -(2**63))
    return np.array(sizes[start:end], np.int64)


@operator("Size")
def size(data):
    """Return the number of elements."""
    return np.array(array_of("data", data).size, np.int64)


@operator("ConstantOfShape")
def constant_of_shape(shape, *, value=None):
    """Return an array of the shape given, filled with the one number in `value`."""
    shape = within_limits(integers("shape", shape))
    value = array_of("value", np.float32([0]) if value is None else value)
    if value.size != 1:
        raise ValueError(f"value must be one number, got shape {value.shape}")
    return np.full(shape, value.reshape(()), value.dtype)


@operator("Range")
def range_(start, limit, delta, *, stash_type=1):
    """Return the numbers from `start` to before `limit` by steps of `delta`."""
    numbers = [np.asarray(number) for number in (start, limit, delta)]
    dtype = numbers[0].dtype
    for name, number in zip(("start", "limit", "delta"), numbers, strict=True):
        if number.size != 1 or number.ndim > 1:
            raise ValueError(f"{name} must be one number, got shape {number.shape}")
        same_dtype(name, number, dtype)
        if dtype.kind not in "if" or not np.isfinite(number).all():
            raise ValueError(f"{name} must be a finite signed number, got {number} as {dtype}")
    start, limit, delta = (number.item() for number in numbers)
    if delta == 0:
        raise ValueError(f"delta must not be 0, got {delta}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            count = max(np.ceil(np.float64(limit - start) / delta), 0)
    else:
        count = max(-((start - limit) // delta), 0)
    if count > LARGEST:
        raise ValueError(f"a result may have 2**31 elements, this range has {count}")
    if dtype.kind == "i":
        return np.arange(start, limit, delta, dtype)
    return (start + np.arange(int(count), dtype=np.float64) * delta).astype(dtype)
