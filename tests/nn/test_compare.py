"""The comparison's numbers against the same numbers computed plainly, and all its shapes."""

import dataclasses
import json
import math
import re

import models
import numpy as np
import pytest

from qcy import QuantizationScheme, Tensor, nn
from qcy.nn._svg import TIMES
from qcy.nn.compare import MAX_CLASSES, LayerReport, Report

FAST = {"batch_sizes": (1, 3), "repeats": 2}


@pytest.fixture(scope="module")
def case():
    """Return (8-bit model, model, data of several batches, labels, report)."""
    model, quantized = models.quantized("residual")
    data = models.batches([(3, 8, 8)], 1, size=150, seed=5)[0]
    labels = np.random.default_rng(0).integers(0, 5, 150)
    labels[:100] = model(data[:100]).argmax(1)
    report = nn.compare_quantized_model(quantized, model, data, labels, **FAST)
    return quantized, model, data, labels, report


def test_answers(case):
    quantized, model, data, labels, report = case
    a, b = model(data).argmax(1), quantized(data).argmax(1)
    assert report.n_samples == 150
    assert report.float_accuracy == np.mean(a == labels)
    assert report.quantized_accuracy == np.mean(b == labels)
    assert report.agreement == np.mean(a == b)
    assert 0.6 < report.float_accuracy < 1
    assert report.agreement > 0.9
    confusion = np.zeros((5, 5), int)
    for i, j in zip(a, b, strict=True):
        confusion[i, j] += 1
    n = 1 + max(a.max(), b.max())
    assert report.confusion == tuple(tuple(row) for row in confusion[:n, :n].tolist())
    assert sum(map(sum, report.confusion)) == 150


def test_answers_that_differ():
    # The first two samples differ by less than a step: the float model sees it, the other cannot.
    model = nn.Sequential(nn.Dense(np.eye(3)))
    data = np.array([[1, 1.001, 0], [0.5, 0, 0.501], [2, 1, -2], [0, 1, -1]])
    quantized = nn.quantize_model(model, data, progress=False)
    report = nn.compare_quantized_model(quantized, model, data, [1, 2, 0, 0], batch_sizes=())
    assert (report.float_accuracy, report.quantized_accuracy) == (0.75, 0.25)
    assert report.agreement == 0.5
    assert report.confusion == ((1, 0, 0), (1, 1, 0), (1, 0, 0))


def test_layers(case):
    quantized, model, data, _, report = case
    reals, others = dict(model.trace(data)), dict(quantized.trace(data))
    assert [layer.name for layer in report.layers] == [node.name for node in quantized.nodes]
    for layer, node in zip(report.layers, quantized.nodes, strict=True):
        a, b = (t[node.covers[-1]].astype(np.float64) for t in (reals, others))
        noise = ((a - b) ** 2).sum()
        assert math.isclose(layer.sqnr_db, 10 * np.log10((a**2).sum() / noise), rel_tol=1e-4)
        cosine = (a * b).sum() / math.sqrt((a**2).sum() * (b**2).sum())
        assert math.isclose(layer.cosine, cosine, rel_tol=1e-6)
        assert math.isclose(layer.max_error, np.abs(a - b).max(), rel_tol=1e-4)
        assert layer.kind == type(node.layer).__name__
        assert layer.covers == node.covers
        assert layer.shape == a.shape[1:]
        params = quantized.params[node.name]
        assert (layer.scale, layer.zero_point) == (params.scale, params.zero_point)
        assert (layer.dtype, layer.qmin, layer.qmax) == ("uint8", 0, 255)
        assert layer.bits == 8
        assert layer.sqnr_db > 20


def test_bytes_and_latency(case):
    quantized, model, _, _, report = case
    assert report.float_bytes == len(model.to_bytes())
    assert report.quantized_bytes == len(quantized.to_bytes())
    assert list(report.latency) == ["1", "3"]
    for times in report.latency.values():
        assert set(times) == {"float", "quantized", "speedup"}
        assert 0 < times["float"] < 10
        assert times["speedup"] == times["float"] / times["quantized"]


def test_report_is_frozen(case):
    report = case[4]
    assert isinstance(report, Report)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.agreement = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.layers[0].name = "other"
    assert all(isinstance(layer, LayerReport) for layer in report.layers)


def test_text_is_a_table(case):
    report = case[4]
    lines = str(report).splitlines()
    assert lines[0].startswith(f"accuracy   float {report.float_accuracy:.2%}   8-bit ")
    assert lines[1] == f"agreement  {report.agreement:.2%} of 150 samples"
    ratio = report.float_bytes / report.quantized_bytes
    assert ratio > 1
    assert lines[2].endswith(f"   {ratio:.2f}x smaller")
    assert lines[3].startswith("latency    batch 1: float ")
    header = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    assert re.split(r"\s{2,}", lines[header]) == [
        "layer", "kind", "output", "bits", "scale", "zero point", "SQNR dB", "cosine", "max error",
    ]
    assert "8x8x8" in lines[header + 2]
    after = header + 2 + len(report.layers)
    assert lines[after:] == ["", *f"8-bit model: {report.profile}".splitlines()]
    plain = str(dataclasses.replace(report, profile=None)).splitlines()
    assert plain == lines[:after]


