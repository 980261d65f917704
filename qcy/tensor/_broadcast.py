"""How the axes of two operands go together: broadcasting, and matrix products."""

import numpy as np

from qcy import _kernels
from qcy.tensor._values import C_NAMES, LIMITS


def broadcast(a, b):
    """Return the shape that two shapes broadcast to, and how to walk the operands.

    Returns
    -------
    shape : tuple of int
    axes : tuple of (length, step in a, step in b)
        Innermost first, in elements of C-ordered operands; a step of 0 stays where it is. Axes
        that can be walked as one are one, so that equal shapes have a single axis.

    Examples
    --------
    >>> broadcast((5, 2, 3), (3,))
    ((5, 2, 3), ((3, 1, 1), (10, 3, 0)))
    """
    n_axes = max(len(a), len(b))
    shape, axes = [], []
    a_size = b_size = 1
    for p, q in zip(
        reversed((1,) * (n_axes - len(a)) + a), reversed((1,) * (n_axes - len(b)) + b), strict=True
    ):
        if p != q and p != 1 and q != 1:
            raise ValueError(f"shapes {a} and {b} do not broadcast")
        length = q if p == 1 else p
        shape.append(length)
        if length != 1:
            axis = (length, 0 if p == 1 else a_size, 0 if q == 1 else b_size)
            if axes:
                n, a_step, b_step = axes[-1]
                if axis[1:] == (n * a_step, n * b_step):
                    axes.pop()
                    axis = (n * length, a_step, b_step)
            axes.append(axis)
        a_size *= p
        b_size *= q
    return tuple(reversed(shape)), tuple(axes) or ((1, 1, 1),)


def matmul(a, b):
    """Return the matrix product of two C-ordered arrays of one dtype.

    Sums of integers are exact; one that leaves the dtype is an OverflowError.
    """
    try:
        *a_batch, n_rows, n_inner = a.shape if a.ndim != 1 else (1, *a.shape)
        *b_batch, n_inner_too, n_cols = b.shape if b.ndim != 1 else (*b.shape, 1)
        if n_inner != n_inner_too:
            raise ValueError
        batch, axes = broadcast(tuple(a_batch), tuple(b_batch))
    except ValueError:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not make a matrix product") from None
    if a.dtype.kind == "f":
        return np.asarray(np.matmul(a, b))
    wide = np.dtype(np.int64 if a.dtype.kind == "i" else np.uint64)
    shape = batch + (n_rows,) * (a.ndim > 1) + (n_cols,) * (b.ndim > 1)
    out = np.zeros(shape, wide)
    misfits = []
    if out.size and n_inner:
        multiply = _kernels.active.plain.matmul[C_NAMES[wide]]
        multiply(
            a.astype(wide, copy=False).reshape(-1), b.astype(wide, copy=False).reshape(-1),
            out.reshape(-1), axes, (n_rows, n_inner, n_cols),
        )
        misfits = _sums_that_wrapped(
            a.reshape(*a_batch, n_rows, n_inner), b.reshape(*b_batch, n_inner, n_cols),
            out.reshape(*batch, n_rows, n_cols),
        )
    low, high = LIMITS[a.dtype]
    if wide != a.dtype and out.size and not (low <= out.min() and out.max() <= high):
        misfits = [*misfits, *out[(out < low) | (out > high)].flat[:1]]
    if misfits:
        raise OverflowError(
            f"{misfits[0]}, an element of the matrix product, does not fit {a.dtype}"
        )
    return out.astype(a.dtype, copy=False)


def _sums_that_wrapped(a, b, out):
    """Return the first sum of products that does not fit 64 bits, in a list; [] if all fit.

    Modulo 2**64 a sum that fits is right, whatever its terms did on the way. So it is enough to
    look at those that may not: by the largest values, then in float64 with its error bounded, and
    what that leaves open in Python's integers.
    """
    low, high = LIMITS[out.dtype]
    n_inner = a.shape[-1]
    if n_inner * largest(a) * largest(b) <= high:
        return []
    reals = [part.astype(np.float64) for part in (a, b)]
    error = (n_inner + 4) * 2.0**-52 * np.matmul(*map(np.abs, reals))
    is_open = np.abs(np.matmul(*reals)) + error > high
    rows = np.broadcast_to(a, (*out.shape[:-2], *a.shape[-2:]))
    cols = np.broadcast_to(b, (*out.shape[:-2], *b.shape[-2:]))
    for *batch, i, j in np.argwhere(is_open):
        row, col = rows[(*batch, i)].tolist(), cols[(*batch, slice(None), j)].tolist()
        exact = sum(x * y for x, y in zip(row, col, strict=True))
        if not low <= exact <= high:
            return [exact]
    return []


def largest(array):
    """Return the largest magnitude in an integer array, as a Python int."""
    return max(abs(int(array.min())), abs(int(array.max())))
