"""Functions that exporters write in pieces, put together again.

A piece that somebody else needs too stays, and so does what it is made of.
"""

import math

import numpy as np

from qcy.nn.onnx.reader import OnnxNode

_SQRT2 = math.sqrt(2)


def recognize(graph):
    """Put the pieces of known functions together, in place."""
    match = _Match(graph)
    for ops, rule in _RULES:
        for node in [n for n in graph.nodes if n.op in ops]:
            if any(n is node for n in match.graph.nodes):
                rule(match, node)
                if match.is_stale:
                    match = _Match(graph)


class _Match:
    """A graph, who makes and who takes each tensor, and pieces found so far."""

    def __init__(self, graph):
        self.graph = graph
        self.makers = {name: n for n in graph.nodes for name in n.outputs if name}
        self.takers = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.takers.setdefault(name, []).append(node)
        self.is_stale = False

    def maker(self, name, *ops):
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and (not ops or node.op in ops) else None

    def taker(self, name, *ops):
        """Return the only node that takes a tensor, if it is one of these operators."""
        takers = self.takers.get(name, [])
        if len(takers) != 1 or name in self.graph.outputs or takers[0].op not in ops:
            return None
        return takers[0]

    def number(self, name, value=None):
        """Return the number that a constant is, if it is one (and this one)."""
        x = self.graph.constants.get(name)
        if x is None or x.size != 1:
            return None
        found = float(x.reshape(()))
        return found if value is None or math.isclose(found, value, rel_tol=1e-4) else None

    def other(self, node, name):
        """Return the input of a node of two that is not `name`, or None."""
        if len(node.inputs) != 2 or name not in node.inputs:
            return None
        return node.inputs[1 - node.inputs.index(name)]

    def with_number(self, node, value=None):
        """Return the input of a node of two whose other is a number, and the number; or None."""
        for i in (0, 1):
            found = self.number(node.inputs[1 - i], value)
            if found is not None:
                return node.inputs[i], found
        return None

    def replace(self, last, op, inputs, attributes=(), pieces=(), name=None):
        """Replace the node that makes the result, and pieces that only it needed, by another.

        It has the name of the last, if no other is given.
        """
        self.is_stale = True
        covers = []
        for node in (*pieces, last):
            covers += [covered for covered in node.covers if covered not in covers]
        made = OnnxNode(
            op, name or last.name, list(inputs), last.outputs[:1], dict(attributes), covers
        )
        nodes = self.graph.nodes
        nodes[next(i for i, n in enumerate(nodes) if n is last)] = made
        for piece in reversed(list(pieces)):
            takers = [n for n in nodes if set(n.inputs).intersection(filter(None, piece.outputs))]
            if not takers and not set(piece.outputs).intersection(self.graph.outputs):
                nodes[:] = [n for n in nodes if n is not piece]