def test_the_profile_is_of_the_first_size(case):
    quantized, model, data, _, report = case
    assert report.profile.repeat == FAST["repeats"]
    assert [row.name for row in report.profile.layers[1:-1]] == [n.name for n in quantized.nodes]
    assert json.loads(json.dumps(report.to_dict()))["profile"] == report.profile.to_dict()
    without = nn.compare_quantized_model(quantized, model, data[:3], batch_sizes=())
    assert without.profile is None
    assert without.to_dict()["profile"] is None


@pytest.mark.parametrize(
    ("ratio", "smaller", "faster"),
    [(4.0, "4.00x smaller", "4.00x faster"), (0.5, "2.00x larger", "2.00x slower"),
     (0.125, "8.00x larger", "8.00x slower"), (1.0, "1.00x smaller", "1.00x faster")],
)
def test_what_is_larger_and_slower_is_called_so(case, ratio, smaller, faster):
    report = dataclasses.replace(
        case[4], float_bytes=int(1000 * ratio), quantized_bytes=1000,
        latency={"1": {"float": ratio, "quantized": 1.0, "speedup": ratio}},
    )
    text, page = str(report).splitlines(), report._repr_html_()
    assert text[2].endswith(f"   {smaller}")
    assert text[3].endswith(f"   {faster}")
    for words in (smaller, faster):
        assert f"<strong>{words.replace('x', TIMES)}</strong>" in page


def test_layers_tell_of_their_codes():
    scheme = QuantizationScheme
    for dtype, symmetry, codes in (
        ("int8", scheme.ASYMMETRIC, ("int8", -128, 127)),
        ("int8", scheme.SYMMETRIC, ("int8", -127, 127)),
        ("uint8", scheme.SYMMETRIC, ("uint8", 0, 255)),
    ):
        model, quantized = models.quantized("softmax", dtype=dtype, scheme=symmetry)
        report = nn.compare_quantized_model(quantized, model, X, batch_sizes=())
        hidden = report.layers[0]
        assert (hidden.dtype, hidden.qmin, hidden.qmax) == codes
        assert report.to_dict()["layers"][0]["dtype"] == dtype


def test_dict_is_plain_json(case):
    report = case[4]
    found = report.to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["float"] == {"accuracy": report.float_accuracy, "bytes": report.float_bytes}
    assert found["quantized"]["accuracy"] == report.quantized_accuracy
    assert found["agreement"] == report.agreement
    assert found["bytes"]["ratio"] == report.float_bytes / report.quantized_bytes
    assert found["latency"] == report.latency
    assert found["layers"][0]["covers"] == ["conv1", "bn1", "relu1"]
    assert found["layers"][0]["shape"] == [8, 8, 8]
    assert set(found["layers"][0]) == {f.name for f in dataclasses.fields(LayerReport)}


def test_html_is_one_file(case, tmp_path):
    report = case[4]
    path = tmp_path / "report.html"
    report.to_html(path)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert f"{report.agreement:.2%}" in page
    assert all(layer.name in page for layer in report.layers)
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert "qcy-report" in report._repr_html_()
    with pytest.raises(OSError, match="missing"):
        report.to_html(tmp_path / "missing" / "report.html")


def test_without_labels_there_is_no_accuracy(case):
    quantized, model, data, _, with_labels = case
    report = nn.compare_quantized_model(quantized, model, data, batch_sizes=())
    assert report.float_accuracy is report.quantized_accuracy is None
    assert report.agreement == with_labels.agreement
    assert report.latency == {}
    assert "accuracy" not in str(report)
    assert report.to_dict()["float"]["accuracy"] is None
    assert report.layers == with_labels.layers
    assert report._repr_html_()


def test_samples_of_all_kinds(case):
    quantized, model, data, labels, expected = case
    for kind in (Tensor, np.ndarray.tolist, lambda x: x.astype(np.float64)):
        report = nn.compare_quantized_model(
            quantized, model, kind(data), labels.tolist(), batch_sizes=()
        )
        assert report.layers == expected.layers
        assert report.quantized_accuracy == expected.quantized_accuracy
    one = nn.compare_quantized_model(quantized, model, data[:1], batch_sizes=(4,), repeats=1)
    assert one.n_samples == 1


def test_layers_kept_in_float_have_32_bits():
    model, quantized = models.quantized("residual", skip=["add", "relu2"])
    data = models.batches([(3, 8, 8)], 1)[0]
    report = nn.compare_quantized_model(quantized, model, data, batch_sizes=())
    bits = {layer.name: layer.bits for layer in report.layers}
    assert bits == {
        "conv1": 8, "conv2": 8, "add": 32, "relu2": 32, "mean": 32, "flat": 32, "dense": 8
    }


