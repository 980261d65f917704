"""Small ONNX models for several tests to use: of images, of one sample a run, of several inputs."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from qcy import bench

KINDS = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8,
}


def make(nodes, inputs, outputs, weights):
    """Return a checked model.

    Nodes are (operator, inputs, outputs, attributes), named as their first outputs; inputs and
    outputs are (name, dtype, shape).
    """
    graph = helper.make_graph(
        [helper.make_node(op, a, b, name=b[0], **more) for op, a, b, more in nodes], "graph",
        *([helper.make_tensor_value_info(name, KINDS[dtype], shape) for name, dtype, shape in infos]
          for infos in (inputs, outputs)),
        [numpy_helper.from_array(np.asarray(x), name) for name, x in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def written(text, opset=17, **constants):
    """Return a model from ONNX's textual form, with constants as initializers."""
    parsed = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> {text}'
    )
    for name, value in constants.items():
        parsed.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return parsed


_RNG = np.random.default_rng(0)


def drawn(*shape):
    """Return normal numbers, others at each call."""
    return _RNG.normal(size=shape).astype(np.float32)


def enter(monkeypatch, folder):
    """Work in a folder with two models, whose command line finds NumPy's threads as asked for."""
    for name in bench.BLAS_THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(folder)
    onnx.save(images(), "image.onnx")
    onnx.save(words(), "words.onnx")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def images(batch="N", channels=3, size=8, n_classes=4, layout="NCHW"):
    """Return a classifier of images: convolution, ReLU, mean, dense layer."""
    shape = [batch, channels, size, size] if layout == "NCHW" else [batch, size, size, channels]
    enter = [] if layout == "NCHW" else [
        ("Transpose", ["image"], ["first"], {"perm": [0, 3, 1, 2]})
    ]
    return make(
        [
            *enter,
            ("Conv", ["first" if enter else "image", "w", "b"], ["conv"], {"pads": [1, 1, 1, 1]}),
            ("Relu", ["conv"], ["relu"], {}),
            ("GlobalAveragePool", ["relu"], ["mean"], {}),
            ("Flatten", ["mean"], ["flat"], {}),
            ("Gemm", ["flat", "v", "c"], ["scores"], {}),
        ],
        [("image", "float32", shape)], [("scores", "float32", [batch, n_classes])],
        {"w": normal(0, 8, channels, 3, 3), "b": normal(1, 8), "v": normal(2, 8, n_classes),
         "c": normal(3, n_classes)},
    )


def fixed():
    """Return a model that takes two samples a run, no more, no fewer."""
    return images(batch=2)


def words():
    """Return a model of tokens (int64) and numbers, with two outputs: scores and their best."""
    return make(
        [
            ("Gather", ["table", "tokens"], ["embedded"], {}),
            ("ReduceLogSumExp", ["embedded", "axes"], ["pooled"], {"keepdims": 0}),
            ("MatMul", ["pooled", "w"], ["product"], {}),
            ("Add", ["product", "b"], ["left"], {}),
            ("BatchNormalization", ["left", "gamma", "b", "b", "gamma"], ["norm"], {}),
            ("Gemm", ["numbers", "v"], ["right"], {}),
            ("Add", ["norm", "right"], ["sum"], {}),
            ("Relu", ["sum"], ["relu"], {}),
            ("Gemm", ["relu", "u"], ["scores"], {}),
            ("ArgMax", ["scores"], ["best"], {"axis": 1, "keepdims": 0}),
        ],
        [("tokens", "int64", ["N", 5]), ("numbers", "float32", ["N", 3])],
        [("scores", "float32", ["N", 4]), ("best", "int64", ["N"])],
        {"table": normal(0, 11, 6), "axes": np.int64([1]), "w": normal(1, 6, 8),
         "b": normal(2, 8), "gamma": np.ones(8, np.float32), "v": normal(3, 3, 8),
         "u": normal(4, 8, 4)},
    )


def word_data(n=40, seed=0):
    """Return samples for `words` by input."""
    rng = np.random.default_rng(seed)
    return {
        "tokens": rng.integers(0, 11, (n, 5)), "numbers": rng.normal(size=(n, 3)).astype("float32"),
    }
