"""The float model: a directed acyclic graph of named layers."""

import os

import numpy as np

from qcy._arrays import read_npz, whole_file
from qcy.nn.context import split_context
from qcy.nn.graph import Graph, Node
from qcy.nn.layers import QuantizedLayer


class Model(Graph):
    """A float32 model: a directed acyclic graph of named layers.

    Parameters
    ----------
    nodes : iterable of Node or (name, layer, inputs)
        In an order in which they can run: inputs name earlier nodes, or inputs of the model.
    outputs : str or sequence of str, optional
        Default: the last node.
    inputs : str or sequence of str, default ("input",)
    input_types : mapping of str to TensorType, optional
        What inputs must be, where that is not float32 of any shape.
    output_names : sequence of str, optional
        What the outputs are called outside. Default: as the nodes.

    Raises
    ------
    TypeError, ValueError
        If names clash or are unknown, or a layer gets the wrong number of inputs.

    Examples
    --------
    >>> model = Model([
    ...     ("double", Dense([[2.0]]), "input"),
    ...     ("sum", Add(), ("input", "double")),
    ... ])
    >>> model(np.array([[1.0]]))
    array([[3.]], dtype=float32)
    """

    def __init__(self, nodes, outputs=None, inputs=("input",), **types):
        super().__init__(nodes, outputs, inputs, **types)
        for node in self.nodes:
            if isinstance(node.layer, QuantizedLayer):
                raise TypeError(f"node {node.name!r} is 8-bit; a Model is float")

    def forward(self, *inputs, ctx=None):
        """Run the model.

        Parameters
        ----------
        *inputs : Tensor or array
        ctx : Context, optional
            Looked at between layers. By name, or last.

        Returns
        -------
        Tensor or ndarray, or a tuple of them for several outputs
            Of the kind of the first input.

        Raises
        ------
        Cancelled
            If `ctx` says so.
        TypeError, ValueError
            If an input does not fit; the message names the layer.
        """
        inputs, ctx = split_context(inputs, ctx)
        return self._RUN(self, inputs).results(type(inputs[0]) if inputs else np.ndarray, ctx)

    __call__ = forward

    def like(self, nodes, outputs=None):
        """Return a float model of other nodes, with this one's inputs and outputs."""
        return Model(
            nodes, outputs or self.outputs, self.inputs, input_types=self.input_types,
            output_names=self.output_names,
        )

    def weights(self):
        """Return all arrays by ``"node.array"``."""
        return {
            f"{node.name}.{name}": array
            for node in self.nodes
            for name, array in node.layer.arrays().items()
        }

    def with_weights(self, weights):
        """Return the same model with other weights.

        Parameters
        ----------
        weights : mapping, or str or path-like
            Arrays by ``"node.array"``, as `weights` gives, or a ``.npz`` file of them. Arrays that
            it does not name stay.

        Raises
        ------
        KeyError
            If it names an array that the model has not.
        OSError
            If the file cannot be read.
        TypeError, ValueError
            If an array does not fit, or the file is no whole ``.npz``.
        """
        weights = weights if hasattr(weights, "keys") else _read_arrays(weights)
        changes = {}
        for key in weights:
            node_name, _, array_name = key.rpartition(".")
            layer = self.node(node_name).layer
            if array_name not in layer.ARRAYS:
                raise KeyError(f"layer {node_name!r} has no array {array_name!r}")
            old = getattr(layer, array_name)
            if old is not None and np.shape(weights[key]) != old.shape:
                raise ValueError(
                    f"{key} must have shape {old.shape}, got {np.shape(weights[key])}"
                )
            changes.setdefault(node_name, {})[array_name] = weights[key]
        nodes = [
            Node(node.name, node.layer.replace(**changes.get(node.name, {})), node.inputs,
                 node.covers)
            for node in self.nodes
        ]
        return self.like(nodes)


def _read_arrays(path):
    """Return the arrays in a ``.npz`` file by name."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"weights must be a mapping, or the path of a .npz file, got {path!r}")
    with whole_file(lambda error: f"weights must be a whole .npz file of numbers, {path} is not"):
        return read_npz(path)


class Sequential(Model):
    """A model in which each layer takes the output of the one before.

    Parameters
    ----------
    *layers : Layer, or (name, layer)
        Names default to the kind of layer and a number that is free.

    Examples
    --------
    >>> model = Sequential(Dense([[1.0, -1.0]]), ReLU())
    >>> [node.name for node in model.nodes]
    ['dense_1', 'relu_1']
    """

    def __init__(self, *layers):
        nodes, counts, previous = [], {}, "input"
        taken = [entry[0] for entry in layers if isinstance(entry, tuple) and entry]
        for entry in layers:
            if isinstance(entry, tuple):
                name, layer = entry
            else:
                layer, kind = entry, type(entry).__name__.lower()
                name = None
                while name is None or name in taken:
                    counts[kind] = counts.get(kind, 0) + 1
                    name = f"{kind}_{counts[kind]}"
            nodes.append(Node(name, layer, (previous,)))
            previous = name
        super().__init__(nodes)
