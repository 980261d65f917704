"""The commands for models in files do what they say, in this process, on small ONNX models."""

import json
import os
import re
import sys

import numpy as np
import pytest
from test_demo import run

import qcy
from qcy import cli, commands, nn
from qcy.nn import QuantizedModel

onnx = pytest.importorskip("onnx")
import onnx_models  # noqa: E402


@pytest.fixture(autouse=True)
def pinned(monkeypatch, tmp_path):
    """Let the command line believe that NumPy's threads are those asked for; work in a folder."""
    onnx_models.enter(monkeypatch, tmp_path)
    onnx.save(onnx_models.fixed(), "fixed.onnx")
    np.savez("words.npz", **onnx_models.word_data(), labels=np.arange(40) % 4)
    np.save("image.npy", onnx_models.normal(5, 13, 3, 8, 8))
    return tmp_path


def good(*arguments):
    """Run a command that must go well, and return what it prints: as JSON if it is asked to."""
    status, out, err = run(*arguments)
    assert status == 0, err
    assert not any(line.startswith("qcy: ") for line in err.splitlines())
    return json.loads(out) if "--json" in arguments else out


def bad(*arguments):
    """Run a command that must fail, and return the one line that it says."""
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("qcy: ")
    assert "Traceback" not in err
    assert sum(line.startswith("qcy: ") for line in err.splitlines()) == 1
    return last


# ------------------------------------------------------------------------------------- quantize


def test_quantize_tells_what_became_of_layers():
    out = good("quantize", "words.onnx", "--data", "words.npz", "-o", "words.qcy")
    assert re.search(r"^to 8 bits +4 layers: Dense 3, Add 1$", out, re.M)
    stays = "Embedding 1, ReduceLogSumExp 1, ArgMax 1"
    assert re.search(rf"^stays float +3 layers: {stays}$", out, re.M)
    size = os.path.getsize("words.qcy")
    whole = len(qcy.load("words.onnx").to_bytes())
    assert f"float {whole:,}   8-bit {size:,}   " in out
    assert re.search(r"^best +ArgMax +float +ArgMax has no form in 8 bits$", out, re.M)
    assert re.search(r"^product +Dense +8 +left, norm$", out, re.M)
    model = qcy.load("words.qcy")
    assert isinstance(model, QuantizedModel)
    assert model.float_nodes == ["embedded", "pooled", "best"]


def test_quantize_as_json():
    found = good("quantize", "words.onnx", "--data", "words.npz", "-o", "q.qcy", "--json")
    assert (found["output"], found["mode"], found["n_samples"]) == ("q.qcy", "static", 40)
    assert found["bytes"]["quantized"] == os.path.getsize("q.qcy")
    bits = {x["name"]: x["bits"] for x in found["layers"]}
    assert (bits["product"], bits["best"]) == ("8", "float")
    assert found["layers"][-1]["why"] == "ArgMax has no form in 8 bits"


def test_the_same_data_and_seed_write_the_same_bytes():
    files = []
    for i, seed in enumerate((1, 1, 2)):
        name = f"{i}.qcy"
        good("quantize", "words.onnx", "--data", "words.npz", "-o", name, "--samples", 8,
             "--seed", seed, "--observer", "entropy", "--batch", 3)
        with open(name, "rb") as file:
            files.append(file.read())
    assert files[0] == files[1] != files[2]
    assert qcy.load("0.qcy").manifest["n_samples"] == 8


