"""Attention of several heads, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, QuantizedLayer, activation_clamp
from qcy.primitive.attention import attention_sizes


class Attention(Layer):
    """``softmax(q @ k.T * score_scale) @ v`` for each head.

    Takes three inputs: queries (N, S, n_heads * D), keys (N, T, n_heads * D) and values
    (N, T, n_heads * W), in which the heads lie side by side; any axes may stand for N. The products
    that make them, and the one that mixes the heads afterwards, are layers of their own: `Dense`.

    Parameters
    ----------
    n_heads : int
    score_scale : float, optional
        What scores are multiplied with. Default: ``1 / sqrt(D)``.

    References
    ----------
    .. [1] A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.

    Examples
    --------
    >>> attention = Attention(1)
    >>> attention([[9.0]], [[9.0], [0.0]], [[5.0], [7.0]])      # the query is like the first key
    array([[5.]], dtype=float32)
    """

    SETTINGS = ("n_heads", "score_scale")
    N_INPUTS = 3

    def __init__(self, n_heads, *, score_scale=None):
        self.n_heads = _validate.integer("n_heads", n_heads, 1)
        if score_scale is not None:
            score_scale = float(_validate.scale("score_scale", score_scale, 0))
        self.score_scale = score_scale

    def _forward(self, q, k, v):
        shape, sizes = attention_sizes(q.shape, k.shape, v.shape, self.n_heads)
        n_batch, _, _, _, depth, width = sizes
        q, k, v = (
            x.reshape(n_batch, x.shape[-2], self.n_heads, n).swapaxes(1, 2)
            for x, n in ((q, depth), (k, depth), (v, width))
        )
        scale = depth**-0.5 if self.score_scale is None else self.score_scale
        scores = q @ k.swapaxes(-1, -2) * np.float32(scale)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.ascontiguousarray((weights @ v).swapaxes(1, 2)).reshape(shape)

    def quantized(self, in_params, out_params):
        """Return an `AttentionQuantized`."""
        return AttentionQuantized(in_params, out_params, **self.settings())


class AttentionQuantized(QuantizedLayer):
    """8-bit `Attention`: scores are exact sums, weights codes beside the largest, equation (25).

    Parameters
    ----------
    in_params : sequence of three QuantizationParams
    out_params : QuantizationParams
    n_heads, score_scale
        As for `Attention`.
    """

    SETTINGS = ("in_params", "out_params", *Attention.SETTINGS)
    N_INPUTS = 3

    def __init__(self, in_params, out_params, *, n_heads, score_scale=None):
        super().__init__(in_params, out_params)
        plain = Attention(n_heads, score_scale=score_scale)
        self.n_heads, self.score_scale = plain.n_heads, plain.score_scale
        self._clamp = activation_clamp(None, out_params)

    def forward_codes(self, q, k, v, out=None):
        """Compute the layer on plain arrays of codes."""
        of_q, of_k, of_v = self.in_params
        return primitive.attention_q8(
            q, k, v, n_heads=self.n_heads, q_scale=of_q.scale, k_scale=of_k.scale,
            v_scale=of_v.scale, out_scale=self.out_params.scale, q_zero_point=of_q.zero_point,
            v_zero_point=of_v.zero_point, out_zero_point=self.out_params.zero_point,
            score_scale=self.score_scale, out_dtype=self.out_params.dtype, clamp=self._clamp,
            out=out,
        )
