"""Models as graphs: what they check, how they run, what they keep alive, how they stop."""

import copy
import pickle
import threading
import time
import weakref

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import Tensor, nn
from qcy.nn.layers import Layer
from qcy.nn.model import Node

RELU, ADD = nn.ReLU(), nn.Add()
EYE = nn.Dense(np.eye(3))
X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


class Spy(Layer):
    """Adds one, and calls a function with its input first."""

    def __init__(self, call):
        self.call = call

    def _forward(self, x):
        self.call(x)
        return x + 1


# --------------------------------------------------------------------------------- the graph


@pytest.mark.parametrize(
    ("nodes", "options", "error", "message"),
    [
        ([("a", RELU, "b")], {}, ValueError, "'a' takes 'b', which no earlier node makes"),
        ([("a", RELU, "a")], {}, ValueError, "'a' takes 'a'"),
        ([("b", RELU, "a"), ("a", RELU, "input")], {}, ValueError, "'b' takes 'a'"),
        ([("a", RELU, "input"), ("a", RELU, "a")], {}, ValueError, "must differ, got 'a' twice"),
        ([("input", RELU, "input")], {}, ValueError, "must differ, got 'input' twice"),
        ([("", RELU, "input")], {}, TypeError, "non-empty str"),
        ([(3, RELU, "input")], {}, TypeError, "non-empty str, got 3"),
        ([("a", "relu", "input")], {}, TypeError, "'a' must have a Layer, got 'relu'"),
        ([("a", nn.ReLU, "input")], {}, TypeError, "'a' must have a Layer"),
        ([("a", RELU, ())], {}, ValueError, r"'a' must have 1 input\(s\), got 0"),
        ([("a", RELU, ("input", "input"))], {}, ValueError, r"1 input\(s\), got 2"),
        ([("a", ADD, "input")], {}, ValueError, r"'a' must have 2 input\(s\), got 1"),
        ([("a", nn.Concat(), ())], {}, ValueError, r"at least 1 input\(s\), got 0"),
        ([("a", RELU, "input")], {"outputs": "b"}, ValueError, "nodes or inputs, got 'b'"),
        ([("a", RELU, "input")], {"outputs": ()}, ValueError, "at least one output"),
        ([("a", RELU, "input")], {"inputs": ()}, ValueError, "at least one input"),
        ([("a", RELU, "x")], {"inputs": ("x", "x")}, ValueError, "different names"),
    ],
)
def test_graph_refuses(nodes, options, error, message):
    with pytest.raises(error, match=message):
        nn.Model(nodes, **options)


def test_float_models_have_float_layers():
    twin = RELU.quantized(qcy.QuantizationParams(1.0))
    with pytest.raises(TypeError, match="'a' is 8-bit; a Model is float"):
        nn.Model([("a", twin, "input")])
    with pytest.raises(TypeError, match="must have a Layer"):
        nn.Model([("a", nn.AdaptiveLayer(RELU, twin), "input")])


def test_runs_any_order_of_edges():
    model = nn.Model([
        ("double", ADD, ("x", "x")),
        ("left", RELU, "double"),
        ("far", ADD, ("left", "y")),
        ("all", nn.Concat(), ("far", "x", "left", "y")),
    ], inputs=("x", "y"))
    y = 2 * X
    left = np.maximum(2 * X, 0)
    assert_array_equal(model(X, y), np.concatenate([left + y, X, left, y], 1))
    assert model.outputs == ("all",)
    assert [node.name for node in model.consumers("left")] == ["far", "all"]
    assert model["left"] is RELU
    assert model.node("far").inputs == ("left", "y")
    with pytest.raises(KeyError, match="no node 'near'; there are"):
        model["near"]


def test_several_outputs_of_any_place():
    model = nn.Model(
        [Node("a", RELU, ("input",)), ("b", EYE, "a")], outputs=("b", "input", "a", "b")
    )
    b, given, a, again = model(X)
    assert_array_equal(given, X)
    assert_array_equal(a, np.maximum(X, 0))
    assert_array_equal(b, a)
    assert_array_equal(b, again)
    as_tensors = model(Tensor(X))
    assert all(isinstance(part, Tensor) for part in as_tensors)
    with pytest.raises(TypeError, match="one input and one output"):
        model.predict(X)


