"""From a float model to an 8-bit one: what comes out, that it is right, and always the same."""

import sys
from functools import partial

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizationScheme, QuantizedTensor, Tensor, nn
from qcy.nn.layers import QuantizedLayer
from qcy.nn.quantized_model import QuantizedModel

SYMMETRIC = QuantizationScheme.SYMMETRIC
ASYMMETRIC = QuantizationScheme.ASYMMETRIC
PER_CHANNEL = QuantizationScheme.PER_CHANNEL
PER_TENSOR = QuantizationScheme.PER_TENSOR
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
DENSE = nn.Sequential(nn.Dense(np.random.default_rng(1).normal(size=(3, 4))), nn.ReLU())


def fresh(name, layout="NCHW", size=6):
    """Return inputs that calibration has not seen."""
    shapes = models.build(name)[1]
    return models.as_tuple(models.batches(shapes, 1, size, seed=9, layout=layout)[0])


def seen(name):
    """Return inputs of calibration: nothing in the model saturates."""
    return models.as_tuple(models.batches(models.build(name)[1])[0])


def sqnr(reals, quantized):
    noise = ((reals - quantized) ** 2).sum()
    return np.inf if noise == 0 else 10 * np.log10((reals**2).sum() / noise)


def layer_by_layer(model, inputs):
    """Run an 8-bit model one layer at a time, through the public forwards of its layers."""
    values = {}
    for name, codes in zip(model.inputs, models.as_codes(model, inputs), strict=True):
        values[name] = codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes
    for node in model.nodes:
        arrays = [values[name] for name in node.inputs]
        if node.layer.TAKES_REALS:
            reals = node.layer(*arrays)
            is_8_bit = isinstance(node.layer, QuantizedLayer)
            values[node.name] = qcy.quantize(reals, model.params[node.name]) if is_8_bit else reals
        elif isinstance(node.layer, QuantizedLayer):
            codes = [as_codes(x, model.params[n]) for n, x in zip(node.inputs, arrays, strict=True)]
            values[node.name] = (
                node.layer.quantized_forward(*codes) if codes
                else QuantizedTensor(node.layer.forward_codes(), node.layer.out_params)
            )
        else:
            reals = [x.dequantize().data if isinstance(x, QuantizedTensor) else x for x in arrays]
            values[node.name] = node.layer(*reals) if reals else node.layer._forward()
    results = [as_codes(values[name], model.params[name]) for name in model.outputs]
    return [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y for y in results]


def as_codes(x, params):
    return x if isinstance(x, QuantizedTensor) else qcy.quantize(x, params)


def codes_of(model, inputs):
    """Return the codes that an 8-bit model gives for reals."""
    return models.as_tuple(model(*models.as_codes(model, inputs)))


# ------------------------------------------------------------------------------------ end to end


@pytest.mark.parametrize("scheme", [ASYMMETRIC, SYMMETRIC])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", models.ZOO)
def test_models_of_every_layer_kind(name, dtype, scheme):
    model, quantized = models.quantized(name, dtype=dtype, scheme=scheme)
    assert isinstance(quantized, QuantizedModel)
    assert all(isinstance(node.layer, QuantizedLayer) for node in quantized.nodes)
    assert quantized.inputs == model.inputs
    covers = {node.name: node.covers for node in quantized.nodes}
    assert [covers[name][-1] for name in quantized.outputs] == list(model.outputs)
    for name_, params in quantized.params.items():
        assert params.axis is None, name_
        assert params.dtype == dtype
        if scheme is SYMMETRIC and name_ in quantized.inputs:
            assert params.zero_point == (128 if dtype == "uint8" else 0)
    inputs = seen(name)
    for a, b in zip(
        models.as_tuple(model(*inputs)), models.as_tuple(quantized(*inputs)), strict=True
    ):
        assert a.shape == b.shape
        assert b.dtype == np.float32
        assert sqnr(a, b) > 30


@pytest.mark.parametrize("name", models.ZOO)
def test_a_model_is_its_layers_one_after_another(name):
    _, quantized = models.quantized(name)
    inputs = fresh(name)
    for y, expected in zip(
        codes_of(quantized, inputs), layer_by_layer(quantized, inputs), strict=True
    ):
        assert y == expected


