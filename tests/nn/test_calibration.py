"""Calibration: parameters from data that flows by, and whole or no batches."""

import hashlib
import pickle
import tracemalloc
from functools import partial

import models
import numpy as np
import pytest

from qcy import QuantizationParams, QuantizationScheme, Tensor, nn
from qcy.nn.layers import Layer

SYMMETRIC = QuantizationScheme.SYMMETRIC
PER_CHANNEL = QuantizationScheme.PER_CHANNEL
OBSERVERS = [
    nn.MinMaxObserver, nn.PercentileObserver, nn.EntropyObserver, nn.MSEObserver,
    partial(nn.PercentileObserver, percentile=99.0),
]
RNG = np.random.default_rng(0)
BATCHES = [RNG.normal(size=(8, 3)).astype(np.float32) for _ in range(4)]
MODEL = nn.Sequential(nn.Dense(RNG.normal(size=(3, 5))), nn.ReLU(), nn.Dense(np.ones((5, 2))))


def calibrated(batches, model=MODEL, **options):
    calibrator = nn.Calibrator(model, **options)
    for batch in batches:
        calibrator.observe(batch)
    return calibrator


def state(calibrator):
    """Return all that a calibrator says about what it has seen."""
    seen = calibrator.params() if calibrator.n_samples else {}
    return seen, calibrator.n_batches, calibrator.n_samples, calibrator.data_hash


# ------------------------------------------------------------------------------------- params


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("scheme", [QuantizationScheme.ASYMMETRIC, SYMMETRIC])
def test_params_cover_every_tensor_of_the_model(scheme, dtype):
    params = calibrated(BATCHES, scheme=scheme, dtype=dtype).params()
    assert list(params) == ["input", "dense_1", "relu_1", "dense_2"]
    tensors = {"input": np.concatenate(BATCHES)}
    tensors |= dict(MODEL.trace(tensors["input"]))
    for name, tensor in tensors.items():
        expected = QuantizationParams.from_range(tensor.min(), tensor.max(), dtype, scheme)
        # Sums over all samples at once may be rounded differently by the BLAS.
        assert params[name].zero_point == expected.zero_point
        assert abs(params[name].scale / expected.scale - 1) < 1e-6


def test_without_a_model_the_batches_are_observed():
    data = np.concatenate(BATCHES)
    params = calibrated(BATCHES, model=None).params()
    assert params == {"input": QuantizationParams.from_range(data.min(), data.max())}


@pytest.mark.parametrize("observer", OBSERVERS[:4])
@pytest.mark.parametrize("scheme", [PER_CHANNEL, SYMMETRIC | PER_CHANNEL])
def test_per_channel_params_are_on_axis_1(observer, scheme):
    data = [RNG.normal(size=(4, 3, 5, 5)) * [[[1.0]], [[10.0]], [[0.1]]] for _ in range(2)]
    params = calibrated(data, nn.Sequential(nn.ReLU()), observer=observer, scheme=scheme).params()
    for name in ("input", "relu_1"):
        assert params[name].axis == 1
        assert params[name].scale.shape == params[name].zero_point.shape == (3,)
        ratios = params[name].scale / params[name].scale[0]
        assert 5 < ratios[1] < 20
        assert 0.05 < ratios[2] < 0.2
    if observer is nn.MinMaxObserver:
        seen = np.stack(data).transpose(2, 0, 1, 3, 4).reshape(3, -1)
        assert params["input"] == QuantizationParams.from_range(
            *(np.float32(part) for part in (seen.min(1), seen.max(1))), "uint8", scheme, 1
        )


def test_images_channels_last_count_from_axis_1_too():
    calibrator = calibrated([np.ones((2, 5, 5, 3))], model=None, scheme=PER_CHANNEL)
    assert calibrator.params()["input"].scale.shape == (5,)


