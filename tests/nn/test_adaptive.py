"""AdaptiveLayer: one door for float and quantized tensors, the output of the input's kind."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizedTensor, Tensor, nn

IN, OUT = QuantizationParams(0.02, 120), QuantizationParams(0.05, 100)
X = np.random.default_rng(0).normal(size=(200, 3)).clip(-2, 2).astype(np.float32)


@pytest.fixture
def dense():
    rng = np.random.default_rng(1)
    layer = nn.Dense(rng.normal(size=(3, 2)), rng.normal(size=2), activation="relu")
    return layer, layer.quantized(IN, OUT)


@pytest.mark.parametrize("use_quantized", [True, False])
def test_reals_give_reals(dense, use_quantized):
    layer, twin = dense
    adaptive = nn.AdaptiveLayer(layer, twin, use_quantized)
    expected = (twin if use_quantized else layer)(X)
    y = adaptive(X)
    assert type(y) is np.ndarray
    assert_array_equal(y, expected)
    assert_array_equal(adaptive.forward(X.tolist()), expected)
    tensor = adaptive(Tensor(X))
    assert isinstance(tensor, Tensor)
    assert_array_equal(tensor.data, expected)


def test_codes_give_codes(dense):
    layer, twin = dense
    x = qcy.quantize(X, IN)
    y = nn.AdaptiveLayer(layer, twin)(x)
    assert isinstance(y, QuantizedTensor)
    assert y == twin.quantized_forward(x)
    through_float = nn.AdaptiveLayer(layer, twin, use_quantized=False)(x)
    assert through_float == qcy.quantize(layer(x.dequantize()), OUT)
    # The two ways differ by a rounding of weights and of sums.
    assert np.abs(y.codes.data.astype(int) - through_float.codes.data).max() <= 2
    assert y != through_float


def test_other_params_are_requantized(dense):
    layer, twin = dense
    x = qcy.quantize(X, QuantizationParams(0.03, 7, "int8"))
    assert nn.AdaptiveLayer(layer, twin)(x) == twin.quantized_forward(x)
    assert nn.AdaptiveLayer(layer, twin, use_quantized=False)(x).params == OUT


@pytest.mark.parametrize("use_quantized", [True, False])
def test_several_inputs(use_quantized):
    add = nn.Add()
    twin = add.quantized((IN, IN), OUT)
    adaptive = nn.AdaptiveLayer(add, twin, use_quantized)
    x = qcy.quantize(X, IN)
    assert adaptive(x, x).params == OUT
    assert np.abs(adaptive(X, X) - (X + X)).max() < 0.1
    with pytest.raises(TypeError, match="all be QuantizedTensors, or none"):
        adaptive(x, X)
    for arguments in ((), (X,), (x,), (x, x, x)):
        with pytest.raises(TypeError, match=r"takes 2 input\(s\)"):
            adaptive(*arguments)


def test_can_switch_at_any_time(dense):
    adaptive = nn.AdaptiveLayer(*dense)
    before = adaptive(X)
    adaptive.use_quantized = False
    assert_array_equal(adaptive(X), dense[0](X))
    adaptive.use_quantized = True
    assert_array_equal(adaptive(X), before)


@pytest.mark.parametrize("use_quantized", [True, False])
def test_context_stops_it(dense, use_quantized):
    adaptive, ctx = nn.AdaptiveLayer(*dense, use_quantized), nn.Context()
    ctx.cancel()
    for x in (X, qcy.quantize(X, IN)):
        with pytest.raises(nn.Cancelled):
            adaptive(x, ctx=ctx)


def test_copies_and_repr(dense):
    adaptive = nn.AdaptiveLayer(*dense, use_quantized=False)
    for again in (pickle.loads(pickle.dumps(adaptive)), copy.deepcopy(adaptive)):
        assert repr(again) == repr(adaptive)
        assert_array_equal(again(X), adaptive(X))
    assert repr(adaptive).startswith("AdaptiveLayer(Dense(")
    assert repr(adaptive).endswith("use_quantized=False)")


def test_refuses_twins_in_the_wrong_place(dense):
    layer, twin = dense
    for arguments, message in (
        ((twin, twin), "float_layer must be a float Layer"),
        ((layer, layer), "quantized_layer must be a QuantizedLayer"),
        ((None, twin), "float_layer must be a float Layer"),
        ((layer, None), "quantized_layer must be a QuantizedLayer"),
    ):
        with pytest.raises(TypeError, match=message):
            nn.AdaptiveLayer(*arguments)
