"""Rows of a table by their numbers, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, QuantizedLayer, check_params, frozen, to_codes
from qcy.nn.layers.weights import float_array
from qcy.primitive.move import MOST_ROWS


class Embedding(Layer):
    """Row ``x[i]`` of `weight` for every index, in up to two dimensions.

    In an 8-bit model, indices are an input of the model: they go in as they are, and are never
    quantized.

    Parameters
    ----------
    weight : (n_rows, n_features) array
        At most 2**24 rows, which float32 can still count.

    Raises
    ------
    TypeError, ValueError
        If the weight does not fit; and from the call, if an index is no row.

    Examples
    --------
    >>> Embedding([[0.0, 1.0], [2.0, 3.0]])([1, 1, 0])
    array([[2., 3.],
           [2., 3.],
           [0., 1.]], dtype=float32)
    """

    ARRAYS = ("weight",)
    TAKES_REALS = True

    def __init__(self, weight):
        self.weight = _check_rows(float_array("weight", weight, 2))

    def _forward(self, x):
        _check_axes(x)
        bad = ~((x >= 0) & (x < len(self.weight)) & (x == np.trunc(x)))     # a NaN among them
        if bad.any():
            raise ValueError(
                f"x must hold numbers of rows, 0 to {len(self.weight) - 1}, got {x[bad].flat[0]}"
            )
        return self.weight[x.astype(np.int64)]

    def quantized(self, in_params, out_params):
        """Return an `EmbeddingQuantized`, with the rows as codes of `out_params`."""
        for name, params in (("in_params", in_params), ("out_params", out_params)):
            check_params(name, params)
        return EmbeddingQuantized(to_codes(self.weight, out_params), in_params, out_params)


class EmbeddingQuantized(QuantizedLayer):
    """8-bit `Embedding`: rows are codes, with the output's parameters.

    Parameters
    ----------
    codes : (n_rows, n_features) array of the output's dtype
    in_params : QuantizationParams
        Without meaning: indices are never quantized.
    out_params : QuantizationParams
    """

    ARRAYS = ("codes",)
    TAKES_REALS = True

    def __init__(self, codes, in_params, out_params):
        super().__init__(in_params, out_params)
        self.codes = frozen(_check_rows(_validate.q8_array("codes", codes, 2)))
        if self.codes.dtype != out_params.dtype:
            raise TypeError(f"codes must be {out_params.dtype}, got {self.codes.dtype}")

    def forward_codes(self, x, out=None):
        """Compute the layer on a plain array of indices."""
        _check_axes(x)
        return primitive.embed_q8(x, self.codes, out=out)


def _check_axes(x):
    """Check the number of axes: with the features there are three. Four would be an image."""
    if x.ndim > 2:
        raise ValueError(f"x must have at most 2 dimensions, got shape {x.shape}")


def _check_rows(weight):
    if not 1 <= len(weight) <= MOST_ROWS:
        raise ValueError(f"weight must have 1 to {MOST_ROWS} rows, got shape {weight.shape}")
    return weight
