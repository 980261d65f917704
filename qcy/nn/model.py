"""The float model: a directed acyclic graph of named layers."""

import os
import zlib
from dataclasses import dataclass, field

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy.nn.context import split_context
from qcy.nn.layers import Layer, QuantizedLayer
from qcy.nn.profile import by_layers, profile
from qcy.tensor.generic import Tensor


@dataclass(frozen=True)
class Node:
    """One layer of a graph.

    Parameters
    ----------
    name : str
        Of the layer and of its output.
    layer : Layer
    inputs : tuple of str
        Names of earlier nodes, or of the model's inputs.
    covers : tuple of str
        Names of the original layers that this one does the work of, in order.
    """

    name: str
    layer: object
    inputs: tuple
    covers: tuple = field(default=())

    def __post_init__(self):
        inputs = (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "covers", tuple(self.covers) or (self.name,))

    def forward(self, *arrays):
        """Run the layer on plain float32 arrays; what it refuses, it refuses under this name."""
        # NumPy makes numbers of arrays without axes.
        return np.asarray(self._named(self.layer._forward, arrays))

    def forward_codes(self, *arrays):
        """Run an 8-bit layer on plain arrays of codes, in the same way."""
        return self._named(self.layer.forward_codes, arrays)

    def _named(self, function, arrays):
        try:
            return function(*arrays)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"layer {self.name!r}: {error}") from error


class Graph:
    """Named nodes in an order in which they can run; what float and 8-bit models share.

    Attributes
    ----------
    nodes : tuple of Node
    inputs, outputs : tuple of str
    """

    def __init__(self, nodes, outputs=None, inputs=("input",)):
        self.nodes = tuple(n if isinstance(n, Node) else Node(*n) for n in nodes)
        self.inputs = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        if not self.inputs:
            raise ValueError("inputs must name at least one input")
        known = set(self.inputs)
        if len(known) < len(self.inputs):
            raise ValueError(f"inputs must have different names, got {self.inputs}")
        for node in self.nodes:
            self._check(node, known)
            known.add(node.name)
        if outputs is None:
            outputs = (self.nodes[-1].name if self.nodes else self.inputs[-1],)
        self.outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if not self.outputs:
            raise ValueError("outputs must name at least one output")
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"outputs must be nodes or inputs, got {name!r}")
        self._last_use = self._find_last_uses()

    @staticmethod
    def _check(node, known):
        if not isinstance(node.name, str) or not node.name:
            raise TypeError(f"a node's name must be a non-empty str, got {node.name!r}")
        if node.name in known:
            raise ValueError(f"node names must differ, got {node.name!r} twice")
        if not isinstance(node.layer, Layer):
            raise TypeError(f"node {node.name!r} must have a Layer, got {node.layer!r}")
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"node {node.name!r} takes {name!r}, which no earlier node makes")
        wanted = node.layer.N_INPUTS
        if not node.inputs or (wanted is not None and len(node.inputs) != wanted):
            raise ValueError(
                f"node {node.name!r} must have {wanted or 'at least 1'} input(s), "
                f"got {len(node.inputs)}"
            )

    def _find_last_uses(self):
        """Return, for each node, the names that nobody needs after it."""
        last = {}
        for i, node in enumerate(self.nodes):
            for name in (*node.inputs, node.name):
                last[name] = i
        dead = [[] for _ in self.nodes]
        for name, i in last.items():
            if name not in self.outputs:
                dead[i].append(name)
        return dead

    def node(self, name):
        """Return the node of that name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"no node {name!r}; there are {[n.name for n in self.nodes]}")

    def consumers(self, name):
        """Return the nodes that take `name`."""
        return [node for node in self.nodes if name in node.inputs]

    def __getitem__(self, name):
        return self.node(name).layer

    def bind_inputs(self, inputs):
        """Return the model's inputs by name, or say how many there must be."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"the model takes {len(self.inputs)} input(s), got {len(inputs)}")
        return dict(zip(self.inputs, inputs, strict=True))

    def predict(self, x, batch_size=64):
        """Run the model on many samples, a batch at a time.

        Parameters
        ----------
        x : (N, ...) Tensor or array
        batch_size : int, default 64

        Returns
        -------
        (N, ...) Tensor or ndarray, float32
            Of the kind of `x`; no samples give no results.

        Raises
        ------
        TypeError, ValueError
            If the model has several inputs or outputs, or `x` does not fit.
        """
        batch_size = _validate.integer("batch_size", batch_size, 1)
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise TypeError("predict is for models with one input and one output")
        array = _validate.real_array("x", x)
        if array.ndim == 0:
            raise ValueError("x must have an axis of samples, got shape ()")
        starts = range(0, max(1, len(array)), batch_size)
        parts = [self.forward(array[start : start + batch_size]) for start in starts]
        result = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return Tensor(result) if isinstance(x, Tensor) else result

    profile = profile

    def _timed_runs(self, inputs):
        """Return a run that gives the nanoseconds of its parts, one without, and None."""
        return (*by_layers(self, inputs), None)

    def save(self, path):
        """Write the model to one file, atomically; `qcy.load` reads it.

        Parameters
        ----------
        path : str or path-like
            Usually ending in ``.qcy``.
        """
        from qcy.nn import storage

        storage.save(self, path)

    def to_bytes(self):
        """Return what `save` would write."""
        from qcy.nn import storage

        return storage.to_bytes(self)

    def summary(self):
        """Return a table of the layers as text."""
        rows = [("name", "layer", "inputs")]
        rows += [(n.name, repr(n.layer), ", ".join(n.inputs)) for n in self.nodes]
        return table(rows)

    def __repr__(self):
        return f"{type(self).__name__}({len(self.nodes)} layers, outputs={list(self.outputs)})"


