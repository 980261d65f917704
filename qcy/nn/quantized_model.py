"""The 8-bit model: the same graph, integer code from the first layer to the last."""

import numpy as np

from qcy import _validate
from qcy.nn.layers import QuantizedLayer
from qcy.nn.layers.base import codes_in, to_codes, to_reals
from qcy.nn.model import Graph, table
from qcy.primitive.windows import from_nhwc, to_nhwc
from qcy.tensor.generic import Tensor
from qcy.tensor.quantized import QuantizedTensor


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
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)
        self.manifest = dict(manifest or {})

    def forward(self, *inputs, ctx=None):
        """Run the model.

        Parameters
        ----------
        *inputs : QuantizedTensor, Tensor or array
            All of one kind. Reals are quantized at the door; QuantizedTensors are requantized if
            their parameters differ from the model's.
        ctx : Context, optional
            Looked at between layers.

        Returns
        -------
        QuantizedTensor, Tensor or ndarray, or a tuple of them for several outputs
            Of the kind of the first input; reals are float32.

        Raises
        ------
        Cancelled
            If `ctx` says so.
        """
        values = {}
        for _ in self._run(inputs, values, ctx):
            pass
        kind = type(inputs[0])
        results = [self._leave(name, values[name], kind) for name in self.outputs]
        return results[0] if len(results) == 1 else tuple(results)

    __call__ = forward

    def trace(self, *inputs, ctx=None):
        """Run the model and yield ``(name, output)`` of each layer, in reals.

        Layers that were fused yield once, under the name of the last: see `Node.covers`.
        """
        for node, value in self._run(inputs, {}, ctx):
            yield node.covers[-1], self._leave(node.name, value, np.ndarray)

    def _run(self, inputs, values, ctx):
        """Run the layers; yield each node and its output as it is inside: codes or reals."""
        for name, x in self.bind_inputs(inputs).items():
            values[name] = self._enter(name, x)
        for node, dead in zip(self.nodes, self._last_use, strict=True):
            if ctx is not None:
                ctx.check()
            if isinstance(node.layer, QuantizedLayer):
                arrays = [self._as_codes(name, values[name]) for name in node.inputs]
                values[node.name] = node.layer.forward_codes(*arrays)
            else:
                arrays = [self._as_reals(name, values[name]) for name in node.inputs]
                values[node.name] = node.layer._forward(*arrays)
            yield node, values[node.name]
            for name in dead:
                del values[name]

    def _enter(self, name, x):
        """Take an input in: codes, channels last."""
        params = self.params[name]
        if isinstance(x, QuantizedTensor):
            codes = codes_in(x, params)
        else:
            codes = to_codes(_validate.real_array("x", x), params)
        return to_nhwc(codes, self.layout) if codes.ndim == 4 else codes

    def _leave(self, name, value, kind):
        """Let an output out: of the kind of the input, in the layout outside."""
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
