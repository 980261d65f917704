"""Models that quantize inside, take codes, and give codes: what files of quantized models need."""

import copy
import pickle

import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizedTensor, nn
from qcy.nn import storage
from qcy.nn.layers.base import to_codes, to_reals
from qcy.nn.operators import OPERATORS

A, B = QuantizationParams(0.1, 7, "int8"), QuantizationParams(0.25, 100)
RNG = np.random.default_rng(3)


def reals(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def codes(params, *shape):
    return oracles.random_codes(RNG, shape, params.dtype)


def dense(in_params, out_params, n_in=6, n_out=4):
    return nn.Dense(reals(n_in, n_out), reals(n_out)).quantized(in_params, out_params)


# ------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("params", [
    A, B, QuantizationParams(0.02, 0, "int8", narrow_range=True),
], ids=str)
def test_quantize_gives_codes(params):
    x = reals(5, 6) * 10
    layer = nn.Quantize(params)
    assert_array_equal(layer.forward_codes(x), to_codes(x, params))
    assert_array_equal(layer(x), to_reals(to_codes(x, params), params))
    for again in (copy.copy(layer), pickle.loads(pickle.dumps(layer)), layer.replace()):
        assert again.out_params == params
    other = QuantizedTensor(codes(B, 3), B)
    assert_array_equal(
        layer.quantized_forward(other).codes.data, to_codes(other.dequantize().data, params)
    )


def test_quantize_refuses_what_is_no_float32():
    with pytest.raises(TypeError, match="x must be float32, got uint8"):
        nn.Quantize(B).forward_codes(np.zeros(3, np.uint8))
    with pytest.raises(TypeError, match="out_params must be QuantizationParams, got None"):
        nn.Quantize(None)
    with pytest.raises(ValueError, match="NaN"):
        nn.Quantize(B)(np.float32([np.nan]))


def test_operator_on_codes_is_the_operator():
    a, b = codes(A, 2, 3, 4), codes(A, 2, 4, 5)
    layer = nn.QLinearOperator([A, A], B, "QLinearMatMul")
    parts = [np.array(A.scale), np.array(A.zero_point, A.dtype)]
    wanted = OPERATORS["QLinearMatMul"].function(
        a, *parts, b, *parts, np.array(B.scale), np.array(B.zero_point, B.dtype)
    )
    assert_array_equal(layer.forward_codes(a, b), wanted, strict=True)
    again = pickle.loads(pickle.dumps(layer))
    assert_array_equal(again.forward_codes(a, b), wanted, strict=True)
    softmax = nn.QLinearOperator(A, A, "com.microsoft:QLinearSoftmax", {"axis": 1, "opset": 13})
    assert softmax.replace().attributes == (("axis", 1), ("opset", 13))


def test_operator_on_codes_must_be_one():
    with pytest.raises(ValueError, match=r"op must be .*, got 'Relu'"):
        nn.QLinearOperator(A, A, "Relu")


# ------------------------------------------------------------------------------------------ models


def chain(**settings):
    """Return a model of codes in, codes out: two dense layers, the first of codes of `A`."""
    settings = {
        "params": {"x": A, "first": B, "second": A}, "coded_outputs": ["second"],
        "input_types": {"x": nn.TensorType("int8", ("n", 6))},
    } | settings
    nodes = [("first", dense(A, B), "x"), ("second", dense(B, A, 4, 3), "first")]
    return nn.QuantizedModel(nodes, ["second"], ["x"], **settings)


def by_layers(model, *inputs):
    """Run a model layer by layer."""
    return model(*inputs, ctx=nn.Context())


def test_codes_in_and_codes_out():
    model, x = chain(), codes(A, 8, 6)
    wanted = model["second"].forward_codes(model["first"].forward_codes(x))
    assert model._compiled([x], False) is not None
    for y in (model(x), by_layers(model, x), model.bind(x)(), model.predict(x, batch_size=3)):
        assert_array_equal(y, wanted, strict=True)
    tensor = model(qcy.Tensor(x))
    assert isinstance(tensor, qcy.Tensor)
    assert_array_equal(tensor.data, wanted, strict=True)
    for y in (model(QuantizedTensor(x, A)), by_layers(model, QuantizedTensor(x, A))):
        assert_array_equal(y.codes.data, wanted, strict=True)
        assert y.params == A
    assert_array_equal(dict(model.trace(x))["second"], to_reals(wanted, A), strict=True)
    assert model.memory_plan((8, 6))["steps"] == 3


def test_codes_in_and_reals_out():
    model, x = chain(coded_outputs=()), codes(A, 8, 6)
    wanted = chain_codes(model, x)
    for y in (model(x), by_layers(model, x)):
        assert_array_equal(y, to_reals(wanted, A), strict=True)


