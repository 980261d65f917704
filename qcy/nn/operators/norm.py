"""Operators that normalize: by given statistics, by their own, by their neighbours."""

import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator
from qcy.nn.operators.shape import DTYPES, axes_of, axis_of, quiet

_STASHES = {number: DTYPES[number] for number in (1, 10, 11)}


# ---------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------

def _real(x, name="x", ndim=0):
    """Return an array of floating point numbers with at least `ndim` axes."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point numbers, got {x.dtype}")
    if x.ndim < ndim:
        raise ValueError(f"{name} must have at least {ndim} dimensions, got shape {x.shape}")
    return x


def _wide(x):
    """Return numbers in the type that they are computed in: float32, or float64 as they are."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _per_channel(name, values, count, dtype):
    """Return one number per channel."""
    values = _real(values, name)
    if values.shape != (count,):
        raise ValueError(f"{name} must have one number per channel ({count}), got {values.shape}")
    return values.astype(dtype, copy=False)


def _beside(values, ndim):
    """Return numbers per channel in a shape that broadcasts against (N, C, ...)."""
    return values.reshape((-1,) + (1,) * (ndim - 2))


def _onto(name, values, x):
    """Return numbers that broadcast onto `x` without giving it another shape."""
    values = _real(values, name)
    try:
        shape = np.broadcast_shapes(values.shape, x.shape)
    except ValueError:
        shape = None
    if shape != x.shape:
        raise ValueError(f"{name} of shape {values.shape} does not broadcast to {x.shape}")
    return values.astype(x.dtype, copy=False)


def _stash(stash_type):
    """Return the type that statistics are given in."""
    return _STASHES[_validate.choice("stash_type", stash_type, _STASHES)]


def _epsilon(epsilon, dtype):
    """Return what is added to a variance, in the type of the computation."""
    epsilon = _validate.real("epsilon", epsilon)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    return dtype.type(epsilon)


# ---------------------------------------------------------------------------------------------
# The arithmetic
# ---------------------------------------------------------------------------------------------

def _mean_square(rows):
    """Return the mean of the squares of each row of a matrix, as a column."""
    return np.einsum("ij,ij->i", rows, rows)[:, None] / rows.dtype.type(rows.shape[1])


def _standardized(rows, epsilon):
    """Return rows of a matrix without their mean and spread, the means and 1 / the spreads.

    The rows that come back are an array of their own.
    """
    mean = rows.mean(axis=1, keepdims=True)
    rows = rows - mean
    variance = _mean_square(rows)
    if (mean * mean > 64 * variance).any():     # then what the mean is rounded by counts
        rest = rows.mean(axis=1, keepdims=True)
        rows -= rest
        mean += rest
        variance = _mean_square(rows)
    inverse = 1 / np.sqrt(variance + _epsilon(epsilon, rows.dtype))
    rows *= inverse
    return rows, mean, inverse


