"""Networks that onnxruntime's own quantizer made, in 8 bits here and there."""

import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_graphs import is_in_8_bits, kinds, run  # noqa: E402

from qcy import nn  # noqa: E402
from qcy.nn import storage  # noqa: E402
from qcy.nn.onnx import load  # noqa: E402

U8, S8 = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
QDQ, QOPERATOR = quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator
#: Activations and weights; onnxruntime knows no other pairs.
TYPES = [(U8, S8), (U8, U8), (S8, S8)]
node = helper.make_node


class Batches(quantization.CalibrationDataReader):
    """Calibration data, a batch at a time."""

    def __init__(self, batches):
        self.left = iter(batches)

    def get_next(self):
        return next(self.left, None)


def model(nodes, constants, *, n_out):
    """Return a float model of images (n, 3, 16, 16)."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", n_out])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [
        numpy_helper.from_array(x, name) for name, x in constants.items()
    ])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def weights(rng, shapes):
    return {
        name: (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def plain(rng):
    """Return a convolutional network of what rounds alike everywhere."""
    constants = weights(rng, {
        "w1": (8, 3, 3, 3), "b1": (8,), "wd": (8, 1, 3, 3), "w2": (16, 8, 1, 1), "b2": (16,),
        "wf": (10, 256), "bf": (10,), "wl": (10, 5),
    }) | {"low": np.float32(0), "high": np.float32(6)}
    return model([
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "wd"], ["c2"], pads=[1, 1, 1, 1], group=8),
        node("Clip", ["c2", "low", "high"], ["r2"]),
        node("Conv", ["r2", "w2", "b2"], ["c3"], strides=[2, 2]), node("Flatten", ["c3"], ["f"]),
        node("Gemm", ["f", "wf", "bf"], ["g"], transB=1), node("Relu", ["g"], ["h"]),
        node("MatMul", ["h", "wl"], ["y"]),
    ], constants, n_out=5)


def branched(rng):
    """Return a network with residual connections, gates, branches and means."""
    constants = weights(rng, {
        "w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1), "wf": (10, 16),
        "bf": (10,),
    }) | {"shape": np.array([0, -1])}
    return model([
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Conv", ["c1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "c1"], ["a"]), node("Relu", ["a"], ["r"]),
        node("GlobalAveragePool", ["r"], ["m"]), node("Sigmoid", ["m"], ["s"]),
        node("Mul", ["r", "s"], ["gated"]), node("Conv", ["gated", "w3"], ["c3"]),
        node("LeakyRelu", ["c3"], ["l"]),
        node("Concat", ["l", "gated"], ["c"], axis=1),
        node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Split", ["p"], ["left", "right"], axis=3), node("Add", ["left", "right"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["q"]), node("Reshape", ["q", "shape"], ["f"]),
        node("Gemm", ["f", "wf", "bf"], ["g"], transB=1), node("Softmax", ["g"], ["y"]),
    ], constants, n_out=10)


def quantized(folder, net, seed=0, **settings):
    """Return a network's quantized file, and an input for it."""
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=(8, 3, 16, 16)).astype(np.float32) for _ in range(3)]
    paths = [folder / "net.onnx", folder / "quantized.onnx"]
    onnx.save(net(rng), paths[0])
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            *map(str, paths), Batches({"x": batch} for batch in images[:2]), reduce_range=True,
            **settings,
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(paths[1]), images[2]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("activations", "weight"), TYPES, ids=["u8s8", "u8u8", "s8s8"])
@pytest.mark.parametrize("form", [QDQ, QOPERATOR], ids=["QDQ", "QOperator"])
def test_plain_network_to_the_bit(tmp_path, form, activations, weight, per_channel):
    file, x = quantized(
        tmp_path, plain, quant_format=form, per_channel=per_channel, activation_type=activations,
        weight_type=weight,
    )
    loaded = load(file)
    assert is_in_8_bits(loaded), loaded.summary()
    assert loaded._compiled([x], False) is not None
    assert kinds(loaded) == [
        "Conv2DQuantized", "MaxPool2DQuantized", "Conv2DQuantized", "Conv2DQuantized",
        "FlattenQuantized", "DenseQuantized", "DenseQuantized",
    ]
    y = loaded(x)
    assert_array_equal(y, run(file, {"x": x}, optimize=True)[0], strict=True)
    assert_array_equal(y, run(file, {"x": x})[0], strict=True)
    assert_array_equal(storage.from_bytes(loaded.to_bytes())(x), y, strict=True)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("activations", "weight"), TYPES, ids=["u8s8", "u8u8", "s8s8"])
@pytest.mark.parametrize("form", [QDQ, QOPERATOR], ids=["QDQ", "QOperator"])
def test_branched_network_but_for_ties(tmp_path, form, activations, weight, per_channel):
    """Sums, products and means of windows meet numbers in the middle of two codes."""
    file, x = quantized(
        tmp_path, branched, quant_format=form, per_channel=per_channel,
        activation_type=activations, weight_type=weight,
    )
    loaded = load(file)
    assert isinstance(loaded, nn.QuantizedModel)
    assert loaded.float_nodes == [name for name in loaded.float_nodes if "Softmax" in name]
    y, [wanted] = loaded(x), run(file, {"x": x})
    assert y.shape == wanted.shape
    assert np.abs(y - wanted).max() <= 4 / 256
    assert (np.abs(y - wanted) > 1.5 / 256).mean() < 0.1


def test_layers_that_the_quantizer_left_in_float(tmp_path):
    file, x = quantized(
        tmp_path, plain, quant_format=QDQ, activation_type=U8, weight_type=S8,
        op_types_to_quantize=["Conv"], per_channel=True,
    )
    loaded = load(file)
    assert kinds(loaded)[-3:] == ["Flatten", "Dense", "Dense"] or not is_in_8_bits(loaded)
    np.testing.assert_allclose(loaded(x), run(file, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_codes_of_16_bits(tmp_path):
    kind = quantization.QuantType.QUInt16
    file, x = quantized(
        tmp_path, plain, quant_format=QDQ, activation_type=kind, weight_type=S8,
        extra_options={"UseQDQContribOps": True},
    )
    loaded = load(file)
    assert isinstance(loaded, nn.Model)
    np.testing.assert_allclose(loaded(x), run(file, {"x": x})[0], atol=2e-3)


def test_weights_without_a_zero_point_at_0(tmp_path):
    file, x = quantized(
        tmp_path, plain, quant_format=QDQ, activation_type=U8, weight_type=U8,
        extra_options={"WeightSymmetric": False, "ActivationSymmetric": True},
    )
    loaded = load(file)
    assert is_in_8_bits(loaded)
    assert_array_equal(loaded(x), run(file, {"x": x}, optimize=True)[0], strict=True)