def chain_codes(model, x):
    return model["second"].forward_codes(model["first"].forward_codes(x))


def test_reals_in_and_codes_out():
    model, x = chain(input_types={}), reals(8, 6)
    wanted = chain_codes(model, to_codes(x, A))
    for y in (model(x), by_layers(model, x), model.bind(x)()):
        assert_array_equal(y, wanted, strict=True)


def test_codes_in_that_a_float_layer_takes_too():
    model = nn.QuantizedModel(
        [("first", dense(A, B, 6, 6), "x"), ("sum", nn.Add(), ["first", "x"])], ["sum", "first"],
        ["x"], params={"x": A, "first": B}, coded_outputs=["first"],
        input_types={"x": nn.TensorType("int8")},
    )
    x = codes(A, 3, 6)
    total, first = model(x)
    assert_array_equal(first, model["first"].forward_codes(x), strict=True)
    assert_array_equal(total, to_reals(first, B) + to_reals(x, A), strict=True)


def test_layers_in_float_are_quantized_after():
    model = nn.QuantizedModel(
        [("first", dense(A, B), "x"), ("soft", nn.Softmax(), "first"),
         ("codes", nn.Quantize(A), "soft"), ("second", dense(A, A, 4, 3), "codes")], ["second"],
        ["x"], params={"x": A, "first": B, "codes": A, "second": A},
    )
    x = reals(4, 6)
    first = model["first"].forward_codes(to_codes(x, A))
    soft = nn.Softmax()(to_reals(first, B))
    wanted = model["second"].forward_codes(to_codes(soft, A))
    assert_array_equal(model(x), to_reals(wanted, A), strict=True)


def test_quantize_is_a_step_of_a_program():
    images = reals(2, 3, 5, 5)
    conv = nn.Conv2D(reals(4, 3, 3, 3), layout="NHWC").quantized(A, B)
    model = nn.QuantizedModel(
        [("codes", nn.Quantize(A), "x"), ("conv", conv, "codes")], ["conv"], ["x"],
        params={"codes": A, "conv": B},
    )
    assert model._compiled([images], False) is not None
    assert_array_equal(model(images), by_layers(model, images), strict=True)
    channels_last = np.ascontiguousarray(to_codes(images, A).transpose(0, 2, 3, 1))
    wanted = to_reals(conv.forward_codes(channels_last), B).transpose(0, 3, 1, 2)
    assert_array_equal(model(images), wanted)
    with pytest.raises(TypeError, match="input 'x' is of numbers, not of codes"):
        model(QuantizedTensor(to_codes(images, A), A))


def test_quantize_of_codes_is_no_step():
    model = nn.QuantizedModel(
        [("first", dense(A, B), "x"), ("codes", nn.Quantize(A), "first")], ["codes"], ["x"],
        params={"x": A, "first": B, "codes": A},
    )
    x = reals(4, 6)
    assert model._compiled([x], False) is None
    first = to_reals(model["first"].forward_codes(to_codes(x, A)), B)
    assert_array_equal(model(x), to_reals(to_codes(first, A), A), strict=True)


@pytest.mark.parametrize("model", [
    chain(), chain(input_types={}, coded_outputs=()),
    nn.QuantizedModel(
        [("q", nn.Quantize(A), "x"), ("y", nn.QLinearOperator(
            A, A, "com.microsoft:QLinearGlobalAveragePool", {"channels_last": 1}), "q")],
        ["y"], ["x"], params={"q": A, "y": A},
    ),
], ids=["codes", "reals", "inside"])
def test_files(model):
    again = storage.from_bytes(model.to_bytes())
    assert again.coded_outputs == model.coded_outputs
    assert again.to_bytes() == model.to_bytes()
    x = codes(A, 2, 6) if model.input_types else reals(2, 6)
    x = reals(2, 3, 4, 5) if "q" in model.params else x
    assert_array_equal(again(x), model(x), strict=True)
    assert_array_equal(pickle.loads(pickle.dumps(model))(x), model(x), strict=True)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"coded_outputs must be outputs .*, got 'first'"):
        chain(coded_outputs=["first"])
    with pytest.raises(ValueError, match=r"params of input 'x' must be of uint8, got .*int8"):
        chain(input_types={"x": nn.TensorType("uint8")})
    with pytest.raises(TypeError, match=r"input 'x' must be int8\[n, 6\], got float32"):
        chain()(reals(2, 6))
    with pytest.raises(ValueError, match="must be C-ordered float32 arrays, or of the codes"):
        chain().bind(codes(A, 6, 2).T)
