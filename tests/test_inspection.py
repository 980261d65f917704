"""What `qcy inspect` tells of a model is so, and `qcy bench model` measures two side by side."""

import json
import os

import models
import numpy as np
import pytest
from test_demo import run

import qcy
from qcy import bench, bench_pair, nn
from qcy.inspection import inspect
from qcy.nn.fusion import fuse

pytest.importorskip("onnx")
import onnx_models

WORDS = nn.onnx.load(onnx_models.words())


@pytest.fixture(autouse=True)
def files(monkeypatch, tmp_path):
    """Let the command line believe that NumPy's threads are those asked for; work in a folder."""
    onnx_models.enter(monkeypatch, tmp_path)
    np.save("image.npy", onnx_models.normal(5, 9, 3, 8, 8))
    np.savez("words.npz", **onnx_models.word_data())
    model, quantized = models.quantized("residual")
    model.save("float.qcy")
    quantized.save("8.qcy")


def good(*arguments):
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def bad(*arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.count("qcy: ") == 1
    return err.splitlines()[-1]


# -------------------------------------------------------------------------------------- inspect


def test_layers_of_a_model():
    found = inspect(WORDS)
    fused = fuse(WORDS)
    assert [layer.name for layer in found.layers] == [node.name for node in fused.nodes]
    layers = {layer.name: layer for layer in found.layers}
    assert layers["product"].covers == ("product", "left", "norm")
    assert (layers["product"].n_params, layers["product"].n_bytes) == (6 * 8 + 8, 4 * (6 * 8 + 8))
    assert layers["product"].macs == 6 * 8
    assert (layers["product"].bits, layers["product"].why) == (8, "")
    assert layers["embedded"].shape == (1, 5, 6)
    assert (layers["pooled"].bits, layers["pooled"].why) == (
        32, "ReduceLogSumExp has no form in 8 bits"
    )
    assert layers["best"].why == "ArgMax has no form in 8 bits"
    assert found.macs == 6 * 8 + 3 * 8 + 8 * 4
    assert found.macs_in_8_bits == 1
    assert found.operators["Dense"] == 3
    assert found.shapes == ((1, 5), (1, 3))
    assert found.inputs == ("tokens int64[N, 5]", "numbers float32[N, 3]")
    assert found.outputs == ("scores", "best")
    assert found.speedup == found.float_us / found.quantized_us
    assert sum(layer.float_us for layer in found.layers) > 0
    # Into two dense layers, out of the last one to the output and to ArgMax.
    assert found.n_conversions == 4
    text = str(found)
    assert "Prediction: 8 bits are " in text
    assert "random inputs of 1x5 and 1x3" in text
    assert found.products_us > 0
    assert f"at least about {found.products_us:,.1f} us" in text
    assert json.loads(json.dumps(found.to_dict()))["macs"] == found.macs


@pytest.mark.parametrize("name", models.ZOO)
def test_what_goes_to_8_bits_is_what_quantize_model_does(name):
    model, shapes = models.build(name)
    data = models.batches(shapes, 1)[0]
    quantized = nn.quantize_model(model, [data], progress=False)
    found = inspect(model, [data if isinstance(data, tuple) else (data,)])
    in_8_bits = {node.name for node in quantized.nodes} - set(quantized.float_nodes)
    assert {layer.name for layer in found.layers if layer.bits == 8} == in_8_bits
    again = inspect(quantized, [data if isinstance(data, tuple) else (data,)])
    assert again.n_conversions == found.n_conversions == quantized.n_conversions
    assert again.is_quantized


def test_conversions_around_layers_in_float():
    model, _ = models.build("softmax")
    data = models.batches([(10,)])
    assert inspect(nn.quantize_model(model, data, progress=False)).n_conversions == 2
    mixed = nn.quantize_model(model, data, skip=["logits"], progress=False)
    found = inspect(mixed)
    assert [layer.bits for layer in found.layers] == [8, 32, 32]
    assert found.n_conversions == 2         # in, and out of the hidden layer
    assert [layer.why for layer in found.layers][1] == "in skip"


def test_ranges_decide_if_there_are_samples():
    model = nn.Sequential(
        ("a", nn.Dense(np.eye(4))), ("softmax", nn.Softmax()), ("b", nn.Dense(np.eye(4))),
    )
    wide = np.float32([[100, 0, 0, -100]])
    layers = {layer.name: layer for layer in inspect(model, [(wide,)]).layers}
    assert layers["softmax"].why == "softmax of a range of 200, wider than 32"
    assert {layer.bits for layer in inspect(model).layers} == {8}


def test_without_shapes_nothing_runs():
    model, quantized = models.quantized("residual")
    for kind in (model, quantized):
        found = inspect(kind)
        assert found.shapes is found.macs is found.macs_in_8_bits is found.speedup is None
        assert {layer.shape for layer in found.layers} == {None}
        assert [layer.bits for layer in found.layers] == [8] * len(found.layers)
        assert "Whether 8 bits are faster is not known: the shape of input" in str(found)
        assert json.dumps(found.to_dict())
    with pytest.raises(ValueError, match="layer 'conv1'"):
        inspect(model, shapes=[(1, 2, 8, 8)])


def test_inspect_by_the_command_line():
    found = good("inspect", "image.onnx")
    assert found["model"] == "image.onnx"
    assert found["shapes"] == [[1, 3, 8, 8]]
    assert found["n_threads"] == 1
    assert found["macs"] == 8 * 8 * 8 * 27 + 32
    assert found["n_params"] == sum(layer["n_params"] for layer in found["layers"])
    found = good("inspect", "image.onnx", "--data", "image.npy", "--samples", 4)
    assert found["measured_on"] == "the first sample"
    found = good("inspect", "float.qcy", "--shape", "2,3,8,8")
    assert found["shapes"] == [[2, 3, 8, 8]]
    assert not found["is_quantized"]
    found = good("inspect", "8.qcy", "--shape", "2,3,8,8")
    assert found["is_quantized"]
    assert found["speedup"] is None
    assert found["quantized_us"] > 0
    status, out, _ = run("inspect", "8.qcy")
    assert status == 0
    assert out.startswith("8.qcy: 8-bit model, 6 layers; 6 are in 8 bits\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.onnx"], "No such file or directory: 'none.onnx'"),
        (["image.npy"], "image.npy is not a qcy model"),
        (["image.onnx", "--shape", "1,2"], "image' must be float32[N, 3, 8, 8], got shape (1, 2)"),
        (["words.onnx", "--data", "image.npy"], "image.npy is one array, the model has inputs"),
        (["words.onnx", "--shape", "1,5"], "takes 2 input(s), got 1"),
    ],
)
def test_inspect_refuses(arguments, says):
    assert says in bad("inspect", *arguments)