@pytest.mark.parametrize("name", models.ZOO)
def test_both_layouts_give_equal_codes(name):
    first, last = (models.quantized(name, layout)[1] for layout in ("NCHW", "NHWC"))
    assert (first.layout, last.layout) in (("NCHW", "NHWC"), ("NCHW", "NCHW"))
    assert first.params == last.params
    for a, b in zip(
        codes_of(first, fresh(name)), codes_of(last, fresh(name, "NHWC")), strict=True
    ):
        assert_array_equal(models.to_layout(a.codes.data, "NHWC"), b.codes.data)


@pytest.mark.parametrize("name", models.ZOO)
def test_what_goes_in_comes_out(name):
    _, quantized = models.quantized(name)
    inputs = fresh(name)
    reals = models.as_tuple(quantized(*inputs))
    codes = codes_of(quantized, inputs)
    tensors = models.as_tuple(quantized(*(Tensor(x) for x in inputs)))
    for real, code, tensor, output in zip(reals, codes, tensors, quantized.outputs, strict=True):
        assert type(real) is np.ndarray
        assert isinstance(code, QuantizedTensor)
        assert isinstance(tensor, Tensor)
        assert code.params == quantized.params[output]
        assert_array_equal(code.dequantize().data, real)
        assert_array_equal(tensor.data, real)
    # Codes of other params are requantized at the door, those of another dtype as well.
    for dtype in ("uint8", "int8"):
        others = models.as_codes(quantized, inputs, dtype=dtype)
        for real, y in zip(reals, models.as_tuple(quantized(*others)), strict=True):
            assert sqnr(real, y.dequantize().data) > 20


def test_values_beyond_calibration_saturate_alike():
    for dtype in ("uint8", "int8"):
        quantized = nn.quantize_model(
            nn.Sequential(nn.Identity()), X, scheme=SYMMETRIC, dtype=dtype, progress=False
        )
        params = quantized.params["input"]
        far = np.array([[-1e6, 0, 1e6]], np.float32)
        y = quantized(far)
        assert_array_equal(y, quantized(qcy.quantize(far, params)).dequantize().data)
        assert_array_equal(y, np.float32([[params.low, 0, params.high]]))


@pytest.mark.parametrize(
    "weight_scheme",
    [SYMMETRIC, ASYMMETRIC, SYMMETRIC | PER_CHANNEL, ASYMMETRIC | PER_CHANNEL, PER_TENSOR],
    ids=str,
)
@pytest.mark.parametrize("name", ["residual", "depthwise", "transposed", "softmax"])
def test_weight_schemes(name, weight_scheme):
    model, quantized = models.quantized(name, weight_scheme=weight_scheme)
    for node in quantized.nodes:
        if "weight_zero_point" in node.layer.ARRAYS:
            scale, zero = node.layer.weight_scale, node.layer.weight_zero_point
            assert scale.ndim == weight_scheme.is_per_channel
            assert not (zero.any() and weight_scheme.is_symmetric)
    assert sqnr(model(*seen(name)), quantized(*seen(name))) > 30
    halves = (
        "SYMMETRIC" if weight_scheme.is_symmetric else "ASYMMETRIC",
        "PER_CHANNEL" if weight_scheme.is_per_channel else "PER_TENSOR",
    )
    spelling = "|".join(halves)
    assert quantized.manifest["weight_scheme"] == spelling


class Factory:
    """A callable without a name."""

    def __call__(self):
        return nn.MinMaxObserver()


def test_an_observer_without_a_name():
    for observer in (Factory(), partial(Factory())):
        quantized = nn.quantize_model(DENSE, X, observer=observer, progress=False)
        assert quantized.manifest["observer"] == f"{Factory!r}()"
        assert nn.storage.from_bytes(quantized.to_bytes()).manifest == quantized.manifest


@pytest.mark.parametrize("observer", [
    nn.MinMaxObserver, nn.MovingAverageObserver, nn.PercentileObserver, nn.EntropyObserver,
    nn.MSEObserver, partial(nn.PercentileObserver, percentile=99.5),
])
def test_observers(observer):
    model, quantized = models.quantized("residual", observer=observer)
    assert sqnr(model(*seen("residual")), quantized(*seen("residual"))) > 15
    assert quantized.manifest["observer"].startswith(getattr(observer, "func", observer).__name__)


# ------------------------------------------------------------------------------------------ skip


