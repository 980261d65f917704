"""What all 8-bit layers share: round trips, kinds of input, empty batches, every kernel variant."""

import copy
import pickle
from functools import cache

import models
import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizationScheme, QuantizedTensor, nn

twins = cache(models.nodes_by_kind)

#: Of the inputs of the zoo's layers, channels last, without the batch.
SHAPES = {
    "AddQuantized": (3, 4), "AttentionQuantized": (5, 12), "AvgPool2DQuantized": (5, 5, 6),
    "BatchNormQuantized": (4, 4, 3),
    "ConcatQuantized": (4, 4, 2), "Conv2DQuantized": (8, 8, 3),
    "ConvTranspose2DQuantized": (3, 4, 4), "DenseQuantized": (8,), "DropoutQuantized": (2, 2),
    "EmbeddingQuantized": (5,), "FlattenQuantized": (2, 3, 4), "GELUQuantized": (6,),
    "GlobalAvgPool2DQuantized": (5, 4, 8), "IdentityQuantized": (3,),
    "LayerNormQuantized": (5, 12), "MaxPool2DQuantized": (8, 8, 6), "MulQuantized": (8, 8, 8),
    "MatMulQuantized": (2, 2), "MaximumQuantized": (12,), "MeanQuantized": (2, 2),
    "PReLUQuantized": (8, 8, 8),
    "OperatorQuantized": (12,), "ReLU6Quantized": (4, 5),
    "ReLUQuantized": (4, 5), "ReshapeQuantized": (5, 5, 6), "SigmoidQuantized": (3, 3),
    "SoftmaxQuantized": (5,), "SubQuantized": (12,),
    "TableQuantized": (6,), "TanhQuantized": (7,),
}


def twin(kind, batch=2):
    """Return a twin of the zoo, and random inputs for it."""
    rng, layer = np.random.default_rng(4), twins()[kind].layer
    if layer.TAKES_REALS:
        indices = rng.integers(0, len(layer.codes), (batch, *SHAPES[kind]), np.uint8)
        return layer, [QuantizedTensor(indices, QuantizationParams(1.0))]
    return layer, [
        QuantizedTensor(oracles.random_codes(rng, (batch, *SHAPES[kind]), params.dtype), params)
        for params in layer.in_params
    ]


def test_zoo_has_every_twin():
    kinds = {name for name in nn.layers.__all__ if name.endswith("Quantized")}
    assert set(twins()) - {"ConstantQuantized"} == kinds - {"ConstantQuantized"} == set(SHAPES)


