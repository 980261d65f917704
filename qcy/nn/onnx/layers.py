"""Which layer an ONNX operator becomes, where one fits; others stay operators.

Each function here takes a `Builder` and a node, and returns whether it added what does its work.
"""

import numpy as np

from qcy.nn.layers import (
    GELU, Add, Attention, AvgPool2D, BatchNorm, Concat, Conv2D, ConvTranspose2D, Dense, Embedding,
    Flatten, GlobalAvgPool2D, LayerNorm, MatMul, Maximum, MaxPool2D, Mean, Mul, Operator, PReLU,
    ReLU, ReLU6, Recurrent, Sigmoid, Softmax, Sub, Tanh,
)
from qcy.primitive.move import MOST_ROWS

TRANSLATE = {}
#: Layers of two inputs, by operators.
PAIRS = {"Add": Add, "Max": Maximum, "Mul": Mul, "Sub": Sub, "Sum": Add}


def translates(*ops):
    """Enter a function as the translator of operators."""
    def enter(function):
        TRANSLATE.update(dict.fromkeys(ops, function))
        return function
    return enter


@translates("Conv")
def conv(builder, node):
    """Convolution with constant weights, of images and of sequences."""
    weight = builder.constant(node.inputs[1], np.float32)
    bias = _optional(builder, node, 2)
    if weight is None or weight.ndim not in (3, 4) or bias is False:
        return False
    settings = window(builder, node, weight.shape[2:])
    if settings is None:
        return False
    groups = node.attributes.get("group", 1)
    if weight.ndim == 4:
        return builder.add(node, Conv2D(weight, bias, groups=groups, **settings))
    return _as_image(
        builder, node, Conv2D(weight[:, :, None], bias, groups=groups, **flat(settings))
    )