@pytest.mark.parametrize("name", models.ZOO)
def test_every_layer_can_be_kept_in_float(name):
    model = models.build(name)[0]
    inputs = seen(name)
    expected = models.as_tuple(model(*inputs))
    for node in model.nodes:
        _, quantized = models.quantized(name, skip=[node.name])
        assert node.name in quantized.float_nodes
        assert type(quantized[node.name]) is type(node.layer)
        assert quantized.manifest["skip"] == [node.name]
        for a, b in zip(expected, models.as_tuple(quantized(*inputs)), strict=True):
            assert sqnr(a, b) > 27
        # Others stay in float because of it, and not because of themselves.
        why = quantized.manifest["float"]
        assert list(why) == quantized.float_nodes
        assert why.pop(node.name) == "in skip"
        assert all("in float" in text or "no layer in 8 bits" in text for text in why.values())
        for y, oracle in zip(
            codes_of(quantized, inputs), layer_by_layer(quantized, inputs), strict=True
        ):
            assert y == oracle
        row = next(
            line for line in quantized.summary().splitlines() if line.startswith(f"{node.name} ")
        )
        assert "float" in row


def test_all_layers_in_float_give_what_the_float_model_gives():
    model = models.build("residual")[0]
    names = [node.name for node in model.nodes]
    _, quantized = models.quantized("residual", skip=names)
    assert quantized.float_nodes == names
    x = fresh("residual")[0]
    np.testing.assert_allclose(quantized(x), model(x), rtol=1e-4, atol=1e-5)
    # What lies behind the last product in 8 bits is not between two of them.
    assert models.quantized("residual", skip="dense")[1].float_nodes == [
        "add", "mean", "flat", "dense"
    ]


def test_a_batch_norm_that_cannot_be_folded_is_not_folded_silently():
    # Features in the last axis, channels in axis 1, and as many of both.
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(rng.normal(size=(3, 4))), models.norm(rng, 4), nn.ReLU())
    rows, stacks = rng.normal(size=(9, 3)), rng.normal(size=(9, 4, 3))
    folded = nn.quantize_model(model, rows, progress=False)
    assert len(folded.nodes) == 1
    assert sqnr(model(rows), folded(rows)) > 30
    with pytest.raises(ValueError, match=r"'batchnorm_1' normalizes axis 1 of .* put it in skip"):
        nn.quantize_model(model, stacks, progress=False)
    kept = nn.quantize_model(model, stacks, skip="batchnorm_1", progress=False)
    assert sqnr(model(stacks), kept(stacks)) > 30
    # With other numbers of both there is no doubt.
    model = nn.Sequential(nn.Dense(rng.normal(size=(3, 5))), models.norm(rng, 4))
    assert sqnr(model(stacks), nn.quantize_model(model, stacks, progress=False)(stacks)) > 30


def test_a_layer_of_ones_own_stays_in_float():
    class Square(nn.Layer):
        def _forward(self, x):
            return x * x

    model = nn.Sequential(nn.Dense(np.eye(3)), Square(), nn.Dense(np.eye(3)))
    quantized = nn.quantize_model(model, X, progress=False)
    assert quantized.manifest["float"] == {"square_1": "Square has no form in 8 bits"}
    assert "Square has no form in 8 bits" in quantized.summary()
    assert sqnr(model(X), quantized(X)) > 30


# --------------------------------------------------------------------------- data, and progress


@pytest.mark.parametrize("name", ["residual", "two_inputs"])
def test_two_runs_give_the_same_bytes(name):
    data = [models.quantized(name, observer=nn.MSEObserver)[1].to_bytes() for _ in range(2)]
    assert data[0] == data[1]


def test_kinds_of_data():
    expected = nn.quantize_model(DENSE, [X[:32], X[32:]], progress=False).to_bytes()
    batches = (X[i : i + 32] for i in (0, 32))
    for data in (
        X, Tensor(X), X.astype(np.float64), batches, [Tensor(X[:32]), X[32:]],
        iter([X[:32].tolist(), X[32:]]), ((part,) for part in (X[:32], X[32:])),
    ):
        assert nn.quantize_model(DENSE, data, progress=False).to_bytes() == expected


def test_never_more_than_one_batch_is_asked_for_at_a_time():
    import gc
    import weakref

    class Batch(np.ndarray):
        pass

    alive = []

    def batches():
        for i in range(6):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1
            batch = (X + i).view(Batch)
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    nn.quantize_model(DENSE, batches(), progress=False)
    assert len(alive) == 6


def test_manifest_says_what_the_model_was_made_with():
    quantized = nn.quantize_model(DENSE, X, progress=False)
    calibrator = nn.Calibrator(DENSE)
    calibrator.observe(X[:32])
    calibrator.observe(X[32:])
    manifest = quantized.manifest
    assert manifest["data_sha256"] == calibrator.data_hash
    assert manifest["n_samples"] == 40
    assert manifest["observer"] == "MinMaxObserver()"
    assert manifest["versions"]["qcy"] == qcy.__version__
    assert manifest["versions"]["numpy"] == np.__version__