def _layer_norm(match, node):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta``, over the last axis."""
    if not _is_over_last(match, node):
        return
    x = node.inputs[0]
    for centred in match.takers.get(node.outputs[0], []):
        if centred.op != "Sub" or centred.inputs != [x, node.outputs[0]]:
            continue
        found = _spread(match, centred)
        if found is None:
            continue
        epsilon, last, pieces = found
        gamma, beta, last, more = _affine(match, last)
        if gamma is None:
            continue
        pieces = [node, centred, *pieces, *more]
        match.replace(
            last, "LayerNormalization", [x, gamma, beta], {"axis": -1, "epsilon": epsilon},
            [piece for piece in pieces if piece is not last],
        )
        return


def _is_over_last(match, node):
    axes = match.graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or axes.size != 1 or not node.attributes.get("keepdims", 1):
        return False
    axis, shape = int(axes.reshape(())), match.graph.shape(node.inputs[0])
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _spread(match, centred):
    """Return epsilon, the node that divides by the deviation, and the pieces between."""
    d = centred.outputs[0]
    same = {d} | {
        n.outputs[0] for n in match.graph.nodes if n.op == "Sub" and n.inputs == centred.inputs
    }
    for square in match.graph.nodes:
        is_square = (square.op == "Pow" and square.inputs[0] in same
                     and match.number(square.inputs[1], 2.0) is not None) or (
                         square.op == "Mul" and set(square.inputs) <= same)
        mean = is_square and match.taker(square.outputs[0], "ReduceMean")
        if not mean or not _is_over_last(match, mean):
            continue
        shifted = match.taker(mean.outputs[0], "Add")
        epsilon = shifted and match.with_number(shifted)
        root = epsilon and match.taker(shifted.outputs[0], "Sqrt")
        if not root:
            continue
        pieces = [square, mean, shifted, root]
        divide = match.taker(root.outputs[0], "Div", "Reciprocal")
        if divide is not None and divide.op == "Reciprocal":
            pieces.append(divide)
            divide = match.taker(divide.outputs[0], "Mul")
            if divide is None or not same.intersection(divide.inputs):
                continue
        elif divide is None or divide.inputs[0] not in same:
            continue
        return epsilon[1], divide, [*pieces, divide]
    return None


def _affine(match, last):
    """Return gamma and beta as constants, the last node, and the pieces that apply them."""
    gamma, beta, pieces = None, None, []
    scaled = match.taker(last.outputs[0], "Mul")
    if scaled is not None:
        name = match.other(scaled, last.outputs[0])
        if _is_row(match, name):
            gamma, last = name, scaled
            pieces.append(scaled)
    shifted = match.taker(last.outputs[0], "Add") if gamma else None
    if shifted is not None:
        name = match.other(shifted, last.outputs[0])
        if _is_row(match, name):
            beta, last = name, shifted
            pieces.append(shifted)
    if gamma is None:
        return None, None, last, []
    return _as_row(match, gamma), "" if beta is None else _as_row(match, beta), last, pieces


def _is_row(match, name):
    x = match.graph.constants.get(name)
    return x is not None and x.dtype == np.float32 and x.ndim >= 1 and x.size == x.shape[-1]


def _as_row(match, name):
    x = match.graph.constants[name]
    if x.ndim == 1:
        return name
    match.graph.constants[f"{name}/row"] = x.reshape(-1)
    return f"{name}/row"


def _gelu(match, node):
    """``x * (1 + erf(x / sqrt(2))) / 2``, its products in any order."""
    inner = match.maker(node.inputs[0], "Div", "Mul")
    found = inner and match.with_number(inner, _SQRT2 if inner.op == "Div" else 1 / _SQRT2)
    if not found or (inner.op == "Div" and found[0] != inner.inputs[0]):
        return
    x = found[0]
    plus = match.taker(node.outputs[0], "Add")
    if plus is None or not match.with_number(plus, 1.0):
        return
    _half_product(match, x, plus, [inner, node, plus], {"approximate": "none"})


def _gelu_tanh(match, node):
    """``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2``."""
    scaled = match.maker(node.inputs[0], "Mul")
    found = scaled and match.with_number(scaled, math.sqrt(2 / math.pi))
    total = found and match.maker(found[0], "Add")
    plus = total and match.taker(node.outputs[0], "Add")
    if not plus or not match.with_number(plus, 1.0):
        return
    for x in total.inputs:
        cubic = match.maker(match.other(total, x), "Mul")
        found = cubic and match.with_number(cubic, 0.044715)
        cube = found and match.maker(found[0], "Pow", "Mul")
        if not cube:
            continue
        pieces = [cube, cubic, total, scaled, node, plus]
        if cube.op == "Pow" and (cube.inputs[0] != x or not match.number(cube.inputs[1], 3.0)):
            continue
        if cube.op == "Mul":
            square = match.maker(match.other(cube, x), "Mul", "Pow")
            if square is None or x not in square.inputs:
                continue
            if set(square.inputs) != {x} and not match.number(square.inputs[1], 2.0):
                continue
            pieces.insert(0, square)
        _half_product(match, x, plus, pieces, {"approximate": "tanh"})
        return


def _half_product(match, x, plus, pieces, attributes):
    """Replace ``x * plus / 2``, in any order, by GELU."""
    product = match.taker(plus.outputs[0], "Mul")
    if product is None:
        return
    factor = match.other(product, plus.outputs[0])
    pieces = [*pieces, product]
    half = match.maker(factor, "Mul", "Div")
    if half is not None and _halves(match, half, x):        # (x / 2) * plus
        match.replace(product, "Gelu", [x], attributes, [half, *pieces[:-1]])
    elif factor == x:                                       # (x * plus) / 2
        last = match.taker(product.outputs[0], "Mul", "Div")
        if last is not None and _halves(match, last, product.outputs[0]):
            match.replace(last, "Gelu", [x], attributes, pieces)
    elif match.number(factor, 0.5):                         # x * (plus / 2)
        last = match.taker(product.outputs[0], "Mul")
        if last is not None and match.other(last, product.outputs[0]) == x:
            match.replace(last, "Gelu", [x], attributes, pieces)


def _halves(match, node, name):
    found = match.with_number(node, 0.5 if node.op == "Mul" else 2.0)
    return found is not None and found[0] == name and node.inputs.index(name) in (
        (0, 1) if node.op == "Mul" else (0,)
    )


#: What ``x * f(x)`` is called.
_GATED = {"Sigmoid": "Swish", "HardSigmoid": "HardSwish"}


def _gated(match, node):
    """``x * sigmoid(x)``, ``x * hard_sigmoid(x)`` and ``x * tanh(softplus(x))``."""
    x, pieces, op = node.inputs[0], [node], _GATED.get(node.op)
    if node.op == "Tanh":
        inner = match.maker(x, "Softplus")
        if inner is None:
            return
        x, pieces, op = inner.inputs[0], [inner, node], "Mish"
    if node.op == "HardSigmoid" and not (
        math.isclose(node.attributes.get("alpha", 0.2), 1 / 6, rel_tol=1e-4)
        and node.attributes.get("beta", 0.5) == 0.5
    ):
        return
    product = match.taker(node.outputs[0], "Mul")
    if product is not None and match.other(product, node.outputs[0]) == x:
        match.replace(product, op, [x], (), pieces)


def _hard_swish(match, node):
    """``x * clip(x + 3, 0, 6) / 6``, its products in any order; and the gate alone."""
    if len(node.inputs) < 3 or match.number(node.inputs[1]) != 0.0 or (
        match.number(node.inputs[2], 6.0) is None
    ):
        return
    shifted = match.maker(node.inputs[0], "Add")
    found = shifted and match.with_number(shifted, 3.0)
    after = found and match.taker(node.outputs[0], "Mul", "Div")
    if not after:
        return
    x, pieces = found[0], [shifted, node]
    if _sixths(match, after, node.outputs[0]):
        product = match.taker(after.outputs[0], "Mul")
        if product is not None and match.other(product, after.outputs[0]) == x:
            match.replace(product, "HardSwish", [x], (), [*pieces, after])
        else:
            match.replace(after, "HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5}, pieces)
    elif after.op == "Mul" and match.other(after, node.outputs[0]) == x:
        last = match.taker(after.outputs[0], "Mul", "Div")
        if last is not None and _sixths(match, last, after.outputs[0]):
            match.replace(last, "HardSwish", [x], (), [*pieces, after])


def _sixths(match, node, name):
    found = match.with_number(node, 1 / 6 if node.op == "Mul" else 6.0)
    return found is not None and found[0] == name and (
        node.op == "Mul" or node.inputs[0] == name
    )


def _bias(match, node):
    """A product by a constant matrix, and a row added to it."""
    if len(node.inputs) > 2:
        return
    weight = match.graph.constants.get(node.inputs[1])
    plus = match.taker(node.outputs[0], "Add")
    if weight is None or weight.ndim != 2 or plus is None:
        return
    name = match.other(plus, node.outputs[0])
    if _is_row(match, name) and match.graph.constants[name].size == weight.shape[1]:
        match.replace(plus, "MatMul", [*node.inputs, _as_row(match, name)], (), [node], node.name)


def _attention(match, node):
    """``softmax(q @ k.T * scale) @ v``, the batch and the heads in the axes before."""
    if node.attributes.get("flattened", 0) or match.graph.shape(node.inputs[0]) is None:
        return
    rank = len(match.graph.shape(node.inputs[0]))
    if rank < 3 or node.attributes.get("axis", -1) not in (-1, rank - 1):
        return
    scale, pieces = 1.0, [node]
    scores = match.maker(node.inputs[0])
    if scores is not None and scores.op in ("Mul", "Div"):
        found = match.with_number(scores)
        if found is None or (scores.op == "Div" and scores.inputs[0] != found[0]) or (
            match.taker(scores.outputs[0], "Softmax") is None
        ):
            return
        scale = found[1] if scores.op == "Mul" else 1 / found[1]
        pieces.insert(0, scores)
        scores = match.maker(found[0])
    weighted = match.taker(node.outputs[0], "MatMul")
    if scores is None or scores.op != "MatMul" or weighted is None or not scale > 0:
        return
    if weighted.inputs[0] != node.outputs[0] or not match.taker(scores.outputs[0], pieces[0].op):
        return
    q, turned = scores.inputs[:2]
    if any(match.graph.shape(name) is None or len(match.graph.shape(name)) != rank
           or name in match.graph.constants for name in (q, turned, weighted.inputs[1])):
        return
    k = _turned_back(match, scores, turned, rank)
    match.replace(
        weighted, "qcy:Attention", [q, k, weighted.inputs[1]], {"scale": scale}, [scores, *pieces]
    )


def _turned_back(match, product, name, rank):
    """Return a tensor with its last two axes exchanged, of a node that is put before `product`."""
    last = [*range(rank - 2), rank - 1, rank - 2]
    maker = match.maker(name, "Transpose")
    source, axes = name, last
    if maker is not None:
        before = maker.attributes.get("perm", tuple(reversed(range(rank))))
        source, axes = maker.inputs[0], [before[axis] for axis in last]
        if axes == sorted(axes):
            return source
    made = f"{product.name}/k"
    node = OnnxNode("Transpose", made, [source], [made], {"perm": tuple(axes)}, [])
    nodes = match.graph.nodes
    nodes.insert(next(i for i, n in enumerate(nodes) if n is product), node)
    return made


_RULES = (
    (("ReduceMean",), _layer_norm), (("Erf",), _gelu), (("Tanh",), _gelu_tanh),
    (("Sigmoid", "HardSigmoid", "Tanh"), _gated), (("Clip",), _hard_swish), (("MatMul",), _bias),
    (("Softmax",), _attention),
)
