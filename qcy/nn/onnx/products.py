"""Products of codes, with the file's own codes for weights.

Each function here takes a `CodeBuilder`, a node, the output's parameters, a fused activation and
the node that adds a bias, or None. It adds the layers, and returns whether the activation is among
them; or it raises an error that says what does not fit.
"""

import numpy as np

from qcy.nn.layers import (
    Conv2DQuantized, ConvTranspose2DQuantized, DenseQuantized, MatMulQuantized, Operator,
    QLinearOperator,
)
from qcy.nn.layers.weights import MAX_BIAS
from qcy.nn.onnx.layers import flat, window

PRODUCTS = {}
#: The largest share of an output's step that rounding a bias of reals may make.
LARGEST_ROUNDING = 2.0**-5


def _product(op):
    def enter(function):
        PRODUCTS[op] = function
        return function
    return enter


@_product("Conv")
def conv(builder, node, params, activation, _):
    """Convolution of images and of sequences."""
    weight = builder.constants[node.inputs[1]]
    scale, zero_point = weight.per_channel(0)
    bias = bias_codes(builder, node, 2, scale, len(weight.codes), params)
    return add_conv(builder, node, weight.codes, scale, zero_point, bias, params, activation)


def add_conv(builder, node, weight, scale, zero_point, bias, params, activation=None):
    """Add a convolution with a weight in codes."""
    settings = _settings(builder, node, weight)
    return _add(
        builder, node, Conv2DQuantized, weight, (scale, bias, zero_point), params, settings,
        activation,
    )


@_product("ConvTranspose")
def conv_transpose(builder, node, params, activation, _):
    """Transposed convolution of images and of sequences."""
    weight = builder.constants[node.inputs[1]]
    groups = node.attributes.get("group", 1)
    scale, zero_point = weight.per_channel(1, groups)
    if "output_shape" in node.attributes or (
        node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        raise ValueError("the padding must be known")
    n_axes = weight.codes.ndim - 2
    bias = bias_codes(builder, node, 2, scale, weight.codes.shape[1] * groups, params)
    settings = _settings(builder, node, weight.codes)
    settings["output_padding"] = node.attributes.get("output_padding", (0,) * n_axes)
    return _add(
        builder, node, ConvTranspose2DQuantized, weight.codes, (scale, bias, zero_point), params,
        settings, activation,
    )


def _settings(builder, node, weight):
    """Return how a convolution's kernel goes over images or sequences."""
    if weight.ndim not in (3, 4):
        raise ValueError(f"weight must have 3 or 4 dimensions, got shape {weight.shape}")
    settings = window(builder, node, weight.shape[2:])
    if settings is None:
        raise ValueError("the padding must be known")
    return settings


def _add(builder, node, kind, weight, parts, params, settings, activation):
    """Add a convolution; of sequences, as of images of one row."""
    scale, bias, zero_point = parts
    source = builder.params_of(node.inputs[0])
    is_flat = weight.ndim == 3
    layer = kind(
        weight[:, :, None] if is_flat else weight, scale, bias, source, params,
        weight_zero_point=zero_point, groups=node.attributes.get("group", 1),
        activation=activation, layout="NHWC", **(flat(settings) if is_flat else settings),
    )
    before = after = None
    if is_flat:
        rows = {1: np.array([2])}
        before = Operator("Unsqueeze", constants=rows).quantized(source, None)
        after = Operator("Squeeze", constants=rows).quantized(params, None)
    return builder.add_codes(node, layer, [builder.tensor(node.inputs[0])], before, after)


@_product("Gemm")
def gemm(builder, node, params, activation, _):
    """A dense layer."""
    attributes = node.attributes
    if attributes.get("alpha", 1.0) != 1 or attributes.get("transA", 0) or (
        attributes.get("beta", 1.0) != 1 and len(node.inputs) > 2
    ):
        raise ValueError("alpha and beta must be 1, and A not transposed")
    weight = builder.constants[node.inputs[1]]
    is_turned = bool(attributes.get("transB", 0))
    scale, zero_point = weight.per_channel(0 if is_turned else 1)
    codes = weight.codes.T if is_turned else weight.codes
    bias = bias_codes(builder, node, 2, scale, codes.shape[1], params)
    return add_dense(builder, node, codes, scale, zero_point, bias, params, activation)


@_product("MatMul")
def mat_mul(builder, node, params, activation, added):
    """A dense layer, if the right operand is a constant matrix; or a product of two tensors."""
    weight = builder.constants.get(node.inputs[1])
    if weight is None or weight.codes.ndim != 2:
        if added is not None:
            raise ValueError("a product of two tensors has no bias")
        given = [builder.tensor(name) for name in node.inputs]
        builder.add_codes(node, product_of_two(builder, node.inputs, given, params), given)
        return False
    scale, zero_point = weight.per_channel(1)
    bias = None
    if added is not None:
        place = next(i for i, name in enumerate(added.inputs) if name != node.outputs[0])
        bias = bias_codes(builder, added, place, scale, weight.codes.shape[1], params,
                          builder.params_of(node.inputs[0]))
    return add_dense(builder, node, weight.codes, scale, zero_point, bias, params, activation)


def product_of_two(builder, names, tensors, params):
    """Return the layer that multiplies two tensors of codes, `names` of the graph."""
    in_params = [builder.params[name] for name in tensors]
    if all((builder.rank(name) or 0) >= 2 for name in names):
        return MatMulQuantized(in_params, params)
    return QLinearOperator(in_params, params, "QLinearMatMul")


def add_dense(builder, node, weight, scale, zero_point, bias, params, activation=None):
    """Add a dense layer with a weight in codes."""
    layer = DenseQuantized(
        weight, scale, bias, builder.params_of(node.inputs[0]), params,
        weight_zero_point=zero_point, activation=activation,
    )
    return builder.add_codes(node, layer, [builder.tensor(node.inputs[0])])


def bias_codes(builder, node, place, scale, n_out, params, source=None):
    """Return a bias in units of the product's sums, int32, or None if there is none.

    Codes in these units are the file's own. Reals become codes if what that rounds is far below a
    step of the output.
    """
    name = node.inputs[place] if place < len(node.inputs) else ""
    if not name:
        return None
    source = source or builder.params_of(node.inputs[0])
    units = np.float64(source.scale) * scale.astype(np.float64)
    constant = builder.constants.get(name)
    if constant is not None and constant.codes.dtype == np.int32 and not (
        constant.zero_point.any()
    ) and np.allclose(constant.scale, units, rtol=1e-6, atol=0):
        return _row(constant.codes, n_out)
    reals = builder.graph.constants.get(name)
    reals = constant.reals(builder.graph) if constant is not None else reals
    if reals is None or reals.dtype != np.float32:
        raise ValueError("the bias must be constant")
    codes = np.rint(_row(reals, n_out).astype(np.float64) / units)
    if np.abs(codes).max(initial=0) > MAX_BIAS:
        raise ValueError("the bias must fit beside the sums")
    if 0.5 * units.max(initial=0) / params.scale > LARGEST_ROUNDING:
        raise ValueError("the bias must be rounded less than a step of the output")
    return codes.astype(np.int32)


def _row(array, n_out):
    """Return one number for each output channel."""
    if array.size not in (1, n_out) or (array.size > 1 and array.shape[-1] != array.size):
        raise ValueError(f"the bias must be one row of {n_out} numbers, got shape {array.shape}")
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (n_out,)))