def test_observers_with_settings():
    data = [RNG.normal(size=1000) for _ in range(3)]
    wide = calibrated(data, None).params()["input"]
    narrow = calibrated(data, None, observer=OBSERVERS[4]).params()["input"]
    assert narrow.scale < 0.9 * wide.scale
    moving = calibrated(data, None, observer=partial(nn.MovingAverageObserver)).params()["input"]
    assert moving.scale <= wide.scale


def test_observers_of_each_tensor_can_be_looked_at():
    calibrator = calibrated(BATCHES, observer=nn.MSEObserver)
    assert set(calibrator.observers) == {"input", "dense_1", "relu_1", "dense_2"}
    assert all(isinstance(o, nn.MSEObserver) for o in calibrator.observers.values())
    assert calibrator.param("relu_1") == calibrator.params()["relu_1"]


# -------------------------------------------------------------------------- batches of all kinds


def test_kinds_of_batches():
    expected = state(calibrated(BATCHES))
    for kind in (Tensor, np.ndarray.tolist, lambda x: x.astype(np.float64), lambda x: (x,)):
        assert state(calibrated([kind(batch) for batch in BATCHES])) == expected


def test_several_inputs_come_in_tuples():
    model, shapes = models.build("two_inputs")
    batches = models.batches(shapes)
    calibrator = calibrated(batches, model)
    assert set(calibrator.params()) == {"image", "vector", *(node.name for node in model.nodes)}
    assert calibrator.n_samples == 24
    high = max(batch[1].max() for batch in batches)
    assert abs(calibrator.param("vector").high - high) < 0.02 * high


def test_counts_and_hash_follow_the_data():
    calibrator = nn.Calibrator(MODEL)
    assert (calibrator.n_batches, calibrator.n_samples) == (0, 0)
    hashes = {calibrator.data_hash}
    for i, batch in enumerate(BATCHES):
        calibrator.observe(batch)
        assert (calibrator.n_batches, calibrator.n_samples) == (i + 1, 8 * (i + 1))
        hashes.add(calibrator.data_hash)
    assert len(hashes) == 5
    assert all(len(h) == 64 for h in hashes)
    digests = [hashlib.sha256(b"(8, 3)" + b.astype("<f4").tobytes()).digest() for b in BATCHES]
    total = sum(int.from_bytes(digest, "big") for digest in digests) % 2**256
    assert calibrator.data_hash == f"{total:064x}"
    assert state(calibrated(BATCHES)) == state(calibrator)
    assert calibrated(BATCHES[::-1]).data_hash == calibrator.data_hash
    assert calibrated([BATCHES[0], *BATCHES[:3]]).data_hash != calibrator.data_hash


def test_empty_batches_count_for_nothing():
    empty = np.zeros((0, 3), np.float32)
    with_empty = calibrated([empty, *BATCHES, empty])
    assert with_empty.params() == calibrated(BATCHES).params()
    assert with_empty.n_samples == 32
    for shape in ((0, 3), (3, 0)):
        nothing = calibrated([np.zeros(shape)] * 2)
        assert (nothing.n_batches, nothing.n_samples) == (2, 0)
        with pytest.raises(ValueError, match="needs data, all 2 batches were empty"):
            nothing.params()
        with pytest.raises(ValueError, match="needs data, all 2 batches were empty"):
            nothing.param("relu_1")
        with pytest.raises(ValueError, match="needs data, all 1 batches were empty"):
            nn.quantize_model(MODEL, [np.zeros(shape)], progress=False)


# --------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("scheme", [QuantizationScheme.ASYMMETRIC, SYMMETRIC | PER_CHANNEL])
def test_merged_calibrators_know_what_one_would(observer, scheme):
    options = {"observer": observer, "scheme": scheme}
    whole = calibrated(BATCHES, **options).params()
    parts = [calibrated([batch], **options) for batch in BATCHES]
    a, b, c, d = parts
    before = [(part.n_batches, part.data_hash, part.param("input")) for part in parts]
    ways = [
        a.merge(b).merge(c).merge(d), d.merge(b).merge(a.merge(c)),
        calibrated(BATCHES[:3], **options).merge(d),
        nn.Calibrator(MODEL, **options).merge(calibrated(BATCHES, **options)),
    ]
    for merged in ways[: 2 if observer is nn.EntropyObserver else 4]:      # its search is slow
        assert merged.params() == whole
        assert (merged.n_batches, merged.n_samples) == (4, 32)
    assert before == [(part.n_batches, part.data_hash, part.param("input")) for part in parts]
    assert a.merge(b).data_hash == b.merge(a).data_hash
    assert a.merge(b).merge(c).data_hash == a.merge(b.merge(c)).data_hash
    assert a.merge(b).data_hash != a.merge(c).data_hash


