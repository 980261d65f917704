"""8-bit layers as ONNX operators on codes, each in two forms: QDQ and QOperator.

Each function here takes a `Writer`, a layer and the names of its inputs, codes, adds nodes, and
returns the name of its output, codes too. What is between them in a QDQ file are conversions,
which runtimes take together with the operator.
"""

import numpy as np

from qcy.nn.layers import (
    AddQuantized, AvgPool2DQuantized, BatchNormQuantized, ConcatQuantized, ConstantQuantized,
    Conv2DQuantized, DenseQuantized, DropoutQuantized, EmbeddingQuantized, FlattenQuantized,
    GELUQuantized, GlobalAvgPool2DQuantized, IdentityQuantized, MatMulQuantized,
    MaxPool2DQuantized, MulQuantized, OperatorQuantized, QLinearOperator, Quantize, ReLU6Quantized,
    ReLUQuantized, ReshapeQuantized, SigmoidQuantized, SoftmaxQuantized, TableQuantized,
    TanhQuantized,
)
from qcy.nn.onnx.building import CONTRIB
from qcy.nn.onnx.emit import average, emit, indices, parameters, weight_codes, window

#: What writes an 8-bit layer in each form; others compute on numbers between conversions.
WRITE = {"qdq": {}, "qoperator": {}}


def writes(*kinds, forms=("qoperator",)):
    """Enter a function as what writes layers of these kinds, in these forms."""
    def enter(function):
        for form in forms:
            WRITE[form].update(dict.fromkeys(kinds, function))
        return function
    return enter


def write_codes(w, layer, *inputs):
    """Write a layer on codes, in the writer's form."""
    return WRITE[w.form].get(type(layer), by_numbers)(w, layer, *inputs)


def by_numbers(w, layer, *inputs):
    """Write a layer on numbers, between conversions."""
    n = len(layer.in_params)        # further inputs are numbers
    numbers = [w.dequantize(x, p) for x, p in zip(inputs, layer.in_params, strict=False)]
    made = emit(w, layer, *numbers, *inputs[n:])
    if isinstance(made, tuple):
        return tuple(w.quantize(y, layer.out_params) for y in made)
    return w.quantize(w.call(made, w.at), layer.out_params)


def _between_conversions(w, layer):
    """Whether a layer is written between conversions: operators on codes take and give one type."""
    dtypes = {params.dtype for params in (*layer.in_params, layer.out_params)}
    return w.form == "qdq" or len(dtypes) > 1


# ---------------------------------------------------------------------------------------- products


@writes(Conv2DQuantized, forms=WRITE)
def conv(w, layer, x):
    """Convolution: exact sums, one rounding."""
    return _conv(w, layer, x, layer.weight, window(layer))


def _conv(w, layer, x, weight, attributes):
    if _between_conversions(w, layer):
        numbers = w.dequantize(x, layer.in_params[0])
        y = w.node("Conv", [numbers, *parameters(w, layer, 0, weight)], **attributes)
        return w.quantize(w.call(y, w.at), layer.out_params)
    operands = [
        x, *w.scale_and_zero(layer.in_params[0]), *weight_codes(w, layer, weight),
        *w.scale_and_zero(layer.out_params), *_bias(w, layer),
    ]
    return w.node("QLinearConv", operands, **attributes)


def _bias(w, layer):
    return [] if layer.bias is None else [w.constant(layer.bias, "bias")]


@writes(BatchNormQuantized, forms=WRITE)
def batch_norm(w, layer, x):
    """A convolution of each channel, by itself, with one number."""
    rank = w.known_rank(x)
    axis = w.integers([2], "axis")
    x = w.node("Unsqueeze", [x, axis]) if rank == 2 else x
    ones = [1] * (max(rank, 3) - 2)
    n = layer.weight.size
    weight = layer.weight.reshape(n, 1, *ones)
    y = _conv(w, layer, x, weight, {"kernel_shape": ones, "group": n})
    return w.node("Squeeze", [y, axis]) if rank == 2 else y


@writes(DenseQuantized, forms=WRITE)
def dense(w, layer, x):
    """A product of matrices; what has more axes is made one where there is a bias."""
    n_in, n_out = layer.weight.shape
    shape = w.shape(x)
    if layer.bias is None or (shape is not None and len(shape) == 2):
        return _dense(w, layer, x)
    rows = w.node("Reshape", [x, w.integers([-1, n_in], "rows")])
    y = _dense(w, layer, rows)
    if shape is not None and sum(not isinstance(size, int) for size in shape[:-1]) <= 1:
        sizes = [size if isinstance(size, int) else -1 for size in shape[:-1]]
        return w.node("Reshape", [y, w.integers([*sizes, n_out], "shape")])
    sizes = w.node("Shape", [x], end=-1)
    sizes = w.node("Concat", [sizes, w.integers([n_out], "features")], axis=0)
    known = None if shape is None else (*shape[:-1], n_out)
    return w.node("Reshape", [y, sizes], result=(layer.out_params.dtype, known))


def _dense(w, layer, x):
    is_matrix = w.rank(x) == 2
    if _between_conversions(w, layer):
        numbers = w.dequantize(x, layer.in_params[0])
        op = "Gemm" if is_matrix else "MatMul"
        y = w.node(op, [numbers, *parameters(w, layer, 1)])
        return w.quantize(w.call(y, w.at), layer.out_params)
    operands = [x, *w.scale_and_zero(layer.in_params[0]), *weight_codes(w, layer, layer.weight)]
    target = w.scale_and_zero(layer.out_params)
    if layer.bias is None:
        return w.node("QLinearMatMul", [*operands, *target])
    result = layer.out_params.dtype, (w.shape(x)[0], layer.weight.shape[1])
    return w.node(f"{CONTRIB}:QGemm", [*operands, *_bias(w, layer), *target], result=result)


