"""Operators that give images another size: sampling, and pixels from channels and back."""

from dataclasses import dataclass

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator
from qcy.nn.operators.shape import LARGEST, array_of, axes_of, flag, integers, within_limits

#: How a place becomes whole; what float32 can put beside a half counts as one.
_ROUNDINGS = {
    "round_prefer_floor": lambda x: np.ceil(x.astype(np.float64) - 0.500001),
    "round_prefer_ceil": lambda x: np.floor(x.astype(np.float64) + 0.500001),
    "floor": np.floor,
    "ceil": np.ceil,
}
_POLICIES = {"stretch": None, "not_larger": np.min, "not_smaller": np.max}


# ---------------------------------------------------------------------------------------------
# Where a pixel of the result lies in the input
# ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Sampling:
    """One axis that gets another size: everything in float32, as onnxruntime computes it.

    Attributes
    ----------
    axis, length, resized : int
        The axis, its size before and after.
    scale : float32
        The size asked for by the size before.
    target : float32
        The size asked for, which `resized` is the whole part of.
    start, end : float32
        What of the axis is cropped, as shares of it.
    """

    axis: int
    length: int
    resized: int
    scale: np.float32
    target: np.float32
    start: np.float32
    end: np.float32


def _half_pixel(x, s):
    return (x + np.float32(0.5)) / s.scale - np.float32(0.5)


def _half_pixel_symmetric(x, s):
    adjustment = np.float32(s.resized) / s.target
    offset = np.float32(s.length / 2) * (1 - adjustment)
    return offset + (x + np.float32(0.5)) / s.scale - np.float32(0.5)


def _pytorch_half_pixel(x, s):
    return _half_pixel(x, s) if s.resized > 1 else np.zeros_like(x)


def _align_corners(x, s):
    if s.target == 1:
        return np.zeros_like(x)
    return x * np.float32(s.length - 1) / (s.target - 1)


def _asymmetric(x, s):
    return x / s.scale


def _tf_crop_and_resize(x, s):
    last = np.float32(s.length - 1)
    if s.resized <= 1:
        return np.full_like(x, np.float32(0.5) * (s.start + s.end) * last)
    return s.start * last + x * (s.end - s.start) * last / np.float32(s.resized - 1)


_TRANSFORMATIONS = {
    "half_pixel": _half_pixel, "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel, "align_corners": _align_corners,
    "asymmetric": _asymmetric, "tf_crop_and_resize": _tf_crop_and_resize,
}


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------

def _numbers(name, values, count):
    """Return an optional input as float32, one number per axis; None if it is left out."""
    if values is None or np.size(values) == 0:
        return None
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or values.shape != (count,):
        raise ValueError(f"{name} must be {count} numbers, got {values.dtype} of {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values}")
    return values


def _by_scales(lengths, scales):
    """Return scales, the sizes they ask for, and the sizes that axes get."""
    if (scales <= 0).any():
        raise ValueError(f"scales must be positive, got {scales}")
    with np.errstate(over="ignore"):
        targets = scales * lengths
    if (targets > LARGEST).any():
        raise ValueError(f"a result may have 2**31 elements, axes would have {targets}")
    return scales, targets, np.floor(targets)


def _by_sizes(lengths, sizes, policy):
    """Return scales, the sizes asked for, and the sizes that axes get."""
    if len(sizes) != len(lengths) or min(sizes, default=0) < 0:
        raise ValueError(f"sizes must be {len(lengths)} numbers of at least 0, got {sizes}")
    targets = np.array(sizes, np.float32)
    scales = np.divide(targets, lengths, where=lengths > 0, out=np.ones_like(lengths))
    if policy is None or not sizes:
        return scales, targets, sizes
    if (lengths == 0).any():
        raise ValueError(f"an empty axis has no aspect ratio, got sizes {lengths} to resize")
    scales = np.full_like(scales, policy(scales))
    targets = scales * lengths
    return scales, targets, np.floor(targets + np.float32(0.5))


def _samplings(shape, axes, roi, scales, sizes, policy):
    """Return what happens to each of the axes."""
    lengths = np.array([shape[axis] for axis in axes], np.float32)
    scales = _numbers("scales", scales, len(axes))
    sizes = None if sizes is None or not np.size(sizes) else integers("sizes", sizes)
    if not axes:
        return []
    if (scales is None) == (sizes is None):
        raise ValueError(f"give either scales or sizes, got {scales} and {sizes}")
    if scales is not None:
        scales, targets, resized = _by_scales(lengths, scales)
    else:
        scales, targets, resized = _by_sizes(lengths, sizes, policy)
    return [
        _Sampling(axis, shape[axis], int(size), *rest) for axis, size, *rest in zip(
            axes, resized, scales, targets, roi[:len(axes)], roi[len(axes):], strict=True
        )
    ]


