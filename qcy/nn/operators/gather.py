"""Operators that pick and place numbers by their index."""

import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator
from qcy.nn.operators.shape import (
    DTYPES, LARGEST, array_of, axis_of, flag, integers, same_dtype, whole, within_limits,
)

_REDUCTIONS = {
    "none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}


def _indices(indices, sizes):
    """Return indices as int64, negative ones counted from the back, each below its size.

    `sizes` is a number, or an array that broadcasts against the indices.
    """
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got {indices.dtype}")
    indices = _signed(indices)
    outside = (indices < -sizes) | (indices >= sizes)
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        size = np.broadcast_to(sizes, indices.shape)[place]
        raise ValueError(f"indices must be in [{-size}, {size - 1}], got {indices[place]}")
    return np.where(indices < 0, indices + sizes, indices)


def _signed(indices):
    """Return numbers as int64; those that do not fit become the largest or the smallest."""
    if indices.dtype == np.uint64:
        indices = np.minimum(indices, np.uint64(2**63 - 1))
    with np.errstate(invalid="ignore"):
        return indices.astype(np.int64, copy=False)


def _data(data, name="data"):
    """Return an array that has at least one axis."""
    data = array_of(name, data)
    if not data.ndim:
        raise ValueError(f"{name} must have at least one axis, got a number")
    return data


# ---------------------------------------------------------------------------------------------
# Picking
# ---------------------------------------------------------------------------------------------

@operator("Gather", kind="moves")
def gather(data, indices, *, axis=0):
    """Return the slices of one axis that the indices name."""
    data = _data(data)
    axis = axis_of("axis", axis, data.ndim)
    indices = _indices(indices, data.shape[axis])
    if not indices.ndim:
        return data[(*(slice(None),) * axis, int(indices), ...)]
    within_limits(data.shape[:axis] + indices.shape + data.shape[axis + 1:])
    return data.take(indices, axis)


@operator("GatherElements", kind="moves")
def gather_elements(data, indices, *, axis=0):
    """Return numbers of one axis, each picked by the index at its place."""
    data = _data(data)
    axis = axis_of("axis", axis, data.ndim)
    indices = _indices(indices, data.shape[axis])
    return data.ravel()[_element_places(data.shape, indices, axis)]


def _element_places(shape, indices, axis):
    """Return where in flat data the elements are that indices along one axis name."""
    if indices.ndim != len(shape) or any(
        have > size for i, (have, size) in enumerate(zip(indices.shape, shape, strict=True))
        if i != axis
    ):
        raise ValueError(
            f"indices must fit data of shape {shape} but for axis {axis}, got {indices.shape}"
        )
    places = indices * math.prod(shape[axis + 1:])
    for other in range(len(shape)):
        if other != axis:
            place = np.arange(indices.shape[other]) * math.prod(shape[other + 1:])
            places += place.reshape((-1,) + (1,) * (len(shape) - other - 1))
    return places


@operator("GatherND", kind="moves")
def gather_nd(data, indices, *, batch_dims=0):
    """Return slices of the data, each picked by a tuple of indices: the last axis of them."""
    data, indices = _data(data), _data(indices, "indices")
    batch = _validate.integer("batch_dims", batch_dims, 0, min(data.ndim, indices.ndim) - 1)
    if data.shape[:batch] != indices.shape[:batch]:
        raise ValueError(
            f"data and indices must agree in {batch} axes, got {data.shape} and {indices.shape}"
        )
    places = _slice_places(data.shape, indices, batch)
    depth = batch + indices.shape[-1]
    rest = data.shape[depth:]
    within_limits(places.shape + rest)
    flat = data.reshape((math.prod(data.shape[:depth]), *rest))
    return flat.take(places, 0) if places.ndim else flat[int(places), ...]


def _slice_places(shape, indices, batch=0):
    """Return which slices tuples of indices name, in data with the indexed axes made one."""
    depth = indices.shape[-1]
    if not 1 <= depth <= len(shape) - batch:
        raise ValueError(
            f"the last axis of indices must be in [1, {len(shape) - batch}], got {depth}"
        )
    sizes = shape[batch:batch + depth]
    indices = _indices(indices, np.array(sizes, np.intp))
    steps = np.array([math.prod(sizes[i + 1:]) for i in range(depth)], np.intp)
    places = (indices * steps).sum(axis=-1, dtype=np.intp)
    if batch:
        each = np.arange(math.prod(shape[:batch])).reshape(shape[:batch])
        each = each.reshape(shape[:batch] + (1,) * (places.ndim - batch))
        places = places + each * math.prod(sizes)
    return np.asarray(places)


@operator("Compress", kind="moves")
def compress(x, condition, *, axis=None):
    """Return the slices of one axis, or the elements, where the condition holds."""
    x, condition = _data(x, "x"), np.asarray(condition)
    if condition.dtype != bool or condition.ndim != 1:
        raise TypeError(
            f"condition must be a 1-D array of bool, got {condition.dtype} of {condition.shape}"
        )
    if axis is None:
        x, axis = x.ravel(), 0
    axis = axis_of("axis", axis, x.ndim)
    if len(condition) > x.shape[axis]:
        raise ValueError(
            f"condition may have {x.shape[axis]} elements as the axis has, got {len(condition)}"
        )
    return x.take(np.flatnonzero(condition), axis)


@operator("ReverseSequence", kind="moves")
def reverse_sequence(x, sequence_lens, *, batch_axis=1, time_axis=0):
    """Return sequences in reverse, each up to its own length."""
    x = array_of("x", x)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, got shape {x.shape}")
    batch_axis = _validate.integer("batch_axis", batch_axis, 0, 1)
    time_axis = _validate.integer("time_axis", time_axis, 0, 1)
    if batch_axis == time_axis:
        raise ValueError(f"batch_axis and time_axis must differ, got {batch_axis} for both")
    n, steps = x.shape[batch_axis], x.shape[time_axis]
    lengths = integers("sequence_lens", sequence_lens)
    if len(lengths) != n or any(not 0 <= length <= steps for length in lengths):
        raise ValueError(f"sequence_lens must be {n} numbers in [0, {steps}], got {lengths}")
    time, lengths = np.arange(steps)[:, None], np.array(lengths, np.intp)
    places = np.where(time < lengths, lengths - 1 - time, time)
    batch = np.arange(n)
    return x[places, batch] if time_axis == 0 else x[batch[:, None], places.T]


# ---------------------------------------------------------------------------------------------
# Placing
# ---------------------------------------------------------------------------------------------

@operator("ScatterElements")
def scatter_elements(data, indices, updates, *, axis=0, reduction="none"):
    """Return the data with updates in it, each at the index that stands at its place."""
    data, updates = _data(data), np.asarray(updates)
    axis = axis_of("axis", axis, data.ndim)
    indices = _indices(indices, data.shape[axis])
    if updates.shape != indices.shape:
        raise ValueError(
            f"updates must have the shape of indices, {indices.shape}, got {updates.shape}"
        )
    places = _element_places(data.shape, indices, axis)
    out = np.array(data, order="C")
    _place(out.reshape(-1), places.ravel(), updates.ravel(), reduction)
    return out


@operator("ScatterND")
def scatter_nd(data, indices, updates, *, reduction="none"):
    """Return the data with updates in it, each a slice at a tuple of indices."""
    data, indices, updates = _data(data), _data(indices, "indices"), np.asarray(updates)
    places = _slice_places(data.shape, indices)
    depth = indices.shape[-1]
    expected = places.shape + data.shape[depth:]
    if updates.shape != expected:
        raise ValueError(f"updates must have shape {expected}, got {updates.shape}")
    out = np.array(data, order="C")
    rest = data.shape[depth:]
    flat = out.reshape((math.prod(data.shape[:depth]), *rest))
    _place(flat, places.ravel(), updates.reshape((places.size, *rest)), reduction)
    return out


def _place(out, places, updates, reduction):
    """Put updates into `out`, or combine them with what is there."""
    _validate.choice("reduction", reduction, _REDUCTIONS)
    same_dtype("updates", updates, out.dtype)
    function = _REDUCTIONS[reduction]
    with np.errstate(all="ignore"):
        if function is None:
            out[places] = updates
        else:
            function.at(out, places, updates)


@operator("OneHot")
def one_hot(indices, depth, values, *, axis=-1):
    """Return `values[1]` where a further axis has the index, `values[0]` elsewhere."""
    indices, values = np.asarray(indices), array_of("values", values)
    depth = array_of("depth", depth)
    if depth.size != 1 or depth.ndim > 1:
        raise ValueError(f"depth must be one number, got shape {depth.shape}")
    if not np.isfinite(depth).all():
        raise ValueError(f"depth must be finite, got {depth}")
    depth = _validate.integer("depth", int(depth.reshape(())), 1, LARGEST)
    if values.shape != (2,):
        raise ValueError(f"values must be [off, on], got shape {values.shape}")
    if indices.dtype.kind not in "iuf":
        raise TypeError(f"indices must be numbers, got {indices.dtype}")
    axis = axis_of("axis", axis, indices.ndim + 1)
    within_limits((*indices.shape, depth))
    flat = _signed(indices).ravel()
    flat = np.where(flat < 0, flat + depth, flat)
    out = np.full((flat.size, depth), values[0], values.dtype)
    rows = np.flatnonzero((flat >= 0) & (flat < depth))
    out[rows, flat[rows]] = values[1]
    return np.moveaxis(out.reshape((*indices.shape, depth)), -1, axis)


# ---------------------------------------------------------------------------------------------
# Diagonals
# ---------------------------------------------------------------------------------------------

@operator("EyeLike")
def eye_like(x, *, dtype=None, k=0):
    """Return ones on the diagonal `k` and zeros elsewhere, in the shape of a matrix."""
    x = array_of("x", x)
    if x.ndim != 2:
        raise ValueError(f"x must have 2 dimensions, got shape {x.shape}")
    if dtype is None:
        dtype = x.dtype
    elif isinstance(dtype, (int, np.integer)):
        dtype = DTYPES[_validate.choice("dtype", int(dtype), DTYPES)]
    k = _validate.integer("k", k, -(2**63))
    rows, columns = x.shape
    return np.eye(rows, columns, min(max(k, -rows), columns), dtype)


@operator("Trilu")
def trilu(x, k=None, *, upper=1):
    """Return matrices with zeros below the diagonal `k`, or above it if `upper` is 0."""
    x = array_of("x", x)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, got shape {x.shape}")
    k = 0 if k is None else whole("k", k)
    rows, columns = x.shape[-2:]
    if flag("upper", upper):
        return np.triu(x, min(max(k, -rows - 1), columns + 1))
    return np.tril(x, min(max(k, -rows - 1), columns + 1))
