"""Attention on codes."""

import math
from functools import partial

import numpy as np

from qcy import _kernels, _validate
from qcy.primitive.binding import bindable
from qcy.primitive.codes import flip_of, output_target

#: Keys, and numbers of a head: sums of that many products of codes fit int32.
MOST_SUMMED = 32768
MOST = float(np.finfo(np.float32).max)


@partial(bindable, n_read=3)
def attention_q8(
    q, k, v, *, n_heads, q_scale, k_scale, v_scale, out_scale, q_zero_point=0, v_zero_point=0,
    out_zero_point=0, score_scale=None, out_dtype="uint8", clamp=None, out=None, n_threads=None,
):
    """Let queries attend to keys: ``softmax(q @ k.T * score_scale) @ v`` per head, equation (25).

    Scores are exact sums, and are never cut to 8 bits. Weights are codes from 0 to 255 beside the
    largest of their row, which their sum divides in the end.

    Parameters
    ----------
    q : (..., S, n_heads * D) array, int8 or uint8
        Queries of all heads, side by side.
    k : (..., T, n_heads * D) array, int8 or uint8
        Keys. Their zero point moves all scores of a row alike, and so changes nothing.
    v : (..., T, n_heads * W) array, int8 or uint8
        Values.
    n_heads : int
    q_scale, k_scale, v_scale, out_scale : float
        Real size of one step.
    q_zero_point, v_zero_point, out_zero_point : int, default 0
        The code of 0.0.
    score_scale : float, optional
        What scores are multiplied with. Default: ``1 / sqrt(D)``.
    out_dtype : {"uint8", "int8"}, default "uint8"
    clamp : (int, int), optional
        Smallest and largest output code.
    out : (..., S, n_heads * W) array of `out_dtype`, optional
    n_threads : int, optional

    Returns
    -------
    (..., S, n_heads * W) array of `out_dtype`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or there are no keys or more than 32768 of them.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation (1).

    Examples
    --------
    >>> q = np.array([[4, 0]], np.uint8)
    >>> k = np.array([[9, 0], [0, 9]], np.uint8)        # the query is like the first key
    >>> v = np.array([[100, 0], [0, 100]], np.uint8)
    >>> attention_q8(q, k, v, n_heads=1, q_scale=1, k_scale=1, v_scale=1, out_scale=1)
    array([[100,   0]], dtype=uint8)
    """
    q, k, v = (
        _validate.q8_array(name, codes) for name, codes in (("q", q), ("k", k), ("v", v))
    )
    shape, sizes = attention_sizes(q.shape, k.shape, v.shape, n_heads)
    scales = [
        float(_validate.scale(f"{name}_scale", value, 0))
        for name, value in (("q", q_scale), ("k", k_scale), ("v", v_scale), ("out", out_scale))
    ]
    score_scale = sizes[4] ** -0.5 if score_scale is None else score_scale
    score_scale = float(_validate.scale("score_scale", score_scale, 0))
    step = _multiplier(scales[0] * scales[1] * score_scale * math.log2(math.e))
    factor = _multiplier(scales[2] / scales[3])
    zeros = tuple(
        _validate.code(f"{name}_zero_point", zero, codes.dtype) + flip_of(codes.dtype)
        for name, zero, codes in (("q", q_zero_point, q), ("v", v_zero_point, v))
    )
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    out = _validate.output("out", out, shape, out_dtype)
    target = (*output_target(out_dtype, out_zero_point, clamp), 256 * factor >= 2.0**31)
    step = _kernels.active.q8.attention(
        q, k, v, sizes, zeros, tuple(flip_of(codes.dtype) for codes in (q, k, v)), step, factor,
        target, out,
    )
    return step, out, None


def _multiplier(value):
    """Return a number as float32, the largest if it is beyond: then any step of it saturates.

    One that vanishes does no harm either: what it multiplies is below 2**31.
    """
    return float(np.float32(min(value, MOST)))


def attention_sizes(q, k, v, n_heads):
    """Check three shapes, and return the output's and (batch, S, T, n_heads, D, W)."""
    n_heads = _validate.integer("n_heads", n_heads, 1)
    for name, shape in (("q", q), ("k", k), ("v", v)):
        if len(shape) < 2:
            raise ValueError(f"{name} must have at least 2 dimensions, got shape {shape}")
        if shape[-1] % n_heads or not shape[-1]:
            raise ValueError(
                f"{name} must have a multiple of {n_heads} features, one for each of n_heads, got "
                f"shape {shape}"
            )
    if q[:-2] != k[:-2] or k[:-1] != v[:-1] or q[-1] != k[-1]:
        raise ValueError(
            "q, k and v must be (..., S, H * D), (..., T, H * D) and (..., T, H * W), got shapes "
            f"{q}, {k} and {v}"
        )
    depth, width, n_keys = q[-1] // n_heads, v[-1] // n_heads, k[-2]
    if not 1 <= n_keys <= MOST_SUMMED:
        raise ValueError(f"k must have 1 to {MOST_SUMMED} rows, got shape {k}")
    if depth > MOST_SUMMED:
        raise ValueError(f"q must have at most {MOST_SUMMED} features a head, got {depth}")
    return (*q[:-1], v[-1]), (math.prod(q[:-2]), q[-2], n_keys, n_heads, depth, width)
