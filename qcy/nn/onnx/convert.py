"""From a graph of ONNX operators to a model of layers."""

import numpy as np

from qcy.nn.graph import Node
from qcy.nn.layers import Constant, Operator
from qcy.nn.model import Model
from qcy.nn.onnx.patterns import recognize
from qcy.nn.onnx.reader import CONTROL_FLOW, read
from qcy.nn.onnx.sequences import joined
from qcy.nn.onnx.simplify import remove_dead, simplify
from qcy.nn.onnx.versions import modernize
from qcy.nn.operators import OPERATORS

#: Elements up to which a constant input is part of the operator that takes it.
MOST_INLINE = 64
#: Operators that are gone, or have another name, once a graph is in the newest form.
_GONE = {"Constant", "Upsample", "Scatter"}


def load(source):
    """Read an ONNX file as a float model.

    Parameters
    ----------
    source : str, path-like, bytes or onnx.ModelProto

    Returns
    -------
    Model

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If it is no ONNX model that qcy can run; the message says what is wrong, or lists all
        operators that are missing, with the names of their nodes.
    """
    graph = read(source, check_operators)
    modernize(graph)
    simplify(graph)
    recognize(graph)
    remove_dead(graph)
    return to_model(graph)


def check_operators(nodes, path):
    """Check that every operator is one that qcy knows."""
    missing = {}
    for node in nodes:
        if node.op not in OPERATORS and node.op not in _GONE:
            missing.setdefault(node.op, []).append(node.name)
    if missing:
        listed = "; ".join(
            f"{op}{' (control flow)' if op in CONTROL_FLOW else ''}: {', '.join(names[:5])}"
            f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            for op, names in sorted(missing.items())
        )
        raise ValueError(f"{path} has operators that qcy does not know: {listed}")


def to_model(graph):
    """Return the model of a graph in its newest form."""
    from qcy.nn.onnx.layers import TRANSLATE

    builder = Builder(graph)
    for node in graph.nodes:
        translate = TRANSLATE.get(node.op)
        try:
            if translate is None or not translate(builder, node):
                builder.add_operator(node)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{graph.path}: node {node.name!r} ({node.op}): {error}") from error
    outputs = [builder.tensor(name) for name in graph.outputs]
    return Model(
        joined(builder.nodes, outputs), outputs, list(graph.inputs), input_types=graph.inputs,
        output_names=graph.output_names,
    )


class Builder:
    """Collects the layers of a model.

    Attributes
    ----------
    graph : OnnxGraph
    nodes : list of Node
    """

    def __init__(self, graph):
        self.graph = graph
        self.nodes = []
        self._tensors = {name: name for name in graph.inputs}
        self._names = {*graph.inputs, *(node.name for node in graph.nodes)}
        self._used = {*graph.outputs, *(name for n in graph.nodes for name in n.inputs)}

    def constant(self, name, dtype=None):
        """Return a constant input of a node, or None if it is left out or no constant."""
        value = self.graph.constants.get(name) if name else None
        return None if value is None or (dtype is not None and value.dtype != dtype) else value

    def tensor(self, name):
        """Return what a tensor of the graph is called in the model."""
        if name not in self._tensors:
            self._tensors[name] = self.insert(name, Constant(self.graph.constants[name]), ())
        return self._tensors[name]

    def insert(self, name, layer, inputs):
        """Add a layer that the graph has no node for; return its output."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        self.nodes.append(Node(name, layer, inputs))
        return name

    def add(self, node, layer, inputs=None):
        """Add the layer of a node, which takes the node's inputs if none are given.

        Returns
        -------
        bool
            True.
        """
        names = [name for name in node.inputs[:1] if name] if inputs is None else inputs
        made = Node(node.name, layer, [self.tensor(name) for name in names], node.covers)
        self.nodes.append(made)
        self._tensors.update(zip(node.outputs, made.outputs, strict=False))
        return True

    def add_between(self, node, before, layer, after):
        """Add the layer of a node, and one or none that brings the input to it, and the output on.

        Returns
        -------
        bool
            True.
        """
        x = self.tensor(node.inputs[0])
        if before is not None:
            x = self.insert(f"{node.name}/in", before, [x])
        self.nodes.append(Node(node.name, layer, [x], node.covers))
        made = self.insert(f"{node.name}/out", after, [node.name])
        self._tensors[node.outputs[0]] = made
        return True

    def add_operator(self, node):
        """Add a node as the operator that it is."""
        constants, absent, inputs = {}, [], []
        for i, name in enumerate(node.inputs):
            value = self.constant(name)
            if not name:
                absent.append(i)
            elif value is not None and value.size <= MOST_INLINE and (
                len(node.inputs) > 1 and (i > 0 or value.size == 1)
            ):
                constants[i] = value
            else:
                inputs.append(name)
        if not inputs and constants:    # an operator of constants alone, which was not computed
            place, value = constants.popitem()
            inputs.append(node.inputs[place])
        used = [i for i, name in enumerate(node.outputs) if name in self._used and name]
        layer = Operator(
            node.op, node.attributes, constants=constants, absent=absent,
            n_outputs=max(used, default=0) + 1,
        )
        return self.add(node, layer, inputs)

    def rank(self, name):
        """Return the number of axes of a tensor, or None if it is not known."""
        shape = self.graph.shape(name)
        return None if shape is None else len(shape)

    def is_float(self, name):
        """Whether a tensor is float32."""
        if name in self.graph.constants:
            return self.graph.constants[name].dtype == np.float32
        kind = self.graph.types.get(name)
        return kind is not None and kind.dtype == np.float32
