"""The 8-bit model: the same graph, integer code from the first layer to the last."""

from functools import cached_property

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy.nn.context import split_context
from qcy.nn.layers import QuantizedLayer
from qcy.nn.layers.base import codes_in, to_codes, to_reals
from qcy.nn.layouts import arrange, enters_last
from qcy.nn.graph import Graph, Node, Run
from qcy.nn.parts import Parts, run_part
from qcy.nn.program import Compiled
from qcy.primitive.windows import from_nhwc, to_nhwc
from qcy.tensor.generic import Tensor
from qcy.tensor.quantization import QuantizationParams
from qcy.tensor.quantized import QuantizedTensor

#: Shapes whose programs a model keeps.
MOST_PROGRAMS = 16


class QuantizedRun(Run):
    """One run of a model layer by layer: its tensors, and what each of them is.

    A tensor is codes or numbers, and images are channels last or first, as the layer that made it
    left it; it is converted where a layer wants something else.
    """

    def __init__(self, model, inputs):
        self.model = model
        self.values, self.in_codes = {}, {}
        for name, x in model.bind_inputs(inputs).items():
            is_tensor = isinstance(x, QuantizedTensor)
            self.in_codes[name] = is_tensor or model.comes_as_codes(name)
            self.values[name] = (
                codes_in(x, model._params_of(name)) if is_tensor else model.take(name, x)
            )
            if name in model.coded_inputs and not self.in_codes[name]:
                self.values[name] = to_codes(self.values[name], model.params[name])
                self.in_codes[name] = True
        self.are_last = {}
        for name, x in self.values.items():
            self.are_last[name] = x.ndim == 4 and model.layout == "NHWC"
            if not self.are_last[name] and enters_last(model, name, x.ndim):
                self.values[name], self.are_last[name] = to_nhwc(x, "NCHW"), True

    def compute(self, node):
        """Run one layer, in 8 bits or in float."""
        is_8_bit = isinstance(node.layer, QuantizedLayer)
        take = self._codes if is_8_bit and not node.layer.TAKES_REALS else self._numbers
        arrays, is_last = arrange(
            node.layer, [take(name) for name in node.inputs],
            [self.are_last[name] for name in node.inputs], self.model.layout,
        )
        results = node.forward_codes(*arrays) if is_8_bit else node.forward(*arrays)
        for name, result in zip(node.outputs, results, strict=True):
            self.values[name] = result
            self.in_codes[name] = is_8_bit
            self.are_last[name] = is_last and result.ndim == 4

    def parts(self, parts):
        """Run the model in parts; see `Parts`."""
        for part, dead in parts.parts:
            if isinstance(part, Node):
                self.compute(part)
            elif not run_part(self, part):
                for node in part.nodes:
                    self.compute(node)
            for name in dead:
                del self.values[name]

    def enter(self, name, codes):
        """Take in what a program made: codes in the layout outside."""
        self.values[name], self.in_codes[name] = codes, True
        self.are_last[name] = codes.ndim == 4 and self.model.layout == "NHWC"

    def as_it_is(self, name):
        """Return a tensor, codes or numbers, in the layout outside."""
        return self._turned(name, self.values[name])

    def numbers(self, name):
        """Return a tensor as float32 numbers, in the layout outside."""
        return self._turned(name, _validate.real_array(name, self._numbers(name)))

    def _turned(self, name, value):
        """Return an image in the layout outside."""
        if value.ndim != 4 or self.are_last[name] == (self.model.layout == "NHWC"):
            return value
        return (from_nhwc if self.are_last[name] else to_nhwc)(value, "NCHW")

    def _codes(self, name):
        value = self.values[name]
        if self.in_codes[name] or value.dtype != np.float32:
            return value
        return to_codes(value, self.model.params[name])

    def _numbers(self, name):
        value = self.values[name]
        return to_reals(value, self.model.params[name]) if self.in_codes[name] else value

    def output(self, name, kind):
        """Return an output of the model, of a kind, or as the codes that it is."""
        return self.outside(name, kind, name in self.model.coded_outputs)

    def outside(self, name, kind=np.ndarray, in_codes=False):
        """Return a tensor as it is outside: of a kind, in the model's layout."""
        is_tensor = issubclass(kind, QuantizedTensor) and name in self.model.params
        value = self._codes(name) if is_tensor or in_codes else self._numbers(name)
        value = self._turned(name, value)
        if is_tensor:
            return QuantizedTensor(value, self.model.params[name])
        return value if issubclass(kind, np.ndarray) else Tensor(value)