@writes(MatMulQuantized)
def mat_mul(w, layer, a, b):
    """A product of two inputs."""
    if _between_conversions(w, layer):
        return by_numbers(w, layer, a, b)
    left, right = (w.scale_and_zero(params) for params in layer.in_params)
    target = w.scale_and_zero(layer.out_params)
    return w.node("QLinearMatMul", [a, *left, b, *right, *target])


# ------------------------------------------------------------------------------ number by number


@writes(ReLUQuantized, ReLU6Quantized, forms=WRITE)
@writes(IdentityQuantized, DropoutQuantized, forms=WRITE)
def identity(w, layer, x):
    """What comes in; the writer clamps it."""
    return x


@writes(TableQuantized, forms=WRITE)
@writes(SigmoidQuantized, TanhQuantized, GELUQuantized)
def table(w, layer, x):
    """A function of one input as 256 entries, equation (17)."""
    entries = layer.table
    if w.dtype(x) == np.int8:           # negative indices count from the end
        entries = np.roll(entries, 128)
    return w.node("Gather", [w.constant(entries, "table"), w.node("Cast", [x], to=6)])


@writes(Quantize, forms=WRITE)
def quantize(w, layer, x):
    """Reals into codes, equation (4)."""
    return w.to_codes(x, layer.out_params)


@writes(QLinearOperator, forms=WRITE)
def qlinear(w, layer, *inputs):
    """The operator that it is."""
    operands = [
        name for x, params in zip(inputs, layer.in_params, strict=True)
        for name in (x, *w.scale_and_zero(params))
    ]
    operands += w.scale_and_zero(layer.out_params)
    attributes, kind = dict(layer.attributes), layer.op.rpartition("QLinear")[2]
    if kind == "MatMul":
        return w.node(layer.op, operands)
    shape = w.shape(inputs[0])
    if kind != "Softmax" and not attributes.get("channels_last", 0):
        further = {n: v for n, v in attributes.items() if n != "channels_last"}
        shape = w.inferred_shape(kind, inputs, **further)
    elif kind != "Softmax":
        shape = None if shape is None else (None,) * len(shape)
    return w.node(layer.op, operands, result=(layer.out_params.dtype, shape), **attributes)


@writes(ConstantQuantized, forms=WRITE)
def constant(w, layer):
    """An array."""
    return w.constant(layer.codes)


@writes(EmbeddingQuantized, forms=WRITE)
def embedding(w, layer, x):
    """Rows of a table; the input is of indices."""
    codes = w.constant(layer.codes, "codes")
    if w.form == "qoperator":
        return w.node("Gather", [codes, indices(w, x)])
    rows = w.node("Gather", [w.dequantize(codes, layer.out_params), indices(w, x)])
    return w.quantize(w.call(rows, w.at), layer.out_params)


@writes(MaxPool2DQuantized, FlattenQuantized, ReshapeQuantized, OperatorQuantized)
def move(w, layer, *inputs):
    """What does to codes what it does to numbers, equation (14)."""
    op = getattr(layer, "op", "")
    is_between = op == "Resize" and dict(layer.attributes).get("mode", "nearest") != "nearest"
    if op == "GlobalMaxPool" or is_between:     # which is not for codes; which rounds
        return by_numbers(w, layer, *inputs)
    return emit(w, layer, *inputs)


# ---------------------------------------------------------------------- operators of onnxruntime


def _contrib(w, layer, op, inputs, attributes=None, **further):
    """Add the form for codes that onnxruntime has of an operator; `further` are its own attributes.

    It is off by one step at most, where numbers are near a tie.
    """
    if _between_conversions(w, layer):
        return by_numbers(w, layer, *inputs)
    attributes = attributes or {}
    shape = w.inferred_shape(op, inputs, **attributes)
    operands = [
        name for x, params in zip(inputs, layer.in_params, strict=True)
        for name in (x, *w.scale_and_zero(params))
    ]
    target = w.scale_and_zero(layer.out_params)
    places = [*target, *operands] if op == "Concat" else [*operands, *target]
    return w.node(
        f"{CONTRIB}:QLinear{op}", places, result=(layer.out_params.dtype, shape), **attributes,
        **further,
    )


@writes(AddQuantized)
def add(w, layer, a, b):
    """Equation (15)."""
    return _contrib(w, layer, "Add", [a, b])


@writes(MulQuantized)
def mul(w, layer, a, b):
    """Equation (9) of a product of two codes."""
    return _contrib(w, layer, "Mul", [a, b])


@writes(AvgPool2DQuantized)
def avg_pool(w, layer, x):
    """Equation (16)."""
    return _contrib(w, layer, "AveragePool", [x], average(layer))


@writes(GlobalAvgPool2DQuantized)
def global_avg_pool(w, layer, x):
    """Equation (16)."""
    return _contrib(w, layer, "GlobalAveragePool", [x])


@writes(SoftmaxQuantized)
def softmax(w, layer, x):
    """Equation (18)."""
    return _contrib(w, layer, "Softmax", [x], {"axis": layer.axis}, opset=13)


@writes(ConcatQuantized)
def concat(w, layer, *inputs):
    """Codes of the same parameters side by side; others are requantized, equation (21)."""
    if all(params == layer.out_params for params in layer.in_params):
        return emit(w, layer, *inputs)
    return _contrib(w, layer, "Concat", inputs, {"axis": layer.axis})
