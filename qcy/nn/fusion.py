"""Making a float model simpler without changing what it computes.

Rules that apply to a node and its only consumer: batch norm, and arithmetic with one number, folds
into the product or the batch norm before it; ReLU and ReLU6 become part of the layer before them;
functions of one number after another become one; and layers that do nothing at inference go. A
producer with two consumers, or one that is an output, is left as it is.
"""

import numpy as np

from qcy.nn.layers import (
    BatchNorm, Chain, Conv2D, ConvTranspose2D, Dense, Dropout, Identity, Operator, ReLU, ReLU6,
)
from qcy.nn.layers.chain import steps_of
from qcy.nn.graph import Node

_ACTIVATIONS = {ReLU: "relu", ReLU6: "relu6"}


def fuse(model, keep=()):
    """Return an equal model with fewer layers.

    Parameters
    ----------
    model : Model
    keep : collection of str
        Names of layers to leave alone.

    Returns
    -------
    Model
        Its nodes say in `covers` which layers they do the work of.
    """
    nodes = []
    made_by = {}        # a name in the old graph, and the node that makes it now
    for node in model.nodes:
        inputs = tuple(made_by.get(name, name) for name in node.inputs)
        previous = next((n for n in nodes if n.name in inputs[:1]), None)
        if node.name in keep:
            nodes.append(Node(node.name, node.layer, inputs, node.covers))
            continue
        if type(node.layer) in (Dropout, Identity) and node.name not in model.outputs:
            made_by[node.name] = inputs[0]
            continue
        merged = None
        is_chain = previous is not None and len(node.inputs) == 1 and (
            len(previous.inputs) == 1 or type(node.layer) in _ACTIVATIONS
        )
        if is_chain and _is_only_link(model, node) and not keep_any(previous, keep):
            merged = _merge(previous.layer, node.layer)
        if merged is None or _is_output(model, previous):
            nodes.append(Node(node.name, node.layer, inputs, node.covers))
            continue
        nodes[nodes.index(previous)] = Node(
            previous.name, merged, previous.inputs, previous.covers + node.covers
        )
        made_by[node.name] = previous.name
    outputs = tuple(made_by.get(name, name) for name in model.outputs)
    return model.like(nodes, outputs)


def folded(model, fused):
    """Return the batch norms that were folded into dense layers, by these."""
    norms = {node.name for node in model.nodes if type(node.layer) is BatchNorm}
    return {
        node.name: name for node in fused.nodes if type(node.layer) is Dense
        for name in node.covers if name in norms
    }


def keep_any(node, keep):
    """Whether a node does the work of a layer that is to be left alone."""
    return any(name in keep for name in node.covers)


def _is_output(model, node):
    return any(name in model.outputs for name in node.covers)


def _is_only_link(model, node):
    """Whether `node` is the only consumer of its input, through layers that do nothing."""
    name = node.inputs[0]
    while True:
        if len(model.consumers(name)) != 1:
            return False
        maker = model.maker(name)
        if maker is None or type(maker.layer) not in (Dropout, Identity):
            return True
        name = maker.inputs[0]


def _merge(first, second):
    """Return one layer that does the work of two, or None if there is none."""
    steps = steps_of(first), steps_of(second)
    if None not in steps:
        return Chain((*steps[0], *steps[1]))
    if getattr(first, "activation", 0) is not None:     # none to fuse into, or one already
        return None
    if type(first) in (*_FOLD_AXIS, BatchNorm):
        second = _as_norm(second, _n_out(first)) or second
    if type(second) in _ACTIVATIONS:
        return first.replace(activation=_ACTIVATIONS[type(second)])
    if type(first) is type(second) is BatchNorm and first.gamma.size == second.gamma.size:
        return _both(first, second)
    if type(second) is BatchNorm and type(first) in _FOLD_AXIS:
        # A dense layer's features may lie in another axis than the norm's channels.
        return _fold(first, second) if second.gamma.size == _n_out(first) else None
    return None


def _as_norm(layer, n):
    """Return arithmetic with one number as a batch norm of `n` channels, or None."""
    if type(layer) is not Operator or layer.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    (place, value), *more = layer.numbers.items() or [(None, None)]
    if place is None or more or value.size != 1 or (layer.op == "Div" and place == 0):
        return None
    value = float(value.reshape(()))
    factor, offset = {
        "Add": (1, value), "Sub": (1, -value) if place == 1 else (-1, value), "Mul": (value, 0),
        "Div": (1 / value if value else np.inf, 0),
    }[layer.op]
    if not np.isfinite(factor):
        return None
    return BatchNorm(
        np.full(n, factor), np.full(n, offset), np.zeros(n), np.ones(n), epsilon=0.0
    )


def _both(first, second):
    """Return one batch norm that does the work of two; computed in float64."""
    (factor, offset), (then, shift) = first.affine(), second.affine()
    n = len(factor)
    return second.replace(
        gamma=(factor * then).astype(np.float32), beta=(offset * then + shift).astype(np.float32),
        mean=np.zeros(n, np.float32), variance=np.ones(n, np.float32), epsilon=0.0,
    )


# Axis of the output channels in the weights of the layers that a batch norm folds into.
_FOLD_AXIS = {Conv2D: 0, ConvTranspose2D: 1, Dense: 1}


def _n_out(product):
    if type(product) is BatchNorm:
        return product.gamma.size
    groups = product.groups if type(product) is ConvTranspose2D else 1
    return product.weight.shape[_FOLD_AXIS[type(product)]] * groups


def _fold(product, norm):
    """Return a product whose weights and bias include the batch norm; computed in float64."""
    axis = _FOLD_AXIS[type(product)]
    factor, offset = norm.affine()
    weight = product.weight.astype(np.float64)
    if type(product) is ConvTranspose2D:
        # Output channels are groups first, then axis 1: each group of input channels has its own.
        grouped = weight.reshape(product.groups, -1, *weight.shape[1:])
        folded = grouped * factor.reshape(product.groups, 1, -1, 1, 1)
        folded = folded.reshape(weight.shape)
    else:
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        folded = weight * factor.reshape(shape)
    bias = 0 if product.bias is None else product.bias.astype(np.float64)
    return product.replace(
        weight=folded.astype(np.float32), bias=(factor * bias + offset).astype(np.float32),
        activation=norm.activation,
    )
