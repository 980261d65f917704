"""Small random float models that together hold every kind of layer, for several tests to use."""

import numpy as np

import qcy
from qcy import nn


def weight(rng, *shape):
    """Return weights that neither blow numbers up nor make them vanish."""
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def dense(rng, n_in, n_out, **options):
    return nn.Dense(
        (rng.normal(size=(n_in, n_out)) / np.sqrt(n_in)).astype(np.float32),
        0.1 * rng.normal(size=n_out), **options,
    )


def conv(rng, n_in, n_out, kernel=3, groups=1, **options):
    return nn.Conv2D(
        weight(rng, n_out, n_in // groups, kernel, kernel), 0.1 * rng.normal(size=n_out),
        groups=groups, **options,
    )


def norm(rng, channels, **options):
    return nn.BatchNorm(
        rng.uniform(0.5, 1.5, channels), 0.3 * rng.normal(size=channels),
        0.2 * rng.normal(size=channels), rng.uniform(0.3, 2, channels), **options,
    )


def layer_norm(rng, n, **options):
    return nn.LayerNorm(rng.uniform(0.5, 1.5, n), 0.3 * rng.normal(size=n), **options)


class Indices(tuple):
    """The shape of an input of indices, from 0 to below a number."""

    def __new__(cls, *shape, below):
        made = super().__new__(cls, shape)
        made.below = below
        return made


def residual(rng, layout):
    same = {"padding": 1, "layout": layout}
    return nn.Model([
        ("conv1", conv(rng, 3, 8, **same), "input"),
        ("bn1", norm(rng, 8, layout=layout), "conv1"),
        ("relu1", nn.ReLU(), "bn1"),
        ("conv2", conv(rng, 8, 8, **same), "relu1"),
        ("bn2", norm(rng, 8, layout=layout), "conv2"),
        ("add", nn.Add(), ("bn2", "relu1")),
        ("relu2", nn.ReLU(), "add"),
        ("mean", nn.GlobalAvgPool2D(layout=layout), "relu2"),
        ("flat", nn.Flatten(layout=layout), "mean"),
        ("dense", dense(rng, 8, 5), "flat"),
    ]), [(3, 8, 8)]


def concat(rng, layout):
    return nn.Model([
        ("wide", conv(rng, 3, 4, 5, padding=2, layout=layout), "input"),
        ("wide_relu", nn.ReLU6(), "wide"),
        ("narrow", conv(rng, 3, 4, 1, layout=layout), "input"),
        ("wave", nn.Tanh(), "narrow"),
        ("cat", nn.Concat(1, layout=layout), ("wide_relu", "wave", "input")),
        ("cat_relu", nn.ReLU(), "cat"),
        ("mix", conv(rng, 11, 6, 1, layout=layout), "cat_relu"),
    ]), [(3, 7, 6)]


def depthwise(rng, layout):
    return nn.Model([
        ("deep", conv(rng, 6, 6, 3, 6, stride=2, padding=(0, 0, 1, 1), layout=layout), "input"),
        ("bn", norm(rng, 6, layout=layout), "deep"),
        ("relu6", nn.ReLU6(), "bn"),
        ("point", conv(rng, 6, 8, 1, layout=layout), "relu6"),
        ("multiplied", conv(rng, 8, 16, 3, 8, dilation=2, padding=2, layout=layout), "point"),
    ]), [(6, 8, 8)]


def transposed(rng, layout):
    up = nn.ConvTranspose2D(
        weight(rng, 4, 3, 3, 3), 0.1 * rng.normal(size=6), stride=2, padding=1, output_padding=1,
        groups=2, layout=layout,
    )
    return nn.Model([
        ("down", conv(rng, 2, 4, 3, stride=2, padding=1, layout=layout), "input"),
        ("relu1", nn.ReLU(), "down"),
        ("up", up, "relu1"),
        ("bn", norm(rng, 6, layout=layout), "up"),
        ("relu2", nn.ReLU(), "bn"),
        ("last", conv(rng, 6, 1, 1, layout=layout), "relu2"),
        ("sigmoid", nn.Sigmoid(), "last"),
    ]), [(2, 6, 8)]


def pooling(rng, layout):
    return nn.Model([
        ("conv", conv(rng, 2, 6, layout=layout), "input"),
        ("max", nn.MaxPool2D(3, 2, 1, layout=layout), "conv"),
        ("avg", nn.AvgPool2D(2, 1, (0, 0, 1, 1), layout=layout), "max"),
        ("all", nn.AvgPool2D(2, 1, 1, True, layout=layout), "avg"),
        ("shape", nn.Reshape((3, -1), layout=layout), "all"),
        ("dense", dense(rng, 50, 4), "shape"),
        ("flat", nn.Flatten(layout=layout), "dense"),
        ("head", dense(rng, 12, 3), "flat"),
    ]), [(2, 10, 10)]


def softmax(rng, layout):
    return nn.Model([
        ("hidden", dense(rng, 10, 16), "input"),
        ("relu", nn.ReLU(), "hidden"),
        ("drop", nn.Dropout(), "relu"),
        ("logits", dense(rng, 16, 5), "drop"),
        ("softmax", nn.Softmax(layout=layout), "logits"),
    ]), [(10,)]


def two_inputs(rng, layout):
    return nn.Model([
        ("conv", conv(rng, 2, 3, layout=layout), "image"),
        ("flat", nn.Flatten(layout=layout), "conv"),
        ("left", dense(rng, 48, 6), "flat"),
        ("right", dense(rng, 4, 6), "vector"),
        ("sum", nn.Add(), ("left", "right")),
        ("wave", nn.Tanh(), "sum"),
        ("same", nn.Identity(), "sum"),
    ], outputs=("wave", "same"), inputs=("image", "vector")), [(2, 6, 6), (4,)]


def transformer(rng, layout):
    """Return a block of an encoder, of vectors and tokens of which there are 11."""
    return nn.Model([
        ("embed", nn.Embedding(rng.normal(size=(11, 12))), "tokens"),
        ("both", nn.Add(), ("vectors", "embed")),
        ("q", dense(rng, 12, 12), "both"),
        ("k", dense(rng, 12, 12), "both"),
        ("v", dense(rng, 12, 18), "both"),
        ("attend", nn.Attention(3), ("q", "k", "v")),
        ("mix", dense(rng, 18, 12), "attend"),
        ("residual", nn.Add(), ("both", "mix")),
        ("norm", layer_norm(rng, 12), "residual"),
        ("wide", dense(rng, 12, 20), "norm"),
        ("gelu", nn.GELU(), "wide"),
        ("drop", nn.Dropout(), "gelu"),
        ("narrow", dense(rng, 20, 12), "drop"),
        ("sum", nn.Add(), ("norm", "narrow")),
        ("norm2", layer_norm(rng, 12, epsilon=0.01), "sum"),
        ("flat", nn.Flatten(layout=layout), "norm2"),
        ("bent", nn.GELU(), "flat"),
    ], outputs=("bent", "attend"), inputs=("vectors", "tokens")), [(5, 12), Indices(5, below=11)]


def lonely(rng, layout):
    """Return a model of layers that find nothing to fuse into."""
    return nn.Model([
        ("bn", norm(rng, 3, layout=layout), "input"),
        ("relu6", nn.ReLU6(), "bn"),
        ("pool", nn.MaxPool2D(2, layout=layout), "relu6"),
        ("pool_relu6", nn.ReLU6(), "pool"),
        ("softmax", nn.Softmax(1, layout=layout), "pool_relu6"),
        ("id", nn.Identity(), "softmax"),
        ("drop", nn.Dropout(0.2), "pool_relu6"),
    ], outputs=("id", "drop")), [(3, 6, 6)]


def gated(rng, layout):
    return nn.Model([
        ("conv", conv(rng, 3, 8, padding=1, layout=layout), "input"),
        ("all", nn.GlobalAvgPool2D(layout=layout), "conv"),
        ("squeeze", conv(rng, 8, 8, kernel=1, layout=layout), "all"),
        ("gate", nn.Sigmoid(), "squeeze"),
        ("scaled", nn.Mul(), ("conv", "gate")),
        ("slope", nn.PReLU(rng.uniform(-0.5, 1.5, 8), layout=layout), "scaled"),
        ("deep", conv(rng, 8, 4, kernel=2, layout=layout), "slope"),
        ("flat", nn.Flatten(layout=layout), "deep"),
        ("wide", dense(rng, 4 * 49, 12), "flat"),
        ("shift", nn.Constant(rng.normal(size=12).astype(np.float32)), ()),
        ("difference", nn.Sub(), ("wide", "shift")),
        ("most", nn.Maximum(), ("difference", "wide")),
        ("part", nn.Operator("Slice", constants={1: [1], 2: [12], 3: [1], 4: [2]}), "most"),
        ("swish", nn.Operator("Swish"), "part"),
        ("rows", nn.Operator("Reshape", constants={1: [0, 2, 3]}), "swish"),
        ("columns", nn.Operator("Transpose", {"perm": (0, 2, 1)}), "rows"),
        ("scores", nn.MatMul(), ("rows", "columns")),
        ("mean", nn.Mean([1]), "scores"),
        ("out", dense(rng, 2, 3), "mean"),
    ]), [(3, 8, 8)]


ZOO = {
    f.__name__: f
    for f in (
        residual, concat, depthwise, transposed, pooling, softmax, two_inputs, transformer, lonely,
        gated,
    )
}


def build(name, layout="NCHW", seed=0):
    """Return a model of the zoo, and the shapes of its inputs, NCHW and without the batch."""
    return ZOO[name](np.random.default_rng(seed), layout)


def to_layout(x, layout):
    """Return NCHW images, or anything else, as a model of `layout` takes them."""
    if x.ndim == 4 and layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return x


def batches(shapes, n_batches=3, size=8, seed=1, layout="NCHW"):
    """Return batches of random inputs: arrays, or tuples of them for several inputs."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(n_batches):
        parts = tuple(
            rng.integers(0, shape.below, (size, *shape)).astype(np.float32)
            if isinstance(shape, Indices)
            else to_layout(rng.normal(size=(size, *shape)).astype(np.float32), layout)
            for shape in shapes
        )
        result.append(parts if len(parts) > 1 else parts[0])
    return result


def as_codes(model, inputs, **options):
    """Return inputs as an 8-bit model takes them in codes: indices as they are.

    Options are of `qcy.quantize`, the model's parameters without them.
    """
    return [
        x if name in model.real_inputs
        else qcy.quantize(x, **options) if options else qcy.quantize(x, model.params[name])
        for name, x in zip(model.inputs, inputs, strict=True)
    ]


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def quantized(name, layout="NCHW", **options):
    """Return a model of the zoo and its 8-bit model, calibrated on `batches`."""
    model, shapes = build(name, layout)
    data = batches(shapes, layout=layout)
    if name == "gated":                 # a product of two tensors of data has to be asked for
        options = {"overrides": {"scores": nn.LayerConfig("static")}} | options
    return model, nn.quantize_model(model, data, progress=False, **options)


def nodes_by_kind():
    """Return one 8-bit node of every kind that `quantize_model` can make."""
    found = {}
    for name in ZOO:
        for node in quantized(name)[1].nodes:
            found.setdefault(type(node.layer).__name__, node)
    return found