def test_layers_without_any_error_or_any_signal():
    same = nn.Sequential(nn.Dense(np.eye(2)), nn.Dense(np.zeros((2, 2))))
    data = np.array([[-128.0, 127.0], [1.0, 2.0]])
    quantized = nn.quantize_model(same, data, progress=False)
    report = nn.compare_quantized_model(quantized, same, data, batch_sizes=())
    assert report.layers[1].sqnr_db == math.inf
    assert report.layers[1].cosine == 1
    assert report.layers[1].max_error == 0
    assert json.dumps(report.to_dict(), allow_nan=False)
    assert report.to_dict()["layers"][1]["sqnr_db"] is None
    assert report._repr_html_()


def test_outputs_that_are_images_have_no_confusion(tmp_path):
    model = nn.Sequential(nn.Conv2D(np.ones((1, 1, 1, 1))))
    data = np.zeros((2, 1, 40, 40), np.float32)
    data[0, 0, -1, -1] = data[1, 0, 0, 1] = 1
    quantized = nn.quantize_model(model, data, progress=False)
    report = nn.compare_quantized_model(quantized, model, data, batch_sizes=())
    assert MAX_CLASSES < 40 * 40
    assert report.confusion == ()
    assert report.agreement == 1
    report.to_html(tmp_path / "report.html")


def test_the_first_output_answers():
    model, quantized = models.quantized("lonely")
    data = models.batches([(3, 6, 6)], 1)[0]
    report = nn.compare_quantized_model(quantized, model, data, batch_sizes=())
    a, b = (run(data)[0].reshape(8, -1).argmax(1) for run in (model, quantized))
    assert report.agreement == np.mean(a == b)


MODEL, QUANTIZED = models.quantized("softmax")
X = models.batches([(10,)], 1)[0]
OTHER = nn.Sequential(nn.Dense(np.ones((10, 2))))
ECHO = nn.Model([("a", nn.ReLU(), "input")], outputs="input")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((MODEL, QUANTIZED, X), TypeError, "quantized must be a QuantizedModel, got Model"),
        ((QUANTIZED, QUANTIZED, X), TypeError, "model must be a Model, got QuantizedModel"),
        ((QUANTIZED, MODEL, X[:0]), ValueError, r"at least one sample, got shape \(0, 10\)"),
        ((QUANTIZED, MODEL, 1.0), ValueError, r"at least one sample, got shape \(\)"),
        ((QUANTIZED, MODEL, X, np.ones(7)), ValueError, r"labels must have shape \(8,\)"),
        ((QUANTIZED, MODEL, X, 3), ValueError, r"labels must have shape \(8,\), got \(\)"),
        ((QUANTIZED, MODEL, X[:, :4]), ValueError, "10 features"),
        ((QUANTIZED, MODEL, X * np.nan), ValueError, "NaN"),
        ((QUANTIZED, OTHER, X), ValueError, "has no layer 'relu': the 8-bit model was not made"),
        ((nn.quantize_model(ECHO, X, progress=False), ECHO, X), ValueError, "layer that makes"),
    ],
)
def test_compare_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        nn.compare_quantized_model(*arguments, **FAST)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a"] * 8}, TypeError, "labels must be integers, got <U1"),
        ({"labels": [0.0] * 8}, TypeError, "labels must be integers, got float64"),
        ({"labels": [np.nan] * 8}, TypeError, "labels must be integers, got float64"),
        ({"labels": [True] * 8}, TypeError, "labels must be integers, got bool"),
        ({"labels": [None] * 8}, TypeError, "labels must be integers, got object"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, got 0"),
        ({"repeats": -3, "batch_sizes": ()}, ValueError, "repeats must be at least 1, got -3"),
        ({"repeats": 1.5}, TypeError, "repeats must be an int, got 1.5"),
        ({"batch_sizes": 1}, TypeError, "batch_sizes must be a sequence of int, got 1"),
        ({"batch_sizes": "64"}, TypeError, "batch_sizes must be a sequence of int, got '64'"),
        ({"batch_sizes": (1, 0)}, ValueError, "batch_sizes must be at least 1, got 0"),
        ({"batch_sizes": (1, 2.0)}, TypeError, "batch_sizes must be an int, got 2.0"),
        ({"batch_sizes": None}, TypeError, "batch_sizes must be a sequence of int, got None"),
    ],
)
def test_compare_refuses_before_it_runs_anything(monkeypatch, options, error, message):
    monkeypatch.setattr("qcy.nn.compare._run_both", None)
    with pytest.raises(error, match=message):
        nn.compare_quantized_model(QUANTIZED, MODEL, X, **FAST | options)


def test_models_with_several_inputs_are_told():
    model, quantized = models.quantized("two_inputs")
    with pytest.raises(TypeError, match=r"takes 2 input\(s\), got 1"):
        nn.compare_quantized_model(quantized, model, np.ones((2, 2, 6, 6)), **FAST)