@translates("ConvTranspose")
def conv_transpose(builder, node):
    """Transposed convolution with constant weights."""
    weight = builder.constant(node.inputs[1], np.float32)
    bias = _optional(builder, node, 2)
    if weight is None or weight.ndim not in (3, 4) or bias is False or (
        "output_shape" in node.attributes
        or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        return False
    settings = window(builder, node, weight.shape[2:])
    settings["output_padding"] = node.attributes.get("output_padding", (0,) * (weight.ndim - 2))
    groups = node.attributes.get("group", 1)
    if weight.ndim == 4:
        return builder.add(node, ConvTranspose2D(weight, bias, groups=groups, **settings))
    return _as_image(
        builder, node, ConvTranspose2D(weight[:, :, None], bias, groups=groups, **flat(settings))
    )


def _as_image(builder, node, layer):
    """Add a layer for images to sequences (B, C, L), as images of one row."""
    axis = {1: np.array([2])}
    return builder.add_between(
        node, Operator("Unsqueeze", constants=axis), layer, Operator("Squeeze", constants=axis)
    )


def flat(settings):
    """Return the settings of a window in one dimension for images of one row."""
    flat = {name: (1, *value) for name, value in settings.items() if name in ("stride", "dilation")}
    if "output_padding" in settings:
        flat["output_padding"] = (0, *settings["output_padding"])
    left, right = settings["padding"]
    return flat | {"padding": (0, left, 0, right)}


def _optional(builder, node, place):
    """Return an input that must be constant, None if it is left out, False if it is no constant."""
    if len(node.inputs) <= place or not node.inputs[place]:
        return None
    value = builder.constant(node.inputs[place], np.float32)
    return False if value is None else value


def window(builder, node, kernel):
    """Return stride, dilation and padding, or None if they depend on the size of what comes."""
    n = len(kernel)
    stride = node.attributes.get("strides", (1,) * n)
    dilation = node.attributes.get("dilations", (1,) * n)
    if len(stride) != n or len(dilation) != n:
        raise ValueError(f"strides and dilations must have {n} numbers, got {stride}, {dilation}")
    mode = node.attributes.get("auto_pad", "NOTSET")
    padding = node.attributes.get("pads", (0,) * 2 * n) if mode == "NOTSET" else (0,) * 2 * n
    if len(padding) != 2 * n or min(padding) < 0:
        return None
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = builder.graph.shape(node.inputs[0])
        sizes = (None,) * n if shape is None else shape[2:]
        padding = _same_padding(sizes, kernel, stride, dilation, mode == "SAME_UPPER")
    if padding is None:
        return None
    return {"stride": stride, "dilation": dilation, "padding": padding}


def _same_padding(sizes, kernel, stride, dilation, is_upper):
    """Return padding such that the output is the input's size by the stride, rounded up."""
    before, after = [], []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = d * (k - 1) + 1
        if s == 1:
            total = reach - 1
        elif isinstance(size, int):
            total = max(0, (-(-size // s) - 1) * s + reach - size)
        else:
            return None
        small, large = total // 2, total - total // 2
        before.append(small if is_upper else large)
        after.append(large if is_upper else small)
    return (*before, *after)


@translates("Gemm")
def gemm(builder, node):
    """A dense layer, where the right operand is constant."""
    weight = builder.constant(node.inputs[1], np.float32)
    bias = _optional(builder, node, 2)
    if weight is None or weight.ndim != 2 or bias is False or node.attributes.get("transA", 0):
        return False
    weight = weight.T if node.attributes.get("transB", 0) else weight
    weight = weight * np.float32(node.attributes.get("alpha", 1.0))
    if bias is not None:
        bias = bias * np.float32(node.attributes.get("beta", 1.0))
        if bias.size not in (1, weight.shape[1]) or bias.shape[:-1].count(1) < bias.ndim - 1:
            return False
        bias = np.broadcast_to(bias.reshape(-1), (weight.shape[1],))
    return builder.add(node, Dense(weight, bias))


@translates("MatMul")
def mat_mul(builder, node):
    """A dense layer, where the right operand is constant; a third input is a bias."""
    weight = builder.constant(node.inputs[1], np.float32)
    if weight is None and all(
        builder.is_float(name) and (builder.rank(name) or 0) >= 2 for name in node.inputs
    ):
        return builder.add(node, MatMul(), node.inputs)
    if weight is None or weight.ndim != 2:
        return False
    return builder.add(node, Dense(weight, _optional(builder, node, 2)))


@translates("qcy:Attention")
def attention(builder, node):
    """Softmax of a product, times another."""
    layer = Attention(1, score_scale=node.attributes["scale"])
    return builder.add(node, layer, node.inputs)


@translates("BatchNormalization")
def batch_norm(builder, node):
    """Normalization by constants."""
    parts = [builder.constant(name, np.float32) for name in node.inputs[1:5]]
    if any(part is None for part in parts) or node.attributes.get("training_mode", 0):
        return False
    return builder.add(node, BatchNorm(*parts, epsilon=node.attributes.get("epsilon", 1e-5)))


@translates("LayerNormalization")
def layer_norm(builder, node):
    """Normalization of the last axis."""
    gamma = builder.constant(node.inputs[1], np.float32)
    beta = _optional(builder, node, 2)
    axis, rank = node.attributes.get("axis", -1), builder.rank(node.inputs[0])
    is_last = axis == -1 or (rank is not None and axis == rank - 1)
    if gamma is None or gamma.ndim != 1 or beta is False or not is_last or any(node.outputs[1:]):
        return False
    beta = np.zeros_like(gamma) if beta is None else beta
    return builder.add(node, LayerNorm(gamma, beta, epsilon=node.attributes.get("epsilon", 1e-5)))


@translates("Relu")
def relu(builder, node):
    """Rectifier of float32."""
    return builder.is_float(node.inputs[0]) and builder.add(node, ReLU())


@translates("Sigmoid")
def sigmoid(builder, node):
    """Sigmoid of float32."""
    return builder.is_float(node.inputs[0]) and builder.add(node, Sigmoid())


@translates("Tanh")
def tanh(builder, node):
    """Hyperbolic tangent of float32."""
    return builder.is_float(node.inputs[0]) and builder.add(node, Tanh())


@translates("Gelu")
def gelu(builder, node):
    """GELU, the exact one."""
    exact = node.attributes.get("approximate", "none") == "none"
    return exact and builder.is_float(node.inputs[0]) and builder.add(node, GELU())


@translates("Clip")
def clip(builder, node):
    """ReLU6 and ReLU, which products take in."""
    limits = [_optional(builder, node, place) for place in (1, 2)]
    if any(limit is False for limit in limits) or not builder.is_float(node.inputs[0]):
        return False
    low, high = (None if limit is None else float(limit) for limit in limits)
    if low == 0 and (high is None or np.isposinf(high) or high >= 3e38):
        return builder.add(node, ReLU())
    return low == 0 and high == 6 and builder.add(node, ReLU6())


@translates("PRelu")
def prelu(builder, node):
    """A slope for negative numbers: one for all is a table, one per channel a layer."""
    slope, rank = builder.constant(node.inputs[1], np.float32), builder.rank(node.inputs[0])
    if slope is None:
        return False
    if slope.size == 1:
        alpha = {"alpha": float(slope.reshape(()))}
        return builder.add(node, Operator("LeakyRelu", alpha))
    shape = (1,) * ((rank or 0) - slope.ndim) + slope.shape
    if rank is None or len(shape) != rank or rank < 2 or shape[1] != slope.size:
        return False
    return builder.add(node, PReLU(slope.reshape(-1)))


@translates("Softmax")
def softmax(builder, node):
    """Softmax over one axis."""
    axis, rank = node.attributes.get("axis", -1), builder.rank(node.inputs[0])
    if node.attributes.get("flattened", 0):
        # The same over the last axis alone.
        if rank is None or axis % rank != rank - 1:
            return False
        axis = -1
    if not builder.is_float(node.inputs[0]) or not -4 <= axis <= 3:
        return False
    return builder.add(node, Softmax(axis))


@translates("MaxPool")
def max_pool(builder, node):
    """Pooling of images, and of sequences, whose windows are known beforehand."""
    if any(node.outputs[1:]) or not builder.is_float(node.inputs[0]):
        return False
    settings = _pooling(builder, node)
    return settings is not None and _add_pool(builder, node, MaxPool2D, settings)


@translates("AveragePool")
def average_pool(builder, node):
    """Pooling of images, and of sequences, whose windows are known beforehand."""
    counts = bool(node.attributes.get("count_include_pad", 0))
    settings = _pooling(builder, node)
    if settings is None or any(step != 1 for step in settings.pop("dilation")):
        return False
    given = tuple(node.attributes.get("pads", (0,) * len(settings["padding"])))
    if counts and settings["padding"] != given:
        return False                    # what a rounded size adds does not count
    return _add_pool(builder, node, AvgPool2D, settings, count_include_pad=counts)


def _add_pool(builder, node, kind, settings, **more):
    """Add a pooling layer, of images or of sequences."""
    kernel = settings.pop("kernel_size")
    if len(kernel) == 2:
        return builder.add(node, kind(kernel, **settings, **more))
    return _as_image(builder, node, kind((1, *kernel), **flat(settings), **more))


def _pooling(builder, node):
    """Return the settings of a pooling layer, or None if no layer does this."""
    kernel = tuple(node.attributes["kernel_shape"])
    if len(kernel) not in (1, 2) or node.attributes.get("storage_order", 0):
        return None
    found = window(builder, node, kernel)
    if found is None:
        return None
    if node.attributes.get("ceil_mode", 0):
        found["padding"] = _ceiled(builder.graph.shape(node.inputs[0]), kernel, **found)
        if found["padding"] is None:
            return None
    reach = [d * (k - 1) + 1 for d, k in zip(found["dilation"], kernel, strict=True)]
    if any(side >= reach[i % len(kernel)] for i, side in enumerate(found["padding"])):
        return None
    return {"kernel_size": kernel, **found, "padding": tuple(found["padding"])}


def _ceiled(shape, kernel, stride, dilation, padding):
    """Return padding such that a size rounded down is what it was rounded up."""
    if shape is None or not all(isinstance(size, int) for size in shape[2:]):
        return None
    after, n_axes = [], len(kernel)
    for axis, size in enumerate(shape[2:]):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        whole = size + padding[axis] + padding[axis + n_axes]
        n = -(-(whole - reach) // stride[axis]) + 1
        if (n - 1) * stride[axis] >= size + padding[axis]:      # a window wholly outside
            n -= 1
        after.append(padding[axis + n_axes] + max(0, (n - 1) * stride[axis] + reach - whole))
    return (*padding[:n_axes], *after)


@translates("GlobalAveragePool")
def global_average_pool(builder, node):
    """The mean of each channel of an image, or of a sequence."""
    rank = builder.rank(node.inputs[0])
    if not builder.is_float(node.inputs[0]) or rank not in (3, 4):
        return False
    if rank == 3:
        return _as_image(builder, node, GlobalAvgPool2D())
    return builder.add(node, GlobalAvgPool2D())


@translates("ReduceMean")
def reduce_mean(builder, node):
    """The mean of each channel of an image, where that is what is asked for."""
    axes = builder.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or not axes.size or not builder.is_float(node.inputs[0]):
        return False
    if builder.rank(node.inputs[0]) != 4 or (
        sorted(int(axis) % 4 for axis in axes.ravel()) != [2, 3]
    ):
        keeps = node.attributes.get("keepdims", 1)
        return builder.add(node, Mean([int(axis) for axis in axes.ravel()], keepdims=keeps))
    if node.attributes.get("keepdims", 1):
        return builder.add(node, GlobalAvgPool2D())
    squeeze = Operator("Squeeze", constants={1: np.array([2, 3])})
    return builder.add_between(node, None, GlobalAvgPool2D(), squeeze)


@translates("Flatten")
def flatten(builder, node):
    """All axes but the first into one."""
    return node.attributes.get("axis", 1) == 1 and builder.add(node, Flatten())


@translates("Concat")
def concat(builder, node):
    """Inputs side by side."""
    axis = node.attributes["axis"]
    if not -4 <= axis <= 3 or not all(builder.is_float(name) for name in node.inputs):
        return False
    return builder.add(node, Concat(axis), node.inputs)


@translates("Add", "Sum", "Mul", "Sub", "Div")
def arithmetic(builder, node):
    """Two tensors, or a tensor and a number for each of its channels."""
    if not _is_pair(builder, node):
        return False
    for place in (0, 1):
        value = builder.constant(node.inputs[place])
        if value is not None and _per_channel(builder, node, place, value):
            return True
    return pair(builder, node)


@translates("Max")
def pair(builder, node):
    """Two tensors."""
    layer = PAIRS.get(node.op)
    return layer is not None and _is_pair(builder, node) and (
        builder.add(node, layer(), node.inputs)
    )


def _is_pair(builder, node):
    """Whether a node takes two tensors of float32; with a number it is a function of one."""
    if len(node.inputs) != 2 or not all(builder.is_float(name) for name in node.inputs):
        return False
    constants = [builder.constant(name) for name in node.inputs]
    return all(value is None or value.size != 1 for value in constants)


def _per_channel(builder, node, place, value):
    """Add what multiplies or shifts each channel by a constant, which products take in."""
    other = node.inputs[1 - place]
    rank = builder.rank(other)
    if rank is None or rank < 3 or builder.constant(other) is not None:
        return False
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) != rank or shape[1] != value.size or (node.op == "Div" and place == 0):
        return False
    if builder.graph.shape(other)[1] != value.size:     # it may be that the constant is larger
        return False
    n = value.reshape(-1)
    one, zero = np.ones_like(n), np.zeros_like(n)
    factor, offset = {
        "Mul": (n, zero), "Add": (one, n), "Sum": (one, n), "Div": (1 / n, zero) if n.all() else (),
        "Sub": (one, -n) if place == 1 else (-one, n),
    }[node.op] or (None, None)
    if factor is None:
        return False
    return builder.add(node, BatchNorm(factor, offset, zero, one, epsilon=0.0), [other])


@translates("ConstantOfShape")
def constant_of_shape(builder, node):
    """One number in a shape that only a run tells."""
    value = np.reshape(node.attributes.get("value", np.float32(0)), ())
    return builder.add(node, Operator("Expand", constants={0: value}), node.inputs)


@translates("Gather")
def gather(builder, node):
    """Rows of a constant table by their numbers."""
    table, rank = builder.constant(node.inputs[0], np.float32), builder.rank(node.inputs[1])
    if table is None or table.ndim != 2 or node.attributes.get("axis", 0) or rank is None:
        return False
    if rank > 2 or builder.constant(node.inputs[1]) is not None or len(table) > MOST_ROWS:
        return False
    return builder.add(node, Embedding(table), [node.inputs[1]])


@translates("LSTM", "GRU", "RNN")
def recurrent(builder, node):
    """Recurrent layers with constant weights."""
    names = [*node.inputs, *[""] * (8 - len(node.inputs))]
    places = {"w": 1, "r": 2, "b": 3, "p": 7}
    arrays = {key: _optional(builder, node, place) for key, place in places.items()}
    if arrays["w"] is None or arrays["r"] is None or any(x is False for x in arrays.values()):
        return False
    given = [i for i in (4, 5, 6) if names[i]]
    used = [i for i, name in enumerate(node.outputs) if name]
    layer = Recurrent(
        node.op, **arrays, attributes=node.attributes,
        absent=[i for i in (4, 5, 6) if i not in given], n_outputs=max(used, default=0) + 1,
    )
    return builder.add(node, layer, [names[0], *(names[i] for i in given)])
