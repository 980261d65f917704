"""Functions of one number after another: one table in 8 bits."""

import math

import numpy as np

from qcy.nn.layers.activations import GELU, ReLU, ReLU6, Sigmoid, TableQuantized, Tanh
from qcy.nn.layers.base import Layer, check_params
from qcy.nn.layers.operator import Operator
from qcy.tensor.tables import table

#: Layers that are functions of one number, as operators.
_AS_OPERATORS = {
    ReLU: ("Relu", {}, {}), Sigmoid: ("Sigmoid", {}, {}), Tanh: ("Tanh", {}, {}),
    GELU: ("Gelu", {}, {}), ReLU6: ("Clip", {}, {1: np.float32(0), 2: np.float32(6)}),
}


class Chain(Layer):
    """Functions of one number, each of what the one before gives.

    Parameters
    ----------
    steps : sequence of (op, attributes, constants)
        As for `Operator`.

    Examples
    --------
    >>> Chain([("Mul", (), {1: np.float32(2)}), ("Relu", (), ())])([-1.0, 3.0])
    array([0., 6.], dtype=float32)
    """

    SETTINGS = ("steps",)
    IS_POINTWISE = True

    def __init__(self, steps):
        self._operators = [
            Operator(op, attributes, constants=constants) for op, attributes, constants in steps
        ]
        self.steps = tuple((o.op, o.attributes, o.constants) for o in self._operators)
        for operator in self._operators:
            if not operator.IS_POINTWISE:
                raise ValueError(
                    f"steps must be functions of one number, got {operator.op}"
                )

    def _forward(self, x):
        for operator in self._operators:
            x = operator._forward(x)
        return x

    def quantized(self, in_params, out_params):
        """Return a `TableQuantized`."""
        in_params = in_params[0] if isinstance(in_params, (tuple, list)) else in_params
        for name, params in (("in_params", in_params), ("out_params", out_params)):
            check_params(name, params)
        return TableQuantized(table(self._at, in_params, out_params), in_params, out_params)

    def _at(self, real):
        """Return the value at one number."""
        value = np.array(real)
        with np.errstate(all="ignore"):
            for operator in self._operators:
                value = operator.compute(value, dtype=np.float64)[0]
        value = float(value.reshape(()))
        if math.isnan(value):
            raise ValueError(f"the chain is not a number at {real:g}, a code of its input")
        return value

    def __repr__(self):
        return f"Chain({', '.join(operator.op for operator in self._operators)})"


def steps_of(layer):
    """Return the steps that a function of one number is, or None if it is something else."""
    if type(layer) is Chain:
        return layer.steps
    if type(layer) in _AS_OPERATORS:
        return (_AS_OPERATORS[type(layer)],)
    if type(layer) is Operator and layer.IS_POINTWISE:
        return ((layer.op, layer.attributes, layer.constants),)
    return None