@pytest.mark.parametrize("kind", SHAPES)
def test_round_trips(kind):
    layer, inputs = twin(kind)
    y = layer.quantized_forward(*inputs)
    assert y.params == layer.out_params
    for again in (
        layer.replace(), copy.deepcopy(layer), copy.copy(layer),
        *(pickle.loads(pickle.dumps(layer, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)),
        type(layer)(**layer.settings(), **dict.fromkeys(layer.ARRAYS) | layer.arrays()),
    ):
        assert type(again) is type(layer)
        assert again.settings() == layer.settings()
        assert again.arrays().keys() == layer.arrays().keys()
        for name, array in layer.arrays().items():
            assert_array_equal(again.arrays()[name], array, strict=True)
        assert again.quantized_forward(*inputs) == y
        assert repr(again) == repr(layer)
    assert repr(layer).startswith(f"{kind}(")
    assert "in_params=(QuantizationParams(scale=" in repr(layer)


@pytest.mark.parametrize("kind", SHAPES)
def test_kinds_of_input(kind):
    layer, inputs = twin(kind)
    y = layer.quantized_forward(*inputs)
    reals = [x.dequantize() for x in inputs]
    assert_array_equal(layer(*(x.data for x in reals)), y.dequantize().data)
    as_tensor = layer.forward(*reals)
    assert isinstance(as_tensor, qcy.Tensor)
    assert_array_equal(as_tensor.data, y.dequantize().data)
    # Other params, of either dtype: converted at the door.
    for dtype in () if layer.TAKES_REALS else ("uint8", "int8"):
        others = [qcy.quantize(x, dtype=dtype) for x in reals]
        expected = layer.quantized_forward(*(
            x.requantize(p.scale, p.zero_point) if x.dtype == p.dtype
            else qcy.quantize(x.dequantize(), p)
            for x, p in zip(others, layer.in_params, strict=True)
        ))
        assert layer.quantized_forward(*others) == expected
    with pytest.raises(TypeError, match="takes QuantizedTensors, got ndarray"):
        layer.quantized_forward(*(x.data for x in reals))
    with pytest.raises(TypeError, match=rf"takes {len(inputs)} .*, got {len(inputs) + 1}"):
        layer.quantized_forward(*inputs, inputs[0])
    ctx = nn.Context()
    assert layer.quantized_forward(*inputs, ctx=ctx) == y
    ctx.cancel()
    with pytest.raises(nn.Cancelled):
        layer.quantized_forward(*inputs, ctx=ctx)


@pytest.mark.parametrize("kind", SHAPES)
def test_empty_batch(kind):
    layer, inputs = twin(kind)
    empty = layer.quantized_forward(*twin(kind, batch=0)[1])
    assert empty.shape == (0, *layer.quantized_forward(*inputs).shape[1:])
    assert empty.params == layer.out_params


@pytest.mark.parametrize("kind", SHAPES)
def test_every_variant_gives_the_same_codes(kind, kernels):
    layer, inputs = twin(kind)
    again = pickle.loads(pickle.dumps(layer))       # packed for the variant in force
    assert again.quantized_forward(*inputs) == layer.quantized_forward(*inputs)


# --------------------------------------------------------------------------- weights and limits


IN, OUT = QuantizationParams(0.02, 128), QuantizationParams(0.05, 100)
SCHEMES = [
    symmetry | channels
    for symmetry in (QuantizationScheme.SYMMETRIC, QuantizationScheme.ASYMMETRIC)
    for channels in (QuantizationScheme.PER_CHANNEL, QuantizationScheme.PER_TENSOR)
]


def make(cls, column, bias):
    """Return a layer with two output channels: ordinary weights, and `column` everywhere."""
    w = np.array([[0.5, column], [-1.0, column], [0.25, column]])
    if cls is nn.Dense:
        return nn.Dense(w, bias)
    if cls is nn.Conv2D:
        return nn.Conv2D(w.T[:, :, None, None], bias)
    return nn.ConvTranspose2D(w[:, :, None, None], bias)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("cls", [nn.Dense, nn.Conv2D, nn.ConvTranspose2D])
@pytest.mark.parametrize("column", [0.0, 1e-45, -1e-40, 1e-20, -1e-10, 1e-3])
@pytest.mark.parametrize("bias", [0.5, -3.0, 1e-12, 1e9])
def test_no_channel_is_too_weak_and_no_bias_too_large(scheme, cls, column, bias):
    layer = make(cls, column, [0.1, bias])
    out = QuantizationParams(max(0.05, abs(bias) / 100), 128)
    quantized = layer.quantized(IN, out, scheme)
    assert (np.abs(quantized.bias.astype(np.int64)) <= 2**30).all()
    shape = (1, 3) if cls is nn.Dense else (1, 3, 1, 1)
    x = qcy.quantize(np.array([0.5, -0.25, 1.0]).reshape(shape), IN)
    y = quantized.quantized_forward(x).dequantize().data.reshape(-1)
    reals = layer(x.dequantize().data).reshape(-1)
    if scheme.is_per_channel:
        assert np.abs(y - reals).max() <= out.scale * 0.51 + 0.02
    assert abs(y[1] - reals[1]) <= out.scale * 0.51 + 0.02


def test_zero_point_follows_a_raised_scale():
    # The bias asks for a scale of 465 times that of the weights, which span 0 to 1e-9.
    layer = nn.Dense(np.full((3, 1), 1e-9), [0.5])
    quantized = layer.quantized(IN, OUT, QuantizationScheme.ASYMMETRIC)
    assert quantized.weight_scale >= 0.5 / (0.02 * 2**30)
    assert quantized.weight_scale <= 0.5 / (0.02 * 2**30) * 1.00001
    assert quantized.weight_zero_point == -128
    assert_array_equal(quantized.weight, -128)
    below = nn.Dense(np.full((3, 1), -1e-9), [0.5])
    assert below.quantized(IN, OUT, QuantizationScheme.ASYMMETRIC).weight_zero_point == -128


def test_narrow_range_ends_at_minus_127_everywhere():
    narrow = QuantizationParams(0.5, 0, "int8", narrow_range=True)
    wide = QuantizationParams(1.0, 0, "int8")
    x = np.full((1, 2, 2, 2), -1e6, np.float32)
    codes = QuantizedTensor(np.full((1, 2, 2, 2), -128, np.int8), wide)
    for layer, in_params, out in (
        (nn.Identity(), narrow, narrow), (nn.MaxPool2D(2), narrow, narrow),
        (nn.AvgPool2D(2), wide, narrow), (nn.GlobalAvgPool2D(), wide, narrow),
        (nn.AvgPool2D(2), narrow, narrow), (nn.Reshape((8,)), narrow, narrow),
        (nn.Conv2D(np.ones((1, 2, 1, 1))), wide, narrow),
    ):
        quantized = layer.quantized(in_params, out)
        assert quantized(x).min() == -63.5
        assert quantized.quantized_forward(codes).codes.data.min() == -127
    rows = QuantizedTensor(np.array([[-128, 127]], np.int8), wide)
    for quantized, inputs in (
        (nn.LayerNorm([9e9, 9e9], [0, 0]).quantized(wide, narrow), (rows,)),
        (nn.Attention(1).quantized((wide,) * 3, narrow), (rows,) * 3),
        (nn.GELU().quantized(wide, QuantizationParams(1e-3, 0, "int8", narrow_range=True)),
         (QuantizedTensor(np.arange(-128, 128).astype(np.int8), wide),)),
    ):
        assert quantized.quantized_forward(*inputs).codes.data.min() == -127
    embedding = nn.Embedding([[-1e9]]).quantized(wide, narrow)
    assert embedding.codes.tolist() == [[-127]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.ReLU().quantized(0.5), TypeError, "in_params must be QuantizationParams"),
        (lambda: nn.Dense([[1.0]]).quantized(IN, None), TypeError, "out_params must be"),
        (lambda: nn.Concat().quantized([IN], None), TypeError, "must be QuantizationParams"),
        (lambda: nn.AvgPool2D(2).quantized(IN, None), TypeError, "out_params must be"),
        (lambda: nn.IdentityQuantized((IN, IN), IN), ValueError, "in_params must be 1, got 2"),
        (lambda: nn.AddQuantized(IN, OUT), ValueError, "in_params must be 2, got 1"),
        (lambda: nn.ConcatQuantized(np.zeros((0, 256), np.uint8), (), OUT), ValueError,
         "at least 1"),
        (lambda: nn.IdentityQuantized(
            QuantizationParams([1], [0], axis=0), IN), ValueError, "must have one scale"),
        (lambda: nn.SigmoidQuantized(np.zeros(255, np.uint8), IN, OUT), ValueError, "256 entries"),
        (lambda: nn.SigmoidQuantized(np.zeros(256, np.int8), IN, OUT), ValueError, "256 entries"),
        (lambda: nn.ConcatQuantized(np.zeros((2, 256), np.uint8), (IN,), OUT), ValueError,
         "tables must have shape"),
        (lambda: nn.SoftmaxQuantized(np.zeros(9, np.int32), IN, OUT), ValueError, "1/256"),
        (lambda: nn.AvgPool2DQuantized(IN, QuantizationParams(1, 0, "int8"), 2), TypeError,
         "must be uint8"),
        (lambda: nn.DenseQuantized(np.ones((2, 2)), 1, None, IN, OUT), TypeError, "int8 or uint8"),
        (lambda: nn.DenseQuantized(np.ones((2, 2), np.int8), 1, [1], IN, OUT), ValueError, "bias"),
        (lambda: nn.DenseQuantized(np.ones((2, 2), np.int8), 0, None, IN, OUT), ValueError,
         "scale must be positive"),
        (lambda: nn.Layer().quantized(IN, OUT), TypeError, "Layer has no 8-bit twin"),
        (lambda: nn.AttentionQuantized((IN, IN), OUT, n_heads=1), ValueError, "must be 3, got 2"),
        (lambda: nn.AttentionQuantized((IN,) * 3, OUT, n_heads=0), ValueError, "n_heads must be"),
        (lambda: nn.AttentionQuantized((IN,) * 3, OUT, n_heads=1, score_scale=0), ValueError,
         "score_scale must be positive"),
        (lambda: nn.EmbeddingQuantized(np.zeros((2, 2), np.int8), IN, OUT), TypeError,
         "codes must be uint8, got int8"),
        (lambda: nn.EmbeddingQuantized(np.zeros((0, 2), np.uint8), IN, OUT), ValueError,
         "must have 1 to 16777216 rows"),
        (lambda: nn.EmbeddingQuantized(np.zeros(2, np.uint8), IN, OUT), ValueError, "dimensions"),
        (lambda: nn.LayerNormQuantized([1.0], [1e20, 1], IN, OUT), ValueError, "beta must"),
        (lambda: nn.LayerNormQuantized(np.ones(65537), np.ones(65537), IN, OUT), ValueError,
         "gamma must have at most 65536 features, got 65537"),
        (lambda: nn.LayerNormQuantized([1e10], [0], IN, QuantizationParams(1e-30)), ValueError,
         "gamma / out_scale must fit float32"),
        (lambda: nn.LayerNormQuantized([1], [0], IN, OUT, epsilon=-1), ValueError, "epsilon must"),
        (lambda: nn.GELUQuantized(np.zeros(255, np.uint8), IN, OUT), ValueError, "256 entries"),
    ],
)
def test_twins_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