def _rows(x, axis):
    """Return an array as a matrix: the axes from `axis` on are its columns."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


# ---------------------------------------------------------------------------------------------
# Per channel
# ---------------------------------------------------------------------------------------------

@operator("BatchNormalization", counts_outputs=True)
@quiet
def batch_normalization(
    x, scale, B, input_mean, input_var, *, epsilon=1e-5, momentum=0.9, training_mode=0,
    n_outputs=1,
):
    """Return the numbers normalized by the statistics given for each channel (inference)."""
    if training_mode or n_outputs > 1:
        raise ValueError(
            "BatchNormalization is for inference: training_mode must be 0 with one output, "
            f"got {training_mode} with {n_outputs}"
        )
    x = _real(x, ndim=1)
    count = x.shape[1] if x.ndim > 1 else 1
    mean, var, scale, shift = (
        _per_channel(name, values, count, np.float64) for name, values in (
            ("input_mean", input_mean), ("input_var", input_var), ("scale", scale), ("B", B)
        )
    )
    scale = scale / np.sqrt(var + _epsilon(epsilon, var.dtype))
    shift = shift - mean * scale
    work = _wide(x)
    out = work * _beside(scale, x.ndim).astype(work.dtype)
    out += _beside(shift, x.ndim).astype(work.dtype)
    return out.astype(x.dtype, copy=False)


@operator("InstanceNormalization")
@quiet
def instance_normalization(x, scale, B, *, epsilon=1e-5):
    """Return every channel of every image normalized by its own mean and variance."""
    x = _real(x, ndim=3)
    return _grouped(x, scale, B, x.shape[1], epsilon)


@operator("GroupNormalization")
@quiet
def group_normalization(x, scale, bias, *, num_groups, epsilon=1e-5, stash_type=1):
    """Return groups of channels normalized by their own mean and variance.

    There is one scale and bias per channel, or, as in opset 18, one per group.
    """
    x = _real(x, ndim=2)
    _stash(stash_type)
    groups = _validate.integer("num_groups", num_groups, 1)
    channels = x.shape[1]
    if channels % groups:
        raise ValueError(f"num_groups must divide the {channels} channels, got {groups}")
    if np.shape(scale) == np.shape(bias) == (groups,) != (channels,):
        scale, bias = (np.repeat(values, channels // groups) for values in (scale, bias))
    return _grouped(x, scale, bias, groups, epsilon)


def _grouped(x, scale, bias, groups, epsilon):
    """Return groups of channels normalized, with one scale and bias per channel."""
    work = _wide(x)
    scale = _per_channel("scale", scale, x.shape[1], work.dtype)
    bias = _per_channel("bias", bias, x.shape[1], work.dtype)
    if not x.size:
        return x
    out, _, _ = _standardized(work.reshape(len(x) * groups, -1), epsilon)
    out = out.reshape(x.shape)
    out *= _beside(scale, x.ndim)
    out += _beside(bias, x.ndim)
    return out.astype(x.dtype, copy=False)


# ---------------------------------------------------------------------------------------------
# Along the last axes
# ---------------------------------------------------------------------------------------------

@operator("LayerNormalization")
@quiet
def layer_normalization(X, Scale, B=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Return the axes from `axis` on normalized, their means, and 1 / standard deviations."""
    x = _real(X)
    stash = _stash(stash_type)
    axis = axis_of("axis", axis, x.ndim)
    work = _wide(x)
    scale = _onto("Scale", Scale, work)
    shift = None if B is None else _onto("B", B, work)
    shape = x.shape[:axis] + (1,) * (x.ndim - axis)
    rows = _rows(work, axis)
    if not rows.shape[1]:
        inverse = 1 / np.sqrt(_epsilon(epsilon, work.dtype))
        return x, np.zeros(shape, stash), np.full(shape, inverse, stash)
    out, mean, inverse = _standardized(rows, epsilon)
    out = out.reshape(x.shape)
    out *= scale
    if shift is not None:
        out += shift
    statistics = (values.reshape(shape).astype(stash, copy=False) for values in (mean, inverse))
    return (out.astype(x.dtype, copy=False), *statistics)


def _root_mean_square(x, scale, axis, epsilon, stash_type):
    """Return the axes from `axis` on by their root mean square, and 1 / the latter."""
    x = _real(x)
    stash = _stash(stash_type)
    axis = axis_of("axis", axis, x.ndim)
    work = _wide(x)
    scale = _onto("scale", scale, work)
    rows = _rows(work, axis)
    shape = x.shape[:axis] + (1,) * (x.ndim - axis)
    if not rows.shape[1]:
        return x, np.full(shape, 1 / np.sqrt(_epsilon(epsilon, work.dtype)), stash)
    inverse = 1 / np.sqrt(_mean_square(rows) + _epsilon(epsilon, rows.dtype))
    out = (rows * inverse).reshape(x.shape)
    out *= scale
    return out.astype(x.dtype, copy=False), inverse.reshape(shape).astype(stash, copy=False)


