"""Models of very large and very small numbers: quantize_model finds scales, or refuses."""

import numpy as np
import pytest

from qcy import QuantizationParams, nn

X = np.linspace(-1000, 1000, 64, dtype=np.float32).reshape(-1, 1)
WEAK = nn.Dense([[1e-38]])
IMAGES = np.zeros((4, 1, 2, 2), np.float32)
IMAGES[0, 0] = [[1e38, -1e38], [0, 0]]          # means 0, beside
IMAGES[1] = 1e-30


def graph(*nodes, outputs=None, inputs=("input",)):
    return nn.Model(nodes, outputs, inputs)


MODELS = {
    "weak and strong": (graph(("a", WEAK, "input"), ("s", nn.Add(), ("a", "input"))), (X,), {}),
    "strong and weak": (
        graph(("a", WEAK, "input"), ("s", nn.Add(activation="relu6"), ("input", "a"))), (X,),
        {"dtype": "int8"},
    ),
    "through layers that keep params": (graph(
        ("a", WEAK, "input"), ("r", nn.ReLU(), "a"), ("i", nn.Reshape(1), "a"),
        ("s", nn.Add(), ("i", "input")), outputs=("s", "r"),
    ), (X,), {}),
    "one after another": (graph(
        ("a", WEAK, "input"), ("b", WEAK, "input"), ("s", nn.Add(), ("a", "b")),
        ("t", nn.Add(), ("s", "input")),
    ), (X,), {}),
    "cancelling": (
        graph(("s", nn.Add(), ("a", "b")), inputs=("a", "b")),
        tuple(np.array(v, np.float32)[:, None] for v in ([1e38, 1e-30], [-1e38, 0])), {},
    ),
    "cancelling, and used": (
        graph(("s", nn.Add(), ("a", "b")), ("t", nn.Add(), ("s", "b")), inputs=("a", "b")),
        tuple(np.array(v, np.float32)[:, None] for v in ([1e38, 1e-30], [-1e38, 0])), {},
    ),
    "cancelling means": (graph(("p", nn.AvgPool2D(2), "input")), (IMAGES,), {}),
    "cancelling global means": (graph(("p", nn.GlobalAvgPool2D(), "input")), (IMAGES,), {}),
    "weak on weak": (graph(("a", WEAK, "input")), (X * np.float32(1e-38),), {}),
    "ordinary on weak": (graph(("a", nn.Dense([[0.5]]), "input")), (X * np.float32(1e-38),), {}),
    "weak image on weak": (
        graph(("a", nn.Conv2D(np.full((1, 1, 1, 1), 1e-38), [1e-30]), "input")),
        (np.full((2, 1, 3, 3), 1e-36),), {},
    ),
    "back from weakness": (
        graph(("a", nn.Dense([[1e-35]]), "input"), ("b", nn.Dense([[1e33]]), "a")), (X,), {}
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_was_quantized_runs(name):
    model, inputs, options = MODELS[name]
    quantized = nn.quantize_model(model, [inputs], progress=False, **options)
    results = quantized(*inputs)
    expected = model(*inputs)
    for node, q, real in zip(
        model.outputs, *(r if isinstance(r, tuple) else (r,) for r in (results, expected)),
        strict=True,
    ):
        params = quantized.params[node]
        inside = np.clip(real, params.low, params.high)
        # A weight of 1e-38 is off by a sixth: no scale is less than 2**-126.
        weak = 0.2 * np.abs(real).max() if np.abs(real).max() < 1e-20 else 0.0
        assert np.abs(q - inside).max() <= 1.01 * params.scale + weak


def test_a_raised_scale_does_no_harm():
    quantized = nn.quantize_model(MODELS["weak and strong"][0], [X], progress=False)
    a, s = quantized.params["a"], quantized.params["s"]
    assert 2.0**-126 <= a.scale / s.scale < 2.0**-126 * 1.00001
    assert np.abs(quantized(X) - X).max() <= s.scale * 0.51
    ordinary = nn.quantize_model(
        graph(("a", nn.Dense([[1e-30]]), "input"), ("s", nn.Add(), ("a", "input"))), [X],
        progress=False,
    )
    assert ordinary.params["a"] == QuantizationParams.from_range(-1e-27, 1e-27)


class Median(nn.MinMaxObserver):
    """Clips half of what it sees."""

    def observe(self, x):
        super().observe(np.minimum(x, np.median(x)))


@pytest.mark.parametrize("pool", [nn.AvgPool2D(4), nn.GlobalAvgPool2D()])
def test_means_of_what_was_clipped(pool):
    x = np.full((3, 1, 4, 4), 1e-6, np.float32)
    x[:, :, 0, 0] = 3e38                        # not the median of the inputs, but of the means
    quantized = nn.quantize_model(nn.Sequential(pool), x, observer=Median, progress=False)
    source, target = quantized.params.values()
    assert 2.0**-103 <= source.scale / target.scale < 2.0**-103 * 1.00001
    assert np.isfinite(quantized(x)).all()


FIXED = graph(("p", nn.Softmax(), "input"), ("s", nn.Add(), ("p", "input")))
HUGE = np.array([[1e38, 2e38], [3e38, 1]], np.float32)
P = QuantizationParams


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.quantize_model(
            FIXED, HUGE, progress=False, overrides={"[ps]": nn.LayerConfig("static")}
        ),
         r"layer 's': the multiplier of input 0 is 3.*e-39, it must be .*: input scale=0.0039"),
        (lambda: nn.quantize_model(
            nn.Sequential(nn.Dense([[-1e38]]), nn.ReLU()), np.abs(X) * 1e35, progress=False
        ), "layer 'dense_1': the multiplier of channel 0 is inf"),
        (lambda: nn.AddQuantized((P(1e-38 * 2), P(1)), P(100)), "of input 0 is 2.*e-40, it must"),
        (lambda: nn.AddQuantized((P(1), P(1e30)), P(1e-30)), "of input 1 is inf, it must"),
        (lambda: nn.AvgPool2DQuantized(P(2e-38), P(1), 2), "of cell count 2 is 9.*e-39"),
        (lambda: nn.AvgPool2DQuantized(P(1e30), P(1e-30), 2), "of cell count 0 is inf"),
        (lambda: nn.GlobalAvgPool2DQuantized(P(2e-38), P(100)), "of cell count 0 is 2.*e-40"),
        (lambda: nn.DenseQuantized(np.ones((1, 2), np.int8), [1, 1e-30], None, P(1e-30), P(1)),
         "of channel 1 is 0.0, it must be .*: input scale=1.*e-30, weight scale=1.*e-30, output"),
        (lambda: nn.Conv2DQuantized(
            np.ones((2, 1, 1, 1), np.int8), [1, 1e30], None, P(1e30), P(1)
        ), "of channel 1 is inf"),
        (lambda: nn.ConvTranspose2DQuantized(
            np.ones((1, 2, 1, 1), np.int8), [1, 1e30], None, P(1e30), P(1)
        ), "of channel 1 is inf"),
        (lambda: nn.BatchNormQuantized(np.ones(2, np.int8), [1, 1e30], None, P(1e30), P(1)),
         "of channel 1 is inf"),
    ],
)
def test_twins_that_could_not_compute_are_refused_when_made(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.DenseQuantized(np.ones((1, 2), np.int8), None, None, P(1), P(1)),
        lambda: nn.Conv2DQuantized(np.ones((1, 2, 1, 1), np.int8), None, None, P(1), P(1)),
    ],
)
def test_twins_need_a_weight_scale(make):
    with pytest.raises(TypeError, match="weight_scale must be a real number"):
        make()
