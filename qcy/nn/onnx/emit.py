"""Layers as ONNX operators on numbers: float layers, and 8-bit ones between their conversions.

Each function here takes a `Writer`, a layer and the names of its inputs, adds nodes, and returns
the names of what they make. A fused activation is the caller's.
"""

import numpy as np

from qcy.nn.layers import (
    GELU, Add, AddQuantized, Attention, AttentionQuantized, AvgPool2D, AvgPool2DQuantized,
    BatchNorm, Concat, ConcatQuantized, Constant, Conv2D, Conv2DWeightOnly, ConvTranspose2D,
    ConvTranspose2DQuantized, Dense, DenseDynamic, DenseWeightOnly, Dropout, DropoutQuantized,
    Embedding, Flatten, FlattenQuantized, GELUQuantized, GlobalAvgPool2D, GlobalAvgPool2DQuantized,
    Identity, IdentityQuantized, LayerNorm, LayerNormQuantized, MatMul, MatMulQuantized, MaxPool2D,
    MaxPool2DQuantized, Maximum, MaximumQuantized, Mean, MeanQuantized, Mul, MulQuantized, Operator,
    OperatorQuantized, PReLU, PReLUQuantized, QuantizedLayer, Recurrent, ReLU, ReLU6, Reshape,
    ReshapeQuantized, Sigmoid, SigmoidQuantized, Softmax, SoftmaxQuantized, Sub, SubQuantized, Tanh,
    TanhQuantized,
)

EMIT = {}
#: Operators of onnxruntime whose output is what their first input is.
_LIKE_FIRST = (
    "com.microsoft:FastGelu", "com.microsoft:Gelu", "com.microsoft:QuickGelu",
    "com.microsoft:SimplifiedLayerNormalization", "com.microsoft:SkipLayerNormalization",
    "com.microsoft:SkipSimplifiedLayerNormalization",
)


def emits(*kinds):
    """Enter a function as what writes layers of these kinds."""
    def enter(function):
        EMIT.update(dict.fromkeys(kinds, function))
        return function
    return enter


def emit(w, layer, *inputs):
    """Write a layer on numbers."""
    if type(layer) not in EMIT:
        raise TypeError(f"{type(layer).__name__} has no ONNX form")
    return EMIT[type(layer)](w, layer, *inputs)


# ---------------------------------------------------------------------------------------- products


def parameters(w, layer, axis, weight=None):
    """Return a product's weight and, if it has one, its bias, as numbers; those in 8 bits stay so.

    `axis` is that of the output channels in the weight; `weight` is the layer's in another shape.
    """
    weight = layer.weight if weight is None else weight
    if isinstance(layer, QuantizedLayer):
        codes, scale, zero = weight_codes(w, layer, weight)
        axes = {"axis": axis} if w.rank(scale) else {}
        found = [w.node("DequantizeLinear", [codes, scale, zero], **axes)]
    elif hasattr(layer, "weight_scale"):
        # No DequantizeLinear: onnxruntime would make 8-bit arithmetic of it and of the product.
        along = [-1 if i == axis else 1 for i in range(weight.ndim)]
        scale = layer.weight_scale.reshape(along) if layer.weight_scale.ndim else layer.weight_scale
        numbers = w.node("Cast", [w.constant(weight, "weight")], to=1)
        found = [w.node("Mul", [numbers, w.constant(scale, "weight_scale")])]
    else:
        found = [w.constant(weight, "weight")]
    if layer.bias is None:
        return found
    bias = w.constant(layer.bias, "bias")
    if isinstance(layer, QuantizedLayer):
        units = layer.in_params[0].scale * layer.weight_scale
        axes = {"axis": 0} if np.ndim(units) else {}
        bias = w.node("DequantizeLinear", [bias, w.constant(units, "bias_scale")], **axes)
    return [*found, bias]


def weight_codes(w, layer, weight):
    """Return the codes of a weight, its scale and its zero point, as constants."""
    zero = np.asarray(getattr(layer, "weight_zero_point", 0), weight.dtype)
    scale, zero = np.broadcast_arrays(layer.weight_scale, zero)
    named = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    return [w.constant(array, name) for name, array in named.items()]


def window(layer):
    """Return the attributes that say where the windows of a convolution lie."""
    return {
        "kernel_shape": layer.weight.shape[2:], "strides": layer.stride, "pads": layer.padding,
        "dilations": layer.dilation, "group": layer.groups,
    }