def test_quantize_has_the_settings_of_quantize_model():
    good(
        "quantize", "image.onnx", "--data", "image.npy", "-o", "q.qcy", "--skip", "mean", "scores",
        "--observer", "percentile", "--weight-scheme", "asymmetric-per-tensor", "--dtype", "int8",
    )
    manifest = qcy.load("q.qcy").manifest
    assert manifest["skip"] == ["mean", "scores"]
    assert manifest["observer"].startswith("PercentileObserver(")
    assert manifest["weight_scheme"] == "ASYMMETRIC|PER_TENSOR"
    assert {p.dtype.name for p in qcy.load("q.qcy").params.values()} == {"int8"}
    data = np.load("image.npy")
    for name, observer in commands.OBSERVERS.items():
        good("quantize", "image.onnx", "--data", "image.npy", "-o", "q.qcy", "--observer", name)
        model = nn.quantize_model(qcy.load("image.onnx"), data, observer=observer, progress=False)
        assert qcy.load("q.qcy").to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    ("mode", "kinds"), [("dynamic", {"DenseDynamic"}),
                        ("weight_only", {"Conv2DWeightOnly", "DenseWeightOnly"})],
)
def test_modes_without_data(mode, kinds):
    found = good("quantize", "image.onnx", "-o", "q.qcy", "--mode", mode, "--json")
    in_8_bits = {x["kind"] for x in found["layers"] if x["bits"] == "8-bit weights"}
    assert in_8_bits == kinds
    out = good("quantize", "image.onnx", "-o", "q.qcy", "--mode", mode)
    assert re.search(rf"^8-bit weights +{len(kinds)} layers?: ", out, re.M)
    x = np.load("image.npy")
    assert np.abs(qcy.load("q.qcy")(x) - qcy.load("image.onnx")(x)).max() < 0.1


def test_models_of_qcy_are_quantized_too():
    qcy.load("image.onnx").save("image.qcy")
    for name in ("image.onnx", "image.qcy"):
        good("quantize", name, "--data", "image.npy", "-o", f"{name}.8.qcy")
    assert qcy.load("image.onnx.8.qcy").to_bytes() == qcy.load("image.qcy.8.qcy").to_bytes()


@pytest.mark.parametrize(
    ("given", "wanted"), [([], "onnx"), (["--format", "qoperator"], "qoperator")],
)
def test_a_name_of_onnx_is_written_as_onnx(monkeypatch, given, wanted):
    found = []

    def save(self, path, format):
        found.append(format)
        path.write_bytes(b"onnx")

    monkeypatch.setattr(QuantizedModel, "save", save)
    good("quantize", "image.onnx", "--data", "image.npy", "-o", "q.onnx", *given)
    assert found == [wanted]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.onnx"], "No such file or directory: 'missing.onnx'"),
        (["."], ". is a folder, not a model"),
        (["words.npz"], "words.npz is not a qcy model; as an ONNX file: words.npz is not an ONNX"),
        (["image.npy"], "image.npy is not a qcy model"),
        (["broken.onnx"], "broken.onnx is not an ONNX file, or was cut short"),
        (["image.onnx", "--skip", "nothing"], "skip must name layers of the model, got ['"),
        (["image.onnx", "-o", "no/q.qcy"], "the folder of the output no/q.qcy is not there"),
        (["image.onnx", "-o", "."], "the output must be a file, . is a folder"),
        (["8.qcy"], "the model must be float, 8.qcy is 8-bit"),
    ],
)
def test_quantize_refuses(arguments, says):
    with open("image.onnx", "rb") as file, open("broken.onnx", "wb") as other:
        other.write(file.read()[:100])
    good("quantize", "image.onnx", "--data", "image.npy", "-o", "8.qcy")
    assert says in bad("quantize", "-o", "q.qcy", "--data", "image.npy", *arguments)
    assert not os.path.exists("q.qcy")


def test_what_onnx_files_qcy_cannot_run():
    made = onnx_models.make(
        [("Conv", ["x", "w"], ["y"], {}), ("Unique", ["y"], ["z"], {})],
        [("x", "float32", [1, 1, 4, 4])], [("z", "float32", ["n"])],
        {"w": onnx_models.normal(0, 1, 1, 1, 1)},
    )
    onnx.save(made, "unique.onnx")
    assert "unique.onnx has operators that qcy does not know: Unique: z" in bad(
        "inspect", "unique.onnx"
    )


# -------------------------------------------------------------------------------------- compare


@pytest.fixture
def words():
    good("quantize", "words.onnx", "--data", "words.npz", "-o", "words.qcy")
    return ["compare", "words.onnx", "words.qcy", "--data", "words.npz", "--repeats", 2]


def test_compare(words):
    found = good(*words, "--json")
    data = onnx_models.word_data()
    models = [qcy.load(f"words.{kind}") for kind in ("onnx", "qcy")]
    answers = [model(*data.values())[0].argmax(1) for model in models]
    assert found["n_samples"] == 40
    assert found["agreement"] == np.mean(answers[0] == answers[1])
    assert found["quantized"]["accuracy"] == np.mean(answers[1] == np.arange(40) % 4)
    assert list(found["latency"]) == ["1"]
    assert found["profile"]["repeat"] == 2
    assert {x["name"]: x["why"] for x in found["layers"]}["pooled"] == (
        "ReduceLogSumExp has no form in 8 bits"
    )
    out = good(*words)
    assert "accuracy   float " in out
    assert "8-bit model: " in out