def _region(roi, axes, transformation):
    """Return where the input begins and ends, as shares of each axis."""
    if transformation != "tf_crop_and_resize":
        return np.repeat(np.float32([0, 1]), len(axes))
    roi = _numbers("roi", roi, 2 * len(axes))
    if roi is None and axes:
        raise ValueError("coordinate transformation 'tf_crop_and_resize' needs roi, got None")
    return roi


@operator("Resize")
def resize(
    x, roi=None, scales=None, sizes=None, *, mode="nearest",
    coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor",
    cubic_coeff_a=-0.75, antialias=0, exclude_outside=0, extrapolation_value=0.0,
    keep_aspect_ratio_policy="stretch", axes=None,
):
    """Return the array in another size, each number from those near its place.

    Integers are computed in float and rounded to the nearest, halves to even.
    """
    x = array_of("x", x)
    _validate.choice("mode", mode, ("nearest", "linear", "cubic"))
    _validate.choice("nearest_mode", nearest_mode, _ROUNDINGS)
    _validate.choice("keep_aspect_ratio_policy", keep_aspect_ratio_policy, _POLICIES)
    transformation = _validate.choice(
        "coordinate_transformation_mode", coordinate_transformation_mode, _TRANSFORMATIONS
    )
    value = _validate.real("extrapolation_value", extrapolation_value)
    antialias, exclude = flag("antialias", antialias), flag("exclude_outside", exclude_outside)
    axes = list(range(x.ndim)) if axes is None else axes_of("axes", axes, x.ndim)
    samplings = _samplings(
        x.shape, axes, _region(roi, axes, transformation), scales, sizes,
        _POLICIES[keep_aspect_ratio_policy],
    )
    shape = list(x.shape)
    for s in samplings:
        shape[s.axis] = s.resized
    if 0 in within_limits(shape):
        return np.empty(shape, x.dtype)
    if 0 in x.shape:
        raise ValueError(f"an x of shape {x.shape} has nothing to fill shape {tuple(shape)} with")
    samplings = [s for s in samplings if _changes(s)]
    if not samplings:
        return x
    places = {s.axis: _places(s, transformation) for s in samplings}
    if mode == "nearest":
        rounding = _ROUNDINGS[nearest_mode]
        out = _nearest(x, {axis: rounding(place) for axis, place in places.items()})
    else:
        kernel = _kernel(mode, cubic_coeff_a)
        out = _interpolate(x, {
            s.axis: _taps(
                places[s.axis], s.length, kernel, min(s.scale, 1.0) if antialias else 1.0, exclude
            ) for s in samplings
        })
    if transformation != "tf_crop_and_resize":
        return out
    return _extrapolate(out, x.shape, places, value)


def _changes(s):
    return s.resized != s.length or s.scale != 1 or (s.start, s.end) != (0, 1)


def _places(s, transformation):
    """Return where in the input the elements of one axis of the result lie."""
    places = np.arange(s.resized, dtype=np.float32)
    with np.errstate(all="ignore"):
        places = _TRANSFORMATIONS[transformation](places, s)
    if not np.isfinite(places).all():
        raise ValueError(f"roi leads to places that float32 cannot hold: {s.start} to {s.end}")
    return places


def _extrapolate(out, shape, places, value):
    """Return the result with `value` where it lies outside of the input."""
    copied = False
    if out.dtype.kind in "iu":
        if not np.isfinite(value):
            raise ValueError(f"extrapolation_value must be finite for {out.dtype}, got {value}")
        value = np.rint(value).clip(np.iinfo(out.dtype).min, np.iinfo(out.dtype).max)
    for axis, place in places.items():
        outside = np.flatnonzero((place < 0) | (place > shape[axis] - 1))
        if outside.size:
            out, copied = out if copied else np.array(out), True
            with np.errstate(over="ignore"):
                out[(*(slice(None),) * axis, outside)] = value
    return out


# ---------------------------------------------------------------------------------------------
# Sampling
# ---------------------------------------------------------------------------------------------

def _order(shape, sizes):
    """Return axes in the order in which the least is computed."""
    return sorted(sizes, key=lambda axis: (sizes[axis] / shape[axis], -axis))


