"""Packing weights: what depends on them alone, done once."""

import numpy as np

from qcy import _validate
from qcy.primitive.packed import PackedWeights


def _per_column(name, value, n_cols):
    """Return a checked bias: (N,) int32, or None."""
    return None if value is None else _validate.int32_array(name, value, (n_cols,)).copy()


def _pack(names, codes, n_cols, zero_point, bias, scale, groups, transposed=False):
    zero_point = _validate.zero_points(names[0], zero_point, codes.dtype, n_cols)
    zero_point = np.broadcast_to(zero_point, (n_cols,)).copy()
    bias = _per_column("bias", bias, n_cols)
    if scale is not None:
        scale = np.array(_validate.scale(names[1], scale, length=n_cols))
    return PackedWeights(codes, zero_point, bias, scale, groups, transposed)


def pack_q8(b, *, b_zero_point=0, bias=None, b_scale=None):
    """Pack the right operand of matrix products.

    Parameters
    ----------
    b : (K, N) array, int8 or uint8
        Codes.
    b_zero_point : int or (N,) array of int, default 0
        The code of 0.0, one or one per column.
    bias : (N,) array, int32, optional
        Added to the sums, in units of ``a_scale * b_scale``.
    b_scale : float or (N,) array, optional
        Needed for products with 8-bit output.

    Returns
    -------
    PackedWeights

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> packed = pack_q8(np.array([[3], [4]], np.int8), bias=np.array([100]))
    >>> gemm_nn_q8_accum(np.array([[130, 126]], np.uint8), packed, a_zero_point=128)
    array([[98]], dtype=int32)
    """
    b = _validate.q8_array("b", b, 2)
    return _pack(("b_zero_point", "b_scale"), b, b.shape[1], b_zero_point, bias, b_scale, None)


def pack_conv_q8(w, *, w_zero_point=0, bias=None, w_scale=None, groups=1, transposed=False):
    """Pack the kernel of a convolution.

    Parameters
    ----------
    w : (O, I / groups, KH, KW) array, int8 or uint8
        Codes; (I, O / groups, KH, KW) for a transposed convolution.
    w_zero_point : int or (O,) array of int, default 0
        The code of 0.0, one or one per output channel.
    bias : (O,) array, int32, optional
        Added to the sums, in units of ``x_scale * w_scale``.
    w_scale : float or (O,) array, optional
        Needed for convolutions with 8-bit output.
    groups : int, default 1
        Groups of channels that are convolved apart; divides the first axis of `w`.
    transposed : bool, default False
        Whether it is for `conv_transpose2d_q8`.

    Returns
    -------
    PackedWeights

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> pack_conv_q8(np.ones((8, 4, 3, 3), np.int8))
    PackedWeights(shape=(8, 4, 3, 3), dtype=int8, groups=1)
    """
    w = _validate.q8_array("w", w, 4)
    groups = _validate.integer("groups", groups, 1)
    if w.shape[0] % groups:
        kind = "input" if transposed else "output"
        raise ValueError(f"groups must divide the {w.shape[0]} {kind} channels, got {groups}")
    return _pack(
        ("w_zero_point", "w_scale"), w, w.shape[1] * groups if transposed else w.shape[0],
        w_zero_point, bias, w_scale, groups, bool(transposed),
    )


def resolve(names, value, scale, zero_point, bias, pack, needs_scale):
    """Return packed weights: those given, whose scale, zero point and bias are theirs, or new ones.

    `names` are what the caller calls the operand, its scale and its zero point.
    """
    operand, scale_name, zero_name = names
    if not isinstance(value, PackedWeights):
        if needs_scale and scale is None:
            raise TypeError(f"{scale_name} is needed for output in codes")
        packed = pack(value)
    else:
        packed = value
        given = {scale_name: scale, zero_name: zero_point, "bias": bias}
        for name, argument in given.items():
            if argument is not None:
                raise TypeError(f"{name} is part of the packed {operand}; give it to the packing")
        if needs_scale and packed.scale is None:
            raise ValueError(f"{operand} was packed without a scale, output in codes needs one")
    return packed
