"""Graphs: named layers, and the tensors between them; what float and 8-bit models share."""

import os
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy.nn.context import split_context
from qcy.nn.layers import Layer
from qcy.nn.profile import by_layers, profile
from qcy.tensor.generic import Tensor


@dataclass(frozen=True)
class Node:
    """One layer of a graph.

    Parameters
    ----------
    name : str
        Of the layer and of its output; a layer with several outputs makes ``"name:0"``,
        ``"name:1"`` and so on.
    layer : Layer
    inputs : tuple of str
        Names of earlier nodes' outputs, or of the model's inputs.
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

    @property
    def outputs(self):
        """Names of the tensors that the layer makes."""
        n = self.layer.n_outputs
        return (self.name,) if n == 1 else tuple(f"{self.name}:{i}" for i in range(n))

    def forward(self, *arrays):
        """Run the layer on plain arrays; what it refuses, it refuses under this name.

        Returns
        -------
        tuple of ndarray
            One for each of `outputs`.
        """
        results = self._named(self.layer._forward, arrays)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(np.asarray(y) for y in results)    # NumPy makes numbers of arrays without axes

    def forward_codes(self, *arrays):
        """Run an 8-bit layer on plain arrays of codes, in the same way."""
        results = self._named(self.layer.forward_codes, arrays)
        return results if isinstance(results, tuple) else (results,)

    def _named(self, function, arrays):
        try:
            return function(*arrays)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"layer {self.name!r}: {error}") from error


@dataclass(frozen=True)
class TensorType:
    """What an input of a model must be.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of int, str or None, optional
        A name, or None, is an axis of any length. None: any shape.

    Examples
    --------
    >>> TensorType("float32", ("batch", 3, 224, 224))
    TensorType(float32[batch, 3, 224, 224])
    """

    dtype: object
    shape: tuple | None = None

    def __post_init__(self):
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))

    def take(self, name, x):
        """Return an input as an array of this type, or say why it is none."""
        array = np.asarray(x)
        if array.dtype != self.dtype:
            array = self._converted(name, array)
        if self.shape is not None and not self._has_shape(array.shape):
            raise ValueError(f"{name} must be {self}, got shape {array.shape}")
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)

    def _converted(self, name, array):
        kinds = {"f": "fiu", "i": "iu", "u": "iu"}.get(self.dtype.kind, self.dtype.kind)
        if array.dtype.kind not in kinds:
            raise TypeError(f"{name} must be {self}, got {array.dtype}")
        with np.errstate(over="ignore"):        # becomes inf
            result = array.astype(self.dtype)
        if self.dtype.kind in "iu" and (result != array).any():
            raise ValueError(f"{name} must be {self}, got {array[result != array].flat[0]}")
        return result

    def _has_shape(self, shape):
        return len(shape) == len(self.shape) and all(
            not isinstance(wanted, int) or size == wanted
            for size, wanted in zip(shape, self.shape, strict=True)
        )

    def __str__(self):
        if self.shape is None:
            return self.dtype.name
        sizes = ("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.name}[{', '.join(sizes)}]"

    def __repr__(self):
        return f"TensorType({self})"


class Run:
    """One run of a model, layer by layer, and its tensors while somebody needs them.

    Parameters
    ----------
    model : Graph
    inputs : sequence of arrays

    Attributes
    ----------
    values : dict of str to array
    """

    def __init__(self, model, inputs):
        self.model = model
        self.values = {name: model.take(name, x) for name, x in model.bind_inputs(inputs).items()}

    def nodes(self, ctx=None):
        """Run the layers; yield each node while its inputs and outputs are there."""
        for node, dead in zip(self.model.nodes, self.model._last_use, strict=True):
            if ctx is not None:
                ctx.check()
            self.compute(node)
            yield node
            for name in dead:
                del self.values[name]

    def compute(self, node):
        """Run one layer."""
        results = node.forward(*(self.values[name] for name in node.inputs))
        self.values.update(zip(node.outputs, results, strict=True))

    def outside(self, name, kind=np.ndarray):
        """Return a tensor as it is outside, of a kind."""
        value = self.values[name]
        return Tensor(value) if issubclass(kind, Tensor) else value

    def output(self, name, kind):
        """Return an output of the model, of a kind."""
        return self.outside(name, kind)

    def results(self, kind, ctx=None):
        """Run what is left, and return the outputs: one, or a tuple."""
        for _ in self.nodes(ctx):
            pass
        results = tuple(self.output(name, kind) for name in self.model.outputs)
        return results[0] if len(results) == 1 else results


class Graph:
    """Named nodes in an order in which they can run; what float and 8-bit models share.

    Attributes
    ----------
    nodes : tuple of Node
    inputs, outputs : tuple of str
    input_types : dict of str to TensorType
        Of those inputs that must be of a type; others are float32 of any shape.
    output_names : tuple of str
        What the outputs are called outside, where that is not the name of a layer.
    """

    def __init__(
        self, nodes, outputs=None, inputs=("input",), *, input_types=None, output_names=None
    ):
        self.nodes = tuple(n if isinstance(n, Node) else Node(*n) for n in nodes)
        self.inputs = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        if not self.inputs:
            raise ValueError("inputs must name at least one input")
        known = set(self.inputs)
        if len(known) < len(self.inputs):
            raise ValueError(f"inputs must have different names, got {self.inputs}")
        for node in self.nodes:
            self._check(node, known)
            known.update(node.outputs)
        if outputs is None:
            outputs = self.nodes[-1].outputs if self.nodes else self.inputs[-1:]
        self.outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if not self.outputs:
            raise ValueError("outputs must name at least one output")
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"outputs must be nodes or inputs, got {name!r}")
        self.output_names = tuple(self.outputs if output_names is None else output_names)
        if len(self.output_names) != len(self.outputs):
            raise ValueError(f"output_names must be {len(self.outputs)}, got {self.output_names}")
        self.input_types = dict(input_types or {})
        for name in self.input_types:
            if name not in self.inputs:
                raise ValueError(f"input_types must name inputs, got {name!r}")
        self._makers = {name: node for node in self.nodes for name in node.outputs}
        self._takers = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                self._takers.setdefault(name, []).append(node)
        self._last_use = self._find_last_uses()

    @staticmethod
    def _check(node, known):
        if not isinstance(node.name, str) or not node.name:
            raise TypeError(f"a node's name must be a non-empty str, got {node.name!r}")
        if not isinstance(node.layer, Layer):
            raise TypeError(f"node {node.name!r} must have a Layer, got {node.layer!r}")
        for name in (node.name, *node.outputs):
            if name in known:
                raise ValueError(f"node names must differ, got {name!r} twice")
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"node {node.name!r} takes {name!r}, which no earlier node makes")
        wanted = node.layer.N_INPUTS
        if len(node.inputs) != wanted if wanted is not None else not node.inputs:
            raise ValueError(
                f"node {node.name!r} must have {'at least 1' if wanted is None else wanted} "
                f"input(s), got {len(node.inputs)}"
            )

    def _find_last_uses(self):
        """Return, for each node, the names that nobody needs after it."""
        last = {}
        for i, node in enumerate(self.nodes):
            for name in (*node.inputs, *node.outputs):
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
        return list(self._takers.get(name, ()))

    def __getitem__(self, name):
        return self.node(name).layer

    def bind_inputs(self, inputs):
        """Return the model's inputs by name, or say how many there must be."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"the model takes {len(self.inputs)} input(s), got {len(inputs)}")
        return dict(zip(self.inputs, inputs, strict=True))

    def take(self, name, x):
        """Return an input as a plain array of its type: float32, if nothing else is said.

        Raises
        ------
        TypeError, ValueError
            If it does not fit; the message names the input.
        """
        if name in self.input_types:
            return self.input_types[name].take(f"input {name!r}", x)
        return _validate.real_array("x", x)

    #: What a run of the model is.
    _RUN = Run

    def trace(self, *inputs, ctx=None):
        """Run the model and yield ``(name, output)`` of each layer, as plain arrays of numbers."""
        inputs, ctx = split_context(inputs, ctx)
        run = self._RUN(self, inputs)
        for node in run.nodes(ctx):
            for name in node.outputs:
                yield self._shown(node, name), run.outside(name)

    def _shown(self, node, name):
        """Return what an output of a node is called in a trace."""
        return name

    def maker(self, name):
        """Return the node that makes the tensor `name`, or None for an input."""
        return self._makers.get(name)

    def predict(self, x, batch_size=64):
        """Run the model on many samples, a batch at a time.

        Parameters
        ----------
        x : (N, ...) Tensor or array
        batch_size : int, default 64

        Returns
        -------
        (N, ...) Tensor or ndarray
            Of the kind of `x`; no samples give no results.

        Raises
        ------
        TypeError, ValueError
            If the model has several inputs or outputs, or `x` does not fit.
        """
        batch_size = _validate.integer("batch_size", batch_size, 1)
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise TypeError("predict is for models with one input and one output")
        array = self.take(self.inputs[0], x)
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

    def save(self, path, format=None, *, input_shapes=None):
        """Write the model to one file, atomically.

        Parameters
        ----------
        path : str or path-like
            Usually ending in ``.qcy``, which `qcy.load` reads, or in ``.onnx``.
        format : {"qcy", "onnx", "qdq", "qoperator"}, optional
            Default: what the path ends in. An 8-bit model becomes ONNX as "qdq", which "onnx"
            stands for, or as "qoperator"; see `qcy.nn.onnx.to_onnx`.
        input_shapes : mapping of str to shape, or a shape, optional
            For ONNX alone, which wants the number of axes of every input: of those inputs of which
            nothing else tells it, with the batch. A name or None is an axis of any length.

        Raises
        ------
        ImportError
            If ONNX is wanted and the onnx package is not there.
        TypeError, ValueError
            If a layer has no form in the format, or format, path and model do not fit together.
        """
        name = os.fsdecode(path)
        is_onnx = name.endswith(".onnx")
        if format is None:
            format = "onnx" if is_onnx else "qcy"
        _validate.choice("format", format, ("qcy", "onnx", "qdq", "qoperator"))
        if is_onnx if format == "qcy" else name.endswith(".qcy"):
            raise ValueError(f"format {format!r} does not fit the path {name!r}")
        if format != "qcy":     # from the floor above: only who wants it needs the onnx package
            import_module("qcy.nn.onnx").save(self, path, format, input_shapes=input_shapes)
            return
        if input_shapes is not None:
            raise ValueError(f"input_shapes is for ONNX, got format {format!r}")
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