class QuantizedModel(Graph):
    """A model in 8 bits, as `quantize_model` makes it.

    Layers that were kept in float take and give reals, with conversions where kinds meet. Images
    are channels last where layers want them so, whatever the layout outside.

    Parameters
    ----------
    nodes : iterable of Node
        With quantized layers, and float ones that were kept.
    outputs, inputs : sequence of str
    params : dict of str to QuantizationParams
        Of every tensor that is codes somewhere: inputs and outputs of 8-bit layers.
    layout : {"NCHW", "NHWC"}
        Of images outside.
    manifest : dict
        What the model was made with: versions, settings, hash of the calibration data.
    coded_outputs : sequence of str, default ()
        Names of the outputs that are plain arrays of codes whatever the inputs are, instead of the
        reals that those stand for.
    input_types, output_names
        As for `Model`. An input of int8 or uint8 that has parameters comes as codes.
    """

    def __init__(
        self, nodes, outputs, inputs, *, params, layout="NCHW", manifest=None, coded_outputs=(),
        **types
    ):
        super().__init__(nodes, outputs, inputs, **types)
        self.params = dict(params)
        for node in self.nodes:
            if isinstance(node.layer, QuantizedLayer):
                self._check_params(node)
        for name in filter(self.comes_as_codes, self.inputs):
            dtype = self.input_types[name].dtype
            if self.params[name].dtype != dtype:
                raise ValueError(
                    f"params of input {name!r} must be of {dtype}, got {self.params[name]}"
                )
        self.coded_outputs = tuple(coded_outputs)
        for name in self.coded_outputs:
            if name not in self.outputs or name not in self.params:
                raise ValueError(f"coded_outputs must be outputs that have params, got {name!r}")
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        self.manifest = dict(manifest or {})
        self._programs = {}

    _RUN = QuantizedRun

    def _check_params(self, node):
        """Check that the codes of an 8-bit layer have parameters."""
        n_codes = 0 if node.layer.TAKES_REALS else len(node.layer.in_params)
        for name in (*node.inputs[:n_codes], *node.outputs):
            if not isinstance(self.params.get(name), QuantizationParams):
                raise ValueError(
                    f"params must have those of {name!r}, got {self.params.get(name)!r}"
                )

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
        if results is None and ctx is None and len(self.nodes) > len(self._parted.parts):
            run = self._RUN(self, inputs)
            run.parts(self._parted)
            results = [run.output(name, kind) for name in self.outputs]
        if results is None:
            return self._RUN(self, inputs).results(kind, ctx)
        return results[0] if len(results) == 1 else tuple(results)

    __call__ = quantized_forward = forward

    def _run_program(self, inputs, kind):
        """Run the model as a program, and return its results; None if it has none."""
        in_codes = issubclass(kind, QuantizedTensor)
        arrays = self._arrays(inputs)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            return None
        outs = compiled.run(arrays)
        if in_codes:
            return [
                QuantizedTensor(out, self.params[name])
                for out, name in zip(outs, self.outputs, strict=True)
            ]
        return [Tensor(out) for out in outs] if issubclass(kind, Tensor) else outs

    @cached_property
    def _parted(self):
        """The parts in which a model runs that is no program as a whole."""
        return Parts(self)

    def _arrays(self, inputs):
        """Return the inputs as a program takes them: codes or reals, in the layout outside."""
        return [
            codes_in(x, self._params_of(name)) if isinstance(x, QuantizedTensor)
            else self.take(name, x)
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
            Read where they lie, each time it runs: C-ordered. Of an input that comes as codes, an
            array of them.
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
                raise ValueError(
                    "inputs of a bound call must be C-ordered float32 arrays, or of the codes that "
                    "the model takes"
                )
        in_codes = isinstance(inputs[0], QuantizedTensor)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            for _ in self.trace(*inputs):       # which says what is wrong with the inputs
                pass
            raise TypeError("a model that has layers without a kernel of their own cannot be bound")
        return compiled.bound(arrays, n_threads)

    def memory_plan(self, *shapes):
        """Return what a run on inputs of these shapes needs, weights aside.

        Parameters
        ----------
        *shapes : tuple of int
            Of each input, with the batch.

        Returns
        -------
        dict
            ``arena_bytes``, for all results between layers; ``steps``, how many kernel calls.
        """
        kinds = [
            self.input_types[name].dtype if self.comes_as_codes(name) else np.dtype(np.float32)
            for name in self.inputs
        ]
        program = Compiled(self, list(zip(shapes, kinds, strict=True)), False).program
        return {"arena_bytes": program.arena_bytes, "steps": len(program.steps)}

    def comes_as_codes(self, name):
        """Whether an input comes as codes, not as reals: its type says so."""
        kind = self.input_types.get(name)
        return kind is not None and kind.dtype in _validate.Q8_DTYPES and name in self.params

    @property
    def coded_inputs(self):
        """Names of the inputs that only 8-bit layers take: reals are quantized at the door."""
        return tuple(
            name for name in self.inputs
            if name in self.params and name not in self.real_inputs and all(
                isinstance(node.layer, QuantizedLayer) for node in self.consumers(name)
            )
        )

    @property
    def real_inputs(self):
        """Names of the inputs that go in as they are, never as codes: indices of an `Embedding`."""
        return tuple(
            name for name in self.inputs
            if any(node.layer.TAKES_REALS for node in self.consumers(name))
        )

    def __getstate__(self):
        kept = {name: value for name, value in self.__dict__.items() if name != "_parted"}
        return {**kept, "_programs": {}}

    def _shown(self, node, name):
        # Layers that were fused are seen once, under the name of the last: see `Node.covers`.
        return node.covers[-1] if name == node.name else name

    def _params_of(self, name):
        """Return the parameters of an input or an output that is to be codes."""
        if name in self.real_inputs or name not in self.params:
            raise TypeError(f"input {name!r} is of numbers, not of codes")
        return self.params[name]

    def _timed_runs(self, inputs):
        """Return a run that gives the nanoseconds of its parts, one without, and the program."""
        arrays, in_codes = self._arrays(inputs), isinstance(inputs[0], QuantizedTensor)
        compiled = self._compiled(arrays, in_codes)
        if compiled is None:
            return super()._timed_runs(inputs)
        whole = compiled.bound(arrays)
        ends = (*compiled.ends, compiled.ends[-1])      # one more is empty: what the clock costs

        def timed():
            *times, clock = whole.timed(ends)
            return [
                max(0, taken - clock) if end > start else 0
                for taken, start, end in zip(times, (0, *ends), ends, strict=False)
            ]

        return timed, whole, compiled.program

    @property
    def n_conversions(self):
        """How often tensors of float32 become codes in a run, or codes float32, doors included."""
        is_8_bit = {name: self.comes_as_codes(name) for name in self.inputs}
        count = 0
        for node in self.nodes:
            kind = isinstance(node.layer, QuantizedLayer)
            taken = node.inputs[:1] if hasattr(node.layer, "op") else node.inputs
            if not node.layer.TAKES_REALS:
                count += sum(is_8_bit[name] != kind for name in taken if name in self.params)
            is_8_bit.update(dict.fromkeys(node.outputs, kind))
        return count + sum(
            is_8_bit[name] for name in self.outputs if name not in self.coded_outputs
        )

    @property
    def float_nodes(self):
        """Names of the layers that run in float: their bits may differ between machines."""
        return [n.name for n in self.nodes if not isinstance(n.layer, QuantizedLayer)]

    def summary(self):
        """Return a table of the layers as text: 8-bit or float, and why; scale and zero point."""
        rows = [("name", "layer", "bits", "scale", "zero point", "does the work of", "why")]
        why = self.manifest.get("float", {})
        for node in self.nodes:
            params = self.params.get(node.outputs[0])
            kind = getattr(node.layer, "op", type(node.layer).__name__)
            rows.append((
                node.name, kind, "8" if isinstance(node.layer, QuantizedLayer) else "float",
                "" if params is None else f"{params.scale:.6g}",
                "" if params is None else params.zero_point, ", ".join(node.covers),
                why.get(node.name, ""),
            ))
        n = len(self.nodes)
        return (
            f"{table(rows)}\n\n{n - len(self.float_nodes)} of {n} layers in 8 bits, "
            f"{self.n_conversions} conversions between float32 and codes in a run"
        )
