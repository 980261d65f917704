"""Recurrent operators: LSTM, GRU and RNN, as loops over time of cells.

A cell computes its matrix products by an object with two functions, `Products` or one like it, so
that somebody can run the same cells on weights of another kind:

    inputs(x)           x (rows, input) times the transpose of W: (rows, gates * hidden)
    state(h, gates)     h (rows, hidden) times the transpose of the rows of R in the slice `gates`

The operators take such objects as `products`, one per direction; W and R may then be None.
"""

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator
from qcy.nn.operators.shape import flag, quiet


# ---------------------------------------------------------------------------------------------
# Activations
# ---------------------------------------------------------------------------------------------

def _sigmoid(x, alpha, beta):
    out = np.negative(x)
    np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


#: By name: the function, and what alpha and beta are by default; None if it has none.
_ACTIVATIONS = {
    "relu": (lambda x, alpha, beta: np.maximum(x, 0), None, None),
    "tanh": (lambda x, alpha, beta: np.tanh(x), None, None),
    "sigmoid": (_sigmoid, None, None),
    "affine": (lambda x, alpha, beta: x * alpha + beta, 1.0, 0.0),
    "leakyrelu": (lambda x, alpha, beta: np.where(x >= 0, x, x * alpha), 0.01, None),
    "thresholdedrelu": (lambda x, alpha, beta: np.where(x >= alpha, x, x * 0), 1.0, None),
    "scaledtanh": (lambda x, alpha, beta: np.tanh(x * beta) * alpha, 1.0, 1.0),
    "hardsigmoid": (lambda x, alpha, beta: np.clip(x * alpha + beta, 0, 1), 0.2, 0.5),
    "elu": (lambda x, alpha, beta: np.where(x >= 0, x, np.expm1(x) * alpha), 1.0, None),
    "softsign": (lambda x, alpha, beta: x / (np.abs(x) + 1), None, None),
    "softplus": (lambda x, alpha, beta: np.logaddexp(x, x * 0), None, None),
}


def _activations(names, alphas, betas, usual, directions):
    """Return the functions of each direction.

    `alphas` and `betas` hold numbers for those that have one, in their order; where the lists end,
    the defaults count.
    """
    names = names or usual * directions
    if len(names) != len(usual) * directions:
        raise ValueError(f"activations must be {len(usual) * directions} names, got {names}")
    alphas, betas = iter(alphas or ()), iter(betas or ())
    functions = []
    for name in names:
        _validate.choice("every activation", str(name).lower(), _ACTIVATIONS)
        function, alpha, beta = _ACTIVATIONS[str(name).lower()]
        alpha = alpha if alpha is None else _validate.real("alpha", next(alphas, alpha))
        beta = beta if beta is None else _validate.real("beta", next(betas, beta))
        functions.append(lambda x, f=function, alpha=alpha, beta=beta: f(x, alpha, beta))
    count = len(usual)
    return [functions[i * count:(i + 1) * count] for i in range(directions)]


# ---------------------------------------------------------------------------------------------
# Cells
# ---------------------------------------------------------------------------------------------

class Products:
    """The matrix products of one direction of a cell.

    Those of plain arrays: `w` is (gates * hidden, input), `r` is (gates * hidden, hidden).
    """

    def __init__(self, w, r):
        self._w, self._r = w, r

    def inputs(self, x):
        """Return what inputs add to the gates, for all rows of `x` at once."""
        return x @ self._w.T

    def state(self, h, gates):
        """Return what the state adds to those gates that are in the slice `gates`."""
        return (self._r[gates] @ h.T).T


class _Cell:
    """One direction of a recurrent operator.

    Parameters
    ----------
    products : Products
        Or another object with its functions.
    hidden : int
        Numbers of the state.
    activations : sequence of callable
    bias : (2, gates, hidden) array
        Of the inputs, of the state.
    clip : float or None
        Bound of what comes into the activations.
    """

    GATES = 1

    def __init__(self, products, hidden, activations, bias, clip=None):
        self.products = products
        self.hidden = hidden
        self.activations = activations
        self.bias = self._bias(bias).reshape(-1)
        self.clip = clip
        self.gates = [slice(i * hidden, (i + 1) * hidden) for i in range(self.GATES)]
        self.all = slice(0, self.GATES * hidden)

    def _bias(self, bias):
        """Return what is added to the inputs' share of the gates."""
        return bias[0] + bias[1]

    def inputs(self, x):
        """Return the inputs' share of the gates for all steps: x is (steps, batch, input)."""
        steps, batch, size = x.shape
        gates = np.asarray(self.products.inputs(x.reshape(steps * batch, size)))
        return (gates + self.bias).reshape(steps, batch, self.GATES * self.hidden)

    def clipped(self, x):
        """Return what may come into an activation."""
        return x if self.clip is None else x.clip(-self.clip, self.clip)