def test_sequential_names_its_layers():
    model = nn.Sequential(EYE, RELU, ("head", EYE), RELU)
    assert [node.name for node in model.nodes] == ["dense_1", "relu_1", "head", "relu_2"]
    assert isinstance(model, nn.Model)
    assert_array_equal(model(X), np.maximum(X, 0))
    with pytest.raises(ValueError, match=r"2 input\(s\), got 1"):
        nn.Sequential(EYE, ADD)
    given = nn.Sequential(("relu_1", EYE), RELU, ("relu_3", RELU), RELU, EYE)
    names = [node.name for node in given.nodes]
    assert names == ["relu_1", "relu_2", "relu_3", "relu_4", "dense_1"]
    with pytest.raises(ValueError, match="must differ, got 'a' twice"):
        nn.Sequential(("a", EYE), ("a", RELU))
    assert_array_equal(nn.Sequential()(X), X)


@pytest.mark.parametrize("arguments", [(), (X, X)])
def test_number_of_inputs(arguments):
    model = nn.Sequential(EYE)
    for run in (model, model.forward, lambda *x: list(model.trace(*x))):
        with pytest.raises(TypeError, match=rf"takes 1 input\(s\), got {len(arguments)}"):
            run(*arguments)


# ----------------------------------------------------------------------------------- running


@pytest.mark.parametrize("name", models.ZOO)
@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_trace_and_predict_agree_with_forward(name, kind):
    model, quantized = models.quantized(name)
    shapes = models.build(name)[1]
    run = model if kind == "float" else quantized
    x = models.as_tuple(models.batches(shapes, 1, size=5)[0])
    y = models.as_tuple(run(*x))
    trace = dict(run.trace(*x))
    covers = {node.name: node.covers[-1] for node in run.nodes}
    assert list(trace) == [covers[node.name] for node in run.nodes]
    for output, expected in zip(run.outputs, y, strict=True):
        assert expected.dtype == np.float32
        assert_array_equal(trace[covers[output]], expected)
    if len(x) == len(y) == 1:
        # Sums of a single sample may be rounded differently by the BLAS.
        atol = 1e-5 if kind == "float" else 0
        for batch_size in (1, 2, 5, 64):
            np.testing.assert_allclose(run.predict(x[0], batch_size), y[0], rtol=0, atol=atol)
        as_tensor = run.predict(Tensor(x[0]), batch_size=2)
        assert isinstance(as_tensor, Tensor)
        assert as_tensor.shape == y[0].shape


@pytest.mark.parametrize("name", models.ZOO)
def test_empty_batches_give_empty_results(name):
    model, quantized = models.quantized(name)
    shapes = models.build(name)[1]
    one = models.as_tuple(models.batches(shapes, 1, size=1)[0])
    none = models.as_tuple(models.batches(shapes, 1, size=0)[0])
    for run in (model, quantized):
        expected = [(0, *y.shape[1:]) for y in models.as_tuple(run(*one))]
        assert [y.shape for y in models.as_tuple(run(*none))] == expected
        if len(shapes) == len(run.outputs) == 1:
            assert run.predict(none[0]).shape == expected[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, 0), ValueError, "batch_size must be at least 1"),
        ((X, 1.5), TypeError, "batch_size must be an int"),
        ((np.float32(1),), ValueError, "axis of samples"),
        ((["a"],), TypeError, "real numbers"),
        ((np.ones((2, 4)),), ValueError, "3 features"),
    ],
)
def test_predict_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        nn.Sequential(EYE).predict(*arguments)


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_nothing_lives_longer_than_it_is_needed(kind):
    alive, most = weakref.WeakSet(), []

    class Held(np.ndarray):
        """An array that can be found again."""

    class Watch(Layer):
        def _forward(self, x):
            most.append(len(alive))
            y = (x + 1).view(Held)
            alive.add(y)
            return y

    Held.__hash__ = object.__hash__
    model = nn.Sequential(*(Watch() for _ in range(12)))
    if kind == "quantized":
        names = [node.name for node in model.nodes]
        model = nn.quantize_model(model, X, skip=names, progress=False)
        most.clear()
        alive.clear()
    model(X)
    assert len(most) == 12
    assert max(most) <= 2