def test_compare_writes_a_page(words):
    out = good(*words, "--output", "report.html", "--batch-sizes", "2,3", "--threads", 1)
    assert out.rstrip().endswith("The whole report, with pictures: report.html")
    assert "latency    batch 3: float " in out
    with open("report.html", encoding="utf-8") as file:
        page = file.read()
    assert "words.onnx" in page
    assert good(*words, "--output", "report.html", "--json")["report"] == "report.html"


def test_labels_are_chosen_with_their_samples(words):
    np.save("labels.npy", np.arange(40) % 4)
    np.savez("plain.npz", **onnx_models.word_data(), other=np.arange(40) % 4)
    few = ["--samples", 10, "--seed", 3, "--json"]
    want = good(*words, *few)
    assert want["n_samples"] == 10
    for more in (["--labels", "labels.npy"], ["--labels", "labels"],
                 ["--data", "plain.npz", "--labels", "other"]):
        found = good(*words, *few, *more)
        assert found["quantized"] == want["quantized"]
        assert found["confusion"] == want["confusion"]
    assert good(*words, "--data", "plain.npz", "--json")["float"]["accuracy"] is None


def test_compare_a_model_of_two_samples_a_run():
    good("quantize", "fixed.onnx", "--data", "image.npy", "-o", "f.qcy")
    found = good("compare", "fixed.onnx", "f.qcy", "--data", "image.npy", "--json", "--repeats", 1)
    assert found["n_samples"] == 12
    assert list(found["latency"]) == ["2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["words.qcy", "words.qcy"], "the model must be float, words.qcy is 8-bit"),
        (["words.onnx", "words.onnx"], "the model must be 8-bit, words.onnx is float"),
        (["image.onnx", "words.qcy", "--data", "image.npy"],
         "quantized must take the model's ('image',), got ('tokens', 'numbers')"),
        (["--output", "."], "the output must be a file"),
        (["--labels", "nothing"], "labels must be a .npy file, or an array of words.npz"),
        (["--labels", "wrong"], "labels must be integers, got float64 in words.npz"),
        (["--labels", "nothing.npy"], "No such file or directory: 'nothing.npy'"),
        (["--labels", "short.npy"], "labels must be one for each of 40 samples, got shape (39,) in "
                                    "short.npy"),
    ],
)
def test_compare_refuses(words, arguments, says):
    np.save("short.npy", np.arange(39))
    np.savez("words.npz", **onnx_models.word_data(), wrong=np.ones(40))
    models = ["words.onnx", "words.qcy"]
    if not arguments[0].startswith("--"):
        models, arguments = arguments[:2], arguments[2:]
    assert says in bad("compare", *models, "--data", "words.npz", *arguments)


# ------------------------------------------------------------------------------------------ run


def test_run_one_input():
    model, x = qcy.load("image.onnx"), np.load("image.npy")
    out = good("run", "image.onnx", "--input", "image.npy", "-o", "y.npy")
    assert out.startswith("scores  float32[13, 4]\nwritten to y.npy after ")
    np.testing.assert_array_equal(np.load("y.npy"), model(x))
    np.savez("x.npz", any=x)
    found = good("run", "image.onnx", "--input", "x.npz", "-o", "y.npz", "--json", "--threads", 1)
    assert found["outputs"] == {"scores": {"dtype": "float32", "shape": [13, 4]}}
    with np.load("y.npz") as arrays:
        np.testing.assert_array_equal(arrays["scores"], model(x))
    os.rename("image.npy", "x=1.npy")
    for given in ("image=x=1.npy", "x=1.npy"):
        good("run", "image.onnx", "--input", given, "-o", "y.npy")


