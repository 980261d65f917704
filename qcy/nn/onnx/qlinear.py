"""Operators that take codes and give codes, as layers: QLinearConv and its kind, clamps, tables.

Each function here takes a `CodeBuilder` and a node, adds the layers that do its work, and returns
whether it could.
"""

import numpy as np

from qcy.nn.layers import (
    AddQuantized, AvgPool2D, Concat, ConcatQuantized, EmbeddingQuantized, GlobalAvgPool2D,
    MulQuantized, Operator, QLinearOperator, ReLUQuantized, Sigmoid, SoftmaxQuantized,
    TableQuantized,
)
from qcy.nn.layers.base import to_reals
from qcy.nn.onnx.coded import stated
from qcy.nn.onnx.products import add_conv, add_dense, product_of_two
from qcy.nn.onnx.reader import OnnxNode
from qcy.nn.onnx.twins import all_codes, exact_table
from qcy.primitive import softmax_table
from qcy.tensor.tables import sigmoid_params

QLINEAR = {}
#: Where each operator has its operands, each with a scale and a zero point after it, and where the
#: scale and the zero point of its output are.
_PLACES = {
    "QLinearConv": ((0, 3), 6), "QLinearMatMul": ((0, 3), 6), "com.microsoft:QGemm": ((0, 3), 7),
    "com.microsoft:QLinearAdd": ((0, 3), 6), "com.microsoft:QLinearMul": ((0, 3), 6),
    **dict.fromkeys((
        "com.microsoft:QLinearSigmoid", "com.microsoft:QLinearLeakyRelu",
        "com.microsoft:QLinearSoftmax", "com.microsoft:QLinearAveragePool",
        "com.microsoft:QLinearGlobalAveragePool",
    ), ((0,), 3)),
}


def _lowers(*ops):
    """Enter a function as what lowers operators; its outputs become codes."""
    def enter(function):
        def lower(builder, node):
            if not function(builder, node):
                return False
            builder.codes.add(node.outputs[0])
            return True

        QLINEAR.update(dict.fromkeys(ops, lower))
        return function
    return enter


def _operands(node):
    """Return the places of a node's operands."""
    if node.op == "com.microsoft:QLinearConcat":
        return range(2, len(node.inputs), 3)
    return _PLACES[node.op][0] if node.op in _PLACES else ()


def _stated(builder, node, place, dtype=None):
    """Return the parameters that are stated from a place on."""
    scale, zero_point = [*node.inputs, "", ""][place : place + 2]
    return stated(builder.graph, scale, zero_point, dtype)


def stated_of(builder, node, name):
    """Return what a node says of the codes `name` that it takes, or None."""
    for place in _operands(node):
        if node.inputs[place] == name:
            return _stated(builder, node, place + 1)
    return None


def _operand(builder, node, place):
    """Return an operand's name in the model, and its parameters; a constant is added."""
    name = node.inputs[place]
    constant = builder.graph.constants.get(name)
    dtype = None if constant is None else constant.dtype
    params = _stated(builder, node, place + 1, dtype)
    if params is None:
        raise ValueError(f"input {place} must have one constant scale and zero point")
    if constant is not None:
        return builder.constant_codes(name, constant, params), params
    if name not in builder.codes or builder.params_of(name) != params:
        raise ValueError(f"input {place} must be the codes that it is said to be")
    return builder.tensor(name), params


def _target(builder, node, source):
    """Return the parameters of a node's output."""
    params = _stated(builder, node, _PLACES[node.op][1], source.dtype)
    if params is None:
        raise ValueError("the output must have one constant scale and zero point")
    return params


def _weight(builder, node, n_out):
    """Return scale and zero point of a constant weight: one, or one per output channel."""
    found = [builder.graph.constants.get(name) for name in node.inputs[4:6]]
    scale, zero_point = found
    if scale is None or zero_point is None or scale.dtype != np.float32:
        raise ValueError("the weight must have a constant scale and zero point")
    for array in found:
        if array.size not in (1, n_out) or (array.ndim > 1 and array.shape[-1] != array.size):
            raise ValueError(f"the weight must have {n_out} scales and zero points")
    return tuple(x.reshape(()) if x.size == 1 else x.reshape(-1) for x in (
        scale, zero_point.astype(np.int32)
    ))


@_lowers("QLinearConv")
def conv(builder, node):
    """Convolution with constant weights."""
    _, source = _operand(builder, node, 0)
    weight, bias = builder.graph.constants.get(node.inputs[3]), None
    if weight is None:
        return False
    if len(node.inputs) > 8 and node.inputs[8]:
        bias = builder.graph.constants[node.inputs[8]]
    scale, zero_point = _weight(builder, node, len(weight))
    return add_conv(
        builder, node, weight, scale, zero_point, bias, _target(builder, node, source)
    )


