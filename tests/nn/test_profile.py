"""A profile has every layer, runs what a call runs, and its parts make the whole. No speeds."""

import json

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import nn
from qcy.nn.profile import INPUTS, OUTPUTS


def quantized(name, **options):
    _, q = models.quantized(name, **options)
    _, shapes = models.build(name)
    return q, models.as_tuple(models.batches(shapes, 1, size=4)[0])


def named(model):
    return [INPUTS, *(node.name for node in model.nodes), OUTPUTS]


@pytest.mark.parametrize("name", models.ZOO)
def test_every_layer_has_a_row(name):
    q, inputs = quantized(name)
    found = q.profile(*inputs, repeat=3)
    assert [row.name for row in found.layers] == named(q)
    kinds = [getattr(n.layer, "op", type(n.layer).__name__) for n in q.nodes]
    assert [row.kind for row in found.layers[1:-1]] == kinds
    assert [row.covers for row in found.layers] == [(), *(n.covers for n in q.nodes), ()]
    assert found.is_program == (name not in ("transposed", "lonely", "gated"))
    assert found.repeat == 3
    assert found.us > 0


@pytest.mark.parametrize("name", models.ZOO)
def test_the_parts_make_the_whole(name):
    q, inputs = quantized(name)
    found = q.profile(*inputs, repeat=2)
    total = sum(row.us for row in found.layers)
    assert total > 0
    assert sum(row.share for row in found.layers) == pytest.approx(1)
    for row in found.layers:
        assert row.us >= 0
        assert row.share == pytest.approx(row.us / total)


def test_the_steps_are_those_of_the_program():
    q, inputs = quantized("residual")
    q.profile(*inputs, repeat=1)
    compiled, = q._programs.values()
    assert len(compiled.ends) == len(q.nodes) + 2
    assert compiled.ends == sorted(compiled.ends)
    assert compiled.ends[0] > 0                     # the inputs become codes
    assert compiled.ends[-1] == len(compiled.program.steps)
    by_name = dict(zip(named(q), np.diff([0, *compiled.ends]), strict=True))
    assert by_name["flat"] == 0                     # nothing moves
    assert by_name["conv1"] == 1


def test_a_layer_without_steps_takes_no_time():
    q, inputs = quantized("residual")
    rows = {row.name: row for row in q.profile(*inputs, repeat=2).layers}
    assert rows["flat"].us == 0
    assert rows["flat"].gbytes_per_s is None
    timed, _, _ = q._timed_runs(inputs)
    flat = named(q).index("flat")
    assert {timed()[flat] for _ in range(200)} == {0}


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_ranges_of_steps_give_what_a_run_gives(n_threads):
    q, (x,) = quantized("concat")
    call = q.bind(x, n_threads=n_threads)
    want = call().copy()
    compiled, = q._programs.values()
    n_steps = len(compiled.program.steps)
    for ends in ([n_steps], compiled.ends, range(1, n_steps + 1), [0, 0, n_steps, n_steps]):
        call.out[...] = 0
        times = call.timed(ends)
        assert len(times) == len(ends)
        assert min(times) >= 0
        assert_array_equal(call.out, want)


def test_a_timed_run_complains_as_a_run_does():
    q, (x,) = quantized("residual")
    x = x.copy()
    call = q.bind(x)
    compiled, = q._programs.values()
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="x must not hold NaN, got 1 of them"):
        call.timed(compiled.ends)
    x[...] = 0
    call.timed(compiled.ends)


def test_layers_kept_in_float_are_timed_layer_by_layer():
    model, shapes = models.build("softmax")
    data = models.batches(shapes)
    q = nn.quantize_model(model, data, skip=["logits"], progress=False)
    found = q.profile(data[0], repeat=2)
    assert not found.is_program
    assert [row.name for row in found.layers] == named(q)
    assert {row.name: row.kind for row in found.layers}["logits"] == "Dense"
    assert "layer by layer" in str(found)


@pytest.mark.parametrize("name", ["residual", "two_inputs", "transposed"])
def test_float_models_have_one_too(name):
    model, shapes = models.build(name)
    inputs = models.as_tuple(models.batches(shapes, 1)[0])
    found = model.profile(*inputs, repeat=2)
    assert [row.name for row in found.layers] == named(model)
    assert not found.is_program
    assert sum(row.share for row in found.layers) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["array", "Tensor", "QuantizedTensor"])
def test_any_kind_of_input(kind):
    q, (x,) = quantized("depthwise")
    if kind == "Tensor":
        x = qcy.Tensor(x)
    elif kind == "QuantizedTensor":
        x = qcy.quantize(x, q.params["input"])
    found = q.profile(x, repeat=1)
    assert found.is_program
    assert [row.name for row in found.layers] == named(q)