def test_run_several_inputs_and_outputs(words):
    data = onnx_models.word_data()
    for name, array in data.items():
        np.save(f"{name}.npy", array)
    want = qcy.load("words.qcy")(*data.values())
    for given in (["words.npz"], ["tokens=tokens.npy", "numbers=numbers.npy"]):
        inputs = [part for text in given for part in ("--input", text)]
        good("run", "words.qcy", *inputs, "-o", "y.npz")
        with np.load("y.npz") as arrays:
            assert list(arrays) == ["scores", "best"]
            for array, y in zip(arrays.values(), want, strict=True):
                np.testing.assert_array_equal(array, y)


def test_run_as_often_as_it_must_be():
    np.save("even.npy", np.load("image.npy")[:12])
    good("run", "fixed.onnx", "--input", "even.npy", "-o", "y.npy")
    want = qcy.load("image.onnx")(np.load("even.npy"))
    np.testing.assert_allclose(np.load("y.npy"), want, rtol=1e-5, atol=1e-6)
    assert "a multiple of 2 samples, those of a run; got 13" in bad(
        "run", "fixed.onnx", "--input", "image.npy", "-o", "y.npy"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["words.onnx", "--input", "words.npz", "-o", "y.npy"],
         "the output must be a .npz file, got y.npy: the model has outputs 'scores', 'best'"),
        (["words.onnx", "--input", "image.npy"], "--input must be name=image.npy, with a name of "),
        (["words.onnx", "--input", "tokens=t.npy"], "--input must give 'numbers', got ['tokens']"),
        (["words.onnx", "--input", "other=t.npy"], "--input must be for one of 'tokens', "),
        (["words.onnx", "--input", "tokens=words.npz"], "must be a .npy file, got tokens=words"),
        (["words.onnx", "--input", "part.npz"], "--input must give 'numbers', got ['tokens']"),
        (["words.onnx", "--input", "wrong.npz"], "input 'tokens' must be int64[N, 5], got float32"),
        (["image.onnx", "--input", "t.npy"], "'image' must be float32[N, 3, 8, 8], got shape"),
        (["image.onnx", "--input", "none.npy"], "No such file or directory: 'none.npy'"),
        (["image.onnx", "--input", "image.onnx"], "image.onnx must be a whole file of arrays"),
        (["image.onnx", "--input", "zip.npy"], "zip.npy must be a whole file of arrays"),
        (["image.onnx", "--input", "objects.npy"], "objects.npy must be a whole file of arrays"),
    ],
)
def test_run_refuses(arguments, says):
    data = onnx_models.word_data()
    np.save("t.npy", data["tokens"])
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.savez("part.npz", tokens=data["tokens"])
    np.savez("wrong.npz", tokens=data["numbers"], numbers=data["numbers"])
    os.rename("part.npz", "zip.npy")
    np.savez("part.npz", tokens=data["tokens"])
    assert says in bad("run", *arguments, *([] if "-o" in arguments else ["-o", "y.npz"]))


# ---------------------------------------------------------------------------------- whatever it is


@pytest.mark.parametrize(
    "arguments",
    [
        ["quantize", "image.onnx"], ["quantize", "image.onnx", "-o", "q.qcy"],
        ["quantize", "-o", "q.qcy", "--data", "image.npy"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--mode", "dynamic"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--mode", "other"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--format", "qdq"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--samples", "0"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--seed", "-1"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--mean", "a"],
        ["quantize", "image.onnx", "-o", "q.qcy", "--data", "x.npy", "--size", "224"],
        ["compare", "image.onnx", "q.qcy"], ["run", "image.onnx", "-o", "y.npy"], ["inspect"],
    ],
)
def test_wrong_usage(arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("qcy")


def test_interrupted(monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupt)
    status, out, err = run("run", "image.onnx", "--input", "image.npy", "-o", "y.npy")
    assert (status, out, err) == (130, "", "")


def test_errors_of_other_kinds_have_a_name(monkeypatch):
    def fail(options):
        raise KeyError("two\nlines")

    monkeypatch.setattr(commands, "run", fail)
    arguments = ("run", "image.onnx", "--input", "image.npy", "-o", "y.npy")
    assert bad(*arguments) == r"qcy: KeyError: 'two\nlines'"
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(KeyError):
        run(*arguments)


def test_without_the_onnx_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("qcy.nn.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(nn, "onnx", raising=False)
    assert "pip install 'qcy[onnx]'" in bad("inspect", "image.onnx")