def test_models_can_be_copied_and_pickled():
    for name in models.ZOO:
        shapes = models.build(name)[1]
        x = models.as_tuple(models.batches(shapes, 1, size=2)[0])
        for run in models.quantized(name):
            for again in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
                assert type(again) is type(run)
                assert again.summary() == run.summary()
                for a, b in zip(
                    models.as_tuple(again(*x)), models.as_tuple(run(*x)), strict=True
                ):
                    assert_array_equal(a, b)


def test_one_model_serves_several_threads():
    quantized = models.quantized("residual")[1]
    batches = models.batches([(3, 8, 8)], 4, size=3)
    expected = [quantized(batch) for batch in batches]
    wrong = []

    def serve(batch, y):
        for _ in range(20):
            if not np.array_equal(quantized(batch), y):
                wrong.append(batch)

    threads = [
        threading.Thread(target=serve, args=pair) for pair in zip(batches, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_summary_and_repr():
    model, quantized = models.quantized("residual")
    lines = model.summary().splitlines()
    assert lines[0].split() == ["name", "layer", "inputs"]
    assert len(lines) == len(model.nodes) + 2
    assert "bn2, relu1" in model.summary()
    assert repr(model) == "Model(10 layers, outputs=['dense'])"
    text = quantized.summary()
    assert "conv1, bn1, relu1" in text
    assert "Conv2DQuantized" in text
    assert quantized.float_nodes == []


# ----------------------------------------------------------------------------------- weights


def test_weights_round_trip_by_dict_and_npz(tmp_path):
    model = models.build("residual")[0]
    other = models.build("residual", seed=1)[0]
    x = models.batches([(3, 8, 8)], 1)[0]
    weights = model.weights()
    assert {"conv1.weight", "conv1.bias", "bn2.variance", "dense.bias"} < set(weights)
    path = tmp_path / "weights.npz"
    np.savez(path, **weights)
    for source in (weights, path, str(path)):
        again = other.with_weights(source)
        assert_array_equal(again(x), model(x))
        assert again.outputs == model.outputs
    assert not np.array_equal(other(x), model(x))


def test_with_weights_leaves_what_is_not_named():
    model = nn.Sequential(nn.Dense(np.eye(3)), nn.Dense(np.eye(3)))
    changed = model.with_weights({"dense_2.weight": 2 * np.eye(3), "dense_1.bias": [1, 2, 3]})
    assert_array_equal(changed(X), 2 * (X + np.array([1, 2, 3], np.float32)))
    assert_array_equal(model(X), X)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"dense_9.weight": np.eye(3)}, KeyError, "no node 'dense_9'"),
        ({"dense_1.kernel": np.eye(3)}, KeyError, "no array 'kernel'"),
        ({"dense_1.activation": "relu"}, KeyError, "no array 'activation'"),
        ({"weight": np.eye(3)}, KeyError, "no node ''"),
        ({"dense_1.weight": np.eye(4)}, ValueError, r"dense_1.weight must have shape \(3, 3\)"),
        ({"dense_1.weight": np.ones(3)}, ValueError, "must have shape"),
        ({"dense_1.bias": np.ones(4)}, ValueError, "bias must have 3 elements"),
        ({"dense_1.weight": np.full((3, 3), np.nan)}, ValueError, "must be finite"),
        ({"dense_1.weight": np.full((3, 3), "a")}, TypeError, "must hold real numbers"),
    ],
)
def test_with_weights_refuses(weights, error, message):
    with pytest.raises(error, match=message):
        nn.Sequential(nn.Dense(np.eye(3))).with_weights(weights)