def test_calibrators_of_equal_models_merge():
    sent = pickle.loads(pickle.dumps(MODEL))
    made_again = nn.Model([
        (node.name, node.layer.replace(), node.inputs) for node in MODEL.nodes
    ])
    whole = calibrated(BATCHES).params()
    for model in (sent, made_again):
        assert calibrated(BATCHES[:2]).merge(calibrated(BATCHES[2:], model)).params() == whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SYMMETRIC, SYMMETRIC | QuantizationScheme.PER_TENSOR),
        (QuantizationScheme.ASYMMETRIC, QuantizationScheme.PER_TENSOR),
        (QuantizationScheme(0), QuantizationScheme.ASYMMETRIC | QuantizationScheme.PER_TENSOR),
        (PER_CHANNEL, PER_CHANNEL | QuantizationScheme.ASYMMETRIC),
    ],
)
def test_schemes_that_mean_the_same_merge(one, other):
    a, b = calibrated(BATCHES[:2], scheme=one), calibrated(BATCHES[2:], scheme=other)
    assert a.scheme == b.scheme
    assert a.merge(b).params() == b.merge(a).params() == calibrated(BATCHES, scheme=one).params()


def test_merged_calibrators_can_go_on():
    merged = calibrated(BATCHES[:1]).merge(calibrated(BATCHES[1:2]))
    for batch in BATCHES[2:]:
        merged.observe(batch)
    assert merged.params() == calibrated(BATCHES).params()


def test_merge_refuses():
    a = calibrated(BATCHES)
    with pytest.raises(TypeError, match="other must be a Calibrator"):
        a.merge(a.params())
    for options in ({"scheme": SYMMETRIC}, {"dtype": "int8"}, {"scheme": PER_CHANNEL}):
        with pytest.raises(ValueError, match="same settings"):
            a.merge(calibrated(BATCHES, **options))
    with pytest.raises(TypeError):
        a.merge(calibrated(BATCHES, observer=nn.MSEObserver))
    others = [
        None, nn.Sequential(*(node.layer for node in MODEL.nodes[:2])),
        nn.Sequential(nn.Dense(np.ones((3, 5))), *(node.layer for node in MODEL.nodes[1:])),
        nn.Sequential(*(node.layer for node in MODEL.nodes[:2]), nn.Dense(np.ones((5, 2)), [0, 0])),
        nn.Sequential(MODEL.nodes[0].layer, ("relu_1", nn.ReLU6()), MODEL.nodes[2].layer),
        nn.Model(MODEL.nodes, outputs="relu_1"), nn.Sequential(
            MODEL.nodes[0].layer, nn.ReLU(), nn.Dense(np.ones((5, 2)), activation="relu")
        ),
    ]
    for other in others:
        for pair in ((a, calibrated(BATCHES, other)), (calibrated(BATCHES, other), a)):
            with pytest.raises(ValueError, match="must be of one model: the same layers with the"):
                pair[0].merge(pair[1])
    average = partial(calibrated, BATCHES, observer=nn.MovingAverageObserver)
    with pytest.raises(TypeError, match="order"):
        average().merge(average())


# ------------------------------------------------------------------------------------- bad input


def test_no_data():
    with pytest.raises(ValueError, match="needs data, no batch was observed"):
        nn.Calibrator(MODEL).params()
    with pytest.raises(ValueError, match="needs data"):
        nn.Calibrator().params()


