"""A quantized model, for inputs of known shapes, as a program: kernel calls and one arena."""

import numpy as np

from qcy import primitive
from qcy._program import ARENA_MEMORY, Program
from qcy._recorder import Recorder
from qcy._step import Place
from qcy.nn.layers import DenseQuantized, QuantizedLayer
from qcy.nn.layers.activations import TableQuantized
from qcy.primitive.windows import from_nhwc, to_nhwc


class Compiled:
    """A program of a model, and where its inputs and outputs are.

    Attributes
    ----------
    program : Program
    outputs : list of (shape, dtype)
    ends : list of int
        How many steps there are once the inputs are in, after each layer, and once the outputs are
        out: what a layer owns, be it several steps or none, lies between two of them.
    """

    def __init__(self, model, arrays, in_codes):
        """Record a model.

        Parameters
        ----------
        model : QuantizedModel
        arrays : sequence of (shape, dtype)
            The inputs: codes, or float32 reals, in the layout outside.
        in_codes : bool
            Whether results go out as codes, or as reals.

        Raises
        ------
        TypeError
            If a layer computes otherwise than by primitives: it is kept in float, or it is not
            qcy's own.
        """
        self.recorder = Recorder()
        values = {}
        for name, (shape, dtype) in zip(model.inputs, arrays, strict=True):
            values[name] = self._enter(model, name, self.recorder.port(shape, dtype))
        self.ends = [len(self.recorder.steps)]
        for node, dead in zip(model.nodes, model._last_use, strict=True):
            if node.name not in values:         # the layer before it did its work
                table = _table_after(model, node)
                if table is None:
                    values[node.name] = self._record(node, values)
                else:
                    values[table.name] = self._record(node, values, table=table.layer.table)
            self.ends.append(len(self.recorder.steps))
            for name in dead:
                values.pop(name, None)
            self._release_all_but(values)
        self.outputs = []
        for name in model.outputs:
            self._leave(model, name, values[name], in_codes)
        self.ends.append(len(self.recorder.steps))
        self.program = Program(self.recorder)
        del self.recorder

    def _record(self, node, values, **settings):
        """Record a layer, and return the place of its output."""
        if not isinstance(node.layer, QuantizedLayer):
            raise TypeError(f"layer {node.name!r} is kept in float")
        value = node.layer.forward_codes(*(values[name] for name in node.inputs), **settings)
        if not isinstance(value, Place):
            raise TypeError(f"layer {node.name!r} does not compute by primitives")
        return value

    def _release_all_but(self, values):
        """Give back every place in the arena that no value lies in."""
        needed = {value.offset for value in values.values() if value.memory == ARENA_MEMORY}
        for offset in self.recorder.taken - needed:
            self.recorder.release(offset)

    def _enter(self, model, name, x):
        params = model.params[name]
        if name in model.real_inputs:
            if x.dtype != np.float32:
                raise TypeError(f"input {name!r} is of numbers, not of codes")
            return x
        if x.dtype == np.float32:
            x = primitive.quantize_q8(x, params.scale, params.zero_point, dtype=params.dtype)
            if params.narrow_range:
                x = primitive.clamp_q8(x, params.qmin, params.qmax)
        return to_nhwc(x, model.layout) if x.ndim == 4 else x

    def _leave(self, model, name, value, in_codes):
        params = model.params[name]
        if value.ndim == 4:
            value = from_nhwc(value, model.layout)
        port = self.recorder.port(value.shape, value.dtype if in_codes else np.float32)
        if in_codes:
            primitive.beside_q8(value.reshape(1, value.size), (1, value.size), 1, 0,
                                out=port.reshape(1, value.size))
        else:
            primitive.dequantize_q8(value, params.scale, params.zero_point, out=port)
        self.outputs.append((port.shape, port.dtype))


def _table_after(model, node):
    """Return the node whose table a product can look its codes up in at last, or None."""
    consumers = model.consumers(node.name)
    if type(node.layer) is DenseQuantized and node.name not in model.outputs and (
        len(consumers) == 1 and isinstance(consumers[0].layer, TableQuantized)
    ):
        return consumers[0]
    return None
