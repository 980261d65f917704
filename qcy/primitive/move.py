"""Codes moved and not changed: axes in another order, arrays side by side, rows by number."""

import numpy as np

from qcy import _kernels, _validate
from qcy.primitive.binding import bindable

#: Rows of a table, so that float32 counts them.
MOST_ROWS = 2**24


@bindable
def permute_q8(codes, axes, *, out=None, n_threads=None):
    """Bring the axes of codes into another order, as ``numpy.transpose``, C-ordered.

    Parameters
    ----------
    codes : array, int8 or uint8
        Of up to four dimensions.
    axes : sequence of int
        For each axis of the output, the axis of `codes` that it is.
    out : array of `codes`' dtype, optional
    n_threads : int, optional

    Returns
    -------
    array of `codes`' dtype

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> permute_q8(np.arange(6, dtype=np.uint8).reshape(2, 3), (1, 0))
    array([[0, 3],
           [1, 4],
           [2, 5]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    axes = tuple(_validate.integer("axes", axis, 0) for axis in axes)
    if sorted(axes) != list(range(codes.ndim)) or codes.ndim > 4:
        raise ValueError(
            f"axes must name each of up to 4 axes once, got {axes} for {codes.ndim} dimensions"
        )
    steps = [int(np.prod(codes.shape[axis + 1 :], dtype=np.int64)) for axis in axes]
    shape = tuple(codes.shape[axis] for axis in axes)
    out = _validate.output("out", out, shape, codes.dtype)
    missing = 4 - len(shape)
    step = _kernels.active.plain.permute(
        codes, (1,) * missing + shape, (0,) * missing + tuple(steps), out
    )
    return step, out, None


@bindable
def strided_q8(codes, shape, steps, offset=0, *, out=None, n_threads=None):
    """Take codes at even steps along each axis, as a strided view of an array does, C-ordered.

    Element ``[i, j, ...]`` of the result is code ``offset + i * steps[0] + j * steps[1] + ...`` of
    all codes in a row: slices, turned axes, and axes along which all is the same, with step 0.

    Parameters
    ----------
    codes : array, int8 or uint8
    shape, steps : sequence of int
        Of the result; at most four axes that cannot be taken as one with the next.
    offset : int, default 0
    out : array of `codes`' dtype and `shape`, optional
    n_threads : int, optional

    Returns
    -------
    array of `codes`' dtype and `shape`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or an element would lie outside `codes`.

    Examples
    --------
    >>> strided_q8(np.arange(6, dtype=np.uint8), (2, 3), (0, -1), 5)
    array([[5, 4, 3],
           [5, 4, 3]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    shape = tuple(_validate.integer("shape", size, 0) for size in shape)
    steps = tuple(_validate.integer("steps", step, -codes.size, codes.size) for step in steps)
    if len(steps) != len(shape):
        raise ValueError(f"steps must be one for each axis of {shape}, got {steps}")
    reach = [step * (size - 1) for size, step in zip(shape, steps, strict=True)]
    first = offset + sum(min(0, far) for far in reach)
    last = offset + sum(max(0, far) for far in reach)
    if 0 not in shape and not 0 <= first <= last < codes.size:
        raise ValueError(
            f"steps must stay within the {codes.size} codes, got {first} to {last} for shape "
            f"{shape}, steps {steps}, offset {offset}"
        )
    out = _validate.output("out", out, shape, codes.dtype)
    sizes, steps = _merged(shape, steps)
    if len(sizes) > 4:
        raise ValueError(f"shape must have at most 4 axes with different steps, got {len(sizes)}")
    missing = 4 - len(sizes)
    step = _kernels.active.plain.permute(
        codes, (1,) * missing + sizes, (0,) * missing + steps, out, 0 if 0 in shape else offset
    )
    return step, out, None


def _merged(shape, steps):
    """Return shape and steps with axes taken as one where a step leads from one to the next."""
    sizes, kept = [], []
    for size, step in zip(shape, steps, strict=True):
        if size == 1:
            continue
        if sizes and kept[-1] == step * size:
            sizes[-1] *= size
            kept[-1] = step
        else:
            sizes.append(size)
            kept.append(step)
    return tuple(sizes), tuple(kept)


@bindable
def gather_q8(codes, index, *, fill=0, out=None, n_threads=None):
    """Take codes by their places among all codes in a row.

    Parameters
    ----------
    codes : array, int8 or uint8
    index : array, int64
        From 0 to ``codes.size - 1``; -1 takes `fill`.
    fill : int, default 0
        A code.
    out : array of `codes`' dtype and `index`'s shape, optional
    n_threads : int, optional

    Returns
    -------
    array of `codes`' dtype and `index`'s shape

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or an index is the place of no code.

    Examples
    --------
    >>> gather_q8(np.array([5, 6, 7], np.uint8), np.array([[2, 0], [-1, 1]]), fill=9)
    array([[7, 5],
           [9, 6]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"index must hold integers, got {index.dtype}")
    bad = (index < -1) | (index >= codes.size)
    if bad.any():
        raise ValueError(f"index must be in [-1, {codes.size - 1}], got {index[bad].flat[0]}")
    fill = _validate.code("fill", fill, codes.dtype)
    out = _validate.output("out", out, index.shape, codes.dtype)
    starts, length = _pieces(np.ascontiguousarray(index, np.int64).reshape(-1))
    step = _kernels.active.plain.pieces(codes, starts, length, fill % 256, out)
    return step, out, None


def _pieces(index):
    """Return where pieces of codes that follow each other start, and how long all of them are."""
    if index.size < 2:
        return index, 1
    follows = np.where(index[1:] < 0, index[:-1] < 0, index[1:] == index[:-1] + 1)
    follows &= ~((index[:-1] < 0) & (index[1:] == 0))       # what fills up ends there
    ends = np.flatnonzero(~follows) + 1
    length = int(np.gcd.reduce(np.append(ends, index.size)))
    return np.ascontiguousarray(index[::length]), length


@bindable
def beside_q8(codes, out_shape, axis, start, *, out=None, n_threads=None):
    """Write codes into a part of a larger array, along one axis.

    Parameters
    ----------
    codes : array, int8 or uint8
    out_shape : sequence of int
        That of `codes` but for `axis`.
    axis : int
    start : int
        Where on that axis the codes begin.
    out : array of `codes`' dtype and `out_shape`, optional
        What lies beside the part stays as it is.
    n_threads : int, optional

    Returns
    -------
    array of `out_shape`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> beside_q8(np.ones((2, 1), np.uint8), (2, 3), 1, 2, out=np.zeros((2, 3), np.uint8))
    array([[0, 0, 1],
           [0, 0, 1]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    axis = _validate.axis("axis", axis, codes.ndim)
    shape = tuple(_validate.integer("out_shape", size, 0) for size in out_shape)
    start = _validate.integer("start", start, 0)
    rest = (*codes.shape[:axis], *codes.shape[axis + 1 :])
    if (*shape[:axis], *shape[axis + 1 :]) != rest or start + codes.shape[axis] > shape[axis]:
        raise ValueError(
            f"codes of shape {codes.shape} do not fit {shape} at {start} of axis {axis}"
        )
    out = _validate.output("out", out, shape, codes.dtype)
    inner = int(np.prod(codes.shape[axis + 1 :], dtype=np.int64))
    step = _kernels.active.plain.beside(
        codes, int(np.prod(codes.shape[:axis], dtype=np.int64)), codes.shape[axis] * inner,
        shape[axis] * inner, start * inner, out,
    )
    return step, out, None


@bindable
def embed_q8(indices, rows, *, out=None, n_threads=None):
    """Take rows of a table by their numbers.

    Parameters
    ----------
    indices : array of whole numbers
        Taken as float32.
    rows : (n_rows, n_features) array, int8 or uint8
        At most 2**24 rows, which float32 can still count.
    out : (..., n_features) array of the rows' dtype, optional
    n_threads : int, optional

    Returns
    -------
    (..., n_features) array of the rows' dtype
        One row for each index.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or an index is not the number of a row.

    Examples
    --------
    >>> embed_q8([1, 0, 1], np.array([[5, 6], [7, 8]], np.uint8))
    array([[7, 8],
           [5, 6],
           [7, 8]], dtype=uint8)
    """
    indices = _validate.real_array("indices", indices)
    rows = _validate.q8_array("rows", rows, 2)
    if not 1 <= len(rows) <= MOST_ROWS:
        raise ValueError(f"rows must be 1 to {MOST_ROWS}, got shape {rows.shape}")
    out = _validate.output("out", out, (*indices.shape, rows.shape[1]), rows.dtype)
    step = _kernels.active.plain.take(indices, indices.size, rows.view(np.uint8), out)
    return step, out, None