class RnnCell(_Cell):
    """A cell whose state is an activation of the input's and the state's products."""

    def step(self, gates, h):
        """Return the state after a step, from the inputs' share of the gates."""
        return (self.activations[0](self.clipped(gates + self.products.state(h, self.all))),)


class GruCell(_Cell):
    """A cell with an update and a reset gate.

    Further parameters: `resets_product`, whether the reset gate multiplies the state's product
    (`linear_before_reset`) or the state.
    """

    GATES = 3

    def __init__(self, *args, resets_product=False, **settings):
        self.resets_product = resets_product
        super().__init__(*args, **settings)

    def _bias(self, bias):
        total = bias[0] + bias[1]
        if self.resets_product:
            total[2] = bias[0][2]
            self.hidden_bias = bias[1][2]
        return total

    def step(self, gates, h):
        """Return the state after a step, from the inputs' share of the gates."""
        f, g = self.activations
        first, last = slice(0, 2 * self.hidden), self.gates[2]
        state = self.products.state(h, self.all if self.resets_product else first)
        both = f(self.clipped(gates[:, first] + state[:, first]))
        z, r = both[:, self.gates[0]], both[:, self.gates[1]]
        if self.resets_product:
            reset = r * (state[:, last] + self.hidden_bias)
        else:
            reset = self.products.state(r * h, last)
        new = g(self.clipped(gates[:, last] + reset))
        return (new + z * (h - new),)


class LstmCell(_Cell):
    """A cell with input, output and forget gates and a state of its own.

    Further parameters: `peepholes`, (3, hidden) weights of the cell state in the gates, or None;
    `couples`, whether the forget gate is 1 - the input gate (`input_forget`). As in onnxruntime,
    `clip` is for the gates: the cell state comes into its activation as it is.
    """

    GATES = 4

    def __init__(self, *args, peepholes=None, couples=False, **settings):
        self.peepholes, self.couples = peepholes, couples
        super().__init__(*args, **settings)

    def step(self, gates, h, c):
        """Return both states after a step, from the inputs' share of the gates."""
        f, g, activation = self.activations
        gates = gates + self.products.state(h, self.all)
        input_gate, output_gate, forget_gate, cell = (gates[:, part] for part in self.gates)
        if self.peepholes is None:
            three = f(self.clipped(gates[:, :3 * self.hidden]))
            input_gate, output_gate, forget_gate = (three[:, part] for part in self.gates[:3])
        else:
            input_gate = f(self.clipped(input_gate + self.peepholes[0] * c))
            forget_gate = f(self.clipped(forget_gate + self.peepholes[2] * c))
        if self.couples:
            forget_gate = 1 - input_gate
        c = forget_gate * c + input_gate * g(self.clipped(cell))
        if self.peepholes is not None:
            output_gate = f(self.clipped(output_gate + self.peepholes[1] * c))
        return output_gate * activation(c), c


# ---------------------------------------------------------------------------------------------
# Sequences
# ---------------------------------------------------------------------------------------------

def run(cell, x, states, lengths=None, reverse=False):
    """Return the state after every step, and all states after the last.

    Parameters
    ----------
    cell : RnnCell, GruCell or LstmCell
    x : (steps, batch, input) array
    states : tuple of (batch, hidden) arrays
        Before the first step; as many as the cell has.
    lengths : (batch,) array, optional
        Of the sequences; what follows is 0, and the last states are those at the end of each, 0
        for one without steps, as in onnxruntime.
    reverse : bool, default False
        Whether time runs backwards.
    """
    steps, batch = x.shape[:2]
    if reverse:
        back = _backwards(steps, lengths, batch)
        x = x[back]
    last = steps
    if lengths is not None:
        last = int(lengths.max(initial=0))
        states = tuple(np.where((lengths > 0)[:, None], state, 0) for state in states)
    out = np.zeros((steps, batch, cell.hidden), x.dtype)
    gates = cell.inputs(x[:last])
    for t in range(last):
        new = cell.step(gates[t], *states)
        if lengths is None:
            out[t], states = new[0], new
        else:
            alive = (t < lengths)[:, None]
            out[t] = np.where(alive, new[0], 0)
            states = tuple(np.where(alive, *pair) for pair in zip(new, states, strict=True))
    return out[back] if reverse else out, states


