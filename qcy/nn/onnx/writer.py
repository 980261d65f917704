"""Models as ONNX files: float, QDQ or QOperator.

A layer's tensors are numbers or codes, and images channels first, as ONNX wants them, or as they
are outside; they are converted where a layer wants something else.
"""

import numpy as np

from qcy import _validate
from qcy.nn import storage
from qcy.nn.layers import (
    ConstantQuantized, EmbeddingQuantized, Quantize, QuantizedLayer, ReLU, ReLU6, ReLU6Quantized,
    ReLUQuantized, SoftmaxQuantized, TableQuantized,
)
from qcy.nn.layers.base import activation_clamp
from qcy.nn.onnx.building import Building
from qcy.nn.onnx.emit import emit
from qcy.nn.onnx.emit_codes import write_codes
from qcy.nn.onnx.inputs import input_types
from qcy.nn.quantized_model import QuantizedModel

FORMATS = ("onnx", "qdq", "qoperator")
#: Bytes that one file can hold.
MOST_BYTES = 2**31 - 1
#: 8-bit layers whose codes are in their range already.
_IN_RANGE = (ConstantQuantized, EmbeddingQuantized, Quantize, SoftmaxQuantized, TableQuantized)
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def save(model, path, format=None, *, input_shapes=None):
    """Write a model to an ONNX file, atomically; see `to_onnx`."""
    made = to_onnx(model, format, input_shapes=input_shapes)
    if made.ByteSize() > MOST_BYTES:
        raise ValueError(f"an ONNX file holds up to {MOST_BYTES} bytes, got {made.ByteSize()}")
    storage.write_whole(path, made.SerializeToString())


def to_onnx(model, format=None, *, input_shapes=None):
    """Return a model as ONNX has it.

    Parameters
    ----------
    model : Model or QuantizedModel
    format : {"onnx", "qdq", "qoperator"}, optional
        Of an 8-bit model: "qdq", the default, has operators on numbers between QuantizeLinear and
        DequantizeLinear; "qoperator" has operators on codes, some of them onnxruntime's own. A
        float model has only "onnx".
    input_shapes : mapping of str to shape, or a shape, optional
        Of inputs, with the batch, for those of which nothing else tells the shape; a name or None
        is an axis of any length. A shape by itself is of the only input.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    TypeError
        If a layer has no ONNX form; the message names it.
    ValueError
        If the format does not fit the model, or the number of an input's axes is not known.
    """
    format = _validate.choice("format", "onnx" if format is None else format, FORMATS)
    is_8_bit = isinstance(model, QuantizedModel)
    if not is_8_bit and format != "onnx":
        raise ValueError(f'a float model has the format "onnx" alone, got format={format!r}')
    form = "qdq" if is_8_bit and format == "onnx" else format
    return Writer(model, form, input_shapes).write()