@emits(Dense, DenseWeightOnly)
def dense(w, layer, x):
    """A product of matrices; of stacks of them where there are more axes."""
    if w.rank(x) == 2:
        return w.node("Gemm", [x, *parameters(w, layer, 1)])
    weight, *bias = parameters(w, layer, 1)
    y = w.node("MatMul", [x, weight])
    return w.node("Add", [w.call(y), *bias]) if bias else y


@emits(MatMul, MatMulQuantized)
def mat_mul(w, layer, a, b):
    """A product of two inputs."""
    return w.node("MatMul", [a, b])


@emits(DenseDynamic)
def dense_dynamic(w, layer, x):
    """Equations (6) and (22): codes for each row of the input, exact sums, numbers out."""
    zero, last = w.constant(np.float32(0), "zero"), w.integers([-1], "last_axis")
    steps = w.constant(np.float32(255), "steps")
    low = w.node("Min", [w.node("ReduceMin", [x, last], keepdims=1), zero])
    high = w.node("Max", [w.node("ReduceMax", [x, last], keepdims=1), zero])
    scale = w.node("Div", [w.node("Sub", [high, low]), steps])
    is_zero = w.node("Equal", [scale, zero])
    scale = w.node("Where", [is_zero, w.constant(np.float32(1), "one"), scale])
    start = w.node("Clip", [w.node("Div", [w.node("Neg", [low]), scale]), zero, steps])
    start = w.node("Round", [start])
    codes = w.node("Add", [w.node("Round", [w.node("Div", [x, scale])]), start])
    codes = w.node("Cast", [w.node("Clip", [codes, zero, steps])], to=2)
    weight = w.constant(layer.weight, "weight")
    sums = w.constant(layer.weight.sum(axis=0, dtype=np.int32), "weight_sums")
    acc = w.node("MatMulInteger", [codes, weight])
    acc = w.node("Sub", [acc, w.node("Mul", [w.node("Cast", [start], to=6), sums])])
    scale = w.node("Mul", [scale, w.constant(layer.weight_scale, "weight_scale")])
    y = w.node("Mul", [w.node("Cast", [acc], to=1), scale])
    return y if layer.bias is None else w.node("Add", [y, w.constant(layer.bias, "bias")])


@emits(Conv2D, Conv2DWeightOnly)
def conv(w, layer, x):
    """Convolution."""
    return w.node("Conv", [x, *parameters(w, layer, 0)], **window(layer))


