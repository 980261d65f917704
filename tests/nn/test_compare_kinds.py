"""The comparison of models of all kinds: several inputs, indices, samples in fixed numbers."""

import json

import models
import numpy as np
import pytest

from qcy import nn

FAST = {"batch_sizes": (1, 3), "repeats": 2}
X = models.batches([(10,)], 1)[0]


def whole(quantized, model, data, **options):
    """Compare, and check that what comes can be shown."""
    report = nn.compare_quantized_model(quantized, model, data, **options)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    assert all(layer.name in str(report) for layer in report.layers)
    assert all(layer.name in report._repr_html_() for layer in report.layers)
    return report


@pytest.mark.parametrize("name", ["two_inputs", "transformer"])
def test_several_inputs(name):
    model, quantized = models.quantized(name)
    data = models.batches(models.build(name)[1], 1, size=70, seed=3)[0]
    report = whole(quantized, model, data, **FAST)
    a, b = (run(*data)[0].reshape(70, -1).argmax(1) for run in (model, quantized))
    assert report.n_samples == 70
    assert report.agreement == np.mean(a == b)
    assert list(report.latency) == ["1", "3"]
    assert len(report.layers) == len(quantized.nodes)
    by_name = dict(zip(model.inputs, data, strict=True))
    again = nn.compare_quantized_model(quantized, model, by_name, batch_sizes=())
    assert again.layers == report.layers


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: (d[0],), TypeError, r"takes 2 input\(s\), got 1"),
        (lambda d: {"image": d[0]}, ValueError, r"must have input 'vector', got \['image'\]"),
        (lambda d: (d[0], d[1][:3]), ValueError, "samples of each input, got 'image' 8, 'v"),
        (lambda d: (d[0], d[1][:0]), ValueError, r"at least one sample, got shape \(0, 4\)"),
        (lambda d: (d[0], np.float32(1)), ValueError, r"at least one sample, got shape \(\)"),
        (lambda d: iter(()), ValueError, "at least one batch, got none"),
    ],
)
def test_several_inputs_that_do_not_fit(change, error, message):
    model, quantized = models.quantized("two_inputs")
    data = models.batches([(2, 6, 6), (4,)], 1)[0]
    with pytest.raises(error, match=message):
        nn.compare_quantized_model(quantized, model, change(data), **FAST)


def test_batches_are_taken_one_at_a_time():
    model, quantized = models.quantized("residual")
    data = models.batches([(3, 8, 8)], 1, size=150, seed=5)[0]
    labels = np.random.default_rng(0).integers(0, 5, 150)
    expected = nn.compare_quantized_model(quantized, model, data, labels, batch_sizes=())
    starts = range(0, 150, 64)
    report = nn.compare_quantized_model(
        quantized, model, (data[i : i + 64] for i in starts), labels, **FAST
    )
    assert report.layers == expected.layers
    assert report.quantized_accuracy == expected.quantized_accuracy
    assert report.n_samples == 150
    with pytest.raises(ValueError, match=r"labels must have shape \(150,\), got \(149,\)"):
        nn.compare_quantized_model(
            quantized, model, (data[i : i + 64] for i in starts), labels[:149], batch_sizes=()
        )


def from_onnx(made, data, **options):
    """Return a model of an ONNX file and its 8-bit model."""
    model = nn.onnx.load(made)
    if isinstance(data, dict):
        batch = tuple(data[name] for name in model.inputs)
        return model, nn.quantize_model(model, [batch], progress=False, **options)
    return model, nn.quantize_model(model, data, progress=False, **options)


def test_indices_and_outputs_of_several_types():
    onnx_models = pytest.importorskip("onnx_models")
    data = onnx_models.word_data()
    model, quantized = from_onnx(onnx_models.words(), data)
    report = whole(quantized, model, data, labels=np.zeros(40, int), **FAST)
    a, b = (run(*data.values())[0].argmax(1) for run in (model, quantized))
    assert report.agreement == np.mean(a == b)
    assert report.float_accuracy == np.mean(a == 0)
    assert report.profile.us > 0
    layers = {layer.name: layer for layer in report.layers}
    assert "best" not in layers                 # which is of int64
    assert layers["scores"].bits == 8
    assert layers["pooled"].bits == 32
    assert layers["pooled"].kind == "ReduceLogSumExp"
    assert layers["pooled"].why == "ReduceLogSumExp has no form in 8 bits"
    assert "why in float" in str(report)
    assert 'title="ReduceLogSumExp has no form in 8 bits"' in report._repr_html_()


def test_a_whole_number_is_an_answer():
    onnx_models = pytest.importorskip("onnx_models")
    made = onnx_models.words()
    made.graph.output.pop(0)
    data = onnx_models.word_data()
    model, quantized = from_onnx(made, data)
    report = whole(quantized, model, data, batch_sizes=())
    assert report.agreement == np.mean(model(*data.values()) == quantized(*data.values()))
    assert len(report.confusion) == 1 + max(
        run(*data.values()).max() for run in (model, quantized)
    )


def test_a_model_of_two_samples_a_run():
    onnx_models = pytest.importorskip("onnx_models")
    data = models.batches([(3, 8, 8)], 1, size=9)[0]
    labels = np.arange(9) % 4
    model, quantized = from_onnx(onnx_models.fixed(), data[:8])
    report = whole(quantized, model, data, labels=labels)
    answers = np.concatenate([quantized(data[i : i + 2]).argmax(1) for i in range(0, 8, 2)])
    assert report.n_samples == 8                # the last one has no other beside it
    assert report.quantized_accuracy == np.mean(answers == labels[:8])
    assert list(report.latency) == ["2"]
    with pytest.raises(ValueError, match="at least 2 samples, one run's; got 1"):
        nn.compare_quantized_model(quantized, model, data[:1])


def test_layers_without_parameters_and_infinities():
    model, _ = models.build("softmax")
    mask = np.where(np.arange(5) == 2, -np.inf, 0).astype(np.float32)
    nodes = [*model.nodes[:-1], nn.Node("mask", nn.Constant(mask), ()),
             nn.Node("masked", nn.Operator("Add"), ("logits", "mask")),
             nn.Node("softmax", nn.Softmax(), ("masked",))]
    model = nn.Model(nodes)
    quantized = nn.quantize_model(model, X, progress=False)
    assert "masked" not in quantized.params
    layers = {layer.name: layer for layer in whole(quantized, model, X, **FAST).layers}
    assert layers["masked"].scale is layers["masked"].dtype is layers["masked"].qmin is None
    assert layers["masked"].sqnr_db > 20
    assert layers["softmax"].bits == 32


def test_outputs_that_are_no_answers():
    model = nn.Model([("conv", nn.Conv2D(np.ones((1, 1, 1, 1))), "input"),
                      ("row", nn.Operator("Reshape", constants={1: [-1, 3]}), "conv")])
    data = np.ones((4, 1, 3, 3), np.float32)
    quantized = nn.quantize_model(model, data, progress=False)
    report = whole(quantized, model, data, batch_sizes=())
    assert report.agreement == 1
    one = nn.Model([("conv", nn.Conv2D(np.ones((1, 1, 1, 1))), "input"),
                    ("sum", nn.Operator("ReduceMean", {"keepdims": 0}), "conv")])
    with pytest.raises(ValueError, match=r"an answer for each of 4 samples, got shape \(\)"):
        nn.compare_quantized_model(
            nn.quantize_model(one, data, progress=False), one, data, batch_sizes=()
        )
