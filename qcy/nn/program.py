"""A quantized model, for inputs of known shapes, as a program: kernel calls and one arena."""

import numpy as np

from qcy import primitive
from qcy._program import ARENA_MEMORY, Program
from qcy._recorder import Recorder
from qcy._step import Place
from qcy.nn.layers import DenseQuantized, QuantizedLayer
from qcy.nn.layers.activations import TableQuantized
from qcy.nn.layouts import arrange, enters_last
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
        self.model = model
        self.are_last = {}              # of images channels last: see `arrange`
        values = {}
        for name, (shape, dtype) in zip(model.inputs, arrays, strict=True):
            values[name] = self._enter(name, self.recorder.port(shape, dtype))
        self.ends = [len(self.recorder.steps)]
        for node, dead in zip(model.nodes, model._last_use, strict=True):
            if node.outputs[0] not in values:   # the layer before it did its work
                table = _table_after(model, node)
                if table is None:
                    self._record(node, node, values)
                else:
                    self._record(node, table, values, table=table.layer.table)
            self.ends.append(len(self.recorder.steps))
            for name in dead:
                values.pop(name, None)
            self._release_all_but(values)
        self.outputs = []
        for name in model.outputs:
            self._leave(name, values[name], in_codes)
        self.ends.append(len(self.recorder.steps))
        self.program = Program(self.recorder)
        del self.recorder, self.model, self.are_last

    def bound(self, arrays, n_threads=None):
        """Return the program ready to run on arrays, again and again.

        Its `out` is the output, or a tuple of them: new arrays.
        """
        outs = [np.empty(shape, dtype) for shape, dtype in self.outputs]
        return self.program.bind(
            [*arrays, *outs], outs[0] if len(outs) == 1 else tuple(outs), n_threads
        )

    def run(self, arrays):
        """Run the program once, and return a list of the outputs."""
        outs = self.bound(arrays)()
        return list(outs) if isinstance(outs, tuple) else [outs]

    def _record(self, node, made_by, values, **settings):
        """Record a layer; its output is that of `made_by`, whose work it does too."""
        if not isinstance(node.layer, QuantizedLayer):
            raise TypeError(f"layer {node.name!r} is kept in float")
        places, is_last = arrange(
            node.layer, [values[name] for name in node.inputs],
            [self.are_last[name] for name in node.inputs], self.model.layout,
        )
        results = node.layer.forward_codes(*places, **settings)
        results = results if isinstance(results, tuple) else (results,)
        for name, value in zip(made_by.outputs, results, strict=True):
            if not isinstance(value, (Place, np.ndarray)):
                raise TypeError(f"layer {node.name!r} does not compute by primitives")
            values[name] = value
            self.are_last[name] = is_last and value.ndim == 4

    def _release_all_but(self, values):
        """Give back every place in the arena that no value lies in."""
        needed = {
            value.offset for value in values.values()
            if isinstance(value, Place) and value.memory == ARENA_MEMORY
        }
        for offset in self.recorder.taken - needed:
            self.recorder.release(offset)

    def _enter(self, name, x):
        """Record how an input becomes codes, if it does."""
        self.are_last[name] = x.ndim == 4 and self.model.layout == "NHWC"
        if name not in self.model.coded_inputs:
            if x.dtype != np.float32:
                raise TypeError(f"input {name!r} is of numbers, not of codes")
            return x
        params = self.model.params[name]
        if x.dtype == np.float32:
            x = primitive.quantize_q8(x, params.scale, params.zero_point, dtype=params.dtype)
            if params.narrow_range:
                x = primitive.clamp_q8(x, params.qmin, params.qmax)
        if not self.are_last[name] and enters_last(self.model, name, x.ndim):
            self.are_last[name] = True
            return to_nhwc(x, "NCHW")
        return x

    def _leave(self, name, value, in_codes):
        """Record how an output goes out: as codes or as reals, in the layout outside."""
        if not isinstance(value, Place):
            raise TypeError(f"output {name!r} is a constant")
        params = self.model.params[name]
        in_codes = in_codes or name in self.model.coded_outputs
        if value.ndim == 4 and self.are_last[name] != (self.model.layout == "NHWC"):
            value = (from_nhwc if self.are_last[name] else to_nhwc)(value, "NCHW")
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