class Overflow(Layer):
    def _forward(self, x):
        return np.where(x > 100, np.float32(np.inf), x)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (np.full((2, 3), np.nan), ValueError, "finite, it holds NaN or infinity"),
        (np.array([[1, np.inf, 1]]), ValueError, "finite"),
        (np.array([[1, 1e300, 1]]), ValueError, "finite"),
        (np.array([[1, 101, 1]]), ValueError,                   # fine, until a layer of the model
         "the model's tensor 'overflow_1' must be finite, .* though the data does not"),
        (np.array([[1e38, 0, 0]]), ValueError, "the model's tensor 'overflow_1' must be finite"),
        (np.ones((2, 4)), ValueError, "layer 'dense_1': .* 3 features"),
        (np.ones((2, 1, 3, 1)), ValueError, "3 features in the last"),
        (np.float32(1), ValueError, "shape"),
        ((BATCHES[0], BATCHES[0]), TypeError, r"takes 1 input\(s\), got 2"),
        ((), TypeError, r"takes 1 input\(s\), got 0"),
        (["a", "b"], TypeError, "real numbers"),
        (np.ones((2, 3), complex), TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
    ],
)
def test_a_bad_batch_is_named_and_nothing_of_it_counts(batch, error, message):
    model = nn.Sequential(nn.Dense(np.eye(3)), Overflow(), nn.Dense(np.ones((3, 2))))
    calibrator = calibrated(BATCHES[:2], model)
    before = state(calibrator)
    with pytest.raises(error, match=rf"calibration batch 2: .*{message}"):
        calibrator.observe(batch)
    assert state(calibrator) == before
    for good in BATCHES[2:]:
        calibrator.observe(good)
    assert state(calibrator) == state(calibrated(BATCHES, model))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"observer": nn.MinMaxObserver()}, TypeError, "observer must be a class or a function"),
        ({"observer": "minmax"}, TypeError, "observer must be a class or a function"),
        ({"scheme": "symmetric"}, TypeError, "scheme must be a QuantizationScheme"),
        ({"scheme": SYMMETRIC | QuantizationScheme.ASYMMETRIC}, ValueError, "both halves"),
        ({"dtype": "int32"}, TypeError, "dtype must be int8 or uint8"),
    ],
)
def test_calibrator_refuses(options, error, message):
    with pytest.raises(error, match=message):
        nn.Calibrator(MODEL, **options)


@pytest.mark.parametrize("model", [5, "model", nn.ReLU(), nn.Model, [("a", nn.ReLU(), "input")]])
def test_calibrator_takes_a_model_or_none(model):
    with pytest.raises(TypeError, match="model must be a Model or None, got"):
        nn.Calibrator(model)


def test_overflow_inside_the_model_is_told_without_warnings():
    model = nn.Sequential(nn.Dense([[1e30]]), nn.Dense([[1e30]]))
    with pytest.raises(ValueError, match="batch 0: the model's tensor 'dense_2' must be finite"):
        calibrated([np.ones((2, 1))], model)        # where warnings are errors, as in all tests
    with pytest.raises(ValueError, match="batch 0: tensor 'input': x must have an axis 1"):
        calibrated([np.ones(3)], None, scheme=PER_CHANNEL)


# --------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("observer", [*OBSERVERS, nn.MovingAverageObserver])
def test_memory_does_not_grow_with_batches(observer):
    model = nn.Sequential(nn.Dense(np.ones((64, 64))), nn.ReLU())
    data = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)

    def batches(n):
        for i in range(n):
            yield data + np.float32(1e-3 * i)

    calibrator = nn.Calibrator(model, observer=observer)
    for batch in batches(20):           # fill caches, and the first bins
        calibrator.observe(batch)
    tracemalloc.start()
    try:
        for batch in batches(20):
            calibrator.observe(batch)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for batch in batches(150):
            calibrator.observe(batch)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 8 * data.nbytes         # and 150 batches have passed
    assert peak - before < 60 * data.nbytes
    calibrator.params()