# ---------------------------------------------------------------------------------------- bench


def test_a_pair_side_by_side():
    model, quantized = models.quantized("residual")
    inputs = bench.random_inputs(model, [(2, 3, 8, 8)])
    found = bench_pair.measure_pair(model, quantized, inputs, repeat=2)
    rows = {row.name: row for row in found.rows}
    assert list(rows)[1:-1] == [node.name for node in quantized.nodes]
    assert rows["conv1"].float_us > 0
    assert rows["conv1"].macs == 2 * 64 * 8 * 27
    assert [rows[name].bits for name in ("(inputs)", "conv1", "(outputs)")] == [0, 8, 0]
    assert found.speedup == found.float_us / found.quantized_us
    assert json.dumps(found.to_dict())
    assert "inputs of 2x3x8x8: float " in str(found)
    assert all(name in str(found) for name in rows)


def test_bench_of_two_models():
    keys = {"info", "n_threads", "shapes", "float_us", "quantized_us", "speedup", "layers"}
    found = good("bench", "model", "8.qcy", "--float", "float.qcy", "--shape", "2,3,8,8")
    assert set(found) == keys
    assert found["shapes"] == [[2, 3, 8, 8]]
    for arguments in (["--data", "image.npy"], ["--data", "image.npy", "--shape", "1,3,8,8"]):
        found = good("bench", "model", "image.onnx", *arguments)
        assert set(found) == keys
        assert found["shapes"] == [[1, 3, 8, 8]]
    assert {row["bits"] for row in found["layers"][1:-1]} == {8}
    assert run("quantize", "words.onnx", "--data", "words.npz", "-o", "w.qcy")[0] == 0
    for arguments in ([], ["--data", "words.npz"]):
        found = good("bench", "model", "w.qcy", "--float", "words.onnx", *arguments)
        assert found["shapes"] == [[1, 5], [1, 3]]


def test_bench_of_an_onnx_file():
    found = good("bench", "model", "image.onnx")
    assert (found["bits"], found["shapes"]) == (32, [[1, 3, 8, 8]])
    assert good("bench", "model", "words.onnx")["shapes"] == [[1, 5], [1, 3]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["float.qcy", "--float", "float.qcy"], "--float is for an 8-bit model, float.qcy"),
        (["8.qcy", "--float", "8.qcy"], "the model must be float, 8.qcy is 8-bit"),
        (["8.qcy", "--data", "image.npy"], "--data is for a float model, or with --float"),
        (["image.onnx", "--data", "none.npy"], "none.npy is not there"),
        (["image.onnx", "--data", "image.npy", "--mean", "1"], "--mean is for a folder of images"),
        (["8.qcy", "--float", "image.onnx", "--shape", "1,2,8,8"], "not take inputs of 1x2x8x8"),
    ],
)
def test_bench_of_two_models_refuses(arguments, says):
    assert says in bad("bench", "model", *arguments)


def test_a_process_of_its_own_pins_numpy(monkeypatch, capfd):
    for name in bench.BLAS_THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(os.getcwd())
    assert run("inspect", "8.qcy", "--json", "--threads", 2)[0] == 0
    assert json.loads(capfd.readouterr().out)["n_threads"] == 2
    assert run("inspect", "none.qcy")[0] == 1
    assert capfd.readouterr().err.startswith("qcy: [Errno 2] No such file")


def test_qcy_loads_what_onnx_files_are(monkeypatch):
    os.rename("image.onnx", "image")
    assert isinstance(qcy.load("image"), nn.Model)
    os.rename("image", "image.qcy")
    with pytest.raises(ValueError, match=r"image\.qcy is not a qcy model: it does not start as"):
        qcy.load("image.qcy")
    os.rename("8.qcy", "8.onnx")
    assert isinstance(qcy.load("8.onnx"), nn.QuantizedModel)
