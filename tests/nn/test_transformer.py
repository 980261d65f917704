"""Attention, layer norm and GELU: float against plain NumPy, 8 bits to the bit; whole models."""

import math

import models
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizedTensor, nn

RNG = np.random.default_rng(0)


def random_tensor(rng, shape, dtype):
    params = QuantizationParams(
        10.0 ** rng.uniform(-2, 0), oracles.random_zero_point(rng, dtype), dtype
    )
    return QuantizedTensor(oracles.random_codes(rng, shape, dtype), params)


def random_params(rng, dtype, scale):
    return QuantizationParams(scale, oracles.random_zero_point(rng, dtype), dtype)


# ------------------------------------------------------------------------------------- attention


def attention_by_loops(q, k, v, n_heads, score_scale=None):
    """One query of one head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    depth, width = q.shape[-1] // n_heads, v.shape[-1] // n_heads
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for b in np.ndindex(q.shape[:-2]):
        for h in range(n_heads):
            of_keys, of_values = (slice(h * n, (h + 1) * n) for n in (depth, width))
            for i, query in enumerate(q[b][:, of_keys]):
                scores = [query @ key for key in k[b][:, of_keys]]
                scores = np.array(scores) * (score_scale or 1 / math.sqrt(depth))
                powers = np.exp(scores - scores.max())
                y[(*b, i, of_values)] = powers @ v[b][:, of_values] / powers.sum()
    return y


@pytest.mark.parametrize("batch", [(), (3,), (1,), (0,)])
@pytest.mark.parametrize(("n_heads", "depth", "width"), [(1, 5, 5), (3, 2, 7), (2, 16, 1)])
@pytest.mark.parametrize("score_scale", [None, 1.0, 0.01])
def test_attention_in_float(batch, n_heads, depth, width, score_scale):
    for n_queries, n_keys in ((6, 9), (1, 4), (5, 1), (0, 3)):
        q, k, v = (
            RNG.normal(size=(*batch, n, n_heads * features)).astype(np.float32)
            for n, features in ((n_queries, depth), (n_keys, depth), (n_keys, width))
        )
        y = nn.Attention(n_heads, score_scale=score_scale)(q, k, v)
        assert y.dtype == np.float32
        assert y.flags.c_contiguous
        assert_allclose(y, attention_by_loops(q, k, v, n_heads, score_scale), rtol=1e-5, atol=1e-6)


def test_attention_of_large_scores_does_not_overflow():
    q = k = np.eye(3, dtype=np.float32) * 1e15
    v = RNG.normal(size=(3, 2)).astype(np.float32)
    assert_array_equal(nn.Attention(1)(q, k, v), v)


@given(
    seed=oracles.SEEDS, dtypes=st.tuples(*[oracles.DTYPES] * 4), n_heads=st.integers(1, 3),
    score_scale=st.sampled_from([None, 0.7]),
)
def test_attention_in_8_bits(seed, dtypes, n_heads, score_scale):
    rng = np.random.default_rng(seed)
    sizes = ((2, 5, 4 * n_heads), (2, 9, 4 * n_heads), (2, 9, 3 * n_heads))
    q, k, v = (random_tensor(rng, shape, d) for shape, d in zip(sizes, dtypes, strict=False))
    out = random_params(rng, dtypes[3], float(v.scale))
    layer = nn.Attention(n_heads, score_scale=score_scale)
    twin = layer.quantized((q.params, k.params, v.params), out)
    y = twin.quantized_forward(q, k, v)
    assert_array_equal(y.codes.data, oracles.attention(
        q.codes.data, k.codes.data, v.codes.data, n_heads,
        (q.scale, k.scale, v.scale, out.scale), (q.zero_point, v.zero_point, out.zero_point),
        score_scale, dtypes[3],
    ))


def test_8_bit_attention_is_within_a_step():
    # A weight is off by half a code, and a fortieth: of 255, beside the largest.
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 8, 40, 48)).astype(np.float32)
    reals = [qcy.quantize(x) for x in (q, k, v)]
    y = nn.Attention(4)(*(x.dequantize().data for x in reals))
    out = QuantizationParams.from_range(y.min(), y.max())
    codes = nn.Attention(4).quantized([x.params for x in reals], out).quantized_forward(*reals)
    error = np.abs(codes.dequantize().data - y)
    weights_off = 0.525 / 255 * 40 * 2 * np.abs(v).max()       # never all of them one way
    assert error.max() <= out.scale / 2 + weights_off
    assert error.mean() <= 0.4 * out.scale


# ------------------------------------------------------------------------------------ layer norm


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7), (2, 0, 7), (4, 1), (3, 500)])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1, 1e-12])
def test_layer_norm_in_float(shape, epsilon):
    n = shape[-1]
    x = (3 + 2 * RNG.normal(size=shape)).astype(np.float32)
    gamma, beta = RNG.normal(size=(2, n)).astype(np.float32)
    y = nn.LayerNorm(gamma, beta, epsilon=epsilon)(x)
    assert y.dtype == np.float32
    real = x.astype(np.float64)
    mean, variance = real.mean(-1, keepdims=True), real.var(-1, keepdims=True)
    expected = (real - mean) / np.sqrt(variance + np.float32(epsilon)) * gamma + beta
    assert_allclose(y, expected, rtol=1e-5, atol=2e-5)


def test_layer_norm_of_equal_numbers_is_beta():
    beta = [1.0, -2.0, 3.0]
    for epsilon in (0.0, 1e-30, 1e-5):
        layer = nn.LayerNorm([5.0, 5.0, 5.0], beta, epsilon=epsilon)
        assert_array_equal(layer(np.full((2, 3), 0.25)), [beta] * 2)
        assert_array_equal(layer(np.full((2, 3), 0.1)), [beta] * 2)
        out = QuantizationParams(0.5, 100)
        twin = layer.quantized(QuantizationParams(0.125, 3), out)
        assert_array_equal(twin(np.full((2, 3), 0.25)), [beta] * 2)


@given(seed=oracles.SEEDS, in_dtype=oracles.DTYPES, dtype=oracles.DTYPES,
       epsilon=st.sampled_from([0.0, 1e-5, 1.0]))
def test_layer_norm_in_8_bits(seed, in_dtype, dtype, epsilon):
    rng = np.random.default_rng(seed)
    x, out = random_tensor(rng, (2, 6, 30), in_dtype), random_params(rng, dtype, 0.02)
    gamma, beta = rng.normal(size=(2, 30)).astype(np.float32)
    layer = nn.LayerNorm(gamma, beta, epsilon=epsilon)
    y = layer.quantized(x.params, out).quantized_forward(x)
    assert_array_equal(y.codes.data, oracles.layer_norm(
        x.codes.data, gamma, beta, x.scale, out.scale, out.zero_point, epsilon, dtype
    ))
    reals = np.clip(layer(x.dequantize().data), out.low, out.high)
    assert np.abs(y.dequantize().data - reals).max() <= out.scale * 0.51


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LayerNorm([], []), ValueError, "gamma must have at least 1 feature"),
        (lambda: nn.LayerNorm([[1]], [1]), ValueError, "gamma must have 1 dimension"),
        (lambda: nn.LayerNorm([1, 2], [1]), ValueError, "beta must have"),
        (lambda: nn.LayerNorm([1], [np.nan]), ValueError, "beta must"),
        (lambda: nn.LayerNorm([1], [1], epsilon=-1), ValueError, "epsilon must not be negative"),
        (lambda: nn.LayerNorm([1, 1], [0, 0])([[1, 2, 3]]), ValueError,
         r"x must have at least 1 dimension and 2 features in the last, got shape \(1, 3\)"),
        (lambda: nn.LayerNorm([1], [0])(1.0), ValueError, "at least 1 dimension"),
        (lambda: nn.LayerNorm([1, 1], [0, 0]).quantized(
            QuantizationParams(1), QuantizationParams(1))(np.ones((2, 3))), ValueError,
         "2 features in the last"),
        (lambda: nn.Attention(0), ValueError, "n_heads must be at least 1"),
        (lambda: nn.Attention(1, score_scale=-1), ValueError, "score_scale must be positive"),
        (lambda: nn.Attention(2)(*[np.ones((3, 5))] * 3), ValueError, "a multiple of 2 features"),
        (lambda: nn.Attention(1)(*[np.ones((0, 5))] * 3), ValueError, "k must have 1 to 32768"),
        (lambda: nn.Attention(1)([[1.0]], [[1.0]]), TypeError, r"takes 3 input\(s\), got 2"),
    ],
)
def test_layers_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------------------------------ GELU


def test_gelu_in_float():
    x = np.concatenate([
        np.linspace(-14, 14, 20001), [0.0, -0.0, 1e-30, -1e-30, 1e-45, 100, 3e38],
    ]).astype(np.float32)
    y = nn.GELU()(x)
    assert y.dtype == np.float32
    exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    # 1.2e-7 of the integral, and a rounding to float32.
    assert_allclose(y, exact, rtol=2e-7, atol=1e-44)
    assert_array_equal(nn.GELU()([-50, -3e38, -np.inf]), [0, 0, 0])
    assert nn.GELU()(np.inf) == np.inf


@pytest.mark.parametrize("dtype", oracles.Q8)
def test_gelu_in_8_bits(dtype):
    low, high = oracles.code_range(dtype)
    source, out = QuantizationParams(0.04, low + 120, dtype), QuantizationParams(0.02, 10)
    x = QuantizedTensor(np.arange(low, high + 1).astype(dtype), source)
    twin = nn.GELU().quantized(source, out)
    y = twin.quantized_forward(x)
    reals = [float(source.scale) * (c - source.zero_point) for c in range(low, high + 1)]
    steps = [round(0.5 * r * math.erfc(-r / math.sqrt(2)) / float(out.scale)) for r in reals]
    assert_array_equal(y.codes.data, oracles.saturate(steps, 10, np.uint8))
    inside = np.clip(nn.GELU()(x.dequantize().data), out.low, out.high)
    assert np.abs(y.dequantize().data - inside).max() <= out.scale * 0.5001


# ---------------------------------------------------------------------------------- whole models


def language_model(rng):
    """Return a model of one input, indices."""
    return nn.Model([
        ("embed", nn.Embedding(rng.normal(size=(40, 8))), "input"),
        ("attend", nn.Attention(2), ("embed", "embed", "embed")),
        ("sum", nn.Add(), ("embed", "attend")),
        ("norm", models.layer_norm(rng, 8), "sum"),
        ("up", models.dense(rng, 8, 16), "norm"),
        ("gelu", nn.GELU(), "up"),
        ("down", models.dense(rng, 16, 5), "gelu"),
        ("flat", nn.Flatten(), "down"),
    ])


def test_a_model_of_indices_is_compared_and_predicts():
    rng = np.random.default_rng(0)
    model, x = language_model(rng), rng.integers(0, 40, (90, 6))
    quantized = nn.quantize_model(model, x, progress=False)
    report = nn.compare_quantized_model(
        quantized, model, x, labels=model(x).argmax(axis=1), batch_sizes=(2,), repeats=1
    )
    assert report.agreement > 0.9
    assert report.float_accuracy == 1
    assert [layer.kind for layer in report.layers][:2] == [
        "EmbeddingQuantized", "AttentionQuantized"
    ]
    assert all(layer.sqnr_db > 25 for layer in report.layers)
    assert "AttentionQuantized" in str(report)
    assert "attend" in report._repr_html_()
    assert_array_equal(quantized.predict(x, batch_size=7), quantized(x))
    assert quantized.predict(x[:0]).shape == (0, 30)


def test_the_table_is_looked_up_in_the_products_last_step():
    rng = np.random.default_rng(0)
    model, x = language_model(rng), rng.integers(0, 40, (9, 6)).astype(np.float32)
    quantized = nn.quantize_model(model, x, progress=False)
    plan = quantized.memory_plan(x.shape)
    # embed, attend, sum, norm, up with gelu, down, and out; flat moves nothing.
    assert plan["steps"] == 7
    both = nn.Model(model.nodes, outputs=("up", "flat"))        # `up` itself goes out
    quantized = nn.quantize_model(both, x, progress=False)
    assert quantized.memory_plan(x.shape)["steps"] == 9
    trace = dict(quantized.trace(x))
    for name, y in zip(both.outputs, quantized(x), strict=True):
        assert_array_equal(y, trace[name])


def test_a_table_of_two_products_and_two_tables_of_one():
    rng = np.random.default_rng(0)
    model = nn.Model([
        ("a", models.dense(rng, 4, 4), "input"), ("gelu", nn.GELU(), "a"),
        ("b", models.dense(rng, 4, 4, activation="relu"), "a"), ("tanh", nn.Tanh(), "b"),
        ("sigmoid", nn.Sigmoid(), "gelu"), ("sum", nn.Add(), ("sigmoid", "tanh")),
    ], outputs=("sum", "gelu"))
    x = rng.normal(size=(9, 4)).astype(np.float32)
    for dtype in ("uint8", "int8"):
        quantized = nn.quantize_model(model, x, dtype=dtype, progress=False)
        trace = dict(quantized.trace(x))
        for name, y in zip(model.outputs, quantized(x), strict=True):
            assert_array_equal(y, trace[name])


@pytest.mark.parametrize("use_quantized", [True, False])
def test_adaptive_layers(use_quantized):
    params, out = QuantizationParams(0.02, 128), QuantizationParams(0.015, 100)
    x = qcy.quantize(RNG.normal(size=(2, 5, 6)).clip(-2, 2), params)
    whole = QuantizedTensor(np.array([[3, 0, 43]], np.uint8), QuantizationParams(1.0))
    for layer, inputs in (
        (nn.Attention(2), (x, x, x)), (nn.LayerNorm(np.ones(6), np.zeros(6)), (x,)),
        (nn.GELU(), (x,)), (nn.Embedding(RNG.normal(size=(50, 4))), (whole,)),
    ):
        in_params = tuple(codes.params for codes in inputs)
        twin = layer.quantized(in_params if len(inputs) > 1 else in_params[0], out)
        adaptive = nn.AdaptiveLayer(layer, twin, use_quantized)
        reals = [codes.dequantize().data for codes in inputs]
        assert_array_equal(adaptive(*reals), (twin if use_quantized else layer)(*reals))
        codes = adaptive(*inputs)
        assert codes.params == out
        inside = np.clip(layer(*reals), out.low, out.high)
        assert np.abs(codes.dequantize().data - inside).max() <= 1.6 * out.scale


def test_extreme_ranges_make_a_model_that_runs():
    x = np.array([[[1e38, -1e38], [0, 0]]], np.float32)
    attention = nn.Model([("a", nn.Attention(1), ("q", "k", "v"))], inputs=("q", "k", "v"))
    zero, tiny = np.zeros_like(x), np.full_like(x, 1e-37)
    large = x * np.float32(1e-20)
    for q, k, v in ((zero, zero, zero), (tiny, tiny, x), (large, large, tiny), (zero, zero, x)):
        quantized = nn.quantize_model(attention, [(q, k, v)], progress=False)
        y, real = quantized(q, k, v), attention(q, k, v)
        params = quantized.params["a"]
        error = np.abs(y - np.clip(real, params.low, params.high)).max()
        assert error <= params.scale * 1.01 + quantized.params["v"].scale * 0.51
