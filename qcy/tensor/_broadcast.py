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

    Integers are summed in 64 bits; a sum that could leave them, or a result that leaves the dtype,
    is an OverflowError.
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
    if out.size and n_inner:
        _check_sums(a, b, n_inner, wide)
        multiply = _kernels.active.tensor.matmul[C_NAMES[wide]]
        multiply(
            a.astype(wide, copy=False).reshape(-1), b.astype(wide, copy=False).reshape(-1),
            out.reshape(-1), axes, (n_rows, n_inner, n_cols),
        )
    low, high = LIMITS[a.dtype]
    if wide != a.dtype and out.size and not (low <= out.min() and out.max() <= high):
        bad = out[(out < low) | (out > high)].flat[0]
        raise OverflowError(f"{bad}, an element of the matrix product, does not fit {a.dtype}")
    return out.astype(a.dtype, copy=False)


def _check_sums(a, b, n_inner, wide):
    """Check that no sum of products can leave 64 bits: by the largest values, else row by row."""
    limit = LIMITS[wide][1]
    if n_inner * largest(a) * largest(b) <= limit:
        return
    # In float64 each sum of magnitudes is exact to far less than the margin kept here.
    a, b = (np.abs(part.astype(np.float64)) for part in (a, b))
    if np.matmul(a, b).max() > limit * (1 - 2.0**-20):
        raise OverflowError(f"a sum of the matrix product could leave {wide}")


def largest(array):
    """Return the largest magnitude in an integer array, as a Python int."""
    return max(abs(int(array.min())), abs(int(array.max())))