def test_weights_from_files_that_are_none(tmp_path):
    model = nn.Sequential(EYE)
    with pytest.raises(FileNotFoundError):
        model.with_weights(tmp_path / "missing.npz")
    np.savez_compressed(tmp_path / "good.npz", **model.weights())
    good = (tmp_path / "good.npz").read_bytes()
    np.save(tmp_path / "one.npy", np.eye(3))
    np.savez(tmp_path / "pickled.npz", **{"dense_1.weight": np.array([None])})
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 255
    bad = tmp_path / "bad.npz"
    for data in (
        b"", b"not an archive", good[:3], good[:40], good[:-1], bytes(flipped),
        (tmp_path / "one.npy").read_bytes(), (tmp_path / "pickled.npz").read_bytes(),
    ):
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=r"whole \.npz file of numbers, .*bad\.npz is not"):
            model.with_weights(bad)
    for wrong in (None, 5, [EYE]):
        with pytest.raises(TypeError, match=r"weights must be a mapping, or the path of"):
            model.with_weights(wrong)


# -------------------------------------------------------------------------------- what they refuse


def test_errors_name_the_layer():
    model = nn.Model([
        ("first", EYE, "input"), ("wide", nn.Dense(np.ones((2, 4))), "first"),
        ("sum", ADD, ("input", "wide")),
    ])
    for run in (model, lambda x: list(model.trace(x)), model.predict):
        with pytest.raises(ValueError, match=r"^layer 'wide': x must have .* 2 feat") as caught:
            run(X)
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(ValueError, match=r"^layer 'first': .* 3 features"):
            run(X[:, :2])


@pytest.mark.parametrize(
    ("raised", "seen", "message"),
    [
        (TypeError, TypeError, r"^layer 'spy_1': no$"),
        (ValueError, ValueError, r"^layer 'spy_1': no$"),
        (np.linalg.LinAlgError, ValueError, r"^layer 'spy_1': no$"),
        (RuntimeError, RuntimeError, r"^no$"),          # none that an argument can cause
    ],
)
def test_errors_keep_their_kind(raised, seen, message):
    def refuse(x):
        raise raised("no")

    with pytest.raises(seen, match=message):
        nn.Sequential(Spy(refuse))(X)


# ----------------------------------------------------------------------------------- stopping


def runs(model):
    """Return a model's ways to run, and those of the 8-bit model that keeps its layers in float."""
    names = [node.name for node in model.nodes]
    quantized = nn.quantize_model(model, X, skip=names, progress=False)
    for run in (model, quantized):
        yield run.forward
        yield lambda x, ctx, run=run: list(run.trace(x, ctx=ctx))


def test_context_cancels_between_layers():
    seen, ctx = [], None
    model = nn.Sequential(
        Spy(lambda x: seen.append(1)), Spy(lambda x: ctx and ctx.cancel()),
        Spy(lambda x: seen.append(3)),
    )
    for run in runs(model):
        ctx = nn.Context()
        seen.clear()
        with pytest.raises(nn.Cancelled, match="was cancelled"):
            run(X, ctx=ctx)
        assert seen == [1]
        seen.clear()
        with pytest.raises(nn.Cancelled):
            run(X, ctx=ctx)
        assert seen == []
        ctx = None


def test_context_cancels_from_another_thread():
    arrived, cancelled = threading.Event(), threading.Event()

    def wait(x):
        if ctx is not None:
            arrived.set()
            assert cancelled.wait(30)

    ctx = None
    model = nn.Sequential(Spy(wait), Spy(lambda x: None))
    for run in runs(model):
        arrived.clear(), cancelled.clear()
        ctx = nn.Context()

        def cancel(ctx=ctx):
            assert arrived.wait(30)
            ctx.cancel()
            cancelled.set()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(nn.Cancelled):
            run(X, ctx=ctx)
        thread.join()
        ctx = None


def test_context_stops_at_a_deadline():
    model = nn.Sequential(Spy(lambda x: ctx and time.sleep(0.05)), Spy(lambda x: None))
    ctx = None
    for run in runs(model):
        ctx = nn.Context(timeout=0.02)
        with pytest.raises(nn.Cancelled, match="deadline"):
            run(X, ctx=ctx)
        assert ctx.cancelled
        ctx = nn.Context(timeout=60)
        run(X, ctx=ctx)
        assert not ctx.cancelled
        ctx = None
    assert nn.Context(timeout=0).cancelled
    for timeout in (-1, np.nan):
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            nn.Context(timeout=timeout)


def test_cancelled_is_an_error_of_its_own():
    assert issubclass(nn.Cancelled, Exception)
    assert not issubclass(nn.Cancelled, (ValueError, TypeError, RuntimeError))
