"""The 8-bit twin of every layer: its equation to the bit, and its float layer within a step."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from qcy import QuantizationParams, QuantizationScheme, QuantizedTensor, nn

PER_TENSOR = QuantizationScheme.PER_TENSOR
SYMMETRIC = QuantizationScheme.SYMMETRIC
ACTIVATIONS = st.sampled_from([None, "relu", "relu6"])
SCHEMES = st.sampled_from([
    SYMMETRIC | QuantizationScheme.PER_CHANNEL, SYMMETRIC, PER_TENSOR,
    QuantizationScheme.ASYMMETRIC | QuantizationScheme.PER_CHANNEL,
])


def random_params(rng, dtype):
    return QuantizationParams(
        10.0 ** rng.uniform(-2, 0), oracles.random_zero_point(rng, dtype), dtype
    )


def random_tensor(rng, shape, dtype):
    return QuantizedTensor(oracles.random_codes(rng, shape, dtype), random_params(rng, dtype))


def clamp(activation, out):
    """Return the smallest and largest code that an activation lets out."""
    low, high = out.qmin, out.qmax
    if activation is not None:
        low = max(low, out.zero_point)
    if activation == "relu6":
        high = min(high, out.zero_point + round(6 / float(out.scale)))
    return low, high


def check_weights(layer, twin, axis, groups=1):
    """Check how weights and bias were quantized: rounded, nothing lost, in the right units."""
    weight, scale, zero = twin.weight, twin.weight_scale, twin.weight_zero_point
    assert weight.dtype == np.int8
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    if groups > 1:      # transposed convolution: output channels lie in two axes
        scale, zero = (
            np.repeat(np.broadcast_to(part, weight.shape[1] * groups).reshape(groups, -1),
                      len(weight) // groups, axis=0)[:, :, None, None]
            for part in (scale, zero)
        )
    else:
        scale, zero = (np.reshape(part, shape) if part.ndim else part for part in (scale, zero))
    assert_array_equal(weight, oracles.quantize(layer.weight, scale, zero, np.int8))
    reals = oracles.dequantize(weight, scale, zero)
    assert (np.abs(reals - layer.weight) <= scale * 1.001).all()
    units = np.float64(twin.in_params[0].scale) * twin.weight_scale
    if layer.bias is None:
        assert twin.bias is None
        return {"weight": reals}
    assert_array_equal(twin.bias, np.rint(layer.bias.astype(np.float64) / units))
    return {"weight": reals, "bias": twin.bias * units}


def check_step(twin, layer, inputs, y):
    """Check codes against those of the float layer on the reals that the inputs stand for."""
    reals = layer(*(x.dequantize().data for x in inputs))
    out = twin.out_params
    low, high = clamp(getattr(layer, "activation", None), out)
    expected = oracles.saturate(
        np.rint(reals / np.float64(out.scale)), out.zero_point, out.dtype, (low, high)
    )
    assert y.params == out
    assert np.abs(y.codes.data.astype(int) - expected).max(initial=0) <= 1


def requantized(acc, x, scale, twin, activation):
    out = twin.out_params
    step = oracles.multiplier(x.scale, scale, out.scale)
    return oracles.requantize(acc, step, out.zero_point, out.dtype, clamp(activation, out))


def with_layout(layer, x, in_params, out, y, **options):
    """Check that the twin for channels last gives the same codes."""
    last = layer.with_layout("NHWC").quantized(in_params, out, **options)
    inputs = [QuantizedTensor(oracles.nhwc(part.codes.data), part.params) for part in x]
    assert_array_equal(
        last.quantized_forward(*inputs).codes.data.transpose(0, 3, 1, 2), y.codes.data
    )


# ------------------------------------------------------------------------------------- products


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, activation=ACTIVATIONS, scheme=SCHEMES)
def test_dense(seed, dtype, activation, scheme):
    rng = np.random.default_rng(seed)
    x, out = random_tensor(rng, (4, 9), dtype), random_params(rng, rng.choice(oracles.Q8))
    bias = rng.normal(size=5) if rng.random() < 0.7 else None
    layer = nn.Dense(rng.normal(size=(9, 5)), bias, activation=activation)
    twin = layer.quantized(x.params, out, scheme)
    reals = check_weights(layer, twin, 1)
    y = twin.quantized_forward(x)
    acc = oracles.sums(
        x.codes.data, twin.weight, x.zero_point, twin.weight_zero_point,
        0 if bias is None else twin.bias,
    )
    assert_array_equal(y.codes.data, requantized(acc, x, twin.weight_scale, twin, activation))
    check_step(twin, layer.replace(**reals), [x], y)


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, activation=ACTIVATIONS, scheme=SCHEMES)
def test_conv2d(seed, dtype, activation, scheme):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 2, 4]))
    x, out = random_tensor(rng, (2, 4, 6, 7), dtype), random_params(rng, rng.choice(oracles.Q8))
    window = {
        "stride": tuple(map(int, rng.integers(1, 3, 2))),
        "padding": tuple(map(int, rng.integers(0, 3, 4))),
        "dilation": tuple(map(int, rng.integers(1, 3, 2))),
    }
    bias = rng.normal(size=4) if rng.random() < 0.7 else None
    layer = nn.Conv2D(
        rng.normal(size=(4, 4 // groups, 2, 3)), bias, groups=groups, activation=activation,
        **window,
    )
    twin = layer.quantized(x.params, out, scheme)
    reals = check_weights(layer, twin, 0)
    y = twin.quantized_forward(x)
    acc = oracles.conv_sums(
        x.codes.data, twin.weight, x.zero_point, twin.weight_zero_point,
        0 if bias is None else twin.bias, groups, **window,
    )
    scale = twin.weight_scale.reshape((-1, 1, 1)) if twin.weight_scale.ndim else twin.weight_scale
    assert_array_equal(y.codes.data, requantized(acc, x, scale, twin, activation))
    check_step(twin, layer.replace(**reals), [x], y)
    with_layout(layer, [x], x.params, out, y, weight_scheme=scheme)


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, activation=ACTIVATIONS, scheme=SCHEMES)
def test_conv_transpose2d(seed, dtype, activation, scheme):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 2]))
    x, out = random_tensor(rng, (2, 4, 4, 3), dtype), random_params(rng, rng.choice(oracles.Q8))
    window = {
        "stride": (2, 3), "padding": tuple(map(int, rng.integers(0, 3, 4))),
        "dilation": tuple(map(int, rng.integers(1, 3, 2))),
    }
    extra = tuple(map(int, rng.integers(0, 2, 2)))
    bias = rng.normal(size=3 * groups) if rng.random() < 0.7 else None
    layer = nn.ConvTranspose2D(
        rng.normal(size=(4, 3, 3, 2)), bias, groups=groups, output_padding=extra,
        activation=activation, **window,
    )
    twin = layer.quantized(x.params, out, scheme)
    reals = check_weights(layer, twin, 1, groups)
    y = twin.quantized_forward(x)
    acc = oracles.conv_transpose_sums(
        x.codes.data, twin.weight, x.zero_point, twin.weight_zero_point,
        0 if bias is None else twin.bias, groups, extra, **window,
    )
    scale = twin.weight_scale.reshape((-1, 1, 1)) if twin.weight_scale.ndim else twin.weight_scale
    assert_array_equal(y.codes.data, requantized(acc, x, scale, twin, activation))
    check_step(twin, layer.replace(**reals), [x], y)
    with_layout(layer, [x], x.params, out, y, weight_scheme=scheme)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5)])
@settings(max_examples=30)
@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, activation=ACTIVATIONS)
def test_batch_norm(shape, seed, dtype, activation):
    rng = np.random.default_rng(seed)
    x, out = random_tensor(rng, shape, dtype), random_params(rng, rng.choice(oracles.Q8))
    layer = nn.BatchNorm(*rng.normal(size=(3, 3)), rng.uniform(0.1, 2, 3), activation=activation)
    twin = layer.quantized(x.params, out)
    y = twin.quantized_forward(x)
    axes = (1, 3) + (1,) * (len(shape) - 2)
    parts = [part.reshape(axes) for part in (twin.weight, twin.bias, twin.weight_scale)]
    acc = (x.codes.data.astype(np.int64) - x.zero_point) * parts[0] + parts[1]
    assert_array_equal(y.codes.data, requantized(acc, x, parts[2], twin, activation))
    # The factors of one channel are a whole weight: they take the largest code exactly.
    assert set(np.abs(twin.weight).tolist()) <= {127}
    check_step(twin, layer, [x], y)
    if len(shape) == 4:
        with_layout(layer, [x], x.params, out, y)


# ---------------------------------------------------------------------------------- elementwise


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, activation=ACTIVATIONS)
def test_add(seed, dtype, activation):
    rng = np.random.default_rng(seed)
    a, b = (random_tensor(rng, (2, 3, 4), kind) for kind in (dtype, rng.choice(oracles.Q8)))
    out = random_params(rng, dtype)
    layer = nn.Add(activation=activation)
    twin = layer.quantized((a.params, b.params), out)
    y = twin.quantized_forward(a, b)
    assert_array_equal(y.codes.data, oracles.add(
        a.codes.data, b.codes.data, (a.scale, b.scale, out.scale),
        (a.zero_point, b.zero_point, out.zero_point), dtype, clamp(activation, out),
    ))
    check_step(twin, layer, [a, b], y)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.ReLU6()], ids=repr)
@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_relu(layer, seed, dtype):
    x = random_tensor(np.random.default_rng(seed), (3, 20), dtype)
    twin = layer.quantized(x.params)
    y = twin.quantized_forward(x)
    low, high = clamp(type(layer).__name__.lower(), x.params)
    assert_array_equal(y.codes.data, np.clip(x.codes.data.astype(int), low, high))
    check_step(twin, layer, [x], y)
    with pytest.raises(ValueError, match="out_params must be the input's"):
        layer.quantized(x.params, QuantizationParams(5.0, 0, dtype))


@pytest.mark.parametrize(
    ("layer", "function"),
    [(nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x))), (nn.Tanh(), math.tanh)],
    ids=["sigmoid", "tanh"],
)
@pytest.mark.parametrize("dtype", oracles.Q8)
def test_tables(layer, function, dtype):
    low, high = oracles.code_range(dtype)
    source = QuantizationParams(0.03, low + 120, dtype)
    x = QuantizedTensor(np.arange(low, high + 1).astype(dtype), source)
    for out in (None, QuantizationParams(0.01, 3, "int8")):
        twin = layer.quantized(source, out)
        assert twin.out_params == (out or layer.fixed_params(dtype))
        y = twin.quantized_forward(x)
        steps = [
            round(function(float(source.scale) * (c - source.zero_point)) / float(y.scale))
            for c in range(low, high + 1)
        ]
        expected = oracles.saturate(steps, y.zero_point, y.dtype)
        assert_array_equal(y.codes.data, expected)
        assert_array_equal(twin.table, expected)
        check_step(twin, layer, [x], y)


def test_fixed_params_are_those_of_tflite():
    for layer in (nn.Sigmoid(), nn.Softmax()):
        assert layer.fixed_params("uint8") == QuantizationParams(1 / 256, 0, "uint8")
        assert layer.fixed_params("int8") == QuantizationParams(1 / 256, -128, "int8")
    assert nn.Tanh().fixed_params("uint8") == QuantizationParams(1 / 128, 128, "uint8")
    assert nn.Tanh().fixed_params("int8") == QuantizationParams(1 / 128, 0, "int8")
    assert nn.Dense([[1.0]]).fixed_params("uint8") is None


@settings(max_examples=40)
@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, axis=st.sampled_from([-1, 1]))
def test_softmax(seed, dtype, axis):
    rng = np.random.default_rng(seed)
    x = random_tensor(rng, (2, 3, 4, 5), dtype)
    layer = nn.Softmax(axis)
    twin = layer.quantized(x.params)
    y = twin.quantized_forward(x)
    rows = np.moveaxis(x.codes.data, axis, -1)
    expected = np.apply_along_axis(oracles.softmax, -1, rows, x.scale, dtype)
    assert_array_equal(y.codes.data, np.moveaxis(expected, -1, axis))
    check_step(twin, layer, [x], y)
    with_layout(layer, [x], x.params, None, y)
    with pytest.raises(ValueError, match=r"must be \(1/256, qmin\)"):
        layer.quantized(x.params, QuantizationParams(0.5, 0, dtype))


# -------------------------------------------------------------------- pooling, moving, merging


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_pooling(seed, dtype):
    rng = np.random.default_rng(seed)
    x, out = random_tensor(rng, (2, 3, 6, 7), dtype), random_params(rng, dtype)
    kernel = tuple(map(int, rng.integers(1, 4, 2)))
    window = {
        "stride": tuple(map(int, rng.integers(1, 4, 2))),
        "padding": tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4)),
    }
    whole = {"x_scale": x.scale, "out_scale": out.scale, "x_zero": x.zero_point,
             "out_zero": out.zero_point}
    count = bool(rng.integers(2))
    cases = [
        (nn.MaxPool2D(kernel, dilation=2 if max(kernel) < 3 else 1, **window), None),
        (nn.AvgPool2D(kernel, count_include_pad=count, **window), oracles.avg_pool(
            x.codes.data, kernel, count_include_pad=count, **whole, **window)),
        (nn.GlobalAvgPool2D(), oracles.avg_pool(x.codes.data, (6, 7), **whole)),
    ]
    for layer, expected in cases:
        target = x.params if layer.KEEPS_PARAMS else out
        twin = layer.quantized(x.params, None if layer.KEEPS_PARAMS else out)
        y = twin.quantized_forward(x)
        if expected is None:
            expected = oracles.max_pool(x.codes.data, kernel, dilation=layer.dilation, **window)
        assert_array_equal(y.codes.data, expected)
        check_step(twin, layer, [x], y)
        with_layout(layer, [x], x.params, target, y)


@pytest.mark.parametrize(
    "layer",
    [nn.Flatten(), nn.Reshape((5, 4, 3)), nn.Reshape((-1, 6)), nn.Identity(), nn.Dropout(0.3)],
    ids=repr,
)
@pytest.mark.parametrize("dtype", oracles.Q8)
def test_layers_that_move_codes(layer, dtype):
    x = random_tensor(np.random.default_rng(3), (2, 3, 4, 5), dtype)
    y = layer.quantized(x.params).quantized_forward(x)
    assert y.params == x.params
    assert_array_equal(y.dequantize().data, layer(x.dequantize().data))
    if y.ndim == 4:
        with_layout(layer, [x], x.params, None, y)
    with pytest.raises(ValueError, match="out_params must be the input's"):
        layer.quantized(x.params, QuantizationParams(5.0, 0, dtype))


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, axis=st.sampled_from([1, 2, -1]))
def test_concat(seed, dtype, axis):
    rng = np.random.default_rng(seed)
    parts = [random_tensor(rng, (2, 3, 4, 5), rng.choice(oracles.Q8)) for _ in range(3)]
    out = parts[1].params if rng.random() < 0.5 else random_params(rng, dtype)
    layer = nn.Concat(axis)
    twin = layer.quantized([part.params for part in parts], out)
    y = twin.quantized_forward(*parts)
    expected = [
        oracles.saturate(
            np.rint(np.float64(part.scale) * (part.codes.data.astype(int) - part.zero_point)
                    / np.float64(out.scale)), out.zero_point, out.dtype,
        )
        for part in parts
    ]
    assert_array_equal(y.codes.data, np.concatenate(expected, axis))
    check_step(twin, layer, parts, y)
    with_layout(layer, parts, [part.params for part in parts], out, y)