def _nearest(x, places):
    """Return the elements at whole places, or at the end that is nearest to one outside."""
    for axis in _order(x.shape, {axis: len(place) for axis, place in places.items()}):
        place = places[axis].clip(0, x.shape[axis] - 1).astype(np.intp)
        x = x.take(place, axis)
    return x


def _kernel(mode, a):
    """Return how much an element at a distance weighs, and how far any does."""
    if mode == "linear":
        return lambda d: np.maximum(1 - np.abs(d), 0), 1
    a = _validate.real("cubic_coeff_a", a)
    if not np.isfinite(a):
        raise ValueError(f"cubic_coeff_a must be finite, got {a}")

    def cubic(d):
        d = np.abs(d)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return cubic, 2


def _taps(places, length, kernel, stretch, exclude_outside):
    """Return the elements that numbers of the result come from, and what they weigh.

    Both have one row per element of the kernel and one column per number. Elements outside of
    the axis are those at its end, or weigh nothing if `exclude_outside`.
    """
    weight, reach = kernel
    reach = int(np.ceil(reach / stretch))
    places = places.astype(np.float64).clip(-reach, length + reach)
    taps = np.floor(places).astype(np.intp) + np.arange(1 - reach, reach + 1)[:, None]
    weights = weight((taps - places) * stretch)
    inside = taps.clip(0, length - 1)
    if exclude_outside:
        weights = np.where(taps == inside, weights, 0)
    total = weights.sum(axis=0)
    return inside, weights / np.where(total == 0, 1, total)


def _interpolate(x, taps):
    """Return weighted sums along one axis after the other."""
    if x.dtype.kind not in "fiu":
        raise TypeError(f"only numbers can be interpolated, got {x.dtype}")
    work = np.float32 if x.dtype.itemsize <= 2 or x.dtype == np.float32 else np.float64
    out = x.astype(work, copy=False)
    with np.errstate(all="ignore"):
        for axis in _order(x.shape, {axis: tap.shape[1] for axis, (tap, _) in taps.items()}):
            out = _weighted(out, axis, *taps[axis])
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            out = np.rint(out).clip(limits.min, limits.max)
    return out.astype(x.dtype, copy=False)


def _weighted(x, axis, taps, weights):
    """Return the sum of the elements that `taps` names, each times its weight."""
    weights = weights.astype(x.dtype).reshape(weights.shape + (1,) * (x.ndim - axis - 1))
    total = x.take(taps[0], axis)
    total *= weights[0]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        part = x.take(tap, axis)
        part *= weight
        total += part
    return total


# ---------------------------------------------------------------------------------------------
# Images and blocks
# ---------------------------------------------------------------------------------------------

_BLOCKS = {"DCR": ((0, 3, 4, 1, 5, 2), (0, 3, 5, 1, 2, 4)),
           "CRD": ((0, 1, 4, 2, 5, 3), (0, 1, 3, 5, 2, 4))}


def _image(x):
    x = array_of("x", x)
    if x.ndim != 4:
        raise ValueError(f"x must have 4 dimensions (N, C, H, W), got shape {x.shape}")
    return x


@operator("DepthToSpace", kind="moves")
def depth_to_space(x, *, blocksize, mode="DCR"):
    """Return images with channels laid out as blocks of pixels."""
    x = _image(x)
    n, c, h, w = x.shape
    size = _validate.integer("blocksize", blocksize, 1)
    order = _BLOCKS[_validate.choice("mode", mode, _BLOCKS)][0]
    if c % size**2:
        raise ValueError(f"channels must be a multiple of blocksize**2 = {size**2}, got {c}")
    apart = (n, size, size, c // size**2, h, w) if mode == "DCR" else \
        (n, c // size**2, size, size, h, w)
    x = x.reshape(apart).transpose(order)
    return x.reshape(n, c // size**2, h * size, w * size)


@operator("SpaceToDepth", kind="moves")
def space_to_depth(x, *, blocksize, mode="DCR"):
    """Return images with blocks of pixels laid out as channels."""
    x = _image(x)
    n, c, h, w = x.shape
    size = _validate.integer("blocksize", blocksize, 1)
    order = _BLOCKS[_validate.choice("mode", mode, _BLOCKS)][1]
    if h % size or w % size:
        raise ValueError(f"height and width must be multiples of {size}, got {h} and {w}")
    x = x.reshape(n, c, h // size, size, w // size, size).transpose(order)
    return x.reshape(n, c * size**2, h // size, w // size)
