"""What is worth 8 bits: which layers of a float model become integer code, and why others do not.

Products with constant weights do, and what lies between two of them. The arithmetic of
normalization, indices and shapes, and tensors whose range is so wide that little would be left of
what is usual in them, stay as they are: see `choose`.
"""

from dataclasses import dataclass

import numpy as np

from qcy.nn.layers import (
    Chain, Constant, Conv2D, ConvTranspose2D, Dense, Layer, MatMul, Operator, Softmax,
)
from qcy.nn.layers.chain import steps_of

#: Layers whose weights make them worth it by themselves.
PRODUCTS = (Conv2D, ConvTranspose2D, Dense)
#: Functions of one number that normalization is made of: their range says little of their error.
NORMALIZATION = (
    "Pow", "Sqrt", "Reciprocal", "Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh",
    "Cosh", "Asinh", "Acosh", "Atanh", "Floor", "Ceil", "Round", "Sign",
)
#: A softmax turns a step of its input into a factor: 8 bits of a wider range are too coarse.
WIDEST_SOFTMAX = 32.0
#: The largest number of a tensor over its root mean square: beyond, 8 bits leave below 23 dB.
LARGEST_CREST = 64.0


@dataclass(frozen=True)
class Choice:
    """Whether a layer goes to 8 bits, and why not: "" if it does."""

    why: str = ""

    @property
    def is_8_bit(self):
        """Whether nothing keeps it in float."""
        return not self.why


def choose(model, calibrator=None, skip=(), forced=()):
    """Choose which layers of a fused float model go to 8 bits.

    Parameters
    ----------
    model : Model
    calibrator : Calibrator, optional
        That has seen data; without, no range is known.
    skip : collection of str
        Names of layers that stay in float.
    forced : collection of str
        Names of layers that go to 8 bits if they have a form in it.

    Returns
    -------
    dict of str to Choice
        By node.
    """
    return _Selection(model, calibrator, skip, forced).choices()


class _Selection:
    """The rules, applied until nothing changes."""

    def __init__(self, model, calibrator, skip, forced):
        self.model, self.calibrator = model, calibrator
        self.skip, self.forced = set(skip), set(forced)
        self.why = {}           # of those that stay in float

    def choices(self):
        """Return the choice for each node."""
        for node in self.model.nodes:
            why = self.alone(node)
            if why:
                self.why[node.name] = why
        changed = True
        while changed:
            changed = False
            for node in self.model.nodes:
                if node.name not in self.why and not self.is_fixed(node):
                    why = self.among(node)
                    if why:
                        self.why[node.name] = why
                        changed = True
        return {node.name: Choice(self.why.get(node.name, "")) for node in self.model.nodes}

    def is_fixed(self, node):
        """Whether nothing around a layer changes what becomes of it."""
        return type(node.layer) in PRODUCTS or bool(self.forced.intersection(node.covers))

    def alone(self, node):
        """Return why a layer stays in float whatever is around it, or ""."""
        if self.skip.intersection(node.covers):
            return "in skip"
        layer = node.layer
        if not has_twin(layer, len(node.inputs)):
            return f"{name_of(layer)} has no form in 8 bits"
        if self.forced.intersection(node.covers):
            return ""
        ops = [step[0] for step in steps_of(layer) or ()]
        if set(ops).intersection(NORMALIZATION):
            return "arithmetic of normalization"
        if type(layer) is MatMul:
            return "a product of two tensors of data goes to 8 bits only if asked for"
        return self.data(node)

    def data(self, node):
        """Return what in the data keeps a layer in float, or ""."""
        if self.calibrator is None:
            return ""
        seen = self.calibrator.observers
        for name in (*codes_in(node), *node.outputs):
            if name in self.calibrator.unbounded:
                return f"{name!r} is not finite"
            if name not in seen:
                return f"{name!r} is not of float32"
        if type(node.layer) is Softmax:
            low, high = seen[node.inputs[0]].range()
            if high - low > WIDEST_SOFTMAX:
                return f"softmax of a range of {high - low:.3g}, wider than {WIDEST_SOFTMAX:g}"
        if type(node.layer) not in PRODUCTS and not node.layer.KEEPS_PARAMS:
            for name in (*codes_in(node), *node.outputs):
                crest = self.calibrator.crest(name)
                if crest > LARGEST_CREST:
                    return (
                        f"{name!r} is too wide: its largest number is {crest:.0f} times its root "
                        "mean square"
                    )
        return ""

    def among(self, node):
        """Return why a layer that is no product stays in float among its neighbours, or ""."""
        takers = [t for name in node.outputs for t in self.model.consumers(name)]
        if type(node.layer) is Constant:
            ok = takers and all(t.name not in self.why for t in takers)
            return "" if ok else "a constant of a layer in float"
        for name in codes_in(node):
            maker = self.model.maker(name)
            if maker is None and (_is_at_home(node.layer) or node.layer.KEEPS_PARAMS):
                continue                # an input of the model, which can be codes
            if maker is None:
                return "before the first product"
            if maker.name in self.why and type(maker.layer) is not Constant:
                return f"its input {name!r} is in float"
        if not any(t.name not in self.why for t in takers):
            is_last = any(name in self.model.outputs for name in node.outputs)
            if not (is_last and _is_at_home(node.layer)):
                return "no layer in 8 bits takes what it makes"
        return ""


def codes_in(node):
    """Return the inputs that a node's 8-bit form takes as codes."""
    if node.layer.TAKES_REALS:
        return ()
    return node.inputs[:1] if type(node.layer) is Operator else node.inputs


def _is_at_home(layer):
    """Whether a layer is one of qcy's own, which may stand first or last in 8 bits."""
    return type(layer) not in (Operator, Constant, Chain)


def has_twin(layer, n_inputs=1):
    """Whether a layer that takes so many inputs has a form in 8 bits."""
    if type(layer) is Operator:
        return layer.KEEPS_PARAMS or (layer.IS_POINTWISE and n_inputs == 1)
    if type(layer) is Constant:
        return layer.value.dtype == np.float32
    return type(layer).quantized is not Layer.quantized


def name_of(layer):
    """Return what a layer is called in messages."""
    return layer.op if type(layer) is Operator else type(layer).__name__