@emits(ConvTranspose2D, ConvTranspose2DQuantized)
def conv_transpose(w, layer, x):
    """Transposed convolution."""
    attributes = {**window(layer), "output_padding": layer.output_padding}
    if layer.groups == 1 or not np.ndim(getattr(layer, "weight_scale", 0)):
        return w.node("ConvTranspose", [x, *parameters(w, layer, 1)], **attributes)
    # Output channels lie in two axes, groups and axis 1; scales want them in one.
    n_in, n_out, height, width = layer.weight.shape
    apart = (layer.groups, n_in // layer.groups, n_out, height, width)
    turned = layer.weight.reshape(apart).swapaxes(1, 2)
    by_out = layer.groups * n_out, n_in // layer.groups, height, width
    weight, *bias = parameters(w, layer, 0, turned.reshape(by_out))
    weight = w.node("Reshape", [weight, w.integers(turned.shape, "groups")])
    weight = w.node("Transpose", [weight], perm=(0, 2, 1, 3, 4))
    weight = w.node("Reshape", [weight, w.integers(layer.weight.shape, "shape")])
    return w.node("ConvTranspose", [x, weight, *bias], **attributes)


@emits(Embedding)
def embedding(w, layer, x):
    """Rows of a table."""
    return w.node("Gather", [w.constant(layer.weight, "weight"), indices(w, x)])


def indices(w, x):
    """Return numbers of rows in a type that can count."""
    return x if w.dtype(x) in (np.int32, np.int64) else w.node("Cast", [x], to=7)


@emits(Recurrent)
def recurrent(w, layer, *inputs):
    """The operator that the layer is named after."""
    given, places = iter(inputs), []
    for place, name in enumerate(("", "w", "r", "b", "", "", "", "p")):
        array = getattr(layer, name) if name else None
        if array is not None:
            places.append(w.constant(array, name))
        else:
            places.append("" if name or place in layer.absent else next(given, ""))
    return w.node(layer.op, places, n_outputs=layer.n_outputs, **dict(layer.attributes))


# ------------------------------------------------------------------------------ number by number


@emits(ReLU)
def relu(w, layer, x):
    """``max(x, 0)``."""
    return w.node("Relu", [x])


@emits(ReLU6)
def relu6(w, layer, x):
    """``min(max(x, 0), 6)``."""
    return w.node("Clip", [x, *(w.constant(np.float32(n), "limit") for n in (0, 6))])


@emits(Sigmoid, SigmoidQuantized)
def sigmoid(w, layer, x):
    """``1 / (1 + exp(-x))``."""
    return w.node("Sigmoid", [x])


@emits(Tanh, TanhQuantized)
def tanh(w, layer, x):
    """``tanh(x)``."""
    return w.node("Tanh", [x])


@emits(GELU, GELUQuantized)
def gelu(w, layer, x):
    """GELU, the exact one."""
    return w.node("Gelu", [x])


@emits(Softmax, SoftmaxQuantized)
def softmax(w, layer, x):
    """``exp(x) / sum(exp(x))``."""
    return w.node("Softmax", [x], axis=layer.axis)


@emits(Add, AddQuantized)
def add(w, layer, a, b):
    """``a + b``."""
    return w.node("Add", [a, b])


@emits(Sub, SubQuantized)
def sub(w, layer, a, b):
    """``a - b``."""
    return w.node("Sub", [a, b])


@emits(Mul, MulQuantized)
def mul(w, layer, a, b):
    """``a * b``."""
    return w.node("Mul", [a, b])


@emits(Maximum, MaximumQuantized)
def maximum(w, layer, a, b):
    """The larger of two."""
    return w.node("Max", [a, b])


@emits(PReLU, PReLUQuantized)
def prelu(w, layer, x):
    """``x``, times a slope for each channel where it is negative."""
    slope = layer.slope.reshape(-1, *[1] * (w.known_rank(x) - 2))
    return w.node("PRelu", [x, w.constant(slope, "slope")])


@emits(Constant)
def constant(w, layer):
    """An array."""
    return w.constant(layer.value)


# ------------------------------------------------------------------------ normalization, attention


@emits(BatchNorm)
def batch_norm(w, layer, x):
    """Normalization by constants."""
    names = ("gamma", "beta", "mean", "variance")
    parts = [w.constant(getattr(layer, name), name) for name in names]
    return w.node("BatchNormalization", [x, *parts], epsilon=layer.epsilon)


@emits(LayerNorm, LayerNormQuantized)
def layer_norm(w, layer, x):
    """Normalization of rows by themselves."""
    parts = [w.constant(getattr(layer, name), name) for name in ("gamma", "beta")]
    return w.node("LayerNormalization", [x, *parts], axis=-1, epsilon=layer.epsilon)


@emits(Attention, AttentionQuantized)
def attention(w, layer, q, k, v):
    """``softmax(q @ k.T * score_scale) @ v`` for each head."""
    rank = w.known_rank(q)
    sizes = [shape[-1] for shape in (w.shape(q), w.shape(k)) if shape]
    features = next((size for size in sizes if isinstance(size, int)), None)
    if layer.score_scale is None and features is None:
        raise ValueError("the features of queries must be known; input_shapes can tell")
    kept = [0] * (rank - 1)
    apart = w.integers([*kept, layer.n_heads, -1], "heads")
    in_rows = *range(rank - 2), rank - 1, rank - 2, rank
    in_columns = *range(rank - 2), rank - 1, rank, rank - 2
    rows, columns, values = (
        w.node("Transpose", [w.node("Reshape", [x, apart])], perm=perm)
        for x, perm in ((q, in_rows), (k, in_columns), (v, in_rows))
    )
    scale = layer.score_scale or (features // layer.n_heads) ** -0.5
    scores = w.node("MatMul", [rows, columns])
    scale = w.constant(w.dtype(scores).type(scale), "score_scale")
    scores = w.node("Mul", [scores, scale])
    mixed = w.node("MatMul", [w.node("Softmax", [scores], axis=-1), values])
    mixed = w.node("Transpose", [mixed], perm=in_rows)
    return w.node("Reshape", [mixed, w.integers([*kept, -1], "features")])


# ------------------------------------------------------------------------------- pooling, moving


@emits(MaxPool2D, MaxPool2DQuantized)
def max_pool(w, layer, x):
    """The largest of each window, of numbers or of codes."""
    pads = layer.padding
    if any(side >= layer.kernel_size[i % 2] for i, side in enumerate(pads)):    # runtimes refuse
        top, left, bottom, right = pads
        dtype, pads = w.dtype(x), (0, 0, 0, 0)
        least = (np.finfo if dtype.kind == "f" else np.iinfo)(dtype).min
        sides = w.integers([0, 0, top, left, 0, 0, bottom, right], "pads")
        x = w.node("Pad", [x, sides, w.constant(dtype.type(least), "least")])
    return w.node(
        "MaxPool", [x], kernel_shape=layer.kernel_size, strides=layer.stride, pads=pads,
        dilations=layer.dilation,
    )


def average(layer):
    """Return the attributes of an average pooling."""
    return {
        "kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": layer.padding,
        "count_include_pad": int(layer.count_include_pad),
    }


@emits(AvgPool2D, AvgPool2DQuantized)
def avg_pool(w, layer, x):
    """The mean of each window."""
    return w.node("AveragePool", [x], **average(layer))


@emits(GlobalAvgPool2D, GlobalAvgPool2DQuantized)
def global_avg_pool(w, layer, x):
    """The mean of each channel."""
    return w.node("GlobalAveragePool", [x])


@emits(Mean, MeanQuantized)
def mean(w, layer, x):
    """The mean along axes."""
    axes = w.integers(layer.axes, "axes")
    return w.node("ReduceMean", [x, axes], keepdims=int(layer.keepdims))


@emits(Concat, ConcatQuantized)
def concat(w, layer, *inputs):
    """Inputs side by side."""
    return w.node("Concat", inputs, axis=layer.axis)


@emits(Flatten, FlattenQuantized)
def flatten(w, layer, x):
    """All axes but the first into one."""
    return w.node("Flatten", [x], axis=1)


@emits(Reshape, ReshapeQuantized)
def reshape(w, layer, x):
    """Another shape for everything but the batch."""
    if 0 in layer.shape:
        raise ValueError(f"ONNX has no form for a reshape to nothing, got shape {layer.shape}")
    return w.node("Reshape", [x, w.integers([0, *layer.shape], "shape")])


@emits(Identity, Dropout, IdentityQuantized, DropoutQuantized)
def identity(w, layer, x):
    """What comes in."""
    return x


# --------------------------------------------------------------------------------------- operators


@emits(Operator, OperatorQuantized)
def operator(w, layer, *inputs):
    """The operator itself, on numbers or, if it moves them, on codes."""
    if layer.op == "Pad" and w.dtype(inputs[0]) in (np.int8, np.uint8) and (
        isinstance(layer, OperatorQuantized)
    ):
        layer = Operator(layer.op, layer.attributes, constants=layer.constants,
                         absent=layer.absent).in_codes(layer.out_params)
    placed = list(inputs)
    fixed = {
        place: np.array(values, dtype).reshape(shape)
        for place, dtype, shape, values in layer.constants
    }
    for place in sorted((*fixed, *layer.absent)):
        name = w.constant(fixed[place], f"input_{place}") if place in fixed else ""
        placed.insert(place, name)
    attributes = dict(layer.attributes)
    if attributes.pop("flattened", 0):
        return _of_matrix(w, layer.op, placed[0], attributes["axis"])
    if layer.op == "Swish":             # which few runtimes know under this name
        alpha = np.float32(attributes.get("alpha", 1.0))
        gate = placed[0] if alpha == 1 else w.node("Mul", [placed[0], w.constant(alpha, "alpha")])
        return w.node("Mul", [placed[0], w.node("Sigmoid", [gate])])
    result = (w.dtype(inputs[0]), w.shape(inputs[0])) if layer.op in _LIKE_FIRST else None
    return w.node(layer.op, placed, n_outputs=layer.n_outputs, result=result, **attributes)


def _of_matrix(w, op, x, axis):
    """Write an operator of the last axis for an array that is first made a matrix at `axis`."""
    shape = w.node("Shape", [x])
    y = w.node(op, [w.node("Flatten", [x], axis=axis)], axis=-1)
    return w.node("Reshape", [y, shape], result=(w.dtype(x), w.shape(x)))