def test_progress_is_written_to_stderr_or_not_at_all(capsys, monkeypatch):
    nn.quantize_model(DENSE, X, progress=False)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    nn.quantize_model(DENSE, X)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["calibrating: 0 of 2 batches", "calibrating: 2 of 2 batches, done"]
    nn.quantize_model(DENSE, iter([X, X, X]))
    err = capsys.readouterr().err
    assert err.splitlines() == ["calibrating: 0 batches", "calibrating: 3 batches, done"]


def test_progress_bar_of_tqdm(capsys):
    pytest.importorskip("tqdm")
    nn.quantize_model(DENSE, X)
    out, err = capsys.readouterr()
    assert out == ""
    assert "calibrating: 100%" in err
    assert "2/2" in err


# ------------------------------------------------------------------------------------- bad input

NHWC = nn.Model([("a", nn.MaxPool2D(2), "input"), ("b", nn.MaxPool2D(2, layout="NHWC"), "a")])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((DENSE, []), {}, ValueError, "needs data, no batch"),
        ((DENSE, X[:0]), {}, ValueError, "needs data, no batch"),
        ((DENSE, [X[:0]]), {}, ValueError, "needs data, all 1 batches were empty"),
        ((DENSE, iter(())), {}, ValueError, "needs data, no batch"),
        ((DENSE, [X, X[:, :2]]), {}, ValueError, "calibration batch 1: .*3 features"),
        ((DENSE, [X, X, X * np.nan]), {}, ValueError, "calibration batch 2: .*NaN"),
        ((DENSE, np.float32(1)), {}, ValueError, "axis of samples"),
        ((DENSE, "data"), {}, TypeError, "data must be an array or an iterable"),
        ((DENSE, None), {}, TypeError, "data must be an array or an iterable"),
        ((DENSE, [None]), {}, TypeError, "calibration batch 0: .*real numbers"),
        ((DENSE, [(X, X)]), {}, TypeError, "calibration batch 0: the model takes 1"),
        ((None, X), {}, TypeError, "model must be a Model, got NoneType"),
        ((nn.Dense(np.eye(3)), X), {}, TypeError, "model must be a Model, got Dense"),
        ((DENSE, X), {"scheme": PER_CHANNEL}, ValueError, "activations, which are per tensor"),
        ((DENSE, X), {"scheme": "symmetric"}, TypeError, "scheme must be a QuantizationScheme"),
        ((DENSE, X), {"scheme": SYMMETRIC | ASYMMETRIC}, ValueError, "both halves"),
        ((DENSE, X), {"weight_scheme": "x"}, TypeError, "weight_scheme must be a Quantization"),
        ((DENSE, X), {"weight_scheme": PER_CHANNEL | PER_TENSOR}, ValueError, "both halves"),
        ((DENSE, X), {"skip": ["dense_1", "head"]}, ValueError, r"got \['head'\]"),
        ((DENSE, X), {"skip": "head"}, ValueError, r"got \['head'\]"),
        ((DENSE, X), {"observer": "minmax"}, TypeError, "observer must be"),
        ((DENSE, X), {"dtype": "int16"}, TypeError, "dtype must be int8 or uint8"),
        ((NHWC, np.ones((1, 4, 4, 4))), {}, ValueError, "one layout, got"),
    ],
)
def test_quantize_model_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        nn.quantize_model(*arguments, progress=False, **options)


def test_an_8_bit_model_is_not_quantized_again():
    quantized = nn.quantize_model(DENSE, X, progress=False)
    with pytest.raises(TypeError, match="model must be a Model, got QuantizedModel"):
        nn.quantize_model(quantized, X, progress=False)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((), TypeError, r"takes 1 input\(s\), got 0"),
        ((X, X), TypeError, r"takes 1 input\(s\), got 2"),
        ((X[:, :2],), ValueError, "3 features"),
        ((X * np.nan,), ValueError, "NaN"),
        ((["a"],), TypeError, "real numbers"),
        ((QuantizedTensor(np.ones((2, 4), np.uint8), QuantizationParams(1)),), ValueError,
         "3 features"),
    ],
)
def test_8_bit_models_refuse(inputs, error, message):
    quantized = nn.quantize_model(DENSE, X, progress=False)
    with pytest.raises(error, match=message):
        quantized(*inputs)