class Writer(Building):
    """Writes one model.

    Attributes
    ----------
    model : Model or QuantizedModel
    form : {"onnx", "qdq", "qoperator"}
    tensors : dict of str to dict
        What there is of each of the model's tensors: names in the file, by whether it is codes, and
        whether images that are channels last outside are turned to channels first.
    """

    def __init__(self, model, form, input_shapes=None):
        super().__init__((*model.inputs, *model.output_names))
        self.model, self.form = model, form
        self.is_8_bit = isinstance(model, QuantizedModel)
        self.tensors = {}
        self._numbers = {}
        for name, kind in input_types(model, input_shapes).items():
            self.at = name
            self.input(name, kind.dtype, kind.shape)
            self.tensors[name] = {(False, False): name}
            if self.is_8_bit and model.comes_as_codes(name):
                self.tensors[name] = {(True, False): name}
            elif self.is_8_bit and name in model.coded_inputs:
                self.tensors[name] = {(True, False): self.to_codes(name, model.params[name])}

    def write(self):
        """Return the whole model."""
        for node in self.model.nodes:
            self.at = node.name
            try:
                self.layer(node)
            except (TypeError, ValueError) as error:
                raise type(error)(f"layer {node.name!r}: {error}") from error
        self.at = "outputs"
        coded = self.model.coded_outputs if self.is_8_bit else ()
        found = [self.tensor(name, name in coded) for name in self.model.outputs]
        return self.proto(found, self.model.output_names)

    def layer(self, node):
        """Add the operators of one layer."""
        layer = node.layer
        is_8_bit = isinstance(layer, QuantizedLayer)
        turned = self.wants_turned(node)
        in_params = layer.in_params if is_8_bit and not layer.TAKES_REALS else ()
        inputs = [
            self.tensor(name, i < len(in_params), turned) for i, name in enumerate(node.inputs)
        ]
        if is_8_bit:
            self.check_params(node.inputs, in_params)
            self.check_params(node.outputs, [layer.out_params] * layer.n_outputs)
            made = write_codes(self, layer, *inputs)
        else:
            made = emit(self, layer, *inputs)
        made = made if isinstance(made, tuple) else (made,)
        for name, tensor in zip(node.outputs, made, strict=True):
            if tensor not in inputs:
                tensor = self.call(tensor, name)
            if is_8_bit:
                tensor = self.clamped(tensor, layer)
            elif getattr(layer, "activation", None) is not None:
                tensor = emit(self, ReLU() if layer.activation == "relu" else ReLU6(), tensor)
            self.tensors[name] = {(is_8_bit, turned and self.rank(tensor) == 4): tensor}

    def check_params(self, names, params):
        """Check that a layer's codes mean what the model's do."""
        for name, wanted in zip(names, params, strict=False):
            if self.model.params[name] != wanted:
                raise ValueError(
                    f"params of {name!r} must be the layer's, {wanted}, got "
                    f"{self.model.params[name]}"
                )

    # ------------------------------------------------------------------------------------- tensors

    def tensor(self, name, in_codes=False, turned=False):
        """Return a tensor of the model as codes or as numbers, in one of both orders."""
        made = self.tensors[name]
        key = in_codes, turned and self.rank(next(iter(made.values()))) == 4
        if key not in made:
            made[key] = self._converted(name, *key)
        return made[key]

    def _converted(self, name, in_codes, turned):
        made = self.tensors[name]
        if (in_codes, not turned) in made:
            perm = _TO_FIRST if turned else _TO_LAST
            return self.node("Transpose", [made[in_codes, not turned]], perm=perm)
        other = self.tensor(name, not in_codes, turned)
        if not in_codes:
            return self.dequantize(other, self.model.params[name])
        if self.dtype(other) != np.float32:
            return other
        return self.to_codes(other, self.model.params[name])

    def wants_turned(self, node):
        """Whether a layer takes images that are channels last outside as channels first."""
        order = node.layer.order
        if order == "NCHW" and not self.is_8_bit:
            return False
        if order in ("NCHW", "NHWC"):
            return not self.is_8_bit or self.model.layout == "NHWC"
        if order == "outside":
            return False
        there = [self.tensors[name] for name in node.inputs]
        ranks = {self.rank(next(iter(made.values()))) for made in there}
        if len(ranks) > 1:              # axes broadcast in the order that they have outside
            return False
        return any(turned for made in there for _, turned in made)

    # --------------------------------------------------------------------------------- conversions

    def integers(self, values, name):
        """Add a constant row of int64, and return its name."""
        return self.constant(np.array(values, np.int64), name)

    def scale_and_zero(self, params):
        """Return the names of a scale and a zero point."""
        zero = np.array(params.zero_point, params.dtype)
        return self.constant(params.scale, "scale"), self.constant(zero, "zero_point")

    def quantize(self, x, params):
        """Add what makes codes of numbers."""
        return self.node("QuantizeLinear", [x, *self.scale_and_zero(params)])

    def dequantize(self, codes, params):
        """Add what makes numbers of codes, if it is not there."""
        if codes not in self._numbers:
            inputs = [codes, *self.scale_and_zero(params)]
            self._numbers[codes] = self.node("DequantizeLinear", inputs)
        return self._numbers[codes]

    def to_codes(self, x, params):
        """Add what makes codes of numbers, none of them below the smallest of a narrow range."""
        if params.narrow_range:
            x = self.clip(x, params.scale * np.float32(params.qmin - params.zero_point), None)
        return self.quantize(x, params)

    def clamped(self, codes, layer):
        """Return codes, those of a fused activation or of a narrow range clamped, exactly."""
        params, limits = layer.out_params, np.iinfo(layer.out_params.dtype)
        activation = getattr(layer, "activation", None)
        if isinstance(layer, ReLUQuantized):
            activation = "relu6" if isinstance(layer, ReLU6Quantized) else "relu"
        elif layer.KEEPS_PARAMS or isinstance(layer, _IN_RANGE):
            return codes
        low, high = activation_clamp(activation, params)
        ends = [low if low > limits.min else None, high if high < limits.max else None]
        if ends == [None, None]:
            return codes
        if self.form == "qoperator":
            return self.clip(codes, *ends)
        numbers = self.dequantize(codes, params)
        if ends == [params.zero_point, None]:
            return self.quantize(self.node("Relu", [numbers]), params)
        steps = [None if end is None else np.float32(end - params.zero_point) for end in ends]
        ends = [None if step is None else params.scale * step for step in steps]
        return self.quantize(self.clip(numbers, *ends), params)

    def clip(self, x, low, high):
        """Add limits to numbers or codes; None is none."""
        to_type = self.dtype(x).type
        ends = ["" if end is None else self.constant(to_type(end), "limit") for end in (low, high)]
        return self.node("Clip", [x, *ends])