def _backwards(steps, lengths, batch):
    """Return an index that reverses the steps of each sequence."""
    if lengths is None:
        return slice(None, None, -1)
    time = np.arange(steps)[:, None]
    return np.where(time < lengths, lengths - 1 - time, time), np.arange(batch)


# ---------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------

class _Arguments:
    """The inputs and attributes that all recurrent operators share, checked; time comes first."""

    def __init__(self, cell, X, W, R, lengths, *, hidden_size, direction, layout, clip, products):
        _validate.choice("direction", direction, ("forward", "reverse", "bidirectional"))
        self.directions = 2 if direction == "bidirectional" else 1
        self.reversed = {"forward": (False,), "reverse": (True,)}.get(direction, (False, True))
        self.batch_first = flag("layout", layout)
        self.clip = None if clip is None else _validate.real("clip", clip)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, got {clip}")
        x = np.asarray(X)
        if x.dtype.kind != "f":
            raise TypeError(f"X must be floating point numbers, got {x.dtype}")
        self.dtype = x.dtype
        self.work = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        x = self.array("X", x, (None, None, None))
        self.x = x.swapaxes(0, 1) if self.batch_first else x
        self.batch = self.x.shape[1]
        self.hidden = self._hidden_size(R, hidden_size)
        self.products = self._products(cell, W, R, products)
        self.lengths = self._lengths(lengths)

    def array(self, name, values, shape):
        """Return an input in the type of the computation; None in a shape fits any size."""
        values = np.asarray(values)
        if values.dtype.kind != "f":
            raise TypeError(f"{name} must be floating point numbers, got {values.dtype}")
        if values.ndim != len(shape) or any(
            size not in (None, have) for size, have in zip(shape, values.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must have shape ({wanted}), got {values.shape}")
        return values.astype(self.work, copy=False)

    def optional(self, name, values, shape):
        """Return an input, zeros if it is left out."""
        if values is None:
            return np.zeros(shape, self.work)
        return self.array(name, values, shape)

    def states(self, name, values):
        """Return the states before the first step, one per direction."""
        if self.batch_first and values is not None:
            shape = self.batch, self.directions, self.hidden
            return self.array(name, values, shape).swapaxes(0, 1)
        return self.optional(name, values, (self.directions, self.batch, self.hidden))

    def biases(self, bias, gates):
        """Return the biases as (directions, 2, gates, hidden)."""
        bias = self.optional("B", bias, (self.directions, 2 * gates * self.hidden))
        return bias.reshape(self.directions, 2, gates, self.hidden)

    def _hidden_size(self, R, hidden_size):
        """Return the size of the state, which R and the attribute must agree about."""
        if R is None and hidden_size is None:
            raise ValueError("hidden_size must be given if R is not")
        hidden = np.shape(R)[-1] if np.ndim(R) == 3 else hidden_size
        if hidden_size is not None and hidden_size != hidden:
            raise ValueError(f"hidden_size must be {hidden} as in R, got {hidden_size}")
        return _validate.integer("hidden_size", hidden, 1)

    def _products(self, cell, W, R, products):
        if products is not None:
            if len(products) != self.directions:
                raise ValueError(f"products must be {self.directions}, got {len(products)}")
            return products
        rows = cell.GATES * self.hidden
        w = self.array("W", W, (self.directions, rows, self.x.shape[2]))
        r = self.array("R", R, (self.directions, rows, self.hidden))
        return [Products(*pair) for pair in zip(w, r, strict=True)]

    def _lengths(self, lengths):
        """Return the lengths of the sequences, None if all are whole."""
        if lengths is None:
            return None
        lengths, steps = np.asarray(lengths), len(self.x)
        if lengths.dtype.kind not in "iu" or lengths.shape != (self.batch,):
            raise ValueError(
                f"sequence_lens must be {self.batch} integers, "
                f"got {lengths.dtype} of shape {lengths.shape}"
            )
        if ((lengths < 0) | (lengths > steps)).any():
            raise ValueError(f"sequence_lens must be in [0, {steps}], got {lengths}")
        return None if (lengths == steps).all() else lengths.astype(np.intp)

    def run(self, cells, *states):
        """Return the outputs: every step, then the states after the last."""
        results = [
            run(cell, self.x, tuple(state[i] for state in states), self.lengths, self.reversed[i])
            for i, cell in enumerate(cells)
        ]
        outs, lasts = zip(*results, strict=True)
        out = np.stack(outs, axis=1)
        lasts = [np.stack(each) for each in zip(*lasts, strict=True)]
        if self.batch_first:
            out = out.transpose(2, 0, 1, 3)
            lasts = [each.swapaxes(0, 1) for each in lasts]
        return tuple(each.astype(self.dtype, copy=False) for each in (out, *lasts))


# ---------------------------------------------------------------------------------------------
# Operators
# ---------------------------------------------------------------------------------------------

@operator("RNN")
@quiet
def rnn(
    X, W, R, B=None, sequence_lens=None, initial_h=None, *, activations=("Tanh", "Tanh"),
    activation_alpha=None, activation_beta=None, clip=None, direction="forward", hidden_size=None,
    layout=0, products=None,
):
    """Return the states of a simple recurrent layer: after every step, after the last."""
    given = _Arguments(
        RnnCell, X, W, R, sequence_lens, hidden_size=hidden_size, direction=direction,
        layout=layout, clip=clip, products=products,
    )
    if not activations or tuple(activations) == ("Tanh", "Tanh"):       # for one direction, too
        activations = ("Tanh",) * given.directions
    functions = _activations(
        activations, activation_alpha, activation_beta, ("Tanh",), given.directions
    )
    cells = [
        RnnCell(product, given.hidden, function, bias, given.clip)
        for product, function, bias in zip(
            given.products, functions, given.biases(B, RnnCell.GATES), strict=True
        )
    ]
    return given.run(cells, given.states("initial_h", initial_h))


@operator("GRU")
@quiet
def gru(
    X, W, R, B=None, sequence_lens=None, initial_h=None, *, activations=None,
    activation_alpha=None, activation_beta=None, clip=None, direction="forward", hidden_size=None,
    layout=0, linear_before_reset=0, products=None,
):
    """Return the states of a gated recurrent layer: after every step, after the last."""
    given = _Arguments(
        GruCell, X, W, R, sequence_lens, hidden_size=hidden_size, direction=direction,
        layout=layout, clip=clip, products=products,
    )
    functions = _activations(
        activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh"), given.directions
    )
    resets = linear_before_reset != 0
    cells = [
        GruCell(product, given.hidden, function, bias, given.clip, resets_product=resets)
        for product, function, bias in zip(
            given.products, functions, given.biases(B, GruCell.GATES), strict=True
        )
    ]
    return given.run(cells, given.states("initial_h", initial_h))


@operator("LSTM")
@quiet
def lstm(
    X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, P=None, *,
    activations=None, activation_alpha=None, activation_beta=None, clip=None, direction="forward",
    hidden_size=None, input_forget=0, layout=0, products=None,
):
    """Return the states of a long short-term memory: after every step, both after the last."""
    given = _Arguments(
        LstmCell, X, W, R, sequence_lens, hidden_size=hidden_size, direction=direction,
        layout=layout, clip=clip, products=products,
    )
    functions = _activations(
        activations, activation_alpha, activation_beta, ("Sigmoid", "Tanh", "Tanh"),
        given.directions,
    )
    peepholes = [None] * given.directions
    if P is not None:
        peepholes = given.array("P", P, (given.directions, 3 * given.hidden))
        peepholes = peepholes.reshape(given.directions, 3, given.hidden)
    couples = flag("input_forget", input_forget)
    cells = [
        LstmCell(
            product, given.hidden, function, bias, given.clip, peepholes=weights, couples=couples
        )
        for product, function, bias, weights in zip(
            given.products, functions, given.biases(B, LstmCell.GATES), peepholes, strict=True
        )
    ]
    states = given.states("initial_h", initial_h), given.states("initial_c", initial_c)
    return given.run(cells, *states)