@_lowers("QLinearMatMul")
def mat_mul(builder, node):
    """A dense layer, if the right operand is a constant matrix; or a product of two tensors."""
    weight = builder.graph.constants.get(node.inputs[3])
    if weight is None or weight.ndim != 2 or node.inputs[0] in builder.graph.constants:
        return _by_itself(builder, node)
    _, source = _operand(builder, node, 0)
    scale, zero_point = _weight(builder, node, weight.shape[1])
    return add_dense(
        builder, node, weight, scale, zero_point, None, _target(builder, node, source)
    )


@_lowers("com.microsoft:QGemm")
def gemm(builder, node):
    """A dense layer."""
    weight = builder.graph.constants.get(node.inputs[3])
    attributes = node.attributes
    if weight is None or attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1:
        return False
    _, source = _operand(builder, node, 0)
    weight = weight.T if attributes.get("transB", 0) else weight
    n_out, bias = weight.shape[1], None
    if len(node.inputs) > 6 and node.inputs[6]:
        bias = builder.graph.constants[node.inputs[6]]
        if bias.size not in (1, n_out) or (bias.size > 1 and bias.shape[-1] != n_out):
            return False
        bias = np.broadcast_to(bias.reshape(-1), (n_out,))
    if len(node.inputs) < 9 or not node.inputs[7]:      # reals come out
        return False
    scale, zero_point = _weight(builder, node, n_out)
    return add_dense(
        builder, node, weight, scale, zero_point, bias, _target(builder, node, source)
    )


@_lowers("com.microsoft:QLinearAdd", "com.microsoft:QLinearMul")
def pair(builder, node):
    """Sums and products, element by element."""
    operands = [_operand(builder, node, place) for place in (0, 3)]
    params = [source for _, source in operands]
    kind = AddQuantized if node.op.endswith("Add") else MulQuantized
    layer = kind(params, _target(builder, node, params[0]))
    return builder.add_codes(node, layer, [name for name, _ in operands])


@_lowers("com.microsoft:QLinearSigmoid")
def sigmoid(builder, node):
    """Sigmoid by a table."""
    name, source = _operand(builder, node, 0)
    target = _target(builder, node, source)
    return builder.add_codes(node, Sigmoid().quantized(source, target), [name])


@_lowers("com.microsoft:QLinearLeakyRelu")
def leaky_relu(builder, node):
    """LeakyRelu by a table."""
    name, source = _operand(builder, node, 0)
    target = _target(builder, node, source)
    table = exact_table(Operator("LeakyRelu", node.attributes), source, target)
    return builder.add_codes(node, TableQuantized(table, source, target), [name])


@_lowers("com.microsoft:QLinearSoftmax")
def softmax(builder, node):
    """Softmax over one axis."""
    name, source = _operand(builder, node, 0)
    target, rank = _target(builder, node, source), builder.rank(node.inputs[0])
    axis = node.attributes.get("axis", -1)
    is_one = node.attributes.get("opset", 13) >= 13 or (
        rank is not None and axis % rank == rank - 1
    )
    if target != sigmoid_params(target.dtype) or not is_one or not -4 <= axis <= 3:
        return _by_itself(builder, node)
    layer = SoftmaxQuantized(
        softmax_table(source.scale), source, target, axis=axis, layout="NHWC"
    )
    return builder.add_codes(node, layer, [name])


@_lowers("com.microsoft:QLinearConcat")
def concat(builder, node):
    """Codes side by side, brought to the output's parameters."""
    target = stated(builder.graph, *node.inputs[:2])
    operands = [_operand(builder, node, place) for place in _operands(node)]
    axis = node.attributes["axis"]
    if target is None or not -4 <= axis <= 3:
        return False
    params = [source for _, source in operands]
    tables = np.stack([exact_table(None, source, target) for source in params])
    layer = ConcatQuantized(tables, params, target, axis=axis, layout="NHWC")
    return builder.add_codes(node, layer, [name for name, _ in operands])