class Model(Graph):
    """A float32 model: a directed acyclic graph of named layers.

    Parameters
    ----------
    nodes : iterable of Node or (name, layer, inputs)
        In an order in which they can run: inputs name earlier nodes, or inputs of the model.
    outputs : str or sequence of str, optional
        Default: the last node.
    inputs : str or sequence of str, default ("input",)

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

    def __init__(self, nodes, outputs=None, inputs=("input",)):
        super().__init__(nodes, outputs, inputs)
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
        Tensor or ndarray, float32, or a tuple of them for several outputs
            Of the kind of the first input.

        Raises
        ------
        Cancelled
            If `ctx` says so.
        TypeError, ValueError
            If an input does not fit; the message names the layer.
        """
        inputs, ctx = split_context(inputs, ctx)
        values = self._enter(inputs)
        for _ in self._run(values, ctx):
            pass
        results = self._leave(values, type(inputs[0]))
        return results[0] if len(results) == 1 else tuple(results)

    __call__ = forward

    def trace(self, *inputs, ctx=None):
        """Run the model and yield ``(name, output)`` of each layer, as plain float32 arrays."""
        inputs, ctx = split_context(inputs, ctx)
        for node, value in self._run(self._enter(inputs), ctx):
            yield node.name, value

    def _enter(self, inputs):
        """Take the inputs in: plain float32 arrays by name."""
        return self.bind_inputs([_validate.real_array("x", x) for x in inputs])

    def _leave(self, values, kind):
        """Let the outputs out: of the kind of the first input."""
        results = [values[name] for name in self.outputs]
        return [Tensor(result) for result in results] if issubclass(kind, Tensor) else results

    def _run(self, values, ctx):
        """Run the layers on `values`; yield each node and its output."""
        for node, dead in zip(self.nodes, self._last_use, strict=True):
            if ctx is not None:
                ctx.check()
            values[node.name] = node.forward(*(values[name] for name in node.inputs))
            yield node, values[node.name]
            for name in dead:
                del values[name]

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
        return Model(nodes, self.outputs, self.inputs)


def _read_arrays(path):
    """Return the arrays in a ``.npz`` file by name."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"weights must be a mapping, or the path of a .npz file, got {path!r}")
    import zipfile              # it brings in every kind of compression

    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (        # what NumPy and zipfile say to files of another kind, or cut short
        AttributeError, EOFError, LookupError, NotImplementedError, TypeError, ValueError,
        zipfile.BadZipFile, zlib.error,
    ) as error:
        raise ValueError(f"weights must be a whole .npz file of numbers, {path} is not") from error


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
