"""Where windows lie over images of any number of axes, and pooling: largest, mean, norm."""

import math
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
FLOATS = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))
CODES = tuple(np.dtype(name) for name in ("int8", "uint8"))


@dataclass(frozen=True)
class Windows:
    """Where the windows of a convolution or a pooling lie: a number per spatial axis each.

    Attributes
    ----------
    size : tuple of int
        Cells of the image.
    kernel, strides, dilations : tuple of int
    before, after : tuple of int
        Cells outside the image, at either end.
    out : tuple of int
        How many windows there are. With `ceil_mode` the last may pass the cells of `after`.
    """

    size: tuple
    kernel: tuple
    strides: tuple
    dilations: tuple
    before: tuple
    after: tuple
    out: tuple

    @classmethod
    def over(
        cls, size, kernel, strides=None, dilations=None, pads=None, auto_pad="NOTSET", ceil_mode=0
    ):
        """Return the windows that ONNX's attributes describe."""
        n_axes = len(size)
        if kernel is None:
            raise ValueError("kernel_shape is needed, got None")
        kernel = numbers("kernel_shape", kernel, n_axes, 1)
        strides = numbers("strides", strides, n_axes, 1, 1)
        dilations = numbers("dilations", dilations, n_axes, 1, 1)
        before, after = sides(pads, auto_pad, n_axes)
        reaches = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        if auto_pad.startswith("SAME"):
            out = tuple(-(-length // stride) for length, stride in zip(size, strides, strict=True))
            totals = [
                max(0, (windows - 1) * stride + reach - length)
                for windows, stride, reach, length in zip(out, strides, reaches, size, strict=True)
            ]
            before, after = halves(totals, auto_pad == "SAME_UPPER")
            return cls(tuple(size), kernel, strides, dilations, before, after, out)
        out = tuple(
            _n_windows(length, begin, end, reach, stride, ceil_mode)
            for length, begin, end, reach, stride in zip(
                size, before, after, reaches, strides, strict=True
            )
        )
        if min(out) < 1:
            raise ValueError(
                f"the image must hold the kernel: {tuple(size)} with pads {(*before, *after)} is "
                f"smaller than kernel {kernel}, dilations {dilations}"
            )
        return cls(tuple(size), kernel, strides, dilations, before, after, out)

    @property
    def are_cells(self):
        """Whether each window is one cell of the image, and each cell has its window."""
        return math.prod(self.kernel) == 1 and self.out == self.size and not any(
            (*self.before, *self.after)
        )

    def rows(self, first, end):
        """Return those windows that lie from `first` to before `end` along the first axis."""
        begin = self.before[0] - first * self.strides[0]
        return replace(
            self, out=(end - first, *self.out[1:]), before=(begin, *self.before[1:])
        )

    def tap(self, axis, index):
        """Return which windows have their cell `index` inside the image, and which that is."""
        stride = self.strides[axis]
        offset = index * self.dilations[axis] - self.before[axis]
        first = max(0, -(offset // stride))
        end = max(first, min(self.out[axis], (self.size[axis] - 1 - offset) // stride + 1))
        start = first * stride + offset
        return slice(first, end), slice(start, start + (end - first) * stride, stride)

    def taps(self):
        """Yield for each cell of the kernel its place, the windows that have it, and the cells."""
        axes = [
            [self.tap(axis, index) for index in range(length)]
            for axis, length in enumerate(self.kernel)
        ]
        for place, pairs in zip(np.ndindex(*self.kernel), product(*axes), strict=True):
            yield place, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    def counts(self, count_padding=False):
        """Return how many cells each window has inside the image, or inside image and padding."""
        vectors = []
        for axis, length in enumerate(self.kernel):
            starts = np.arange(self.out[axis]) * self.strides[axis]
            cells = starts[:, None] + np.arange(length) * self.dilations[axis]
            cells -= self.before[axis]
            low = -self.before[axis] if count_padding else 0
            high = self.size[axis] + (self.after[axis] if count_padding else 0)
            vectors.append(((cells >= low) & (cells < high)).sum(axis=1))
        return reduce(np.multiply.outer, vectors)


def numbers(name, values, count, low, default=None):
    """Return an attribute that has a number per axis."""
    if values is None or not len(values):
        values = (default,) * count
    if len(values) != count:
        raise ValueError(f"{name} must have {count} numbers, one per axis, got {tuple(values)}")
    return tuple(_validate.integer(name, value, low) for value in values)


def sides(pads, auto_pad, n_axes):
    """Return the explicit padding before and after each axis."""
    _validate.choice("auto_pad", auto_pad, AUTO_PADS)
    pads = numbers("pads", pads, 2 * n_axes, 0, 0)
    if auto_pad != "NOTSET" and any(pads):
        raise ValueError(f"pads need auto_pad 'NOTSET', got {pads} with {auto_pad!r}")
    return pads[:n_axes], pads[n_axes:]


def halves(totals, more_after):
    """Split paddings over both sides; the odd cell goes after or before."""
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return (small, large) if more_after else (large, small)


def _n_windows(length, before, after, reach, stride, ceil_mode):
    """Return how many windows of `reach` cells fit along an axis."""
    free = before + length + after - reach
    if not ceil_mode:
        return free // stride + 1
    windows = -(-free // stride) + 1
    # One that would start in the padding at the end does not count.
    return windows - ((windows - 1) * stride >= before + length)


def images(name, x, dtypes):
    """Return `x` if it is a batch of images, (B, C, D1, ...)."""
    x = np.asarray(x)
    if x.dtype not in dtypes:
        allowed = ", ".join(map(str, dtypes))
        raise TypeError(f"{name} must be one of {allowed}, got {x.dtype}")
    if x.ndim < 3:
        raise ValueError(f"{name} must have at least 3 dimensions, (B, C, D1, ...), got {x.shape}")
    return x


def wide(array):
    """Return an array to compute with: float16 as float32."""
    if array is not None and array.dtype == np.float16:
        return array.astype(np.float32)
    return array


def narrow(array, dtype):
    """Return what `wide` led to in the operands' dtype."""
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def combine(x, windows, start, function):
    """Combine the cells of each window by `function`, axis by axis, beginning from `start`."""
    for axis in range(len(windows.kernel)):
        before = (slice(None),) * (axis + 2)
        shape = (*x.shape[: axis + 2], windows.out[axis], *x.shape[axis + 3 :])
        result = np.full(shape, start, x.dtype)
        for index in range(windows.kernel[axis]):
            taken, cells = windows.tap(axis, index)
            target = result[(*before, taken)]
            function(target, x[(*before, cells)], out=target)
        x = result
    return x


def check_inside(windows):
    """Refuse windows without any cell inside the image, over which nothing is the largest."""
    if math.prod(windows.out) and not windows.counts().all():
        raise ValueError(
            f"each window must have a cell inside the image, got kernel {windows.kernel}, "
            f"dilations {windows.dilations}, pads {(*windows.before, *windows.after)} over "
            f"{windows.size}"
        )


@operator("MaxPool", counts_outputs=True)
def max_pool(
    x, *, auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape=None, pads=None,
    storage_order=0, strides=None, n_outputs=1,
):
    """Take the largest cell of each window; the second output tells where it was."""
    x = images("X", x, FLOATS + CODES)
    _validate.choice("storage_order", storage_order, (0, 1))
    windows = Windows.over(
        x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    check_inside(windows)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    if n_outputs < 2:
        return combine(x, windows, lowest, np.maximum)
    return _largest(x, windows, lowest, storage_order)


def _largest(x, windows, lowest, storage_order):
    """Return the largest cell of each window, and its index in all of `x`; the first of equals."""
    n_cells = math.prod(windows.size)
    places = np.arange(n_cells, dtype=np.int64)
    if storage_order:
        places = places.reshape(windows.size[::-1]).T
    places = places.reshape(windows.size)
    values = np.full((*x.shape[:2], *windows.out), lowest, x.dtype)
    indices = np.full(values.shape, -1, np.int64)
    for _, taken, cells in windows.taps():
        value, index = values[(..., *taken)], indices[(..., *taken)]
        given = x[(..., *cells)]
        is_larger = (given > value) | (index < 0)
        is_larger |= (given != given) & (value == value)        # a NaN is the largest
        np.copyto(value, given, where=is_larger)
        np.copyto(index, places[cells], where=is_larger)
    channels = np.arange(math.prod(x.shape[:2]), dtype=np.int64) * n_cells
    return values, indices + channels.reshape(*x.shape[:2], *(1,) * len(windows.size))


@operator("AveragePool")
def average_pool(
    x, *, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, kernel_shape=None,
    pads=None, strides=None,
):
    """Take the mean of each window."""
    x = images("X", x, FLOATS)
    windows = Windows.over(
        x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    if not count_include_pad:
        check_inside(windows)
    sums = combine(wide(x), windows, 0, np.add)
    return narrow(sums / windows.counts(bool(count_include_pad)).astype(sums.dtype), x.dtype)


@operator("LpPool")
def lp_pool(
    x, *, auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape=None, p=2, pads=None,
    strides=None,
):
    """Take the norm of each window."""
    x = images("X", x, FLOATS)
    windows = Windows.over(
        x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
    )
    return narrow(_root(combine(_power(wide(x), p), windows, 0, np.add), p), x.dtype)


def _power(x, p):
    """Return ``abs(x) ** p``."""
    p = _validate.integer("p", p, 1)
    with np.errstate(over="ignore"):
        return x * x if p == 2 else np.abs(x) ** p


def _root(sums, p):
    return np.sqrt(sums) if p == 2 else sums ** (1.0 / p)


def _all_cells(x, dtypes=FLOATS):
    """Return images whose cells are to become one, and their spatial axes."""
    x = images("X", x, dtypes)
    if not math.prod(x.shape[2:]):
        raise ValueError(f"X must have cells in its images, got shape {x.shape}")
    return x, tuple(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(x):
    """Take the mean of each channel."""
    x, axes = _all_cells(x)
    return narrow(wide(x).mean(axis=axes, keepdims=True), x.dtype)


@operator("GlobalMaxPool", kind="moves")
def global_max_pool(x):
    """Take the largest of each channel, of reals or of codes."""
    x, axes = _all_cells(x, FLOATS + CODES)
    return x.max(axis=axes, keepdims=True)


@operator("GlobalLpPool")
def global_lp_pool(x, *, p=2):
    """Take the norm of each channel."""
    x, axes = _all_cells(x)
    return narrow(_root(_power(wide(x), p).sum(axis=axes, keepdims=True), p), x.dtype)