@_lowers("com.microsoft:QLinearAveragePool", "com.microsoft:QLinearGlobalAveragePool")
def average_pool(builder, node):
    """The mean of windows, or of whole channels."""
    name, source = _operand(builder, node, 0)
    target = _target(builder, node, source)
    attributes = {k: v for k, v in node.attributes.items() if k != "channels_last"}
    if node.attributes.get("channels_last", 0):
        return _by_itself(builder, node)
    if node.op.endswith("GlobalAveragePool"):
        if builder.rank(node.inputs[0]) != 4:
            return _by_itself(builder, node)
        layer = GlobalAvgPool2D()
    else:
        layer = builder.layer_of(
            OnnxNode("AveragePool", node.name, node.inputs[:1], node.outputs, attributes)
        )
    if type(layer) not in (AvgPool2D, GlobalAvgPool2D):
        return _by_itself(builder, node)
    twin = layer.with_layout("NHWC").quantized(source, target)
    return builder.add_codes(node, twin, [name])


# ------------------------------------------------------------------ operators on codes themselves


@_lowers("Clip")
def clip(builder, node):
    """Codes clamped."""
    params = builder.params_of(node.inputs[0])
    limits = [params.qmin, params.qmax]
    for i, name in enumerate(node.inputs[1:]):
        if name:
            limits[i] = int(builder.graph.constants[name].reshape(()))
    layer = ReLUQuantized(params, params)
    if limits != [params.zero_point, params.qmax]:
        table = np.clip(all_codes(params), *limits)
        layer = TableQuantized(table, params, params)
    return builder.add_codes(node, layer, [builder.tensor(node.inputs[0])])


@_lowers("Concat")
def beside(builder, node):
    """Codes that mean the same, side by side."""
    params = [builder.params_of(name) for name in node.inputs]
    axis = node.attributes["axis"]
    if any(other != params[0] for other in params) or not -4 <= axis <= 3:
        return False
    layer = Concat(axis, layout="NHWC").quantized(params, params[0])
    return builder.add_codes(node, layer, [builder.tensor(name) for name in node.inputs])


@_lowers("Cast")
def look_up(builder, node):
    """Entries of a constant table by codes, which are its indices; negative ones from the end."""
    taker = builder.only_taker(node.outputs[0], "Gather")
    table = None if taker is None else builder.graph.constants.get(taker.inputs[0])
    if table is None or table.shape != (256,) or taker.attributes.get("axis", 0) or (
        node.attributes["to"] not in (6, 7)         # int32, int64
    ):
        return False
    source = builder.params_of(node.inputs[0])
    target = builder.stated_by_takers(taker.outputs[0])
    if target is None or target.dtype != table.dtype:
        return False
    entries = table[all_codes(source).astype(np.int64)]
    builder.add_codes(
        taker, TableQuantized(entries, source, target), [builder.tensor(node.inputs[0])]
    )
    builder.codes.add(taker.outputs[0])
    builder.done.add(id(taker))
    return True


def rows(builder, node):
    """Rows of a constant table of codes, or of the reals they stand for, by their numbers."""
    table, indices = node.inputs
    if table in builder.constants:
        codes, params = builder.constants[table].codes, builder.constants[table].params
        kind = builder.reals
    elif table in builder.graph.constants:
        codes = builder.graph.constants[table]
        params, kind = builder.stated_by_takers(node.outputs[0]), builder.codes
    else:
        return False
    rank = builder.rank(indices)
    if params is None or params.dtype != codes.dtype or node.attributes.get("axis", 0) or (
        indices in builder.codes or rank is None or rank > 2
    ):
        return False
    builder.add_codes(node, EmbeddingQuantized(codes, params, params), [builder.tensor(indices)])
    kind.add(node.outputs[0])
    return True


@_lowers("Pad")
def pad(builder, node):
    """Codes added around; what is filled up with is one, and a layer takes its number."""
    value = builder.graph.constants[node.inputs[2]] if node.inputs[2] else None
    params = builder.params_of(node.inputs[0])
    codes = np.zeros((), params.dtype) if value is None else value.reshape(())
    name = f"{node.name}/real"
    builder.graph.constants[name] = to_reals(codes, params)
    inputs = [*node.inputs[:2], name, *node.inputs[3:]]
    return builder.moved(
        OnnxNode("Pad", node.name, inputs, node.outputs, node.attributes, node.covers), ()
    )


def _by_itself(builder, node):
    """Add an operator on codes that no other layer covers."""
    operands = [_operand(builder, node, place) for place in _operands(node)]
    params = [source for _, source in operands]
    names, target = [name for name, _ in operands], _target(builder, node, params[0])
    if node.op == "QLinearMatMul":
        layer = product_of_two(builder, [node.inputs[0], node.inputs[3]], names, target)
    else:
        layer = QLinearOperator(params, target, node.op, node.attributes)
    return builder.add_codes(node, layer, names)
