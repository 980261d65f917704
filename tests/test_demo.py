"""The main job, by the command line, on the data that the package carries."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcy
from qcy import cli, demo


def run(*arguments):
    """Run the command line in this process; return (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), qcy.threads(1):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:          # argparse leaves so
            status = stop.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run the whole demo, once; return (folder, what it said as JSON, stderr)."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    status, out, err = run("demo", "--json", "--output", folder)
    assert status == 0
    return folder, json.loads(out), err


@pytest.fixture
def short(monkeypatch):
    """Let the demo be done with few images and few measurements."""
    calibration, images, labels = demo.load_images()
    monkeypatch.setattr(demo, "load_images", lambda: (calibration[:64], images[:80], labels[:80]))
    compare = demo.compare_quantized_model
    monkeypatch.setattr(
        demo, "compare_quantized_model",
        lambda *arguments: compare(*arguments, batch_sizes=(1, 4), repeats=1),
    )


# ---------------------------------------------------------------------------- what is promised


def test_accuracy_agreement_and_bytes(whole):
    found = whole[1]
    assert found["float"]["accuracy"] >= 0.9
    assert found["quantized"]["accuracy"] >= found["float"]["accuracy"] - 0.005
    assert found["agreement"] >= 0.98
    assert found["bytes"]["ratio"] >= 3.7
    assert found["bytes"]["ratio"] == found["bytes"]["float"] / found["bytes"]["quantized"]
    assert found["n_samples"] == 2000


def test_json_has_the_keys_of_the_issue(whole):
    found = whole[1]
    assert {"float", "quantized", "agreement", "bytes", "latency", "layers"} <= set(found)
    assert set(found["latency"]) == {"1", "64"}
    for times in found["latency"].values():
        assert times["float"] > 0
        assert times["quantized"] > 0
    for layer in found["layers"]:
        assert {"name", "kind", "shape", "scale", "zero_point", "sqnr_db"} <= set(layer)
        assert layer["bits"] == 8
        assert layer["sqnr_db"] > 15
    assert found["info"]["variant"] == qcy.info()["variant"]
    assert np.sum(found["confusion"]) == 2000


def test_report_is_where_it_is_said_to_be(whole):
    folder, found, _ = whole
    assert os.listdir(folder) == ["report.html"]
    assert Path(found["report"]).samefile(folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") > len(found["layers"])
    assert f"{found['agreement']:.2%}" in page
    assert "Ankle boot" in page
    assert all(layer["name"] in page for layer in found["layers"])
    assert not re.search(r"(src|href)=[\"']?https?:", page)


def test_progress_is_on_stderr(whole):
    assert "calibrating" in whole[2]


def test_text_for_people(short, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, out, err = run()        # no command: the demo, into this folder
    assert status == 0
    assert err.splitlines() == ["calibrating: 0 of 2 batches", "calibrating: 2 of 2 batches, done"]
    for part in ("accuracy   float", "agreement  ", "smaller", "latency    batch 1:", "SQNR dB"):
        assert part in out
    assert out.splitlines()[-1].endswith(str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").exists()


# ------------------------------------------------------------------------------------- the data


def test_model_is_the_size_that_was_asked_for():
    model = demo.load_model()
    assert 60_000 <= sum(array.size for array in model.weights().values()) <= 150_000
    kinds = {type(node.layer).__name__ for node in model.nodes}
    assert {"Conv2D", "BatchNorm", "Add", "Dense"} <= kinds
    assert kinds & {"MaxPool2D", "AvgPool2D", "GlobalAvgPool2D"}
    strides = [node.layer.stride for node in model.nodes if hasattr(node.layer, "groups")]
    assert any(stride != (1, 1) for stride in strides)


def test_images_are_balanced_and_apart():
    calibration, images, labels = demo.load_images()
    assert calibration.shape == (256, 1, 28, 28)
    assert images.shape == (2000, 1, 28, 28)
    assert labels.shape == (2000,)
    for part in (calibration, images):
        assert part.dtype == np.float32
        assert part.min() == 0
        assert part.max() == 1
    assert np.bincount(labels, minlength=10).min() > 150
    assert not {x.tobytes() for x in calibration} & {x.tobytes() for x in images}


def test_demo_quantizes_as_quantize_model_does():
    model, images = demo.load_model(), demo.load_images()[0][:64]
    quantized, histograms = demo.quantize(model, images, progress=False)
    same = qcy.nn.quantize_model(
        model, images, observer=qcy.nn.MSEObserver, progress=False
    )
    assert quantized.to_bytes() == same.to_bytes()
    assert quantized.float_nodes == []
    assert set(histograms) >= {node.name for node in quantized.nodes}


# ------------------------------------------------------------------------------ the environment

NUMPY_ALONE = """
import sys

class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "qcy"):
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)

sys.meta_path.insert(0, OnlyNumpy())
from functools import partial
from qcy import cli, demo
calibration, images, labels = demo.load_images()
demo.load_images = lambda: (calibration[:64], images[:80], labels[:80])
demo.compare_quantized_model = partial(demo.compare_quantized_model, repeats=1)
sys.exit(cli.main(["demo", "--json", "--output", sys.argv[1]]))
"""


def test_works_with_numpy_alone(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(qcy.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NUMPY_ALONE, tmp_path], env=environment, text=True,
        capture_output=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_samples"] == 80
    assert done.stderr.splitlines() == [
        "calibrating: 0 of 2 batches", "calibrating: 2 of 2 batches, done"
    ]
    assert (tmp_path / "report.html").exists()


def test_module_is_the_command_line():
    environment = os.environ | {"PYTHONPATH": str(Path(qcy.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "qcy", "info", "--json"], env=environment, text=True,
        capture_output=True, timeout=60, check=True,
    )
    assert json.loads(done.stdout) == qcy.info()


def test_info():
    status, out, _ = run("info")
    assert status == 0
    for name, value in qcy.info().items():
        assert re.search(rf"^{name} ", out, re.M)
        assert name == "threads" or str(value).strip("[]").replace("'", "") in out
    assert run("--version")[:2] == (0, f"qcy {qcy.__version__}\n")
    assert run("--help")[0] == 0
    assert run("nonsense")[0] == 2


# --------------------------------------------------------------------------------- what goes wrong


def test_an_output_that_is_a_file(short, tmp_path):
    path = tmp_path / "taken"
    path.write_text("mine")
    for output in (path, path / "below"):
        status, out, err = run("demo", "--output", output)
        assert status == 1
        assert out == ""
        assert re.fullmatch(rf"qcy: .*{path.name}.*\n", err)
        assert "Traceback" not in err
    assert path.read_text() == "mine"


def test_an_output_that_cannot_be_written(short, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    status, out, err = run("demo", "--output", tmp_path)
    assert status == 1
    assert out == ""            # said before the work, not after
    assert err == f"qcy: the output folder {tmp_path} is not writable\n"


def test_a_disk_that_is_full(short, tmp_path, monkeypatch):
    from qcy.nn import report

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write", full)
    status, _, err = run("demo", "--output", tmp_path)
    assert status == 1
    assert "qcy: [Errno 28] No space left on device" in err


def test_interrupted(short, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "load_model", interrupt)
    assert run("demo", "--output", tmp_path)[0] == 130
