"""The 8-bit model: the same graph, integer code from the first layer to the last."""

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy.nn.context import split_context
from qcy.nn.layers import QuantizedLayer
from qcy.nn.layers.base import codes_in, to_codes, to_reals
from qcy.nn.model import Graph
from qcy.nn.program import Compiled
from qcy.primitive.windows import from_nhwc, to_nhwc
from qcy.tensor.generic import Tensor
from qcy.tensor.quantization import QuantizationParams
from qcy.tensor.quantized import QuantizedTensor

#: Shapes whose programs a model keeps.
MOST_PROGRAMS = 16


class QuantizedModel(Graph):
    """A model in 8 bits, as `quantize_model` makes it.

    Layers that were kept in float take and give reals, with conversions where kinds meet. Images
    are channels last inside, whatever the layout outside.

    Parameters
    ----------
    nodes : iterable of Node
        With quantized layers, and float ones that were kept.
    outputs, inputs : sequence of str
    params : dict of str to QuantizationParams
        Of every tensor: of the inputs and of each node's output.
    layout : {"NCHW", "NHWC"}
        Of images outside.
    manifest : dict
        What the model was made with: versions, settings, hash of the calibration data.
    """

    def __init__(self, nodes, outputs, inputs, *, params, layout="NCHW", manifest=None):
        super().__init__(nodes, outputs, inputs)
        self.params = dict(params)
        for name in (*self.inputs, *(node.name for node in self.nodes)):
            if not isinstance(self.params.get(name), QuantizationParams):
                raise ValueError(
                    f"params must have those of {name!r}, got {self.params.get(name)!r}"
                )
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        self.manifest = dict(manifest or {})
        self._programs = {}

    def forward(self, *inputs, ctx=None):
        """Run the model.

        Parameters
        ----------
        *inputs : QuantizedTensor, Tensor or array
            All of one kind. Reals are quantized at the door; QuantizedTensors are requantized if
            their parameters differ from the model's. Indices, see `real_inputs`, are numbers beside
            either kind, and stay as they are.
        ctx : Context, optional
            Looked at between layers. By name, or last.

        Returns
        -------
        QuantizedTensor, Tensor or ndarray, or a tuple of them for several outputs
            Of the kind of the first input; reals are float32.

        Raises
        ------
        Cancelled
            If `ctx` says so.
        """
        inputs, ctx = split_context(inputs, ctx)
        kind = type(inputs[0]) if inputs else np.ndarray
        results = self._run_program(inputs, kind) if ctx is None else None
        if results is None:
            values = self._enter(inputs)
            for _ in self._run(values, ctx):
                pass
            results = self._leave(values, kind)
        return results[0] if len(results) == 1 else tuple(results)

    __call__ = quantized_forward = forward

    def _run_program(self, inputs, kind):
        """Run the model as a program, and return its results; None if it has none."""
        in_codes = issubclass(kind, QuantizedTensor)
        arrays = self._arrays(inputs)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            return None
        outs = [np.empty(shape, dtype) for shape, dtype in compiled.outputs]
        compiled.program.bind([*arrays, *outs], None)()
        if in_codes:
            return [
                QuantizedTensor(out, self.params[name])
                for out, name in zip(outs, self.outputs, strict=True)
            ]
        return [Tensor(out) for out in outs] if issubclass(kind, Tensor) else outs

    def _arrays(self, inputs):
        """Return the inputs as a program takes them: codes or reals, in the layout outside."""
        return [
            codes_in(x, self.params[name]) if isinstance(x, QuantizedTensor)
            else _validate.real_array("x", x)
            for name, x in self.bind_inputs(inputs).items()
        ]

    def _compiled(self, arrays, in_codes):
        """Return the program for inputs of these shapes, or None if some layer has no kernel."""
        key = (in_codes, *((array.shape, array.dtype) for array in arrays))
        programs = self._programs       # another thread may put an empty one in its place
        if key not in programs:
            if len(programs) >= MOST_PROGRAMS:
                self._programs = programs = {}
            try:
                compiled = Compiled(self, [(a.shape, a.dtype) for a in arrays], in_codes)
            except (AttributeError, TypeError, ValueError):
                compiled = None         # layer by layer it runs, or says what is wrong
            programs[key] = compiled
        return programs[key]

    def bind(self, *inputs, n_threads=None):
        """Check a call once, and return it ready to run often.

        Parameters
        ----------
        *inputs : QuantizedTensor or float32 array
            Read where they lie, each time it runs: C-ordered.
        n_threads : int, optional
            Threads to use at most. Default: see `qcy.threads`.

        Returns
        -------
        callable
            Call it without arguments; it returns its `out`, the result, or a tuple of them:
            codes for QuantizedTensors, else float32.

        Raises
        ------
        TypeError, ValueError
            If inputs do not fit or would have to be copied, or a layer is kept in float.
        """
        arrays = self._arrays(inputs)
        for x, array in zip(inputs, arrays, strict=True):
            if not isinstance(x, QuantizedTensor) and array is not x:
                raise ValueError("inputs of a bound call must be C-ordered float32 arrays")
        in_codes = isinstance(inputs[0], QuantizedTensor)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            for _ in self.trace(*inputs):       # which says what is wrong with the inputs
                pass
            raise TypeError("a model that has layers without a kernel of their own cannot be bound")
        outs = [np.empty(shape, dtype) for shape, dtype in compiled.outputs]
        out = outs[0] if len(outs) == 1 else tuple(outs)
        return compiled.program.bind([*arrays, *outs], out, n_threads)

    def memory_plan(self, *shapes):
        """Return what a run on inputs of these shapes needs, weights aside.

        Parameters
        ----------
        *shapes : tuple of int
            Of each input, float32, with the batch.

        Returns
        -------
        dict
            ``arena_bytes``, for all results between layers; ``steps``, how many kernel calls.
        """
        program = Compiled(self, [(shape, np.float32) for shape in shapes], False).program
        return {"arena_bytes": program.arena_bytes, "steps": len(program.steps)}

    @property
    def real_inputs(self):
        """Names of the inputs that go in as they are, never as codes: indices of an `Embedding`."""
        return tuple(
            name for name in self.inputs
            if any(node.layer.TAKES_REALS for node in self.consumers(name))
        )

    def __getstate__(self):
        return {**self.__dict__, "_programs": {}}

    def trace(self, *inputs, ctx=None):
        """Run the model and yield ``(name, output)`` of each layer, in reals.

        Layers that were fused yield once, under the name of the last: see `Node.covers`.
        """
        inputs, ctx = split_context(inputs, ctx)
        for node, value in self._run(self._enter(inputs), ctx):
            yield node.covers[-1], self._outside(node.name, value, np.ndarray)

    def _timed_runs(self, inputs):
        """Return a run that gives the nanoseconds of its parts, one without, and the program."""
        arrays, in_codes = self._arrays(inputs), isinstance(inputs[0], QuantizedTensor)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            return super()._timed_runs(inputs)
        outs = [np.empty(shape, dtype) for shape, dtype in compiled.outputs]
        whole = compiled.program.bind([*arrays, *outs], None)
        ends = (*compiled.ends, compiled.ends[-1])      # one more is empty: what the clock costs

        def timed():
            *times, clock = whole.timed(ends)
            return [
                max(0, taken - clock) if end > start else 0
                for taken, start, end in zip(times, (0, *ends), ends, strict=False)
            ]

        return timed, whole, compiled.program

    def _run(self, values, ctx):
        """Run the layers on `values`; yield each node and its output as it is inside."""
        for node, dead in zip(self.nodes, self._last_use, strict=True):
            if ctx is not None:
                ctx.check()
            if isinstance(node.layer, QuantizedLayer):
                take = self._as_reals if node.layer.TAKES_REALS else self._as_codes
                arrays = [take(name, values[name]) for name in node.inputs]
                values[node.name] = node.forward_codes(*arrays)
            else:
                arrays = [self._as_reals(name, values[name]) for name in node.inputs]
                values[node.name] = node.forward(*arrays)
            yield node, values[node.name]
            for name in dead:
                del values[name]

    def _enter(self, inputs):
        """Take the inputs in, by name: codes, images channels last; or the reals that they are."""
        return {name: self._inside(name, x) for name, x in self.bind_inputs(inputs).items()}

    def _leave(self, values, kind):
        """Let the outputs out: of the kind of the first input, in the layout outside."""
        return [self._outside(name, values[name], kind) for name in self.outputs]

    def _inside(self, name, x):
        params = self.params[name]
        if name in self.real_inputs:
            if isinstance(x, QuantizedTensor):
                raise TypeError(f"input {name!r} is of numbers, not of codes")
            return _validate.real_array("x", x)
        if isinstance(x, QuantizedTensor):
            codes = codes_in(x, params)
        else:
            codes = to_codes(_validate.real_array("x", x), params)
        return to_nhwc(codes, self.layout) if codes.ndim == 4 else codes

    def _outside(self, name, value, kind):
        if value.ndim == 4:
            value = from_nhwc(value, self.layout)
        if issubclass(kind, QuantizedTensor):
            return QuantizedTensor(self._as_codes(name, value), self.params[name])
        reals = self._as_reals(name, value)
        return Tensor(reals) if issubclass(kind, Tensor) else reals

    def _as_codes(self, name, value):
        return value if value.dtype != np.float32 else to_codes(value, self.params[name])

    def _as_reals(self, name, value):
        return value if value.dtype == np.float32 else to_reals(value, self.params[name])

    @property
    def float_nodes(self):
        """Names of the layers that run in float: their bits may differ between machines."""
        return [n.name for n in self.nodes if not isinstance(n.layer, QuantizedLayer)]

    def summary(self):
        """Return a table of the layers as text: kind, 8-bit or float, scale, zero point."""
        rows = [("name", "layer", "bits", "scale", "zero point", "does the work of")]
        for node in self.nodes:
            params = self.params[node.name]
            rows.append((
                node.name, type(node.layer).__name__,
                "8" if isinstance(node.layer, QuantizedLayer) else "float",
                f"{params.scale:.6g}", params.zero_point, ", ".join(node.covers),
            ))
        return table(rows)
