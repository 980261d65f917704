"""Recurrent layers with constant weights, in float and with 8-bit weights."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, frozen
from qcy.nn.layers.operator import Operator
from qcy.nn.layers.weights import WEIGHT_SCHEME, float_array, symmetric_codes

OPS = ("LSTM", "GRU", "RNN")
#: Inputs of the operators: those at these places are arrays of the layer, others come at run time.
_ARRAYS_AT = {"w": 1, "r": 2, "b": 3, "p": 7}


class Recurrent(Layer):
    """A recurrent operator of ONNX whose weights are constant.

    Inputs are the sequence (T, N, n_in), and those of sequence_lens, initial_h and initial_c that
    are not `absent`, in this order; outputs are Y, Y_h and, of an LSTM, Y_c.

    Parameters
    ----------
    op : {"LSTM", "GRU", "RNN"}
    w : (directions, gates * hidden, n_in) array
    r : (directions, gates * hidden, hidden) array
    b : (directions, 2 * gates * hidden) array, optional
    p : (directions, 3 * hidden) array, optional
        Peepholes of an LSTM.
    attributes : mapping, or tuple of (name, value), optional
        As in ONNX.
    absent : sequence of int, default (4, 5, 6)
        Places of inputs of the operator that are left out.
    n_outputs : int, default 1

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997.

    Examples
    --------
    >>> layer = Recurrent("RNN", [[[1.0]]], [[[1.0]]], attributes={"hidden_size": 1})
    >>> layer(np.float32([[[0.0]], [[1.0]]])).ravel().round(3)
    array([0.   , 0.762], dtype=float32)
    """

    SETTINGS = ("op", "attributes", "absent", "n_outputs")
    ARRAYS = ("w", "r", "b", "p")
    N_INPUTS = None

    def __init__(self, op, w, r, b=None, p=None, *, attributes=(), absent=(4, 5, 6), n_outputs=1):
        self.op = _validate.choice("op", op, OPS)
        self.w, self.r = float_array("w", w, 3), float_array("r", r, 3)
        self.b, self.p = (
            None if x is None else float_array(name, x, 2) for name, x in (("b", b), ("p", p))
        )
        self._set(attributes, absent, n_outputs)

    def _set(self, attributes, absent, n_outputs):
        plain = Operator(self.op, attributes, absent=absent, n_outputs=n_outputs)
        self.attributes, self.absent, self.n_outputs = (
            plain.attributes, plain.absent, plain.n_outputs
        )
        self._function = plain.definition.function
        self._counts = plain.definition.counts_outputs

    def _products(self):
        """Return what computes the matrix products, or None."""
        return None

    def _forward(self, *inputs):
        arrays = iter(inputs)
        placed = [next(arrays)] + [None] * 7
        products = self._products()
        for name, place in _ARRAYS_AT.items():
            if products is None or name in ("b", "p"):
                placed[place] = getattr(self, name)
        for place in (4, 5, 6):
            if place not in self.absent:
                placed[place] = next(arrays, None)
        placed = placed[: {"LSTM": 8, "GRU": 6, "RNN": 6}[self.op]]
        settings = dict(self.attributes)
        if self._counts:
            settings["n_outputs"] = self.n_outputs
        if products is not None:
            settings["products"] = products
        results = self._function(*placed, **settings)
        results = results if isinstance(results, tuple) else (results,)
        return results[: self.n_outputs] if self.n_outputs > 1 else results[0]

    def dynamic(self, weight_scheme=WEIGHT_SCHEME):
        """Return a `RecurrentDynamic`: int8 weights, inputs and states quantized as they come."""
        if not weight_scheme.is_symmetric:
            raise ValueError(f"weight_scheme must be symmetric, got {weight_scheme}")
        codes, scales = zip(*(_rows_in_codes(x) for x in (self.w, self.r)), strict=True)
        (w, r), (w_scale, r_scale) = codes, scales
        return RecurrentDynamic(
            w=w, r=r, w_scale=w_scale, r_scale=r_scale, b=self.b, p=self.p, **self.settings()
        )


class RecurrentDynamic(Recurrent):
    """`Recurrent` with 8-bit weights, whose inputs and states are quantized row by row.

    Equation (22) for both matrix products of a cell; what is left is float32.

    Parameters
    ----------
    op : {"LSTM", "GRU", "RNN"}
    w, r : arrays as for `Recurrent`, int8
    w_scale, r_scale : (directions, gates * hidden) array
        One for each row of `w` and of `r`.
    b, p, attributes, absent, n_outputs
        As for `Recurrent`.
    """

    ARRAYS = ("w", "r", "w_scale", "r_scale", "b", "p")

    def __init__(
        self, op, w, r, w_scale, r_scale, b=None, p=None, *, attributes=(), absent=(4, 5, 6),
        n_outputs=1,
    ):
        self.op = _validate.choice("op", op, OPS)
        self.w, self.r = (
            frozen(_validate.q8_array(name, x, 3)) for name, x in (("w", w), ("r", r))
        )
        self.w_scale, self.r_scale = (
            float_array(name, x, 2) for name, x in (("w_scale", w_scale), ("r_scale", r_scale))
        )
        self.b, self.p = (
            None if x is None else float_array(name, x, 2) for name, x in (("b", b), ("p", p))
        )
        self._set(attributes, absent, n_outputs)
        self._cells = tuple(map(_DynamicProducts, self.w, self.r, self.w_scale, self.r_scale))

    def _products(self):
        return self._cells

    def dynamic(self, weight_scheme=WEIGHT_SCHEME):
        """Return the layer, which is dynamic already."""
        return self


class _DynamicProducts:
    """The products of one direction by packed 8-bit weights; see `qcy.nn.operators.recurrent`."""

    def __init__(self, w, r, w_scale, r_scale):
        self._w = primitive.pack_q8(np.ascontiguousarray(w.T), b_scale=w_scale)
        self._r, self._r_scale = r, r_scale
        self._gates = {}

    def inputs(self, x):
        """Return what inputs add to the gates."""
        return primitive.gemm_dynamic_q8(x, self._w)

    def state(self, h, gates):
        """Return what the state adds to those gates that are in the slice `gates`."""
        key = (gates.start, gates.stop)
        if key not in self._gates:
            rows = np.ascontiguousarray(self._r[gates].T)
            self._gates[key] = primitive.pack_q8(rows, b_scale=self._r_scale[gates])
        return primitive.gemm_dynamic_q8(h, self._gates[key])


def _rows_in_codes(weight):
    """Return int8 codes of (directions, rows, columns), and a scale for each row."""
    flat = weight.reshape(-1, weight.shape[-1])
    codes, params = symmetric_codes(flat, 0, WEIGHT_SCHEME)
    return codes.reshape(weight.shape), params.scale.reshape(weight.shape[:2])
