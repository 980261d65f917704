"""Defects of models and calibration that were made once and must not come back."""

import pickle

import numpy as np
import pytest

import qcy
from qcy import QuantizationScheme, nn

SCHEMES = [
    symmetry | channels
    for symmetry in (QuantizationScheme.SYMMETRIC, QuantizationScheme.ASYMMETRIC)
    for channels in (QuantizationScheme.PER_CHANNEL, QuantizationScheme.PER_TENSOR)
]


def test_defect_6_entropy_is_not_a_percentile_and_keeps_no_samples():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    highest = {}
    for n_far in (10, 100):
        for cls in (nn.EntropyObserver, nn.PercentileObserver):
            observer = cls()
            observer.observe(np.append(values, rng.normal(100, 1, n_far)))
            highest[cls, n_far] = observer.range()[1]
    # The divergence sees that ten far values are not worth the steps; a percentile cannot.
    assert highest[nn.EntropyObserver, 10] < 10
    assert highest[nn.PercentileObserver, 10] > 90
    assert highest[nn.EntropyObserver, 100] > 90
    # Not one sample is kept: the state does not grow.
    observer, sizes = nn.EntropyObserver(), []
    for _ in range(4):
        for _ in range(5):
            observer.observe(rng.permutation(values))
        sizes.append(len(pickle.dumps(observer)))
    assert max(sizes) - min(sizes) < 1024


def test_defect_6_entropy_does_not_take_squared_time():
    import time

    def seconds(n):
        observer, data = nn.EntropyObserver(), np.random.default_rng(0).normal(size=n)
        start = time.perf_counter()
        observer.observe(data)
        observer.range()
        return time.perf_counter() - start

    # 100 times the data: squared time would be 10,000 times as long.
    small = min(seconds(10_000) for _ in range(3))
    assert seconds(1_000_000) < 500 * small


@pytest.mark.parametrize("observer", [
    nn.MinMaxObserver, nn.MovingAverageObserver, nn.PercentileObserver, nn.EntropyObserver,
    nn.MSEObserver,
])
def test_defect_7_per_channel_is_not_refused_by_the_calibrator(observer):
    scheme = QuantizationScheme.SYMMETRIC | QuantizationScheme.PER_CHANNEL
    calibrator = nn.Calibrator(observer=observer, scheme=scheme)
    data = np.random.default_rng(0).normal(size=(50, 3, 4, 4)) * [[[1.0]], [[5.0]], [[0.2]]]
    calibrator.observe(data)
    params = calibrator.params()["input"]
    assert params.axis == 1
    assert params.scale.shape == (3,)
    assert params.scale[1] > params.scale[0] > params.scale[2]
    y = qcy.quantize(data, params)
    assert np.abs(y.dequantize().data - data).mean() < 0.1 * np.abs(data).mean()


def test_defect_8_quantize_model_returns_a_model_that_runs():
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Dense(rng.normal(size=(6, 8)), rng.normal(size=8)), nn.ReLU(),
        nn.Dense(rng.normal(size=(8, 3)), rng.normal(size=3)),
    )
    x = rng.normal(size=(64, 6)).astype(np.float32)
    quantized = nn.quantize_model(model, x, progress=False)
    assert isinstance(quantized, nn.QuantizedModel)
    y, expected = quantized(x), model(x)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() < 0.03 * np.abs(expected).max()
    assert (y.argmax(1) == expected.argmax(1)).mean() > 0.9
    # Integers from the first layer to the last, in codes that were calibrated.
    codes = quantized(qcy.quantize(x, quantized.params["input"]))
    assert codes.dtype == np.uint8
    assert codes.params == quantized.params[quantized.outputs[0]]
    assert quantized.float_nodes == []


@pytest.mark.parametrize("weight_scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("kind", ["dense", "conv", "conv_transpose", "batch_norm"])
def test_a_channel_of_tiny_weights_with_an_ordinary_bias(kind, weight_scheme):
    # Usual after batch-norm folding: a bias of 0.5 is 5e13 steps of weights of 1e-10.
    rng = np.random.default_rng(0)
    column = np.array([0.5, -0.25, 1.0])
    w, bias = np.stack([column, np.full(3, 1e-10)], axis=1), np.array([0.1, 0.5])
    shape = (20, 3) if kind == "dense" else (20, 3, 2, 2)
    layers = {
        "dense": [nn.Dense(w, bias)],
        "conv": [nn.Conv2D(w.T[:, :, None, None], bias)],
        "conv_transpose": [nn.ConvTranspose2D(w[:, :, None, None], bias)],
        # The fold makes the channel tiny, as training does with dead channels.
        "batch_norm": [
            nn.Conv2D(np.ones((2, 3, 1, 1))),
            nn.BatchNorm([1.0, 1e-10], bias, [0.0, 0.0], [1.0, 1.0], epsilon=0.0),
        ],
    }[kind]
    model = nn.Sequential(*layers)
    x = rng.uniform(-1, 1, shape).astype(np.float32)
    quantized = nn.quantize_model(model, x, weight_scheme=weight_scheme, progress=False)
    step = quantized.params[quantized.outputs[0]].scale
    assert np.abs(quantized(x)[:, 1] - 0.5).max() <= step
    if weight_scheme.is_per_channel:        # one scale for all cannot serve both channels
        assert np.abs(quantized(x) - model(x)).max() <= 2 * step