def test_work_is_counted():
    rng = np.random.default_rng(0)
    model = nn.Model([
        ("conv", nn.Conv2D(rng.normal(size=(6, 2, 3, 3)), groups=2, padding=1), "input"),
        ("up", nn.ConvTranspose2D(rng.normal(size=(6, 5, 2, 2)), stride=2), "conv"),
        ("flat", nn.Flatten(), "up"),
        ("dense", nn.Dense(rng.normal(size=(5 * 14 * 10, 3))), "flat"),
    ])
    x = rng.normal(size=(2, 4, 7, 5)).astype(np.float32)
    q = nn.quantize_model(model, x, progress=False)
    want = {
        "conv": 2 * 7 * 5 * 6 * 2 * 9, "up": 2 * 7 * 5 * 6 * 5 * 4, "flat": 0,
        "dense": 2 * 5 * 14 * 10 * 3,
    }
    for found in (model.profile(x, repeat=1), q.profile(x, repeat=1)):
        rows = {row.name: row for row in found.layers}
        assert {name: rows[name].macs for name in want} == want
        for row in found.layers:
            rate = row.gmacs_per_s
            assert rate is None if not row.macs else rate == pytest.approx(1e-3 * row.macs / row.us)
    rows = {row.name: row for row in q.profile(x, repeat=1).layers}
    arrays = q["dense"].arrays().values()
    assert rows["dense"].n_bytes == 2 * 700 + 2 * 3 + sum(array.nbytes for array in arrays)


def test_threads(monkeypatch):
    q, inputs = quantized("residual")
    seen, runs = [], q._timed_runs

    def spy(inputs):
        timed, whole, program = runs(inputs)
        return (
            lambda: (seen.append(qcy.info()["threads"]), timed())[1],
            lambda: (seen.append(qcy.info()["threads"]), whole())[1], program,
        )

    monkeypatch.setattr(q, "_timed_runs", spy)
    q.profile(*inputs, repeat=2, n_threads=3)
    assert seen == [3] * 6              # once each to warm up, twice to measure
    monkeypatch.undo()
    assert q.profile(*inputs, repeat=1, n_threads=2).n_threads == 2
    with qcy.threads(1):
        assert q.profile(*inputs, repeat=1).n_threads == 1
        assert q.profile(*inputs, repeat=1, n_threads=3).n_threads == 3
        assert qcy.info()["threads"] == 1           # what was in force is again


def test_it_is_frozen_and_plain():
    q, inputs = quantized("softmax")
    found = q.profile(*inputs, repeat=2)
    with pytest.raises(AttributeError):
        found.us = 1
    with pytest.raises(AttributeError):
        found.layers[0].us = 1
    plain = json.loads(json.dumps(found.to_dict()))
    assert [row["name"] for row in plain["layers"]] == named(q)
    assert {"us", "is_program", "n_threads", "repeat", "layers"} == set(plain)
    assert {"kind", "covers", "us", "share", "macs", "n_bytes", "gmacs_per_s"} < set(
        plain["layers"][0]
    )


def test_the_table_is_aligned():
    q, inputs = quantized("residual")
    head, empty, *lines = str(q.profile(*inputs, repeat=2, n_threads=1)).splitlines()
    assert head.endswith(" us a run as a program, 1 thread, median of 2")
    assert empty == ""
    assert lines[0].split() == ["layer", "kind", "us", "share", "GMAC/s", "GB/s"]
    assert [line.split()[0] for line in lines[2:]] == [*named(q), "sum"]
    end = lines[0].index("share") + len("share")
    for line in lines[2:]:
        assert line[:end].endswith("%")
    assert lines[-1][:end].endswith(" 100.0%")


def test_no_samples():
    q, (x,) = quantized("softmax")
    found = q.profile(x[:0], repeat=1)
    assert [row.name for row in found.layers] == named(q)
    str(found)


@pytest.mark.parametrize("model_is", ["8-bit", "float"])
def test_bad_input(model_is):
    model, q = models.quantized("residual")
    model = q if model_is == "8-bit" else model
    x = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(TypeError, match=r"the model takes 1 input\(s\), got 0"):
        model.profile()
    with pytest.raises(TypeError, match=r"the model takes 1 input\(s\), got 2"):
        model.profile(x, x)
    with pytest.raises(ValueError, match=r"layer 'conv1'.*channels"):
        model.profile(x[:, :2])
    for repeat in (0, -1):
        with pytest.raises(ValueError, match=f"repeat must be at least 1, got {repeat}"):
            model.profile(x, repeat=repeat)
    with pytest.raises(TypeError, match="repeat must be an int"):
        model.profile(x, repeat=1.5)
    with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
        model.profile(x, n_threads=0)
    if model_is == "8-bit":
        bad = np.full_like(x, np.nan)
        with pytest.raises(ValueError, match="NaN"):
            model.profile(bad)
