"""Quantized files as graphs: what is around operators in 8 bits, and what does not fit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx_graphs import (  # noqa: E402
    MICROSOFT, Graph, assert_rounded, by_qcy, is_in_8_bits, kinds,
)

from qcy import nn  # noqa: E402
from qcy.nn import storage  # noqa: E402
from qcy.nn.onnx import load  # noqa: E402

DTYPES = [np.uint8, np.int8]


def graph(dtype=np.uint8, seed=0, **settings):
    return Graph(np.random.default_rng(seed), dtype, **settings)


def assert_same(g, *outputs, optimize=False):
    """Check that qcy gives just what onnxruntime gives; return the model."""
    model, results = by_qcy(g, *outputs)
    for result, wanted in zip(results, g.run(*outputs, optimize=optimize), strict=True):
        assert_array_equal(result, wanted, strict=True)
    return model


def dense(g, x, n=4):
    """Add a dense layer to codes; return its reals."""
    k = g.inputs[x].shape[-1] if x in g.inputs else 4
    scale, weight = g.weight((k, n), 1)
    return g.op("Gemm", g.dq(x), weight, g.bias(n, x, scale))


# ------------------------------------------------------------------------------- inputs and outputs


@pytest.mark.parametrize("dtype", DTYPES)
def test_reals_in_and_reals_out(dtype):
    g = graph(dtype)
    x = g.input(g.rng.normal(size=(5, 6)).astype(np.float32))
    params = g.any_params(0.02)
    codes = g.q(x, params)
    k = g.weight((6, 4), 1)[1]
    y = g.dq(g.quantized(g.op("MatMul", g.dq(codes), k)))
    model = assert_same(g, y, optimize=True)
    assert kinds(model) == ["DenseQuantized"]
    assert model.coded_inputs == (x,)
    assert model._compiled([g.inputs[x]], False) is not None
    assert model.params[x].scale == params[0]
    tensor = model(nn.quantized_model.QuantizedTensor(
        model.params[x].dtype.type(g.rng.integers(0, 100, (2, 6))), model.params[x]
    ))
    assert tensor.codes.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_in_and_codes_out(dtype):
    g = graph(dtype)
    x = g.codes(5, 6)
    y = g.quantized(dense(g, x))
    model = assert_same(g, y, optimize=True)
    assert is_in_8_bits(model)
    assert model.comes_as_codes(x)
    assert model.coded_outputs == model.outputs
    assert model.output_names == (y,)
    again = storage.from_bytes(model.to_bytes())
    assert_array_equal(again(g.inputs[x]), model(g.inputs[x]), strict=True)
    bound = model.bind(g.inputs[x])
    assert_array_equal(bound(), model(g.inputs[x]), strict=True)


def test_one_tensor_out_as_codes_and_as_reals():
    g = graph()
    y = g.quantized(dense(g, g.codes(3, 6)))
    reals = g.dq(y)
    model = assert_same(g, y, reals, y, optimize=True)
    assert kinds(model) == ["DenseQuantized", "IdentityQuantized", "IdentityQuantized"]


def test_an_input_that_is_quantized_and_taken_in_float():
    g = graph()
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    y = g.quantized(g.op("Relu", g.dq(g.q(x, g.any_params(0.02)))))
    model = assert_same(g, y, g.op("Sqrt", g.op("Abs", x)))
    assert "Quantize" in kinds(model)
    assert model.coded_inputs == ()


def test_reals_that_were_quantized_are_not_those_before():
    """What an operator in float takes went through codes, though the door could have made them."""
    g = graph()
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    reals = g.dq(g.q(x, g.any_params(0.1)))
    total = g.op("Mul", reals, g.op("Softmax", reals))
    _, [result] = by_qcy(g, total)
    assert_allclose(result, g.run(total)[0], rtol=1e-5)


def test_an_input_that_goes_out_again():
    g = graph()
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    codes = g.q(x, g.any_params())
    model = assert_same(g, codes, g.dq(codes))
    assert kinds(model) == ["Quantize", "IdentityQuantized"]


# ----------------------------------------------------------------------------- what becomes 8 bits


def test_codes_move_without_being_quantized_again():
    g = graph()
    x = g.dq(g.codes(2, 3, 4, 5))
    x = g.op("MaxPool", x, kernel_shape=[2, 2])
    x = g.op("Relu", x)
    left, right = g.op("Split", x, n_outputs=2, axis=3, num_outputs=2)
    turned = g.op("Transpose", right, perm=[0, 2, 3, 1])
    total = g.op("Exp", turned)
    model, results = by_qcy(g, left, total)
    assert kinds(model)[:-1] == ["MaxPool2DQuantized", "ReLUQuantized", "Split", "Transpose"]
    for result, wanted in zip(results, g.run(left, total), strict=True):
        assert_allclose(result, wanted, rtol=1e-6)


@pytest.mark.parametrize(("op", "attributes", "inputs"), [
    ("MaxPool", {"kernel_shape": [2, 2]}, []), ("Transpose", {"perm": [2, 0, 1, 3]}, []),
    ("Reshape", {}, [[2, -1]]), ("Flatten", {}, []), ("Gather", {"axis": 3}, [[0, 2, 1]]),
    ("Slice", {}, [[0], [1], [2]]), ("Tile", {}, [[1, 2, 1, 1]]), ("Identity", {}, []),
    ("Unsqueeze", {}, [[0]]), ("DepthToSpace", {"blocksize": 2}, []), ("Shape", {}, []),
    ("ArgMax", {"axis": 1}, []), ("Size", {}, []), ("Expand", {}, [[2, 2, 4, 4, 5]]),
])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_are_moved_as_codes(op, attributes, inputs, dtype):
    g = graph(dtype)
    x = g.q(g.input(g.rng.normal(size=(2, 4, 4, 5)).astype(np.float32)), g.any_params(0.02))
    y = g.op(op, x, *(g.constant(np.array(i, np.int64)) for i in inputs), **attributes)
    if op in ("Shape", "Size", "ArgMax"):
        g.dtypes[y] = np.int64
        assert_same(g, y, x)
        return
    g.params[y] = g.params[x]
    model = assert_same(g, y, g.dq(y))
    assert is_in_8_bits(model)


@pytest.mark.parametrize("value", [None, 3, 200])
def test_padding_of_codes_fills_up_with_a_code(value):
    g = graph()
    x = g.codes(2, 3)
    value = [] if value is None else [g.constant(np.uint8(value))]
    y = g.op("Pad", x, g.constant(np.array([1, 0, 0, 2])), *value)
    g.params[y] = g.params[x]
    model = assert_same(g, y, g.dq(y))
    assert is_in_8_bits(model)


def test_padding_of_reals_with_what_no_code_is():
    g = graph()
    x = g.codes(2, 3, params=(np.float32(0.1), np.uint8(7)))
    value = g.constant(np.float32(0.123))
    y = g.op("Pad", g.dq(x), g.constant(np.array([1, 0, 0, 2])), value)
    assert kinds(assert_same(g, y)) == ["DequantizeLinear", "Pad"]
    z = g.q(y, g.params[x])
    assert kinds(assert_same(g, z)) == ["Pad", "Quantize"]


def test_rows_of_a_table_of_codes():
    g = graph(np.int8)
    table = g.dq_constant(g.rng.integers(-99, 99, (7, 4), np.int8), 0.02, np.int8(3))
    rows = g.op("Gather", table, g.input(np.array([[1, 6, 2], [0, 0, 5]])))
    g.params["rows"] = (np.float32(0.02), np.int8(3))
    g.op("QuantizeLinear", rows, *g.stated(g.params["rows"]))
    codes = g.nodes[-1].output[0]
    g.params[codes] = g.params["rows"]
    y = g.quantized(g.op("MatMul", g.dq(codes), g.weight((4, 5), 1)[1]))
    model = assert_same(g, y, optimize=True)
    assert is_in_8_bits(model)


def test_reals_quantized_with_other_parameters():
    g = graph()
    x = g.codes(3, 50)
    y = g.q(g.dq(x), g.any_params(0.03))
    z = g.q(g.dq(y), (np.float32(0.02), np.int8(-7)))
    model = assert_same(g, y, z)
    assert kinds(model) == ["TableQuantized", "TableQuantized"]
    assert model._compiled([g.inputs[x]], False) is not None


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_that_are_turned_and_shaped_after(axis):
    g = graph()
    x = g.codes(3, 6)
    scale, weight = g.weight((4, 6), 0, per_channel=axis == 0)
    weight = g.op("Transpose", weight, perm=[1, 0])
    y = g.quantized(g.op("MatMul", g.dq(x), weight))
    assert kinds(assert_same(g, y, optimize=True)) == ["DenseQuantized"]


def test_weights_that_are_quantized_as_the_model_runs():
    g = graph()
    x = g.codes(2, 3, 6, 6)
    weight = g.constant((g.rng.normal(size=(4, 3, 3, 3)) / 9).astype(np.float32))
    scale, zero = (g.constant(a) for a in (np.full(4, 0.003, np.float32), np.zeros(4, np.int8)))
    weight = g.op("QuantizeLinear", weight, scale, zero, axis=0)
    weight = g.op("DequantizeLinear", weight, scale, zero, axis=0)
    reals = g.op("Conv", g.dq(x), weight)
    y = g.quantized(reals)
    model, [codes] = by_qcy(g, y)
    assert kinds(model) == ["Conv2DQuantized"]
    assert_rounded(g, codes, reals, g.params[y])


def test_equal_conversions_are_one():
    g = graph()
    x = g.codes(3, 6)
    relu = g.op("Relu", g.dq(x))
    parts = [g.dq(g.q(relu, g.params[x])) for _ in range(2)]
    y = g.quantized(g.op("Mul", *parts))
    product = dense(g, x)
    outputs = [g.q(product, g.params[y]) for _ in range(2)]
    model = assert_same(g, y, *outputs)
    assert kinds(model) == [
        "ReLUQuantized", "MulQuantized", "DenseQuantized", "IdentityQuantized"
    ]


def test_conversions_of_another_domain():
    g = graph()
    x = g.codes(3, 6)
    scale, weight = g.weight((6, 4), 1)
    reals = g.op(f"{MICROSOFT}:DequantizeLinear", x, *g.stated(g.params[x]))
    y = g.quantized(g.op("MatMul", reals, weight))
    g.nodes[-1].domain = MICROSOFT
    assert kinds(assert_same(g, y, optimize=True)) == ["DenseQuantized"]


@pytest.mark.parametrize(("size", "kind"), [(1, "DenseQuantized"), (0.01, "Dense")])
def test_a_bias_of_reals_is_rounded_where_that_is_nothing(size, kind):
    g = graph()
    x = g.codes(3, 6)
    weight = g.weight((6, 4), 1)[1]
    bias = g.constant(g.rng.normal(size=4).astype(np.float32))
    reals = g.op("Gemm", g.dq(x), weight, bias)
    scale = np.float32(0.02 * size) if size == 1 else np.float32(1e-5)
    y = g.q(reals, (scale, np.uint8(128)))
    model, [codes] = by_qcy(g, y)
    assert kinds(model)[0] == kind
    assert_rounded(g, codes, reals, g.params[y])


# ---------------------------------------------------------------------------------- what does not


def test_what_has_no_twin_stays_in_float():
    g = graph()
    x = g.quantized(dense(g, g.codes(3, 6)))
    reals = g.op("Softmax", g.dq(x))
    y = g.quantized(reals)
    z = g.quantized(dense(g, y))
    model, [codes] = by_qcy(g, y)
    assert kinds(model) == ["DenseQuantized", "Softmax", "Quantize"]
    assert_rounded(g, codes, reals, g.params[y])
    assert "the file has it in float" in model.summary()
    assert kinds(by_qcy(g, z)[0])[-1] == "DenseQuantized"


def test_reals_that_somebody_else_needs_stay_reals():
    g = graph()
    reals = dense(g, g.codes(3, 6))
    y = g.quantized(reals)
    model, results = by_qcy(g, y, reals)
    assert kinds(model) == ["Dense", "Quantize"]
    assert_allclose(results[1], g.run(reals)[0], atol=1e-5)
    other = g.q(reals, g.any_params(0.1))
    assert kinds(by_qcy(g, y, other)[0]) == ["Dense", "Quantize", "Quantize"]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_codes_of_16_bits_are_plain(dtype):
    g = graph(opset=21)
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    codes = g.q(x, (np.float32(1e-4), dtype(100)))
    inner = g.quantized(g.op("Relu", g.dq(codes)))
    y = g.quantized(g.op("MatMul", g.dq(inner), g.weight((6, 4), 1)[1]))
    model = assert_same(g, y)
    assert kinds(model) == [
        "QuantizeLinear", "DequantizeLinear", "ReLU", "Quantize", "DenseQuantized"
    ]


def test_scales_that_are_computed_are_plain():
    g = graph()
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    scale = g.op("ReduceMax", g.op("Abs", x), keepdims=0)
    zero = g.constant(np.uint8(128))
    codes = g.op("QuantizeLinear", x, scale, zero)
    y = g.op("DequantizeLinear", codes, scale, zero)
    z = g.quantized(g.op("Relu", y))
    model = assert_same(g, y, z)
    assert kinds(model)[-1] == "Quantize"


def test_codes_that_mean_two_things_are_plain():
    g = graph()
    x = g.codes(3, 6)
    y = g.quantized(g.op("Relu", g.dq(x)))
    g.params[x] = (np.float32(1.5), g.params[x][1])
    model = assert_same(g, y, g.dq(x))
    assert isinstance(model, nn.Model)


@pytest.mark.parametrize("op", ["Cast", "Add", "MatMulInteger"])
def test_codes_taken_for_numbers_are_plain(op):
    g = graph()
    x = g.codes(3, 3)
    inner = g.quantized(dense(g, x, 3))
    if op == "Cast":
        y = g.op("Cast", inner, to=onnx.TensorProto.FLOAT)
    else:
        y = g.op("Cast", g.op(op, inner, inner), to=onnx.TensorProto.FLOAT)
    model = load(g.model(y, inner))
    assert isinstance(model, nn.Model)
    results = model(g.inputs[x])
    wanted = g.run(y, inner)
    assert_array_equal(results[1], wanted[1])
    assert_array_equal(results[0], wanted[0])


def test_weights_alone_in_codes_are_folded():
    g = graph()
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    y = g.op("MatMul", x, g.weight((6, 4), 1)[1])
    model, [result] = by_qcy(g, y)
    assert kinds(model) == ["Dense"]
    assert_allclose(result, g.run(y)[0], rtol=1e-5, atol=1e-6)


def test_weights_by_blocks_and_by_another_axis_stay_in_float():
    g = graph(opset=21)
    x = g.codes(3, 6)
    by_rows = g.weight((6, 4), 0)[1]
    scale = g.rng.uniform(0.01, 0.02, (3, 4)).astype(np.float32)
    blocks = g.dq_constant(
        g.rng.integers(-60, 60, (6, 4), np.int8), scale, np.zeros((3, 4), np.int8), axis=0,
        block_size=2,
    )
    for weight in (by_rows, blocks):
        reals = g.op("MatMul", g.dq(x), weight)
        y = g.quantized(reals)
        model, [codes] = by_qcy(g, y)
        assert kinds(model) == ["Dense", "Quantize"]
        assert_rounded(g, codes, reals, g.params[y])


def test_a_tiny_output_step_leaves_a_product_in_float():
    """Its multiplier would be no number that equation (9) has."""
    g = graph()
    x = g.codes(3, 6, params=(np.float32(1e30), np.uint8(3)))
    y = g.q(g.op("MatMul", g.dq(x), g.weight((6, 4), 1)[1]), (np.float32(1e-30), np.uint8(9)))
    model = assert_same(g, y)
    assert kinds(model) == ["Dense", "Quantize"]
