"""The bench's table has what it promises, and the command line says what is wrong. No speeds."""

import json
import os
import re

import models
import numpy as np
import pytest
from test_demo import run

import qcy
from qcy import _info, _kernels, _timing, bench, bench_cases, nn
from qcy._table import table
from qcy.bench_cases import CASES, NARROW, ODD, conv, elementwise, product

SMALL = (
    product(8, 16, 8), product(1, 16, 8, "one row"), conv(4, 8, 6), conv(4, 4, 6, 3, 2, 4),
    elementwise("relu"),
)


@pytest.fixture
def pinned(monkeypatch):
    """Let the command line believe that NumPy's threads are those asked for, and be quick."""
    for name in bench.BLAS_THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(bench, "QUICK_SHORTEST", 0.0)
    monkeypatch.setattr(bench, "SHORTEST", 0.0)
    monkeypatch.setattr(bench, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench.measure, "__defaults__", (1, False, SMALL))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the paths of a float model, its 8-bit model, and one of two inputs."""
    folder = tmp_path_factory.mktemp("models")
    model, q = models.quantized("residual")
    model.save(folder / "float.qcy")
    q.save(folder / "q.qcy")
    models.quantized("two_inputs")[1].save(folder / "two.qcy")
    nn.Sequential(("hidden", nn.Dense(np.ones((6, 2))))).save(folder / "dense.qcy")
    return folder


# -------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize(
    "case", [*CASES, *(c for pair in (*ODD, *NARROW) for c in pair)],
    ids=lambda case: f"{case.family} {case.name}",
)
def test_cases_can_be_made_and_run(case):
    if case.ops > 10**8:
        pytest.skip("more than 10^8 operations in NumPy's float32: for `qcy bench` itself")
    ours, numpy = case.make(1)
    out = ours()
    numpy()
    assert out is ours.out
    if not case.is_product:
        assert case.ops == 65536


def test_operations_are_counted():
    assert product(3, 5, 7).ops == 2 * 3 * 5 * 7
    assert conv(4, 8, 13).ops == 2 * 13 * 13 * 8 * 4 * 9
    assert conv(3, 64, 224, 7, 2).ops == 2 * 112 * 112 * 64 * 3 * 49
    assert conv(6, 6, 7, 3, 2, 6).ops == 2 * 4 * 4 * 6 * 9
    for case in (conv(4, 8, 13), conv(3, 5, 14, 7, 2), conv(6, 6, 7, 3, 2, 6)):
        out = case.make(1)[0].out
        assert case.ops % (2 * out.size) == 0


def test_numpy_does_the_same_depthwise():
    rng = np.random.default_rng(0)
    run = bench_cases._numpy_depthwise(rng, 3, 7, 3, 2, (1, 4, 4, 3))
    cells = dict(zip(run.__code__.co_freevars, (c.cell_contents for c in run.__closure__),
                     strict=True))
    run()
    want = sum(x * weight for x, weight in cells["taps"])
    np.testing.assert_allclose(cells["out"], want, rtol=1e-5, atol=1e-6)


def test_odd_shapes_are_odd():
    for case, rounded in ODD:
        assert case.ops < rounded.ops
    assert {case.name for case in CASES}.isdisjoint(case.name for case, _ in (*ODD, *NARROW))
    names = [(case.family, case.name) for case in CASES]
    assert len(set(names)) == len(names)


# ----------------------------------------------------------------------------------- measuring


def test_medians_call_in_turn():
    order = []
    found = _timing.medians([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert len(found) == 2
    assert all(seconds >= 0 for seconds in found)
    assert "".join(order).endswith("ababab")
    order.clear()
    _timing.medians([lambda: order.append("a")], 2, shortest=1e-3)
    assert len(order) > 10


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_peak_of_every_variant(kernels, monkeypatch, n_threads):
    monkeypatch.setattr(_kernels, "active", kernels)
    call, n_ops = _info.peak(n_threads)
    call()
    assert n_ops % (2 * _info.PEAK_STEPS * _info.PEAK_TASKS * n_threads) == 0


def test_measure(pinned):
    found = bench.measure(quick=True)
    assert [row.name for row in found.rows] == [case.name for case in SMALL]
    for row, case in zip(found.rows, SMALL, strict=True):
        assert row.us > 0
        assert row.gops == pytest.approx(1e-3 * case.ops / row.us)
        assert row.times_numpy == pytest.approx(row.numpy_us / row.us)
        assert (row.of_peak is None) == (case.family == "elementwise")
        assert row.of_peak is None or row.of_peak == pytest.approx(row.gops / found.peak_gops)
    assert found.peak_gops > 0


def test_rows_tell_whose_time_is_whose(monkeypatch):
    limit_ops = _info.peak(1)[1]
    times = iter([(2e-6, 8e-6, 1e-3), (1e-6, 1e-6, 5e-4)])
    monkeypatch.setattr(bench, "medians", lambda calls, rounds, shortest: next(times))
    found = bench.measure(cases=(SMALL[0], SMALL[-1]))
    first, last = found.rows
    assert found.peak_gops == pytest.approx(1e-9 * limit_ops / 5e-4)        # of the best moment
    assert (first.us, first.numpy_us, first.times_numpy) == pytest.approx((2, 8, 4))
    assert first.gops == pytest.approx(2 * 8 * 16 * 8 / 2e3)
    assert (last.us, last.times_numpy, last.of_peak) == (1, 1, None)


def test_quick_leaves_out_what_takes_long(pinned):
    long = bench_cases.Case("product", "long", 1, None, is_long=True)
    assert len(bench.measure(quick=True, cases=(long, *SMALL[:1])).rows) == 1


def test_columns_of_numbers_end_below_each_other():
    text = table([("name", "us"), ("a", "1.5"), ("long name", "100.5")], 1)
    assert text.splitlines() == [
        "name          us", "---------  -----", "a            1.5", "long name  100.5",
    ]


# ----------------------------------------------------------------------------- the command line


def test_bench_as_json(pinned):
    status, out, err = run("bench", "--json", "--quick")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {"info", "n_threads", "peak_gops", "rows"}
    assert found["info"] == qcy.info() | {"threads": 1, "numpy": np.__version__}
    assert found["n_threads"] == 1
    assert len(found["rows"]) == len(SMALL)
    for row in found["rows"]:
        assert set(row) == {
            "family", "name", "us", "gops", "of_peak", "numpy_us", "times_numpy",
        }


def test_bench_as_text(pinned):
    status, out, _ = run("bench")
    assert status == 0
    assert re.match(rf"qcy {re.escape(qcy.__version__)}, kernels for \w+, 1 thread; NumPy ", out)
    assert "Peak of 8-bit products, measured: " in out
    for case in SMALL:
        assert case.name in out


@pytest.mark.parametrize(("name", "bits"), [("float", 32), ("q", 8)])
def test_bench_of_a_model(pinned, files, name, bits):
    path = files / f"{name}.qcy"
    status, out, err = run("bench", "model", path, "--shape", "2,3,8,8", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {"info", "bits", "shapes", "arena_bytes", "profile"}
    assert (found["bits"], found["shapes"]) == (bits, [[2, 3, 8, 8]])
    assert found["profile"]["is_program"] == (bits == 8)
    names = [node.name for node in qcy.load(path).nodes]
    assert [row["name"] for row in found["profile"]["layers"]][1:-1] == names
    plan = qcy.load(path).memory_plan((2, 3, 8, 8)) if bits == 8 else {"arena_bytes": None}
    assert found["arena_bytes"] == plan["arena_bytes"]
    status, out, _ = run("bench", "--threads", "1", "model", path, "--shape", "2,3,8,8")
    assert status == 0
    assert f"{'8-bit' if bits == 8 else 'float'} model, inputs of 2x3x8x8" in out
    assert all(name in out for name in names)


def test_shapes_that_the_layers_tell(pinned, files, monkeypatch):
    monkeypatch.setattr(bench, "IMAGE", 10)
    for name, want in (("q", [[1, 3, 10, 10]]), ("dense", [[1, 6]])):
        status, out, _ = run("bench", "model", files / f"{name}.qcy", "--json")
        assert status == 0
        assert json.loads(out)["shapes"] == want


def test_several_inputs(pinned, files):
    path = files / "two.qcy"
    status, out, _ = run("bench", "model", path, "--shape", "1,2,6,6", "--shape", "1,4", "--json")
    assert status == 0
    assert json.loads(out)["shapes"] == [[1, 2, 6, 6], [1, 4]]


def test_a_process_of_its_own_pins_numpy(files, monkeypatch, capfd):
    for name in bench.BLAS_THREADS:
        monkeypatch.delenv(name, raising=False)
    assert not bench.is_pinned(1)
    status, out, _ = run("bench", "model", files / "dense.qcy", "--json", "--threads", "2")
    assert (status, out) == (0, "")
    assert json.loads(capfd.readouterr().out)["profile"]["n_threads"] == 2
    assert not any(name in os.environ for name in bench.BLAS_THREADS)


# -------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.qcy"], "No such file"),
        (["."], "is a folder, not a model"),
        (["noise.qcy"], "is not a qcy model"),
        (["cut.qcy"], "damaged or cut short"),
        (["q.qcy", "--shape", "1,2,8,8"], "does not take inputs of 1x2x8x8: layer 'conv1'"),
        (["q.qcy", "--shape", "3"], "does not take inputs of 3: "),
        (["q.qcy", "--shape", "1,3,8,8", "--shape", "1,4"], "inputs of 1x3x8x8 and 1x4: the model"),
        (["float.qcy", "--shape", "1,2,8,8"], "does not take inputs of 1x2x8x8: layer 'conv1'"),
        (["two.qcy"], "the model does not take inputs of"),
        (["unknown.qcy"], "the shape of input 'input' must be given"),
    ],
)
def test_what_a_model_is_not(pinned, files, monkeypatch, arguments, says):
    monkeypatch.chdir(files)
    whole = (files / "q.qcy").read_bytes()
    (files / "noise.qcy").write_bytes(b"noise" * 100)
    (files / "cut.qcy").write_bytes(whole[:-10])
    nn.Sequential(nn.ReLU()).save(files / "unknown.qcy")
    status, out, err = run("bench", "model", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("qcy: ")
    assert says in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"], ["--threads", "many"], ["nonsense"], ["model"],
        ["model", "x.qcy", "--shape", "1,,3"], ["model", "x.qcy", "--shape", "0,3"],
        ["model", "x.qcy", "--shape", "1x3"],
    ],
)
def test_wrong_arguments(arguments):
    status, out, err = run("bench", *arguments)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("qcy bench")