@operator("RMSNormalization")
@quiet
def rms_normalization(X, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Return the axes from `axis` on by their root mean square."""
    return _root_mean_square(X, scale, axis, epsilon, stash_type)[0]


@operator("SimplifiedLayerNormalization", "com.microsoft:SimplifiedLayerNormalization")
@quiet
def simplified_layer_normalization(X, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Return the axes from `axis` on by their root mean square, and 1 / the latter."""
    return _root_mean_square(X, scale, axis, epsilon, stash_type)


def _with_skip(x, skip, gamma, bias):
    """Return the sum that a normalization after a shortcut is of."""
    x, skip = _real(x, "input", 2), _real(skip, "skip")
    fits = skip.shape == x.shape or (
        x.ndim == 3 and skip.shape in ((1, *x.shape[1:]), x.shape[1:])
    )
    if x.ndim > 3 or not fits:
        raise ValueError(
            "input must be (batch, length, hidden) and skip as well or without the batch, "
            f"got {x.shape} and {skip.shape}"
        )
    _per_channel("gamma", gamma, x.shape[-1], x.dtype)
    total = _wide(x) + _wide(skip)
    if bias is not None:
        total += _per_channel("bias", bias, x.shape[-1], total.dtype)
    return total.astype(x.dtype, copy=False)


@operator("com.microsoft:SkipLayerNormalization")
@quiet
def skip_layer_normalization(input, skip, gamma, beta=None, bias=None, *, epsilon=1e-12):
    """Return the sum of the inputs normalized, its means, 1 / its deviations, and the sum."""
    total = _with_skip(input, skip, gamma, bias)
    return (*layer_normalization(total, gamma, beta, epsilon=epsilon), total)


@operator("com.microsoft:SkipSimplifiedLayerNormalization")
@quiet
def skip_simplified_layer_normalization(input, skip, gamma, bias=None, *, epsilon=1e-12):
    """Return the sum of the inputs by its root mean square, None, 1 / the latter, and the sum."""
    total = _with_skip(input, skip, gamma, bias)
    out, inverse = _root_mean_square(total, gamma, -1, epsilon, 1)
    return out, None, inverse, total


# ---------------------------------------------------------------------------------------------
# By neighbours, along one axis, along any
# ---------------------------------------------------------------------------------------------

@operator("LRN")
@quiet
def lrn(x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    """Return the numbers by a power of the sum of squares of the channels around each."""
    x = _real(x, ndim=2)
    size = _validate.integer("size", size, 1)
    channels = x.shape[1]
    work = _wide(x)
    squares = work * work
    total = squares.copy()
    for step in range(1, min(size // 2, channels - 1) + 1):
        total[:, :-step] += squares[:, step:]
        if step <= (size - 1) // 2:
            total[:, step:] += squares[:, :-step]
    total *= work.dtype.type(_validate.real("alpha", alpha) / size)
    total += work.dtype.type(_validate.real("bias", bias))
    return (work / _power(total, _validate.real("beta", beta))).astype(x.dtype, copy=False)


def _power(x, exponent):
    """Return `x` to a power: 3/4, which is usual, by square roots."""
    if exponent != 0.75:
        return x ** x.dtype.type(exponent)
    root = np.sqrt(x)
    root *= np.sqrt(root)
    return root


@operator("LpNormalization")
@quiet
def lp_normalization(x, *, axis=-1, p=2):
    """Return the numbers by the norm of their axis, zeros where that is zero."""
    x = _real(x)
    axis = axis_of("axis", axis, x.ndim)
    work = _wide(x)
    if _validate.integer("p", p, 1, 2) == 1:
        norm = np.abs(work).sum(axis=axis, keepdims=True)
    else:
        norm = np.sqrt((work * work).sum(axis=axis, keepdims=True))
    out = work / np.where(norm == 0, norm.dtype.type(1), norm)
    return out.astype(x.dtype, copy=False)


@operator("MeanVarianceNormalization")
@quiet
def mean_variance_normalization(x, *, axes=(0, 2, 3)):
    """Return the numbers without the mean and the spread that they have along axes."""
    x = _real(x, ndim=1)
    axes = tuple(axes_of("axes", axes, x.ndim))
    if not x.size:
        return x
    work = _wide(x)
    out = work - work.mean(axis=axes, keepdims=True)
    out -= out.mean(axis=axes, keepdims=True)       # what the mean was rounded by
    spread = np.sqrt((out * out).mean(axis=axes, keepdims=True))
    out /= spread + work.dtype.type(1e-9)
    return out.astype(x.dtype, copy=False)
