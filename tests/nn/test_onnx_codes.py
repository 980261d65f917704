"""8-bit models as ONNX files: the codes of onnxruntime beside those of qcy.

Products, what moves codes and what clamps them give the same codes, ties included. Other layers are
a step apart at most, if they are given the same codes; `test_each_kind_of_layer` tells how often.

Where the CPU has no VNNI, onnxruntime's own u8 * s8 kernels saturate pairs: weights stay in
[-64, 63] there, as in test_onnxruntime.
"""

from collections import defaultdict

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS

from qcy import QuantizationParams, _cpu, demo, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from runtime import FORMS, WAYS, operators_of, run, session, steps_apart

from qcy.nn.onnx import to_onnx

HAS_VNNI = _cpu.supports("avx512vnni") or _cpu.supports("avxvnni")
LIMIT = 128 if HAS_VNNI else 64
#: What gives the same codes as QDQ with onnxruntime's usual optimizations, and always as QOperator.
EXACT = {
    "BatchNormQuantized", "Conv2DQuantized", "DenseQuantized", "DropoutQuantized",
    "EmbeddingQuantized", "FlattenQuantized", "IdentityQuantized", "MatMulQuantized",
    "MaxPool2DQuantized", "OperatorQuantized", "ReLU6Quantized", "ReLUQuantized",
    "ReshapeQuantized", "TableQuantized",
}
#: What does so as QOperator, which has it as a table.
EXACT_TABLES = {"GELUQuantized", "SigmoidQuantized", "TanhQuantized"}


def alone(model, node):
    """Return the model of one 8-bit node."""
    names = *node.inputs, *node.outputs
    params = {name: model.params[name] for name in names if name in model.params}
    return nn.QuantizedModel([node], node.outputs, node.inputs, params=params, layout=model.layout)


def tensors(model, inputs):
    """Return all tensors of a run by name, as they are outside."""
    running = model._RUN(model, inputs)
    found = {name: running.outside(name) for name in model.inputs}
    for node in running.nodes():
        found.update((name, running.outside(name)) for name in node.outputs)
    return found


def random_inputs(rng, model, node, found, n=32):
    """Return inputs for one node, on the grid of their codes, and their shapes."""
    inputs, shapes = [], {}
    for name in node.inputs:
        maker, params = model.maker(name), model.params.get(name)
        is_constant = maker is not None and not maker.inputs
        shape = found[name].shape if is_constant else (n, *found[name].shape[1:])
        shapes[name] = shape if is_constant else ("batch", *shape[1:])
        if node.layer.TAKES_REALS:
            inputs.append(rng.integers(0, 11, shape))
        else:
            codes = rng.integers(params.qmin, params.qmax + 1, shape)
            inputs.append(params.scale * np.float32(codes - params.zero_point))
    return inputs, shapes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_each_kind_of_layer(form, way, record_property):
    """The share of codes that are a step apart, by kind; `pytest -s` shows it."""
    rng = np.random.default_rng(5)
    apart = defaultdict(lambda: np.zeros(3, int))
    for zoo_name in models.ZOO:
        model = models.quantized(zoo_name, **WAYS[way])[1]
        data = models.batches(models.build(zoo_name)[1], 1)[0]
        found = tensors(model, models.as_tuple(data))
        for node in model.nodes:
            if not node.inputs or node.name in model.float_nodes:
                continue
            single = alone(model, node)
            inputs, input_shapes = random_inputs(rng, model, node, found)
            proto = to_onnx(single, form, input_shapes=input_shapes)
            want = models.as_tuple(single(*inputs))
            for place, optimized in enumerate((True, False), 1):
                for a, b, name in zip(run(proto, inputs, optimized), want, node.outputs,
                                      strict=True):
                    steps = steps_apart(a, b, model.params[name])
                    assert steps.max() <= 1, f"{node.name}, a {type(node.layer).__name__}"
                    counts = apart[type(node.layer).__name__]
                    counts[place] += np.count_nonzero(steps)
                    counts[0] += steps.size if place == 1 else 0
    exact = EXACT | (EXACT_TABLES if form == "qoperator" else set())
    for kind, (size, usual, plain) in sorted(apart.items()):
        shares = f"{usual / size:.1e} optimized, {plain / size:.1e} not"
        print(f"{form}, {way}: {kind} {shares}, of {size}")
        record_property(kind, shares)
        assert usual == 0 or kind not in exact
        assert plain == 0 or kind not in exact or form == "qdq"
        assert max(usual, plain) < 0.2 * size
    assert set(apart) == set(models.nodes_by_kind()) - {"ConstantQuantized"}


# ------------------------------------------------------------------------------------------- ties


def params_of(rng, dtype, scale):
    info = np.iinfo(dtype)
    zero = int(rng.choice([info.min, info.max, rng.integers(info.min, info.max + 1)]))
    if dtype == np.int8 and rng.random() < 0.3:
        return QuantizationParams(scale, int(rng.integers(-127, 128)), dtype, narrow_range=True)
    return QuantizationParams(scale, zero, dtype)


def power(rng, low, high, n=None):
    return 2.0 ** rng.integers(low, high, n)


def product(rng, kind, weight_shape, n_out, axis_of_out, in_params, out_params, **settings):
    """Return an 8-bit product whose scales are powers of two: many of its sums are ties."""
    per_channel = n_out if rng.random() < 0.7 else None
    limit = min(LIMIT, power(rng, 2, 8))
    codes = rng.integers(-limit, limit, weight_shape).astype(np.int8)
    zero = rng.integers(-9, 9, per_channel) if rng.random() < 0.3 and HAS_VNNI else 0
    bias = rng.integers(-2000, 2000, n_out).astype(np.int32) if rng.random() < 0.7 else None
    return kind(
        codes, power(rng, -3, 1, per_channel), bias, in_params, out_params,
        weight_zero_point=zero, activation=[None, "relu", "relu6"][rng.integers(3)], **settings,
    )


def ties(rng, params, shape):
    """Return reals at codes and halfway between them, and some beyond."""
    steps = rng.integers(-600, 600, shape) / 2
    return (np.float32(steps) * params.scale).astype(np.float32)


def assert_same(model, x, shape, int8=False):
    want = model(x)
    for form in FORMS:
        proto = to_onnx(model, form, input_shapes=shape)
        assert_array_equal(run(proto, [x], int8=int8)[0], want, form)
        if form == "qoperator":
            assert_array_equal(run(proto, [x], optimized=False)[0], want)


@given(seed=SEEDS, dtype=DTYPES, layout=st.sampled_from(["NCHW", "NHWC"]))
def test_convolutions_with_ties(seed, dtype, layout):
    rng = np.random.default_rng(seed)
    groups, depth, width = [(1, 3, 4), (2, 2, 2), (5, 1, 1), (3, 1, 2)][rng.integers(4)]
    kernel, image = rng.integers(1, 4, 2), rng.integers(6, 9, 2)
    n_in, n_out = groups * depth, groups * width
    first, second, third = (params_of(rng, dtype, power(rng, i, i + 6)) for i in (-1, 0, 1))
    nodes = [
        ("conv", product(
            rng, nn.Conv2DQuantized, (n_out, depth, *kernel), n_out, 0, first, second,
            groups=groups, padding=tuple(rng.integers(0, 3, 4)),
            stride=tuple(rng.integers(1, 3, 2)), dilation=tuple(rng.integers(1, 3, 2)),
        ), "input"),
        ("relu", [nn.ReLUQuantized, nn.ReLU6Quantized][rng.integers(2)](second, second), "conv"),
        ("pool", nn.MaxPool2DQuantized(second, second, 2, 1, tuple(rng.integers(0, 2, 4))), "relu"),
        ("point", product(
            rng, nn.Conv2DQuantized, (4, n_out, 1, 1), 4, 0, second, third
        ), "pool"),
        ("flat", nn.FlattenQuantized(third, third), "point"),
    ]
    params = {"input": first, "conv": second, "relu": second, "pool": second, "point": third,
              "flat": third}
    model = nn.QuantizedModel(nodes, "flat", ("input",), params=params, layout=layout)
    x = models.to_layout(ties(rng, first, (2, n_in, *image)), layout)
    assert_same(model, x, None)


@given(seed=SEEDS, dtype=DTYPES, axes=st.integers(1, 3))
def test_dense_layers_with_ties(seed, dtype, axes):
    rng = np.random.default_rng(seed)
    k, n = rng.integers(1, 40), rng.integers(1, 10)
    first, second, third = (params_of(rng, dtype, power(rng, i, i + 6)) for i in (-1, 0, 1))
    model = nn.QuantizedModel([
        ("dense", product(rng, nn.DenseQuantized, (k, n), n, 1, first, second), "input"),
        ("shape", nn.ReshapeQuantized(second, second, shape=(-1, n)), "dense"),
        ("last", product(rng, nn.DenseQuantized, (n, 3), 3, 1, second, third), "shape"),
    ], "last", ("input",), params={"input": first, "dense": second, "shape": second, "last": third})
    shape = (4, 2, 3)[:axes]
    names = ("batch", *("length", 3)[: axes - 1])
    assert_same(model, ties(rng, first, (*shape, k)), (*names, int(k)))


@given(seed=SEEDS, dtype=DTYPES)
def test_products_of_two_inputs_with_ties(seed, dtype):
    rng = np.random.default_rng(seed)
    first = [params_of(rng, dtype, 0.5) for _ in range(2)]
    target = params_of(rng, dtype, power(rng, 2, 8))
    m, k, n = rng.integers(1, 20, 3)
    params = {"a": first[0], "b": first[1], "y": target}
    model = nn.QuantizedModel(
        [("y", nn.MatMulQuantized(first, target), ("a", "b"))], "y", ("a", "b"), params=params
    )
    inputs = [
        ties(rng, p, shape).clip(-p.scale * LIMIT, p.scale * (LIMIT - 1))
        for p, shape in zip(first, ((2, m, k), (2, k, n)), strict=True)
    ]
    for form in FORMS:
        shapes = {"a": ("batch", int(m), int(k)), "b": ("batch", int(k), int(n))}
        got = run(to_onnx(model, form, input_shapes=shapes), inputs)[0]
        assert_array_equal(got, model(*inputs))


def test_what_is_compared_holds_ties():
    """The generators above must make ties often, or the comparison shows little."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        first, second = (params_of(rng, np.uint8, power(rng, i, i + 6)) for i in (-1, 0))
        layer = product(rng, nn.DenseQuantized, (9, 5), 5, 1, first, second)
        codes = rng.integers(0, 256, (20, 9)) - first.zero_point
        acc = codes @ (layer.weight.astype(int) - layer.weight_zero_point)
        acc = acc + (0 if layer.bias is None else layer.bias)
        steps = acc * (first.scale * layer.weight_scale / second.scale)
        inside = (steps + second.zero_point > 0) & (steps + second.zero_point < 255)
        found.append(np.mean((np.abs(steps % 1 - 0.5) == 0) & inside))
    assert np.mean(found) > 0.01


# ------------------------------------------------------------------------------------------- demo


@pytest.fixture(scope="module", params=["uint8", "int8"])
def fashion(request):
    """The demo's network in 8 bits, its images, and its answers."""
    calibration, images, labels = demo.load_images()
    model = nn.quantize_model(
        demo.load_model(), calibration, observer=nn.MSEObserver, progress=False,
        dtype=request.param,
    )
    return model, images, model.predict(images), labels


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("optimized", [True, False])
def test_demo(fashion, form, optimized):
    model, images, want, labels = fashion
    ready = session(to_onnx(model, form), optimized)
    got = np.concatenate([ready.run(None, {"input": part})[0] for part in np.split(images, 8)])
    assert np.mean(got.argmax(axis=1) == want.argmax(axis=1)) >= 0.995
    steps = steps_apart(got, want, model.params["dense"])
    assert steps.max() <= 1
    # QDQ without optimizations is computed in float. So is some of it with them where codes are
    # int8 and have several takers: see `int8` of `session`.
    is_float = form == "qdq" and (not optimized or model.params["dense"].dtype == np.int8)
    assert np.mean(steps > 0) <= (0.01 if is_float else 0)
    assert np.mean(got.argmax(axis=1) == labels) > 0.93


def test_int8_with_several_takers_as_it_is(fashion):
    model, images, want, _ = fashion
    got = session(to_onnx(model, "qdq"), int8=True).run(None, {"input": images[:500]})[0]
    assert_array_equal(got, want[:500])


def test_nothing_is_computed_in_float_that_need_not_be(fashion):
    model, *_ = fashion
    assert operators_of(to_onnx(model, "qoperator")) == {
        "QuantizeLinear", "QLinearConv", "QLinearAdd", "MaxPool", "QLinearGlobalAveragePool",
        "Flatten", "QGemm", "DequantizeLinear",
    }
    assert operators_of(to_onnx(model, "qdq")) == {
        "QuantizeLinear", "DequantizeLinear", "Conv", "Add", "MaxPool", "GlobalAveragePool",
        "Flatten", "Gemm",
    }


# ---------------------------------------------------------------------------------------- corners


@pytest.mark.parametrize("form", FORMS)
def test_padding_that_a_kernel_does_not_fill(form):
    # Its dilation makes it reach further: onnxruntime refuses such pads.
    params = QuantizationParams(0.5, 9, "int8")
    layer = nn.MaxPool2DQuantized(params, params, 2, 1, (2, 1, 2, 2), 3)
    model = nn.QuantizedModel([("y", layer, "x")], "y", "x", params={"x": params, "y": params})
    x = params.scale * np.random.default_rng(0).integers(-128, 128, (2, 3, 6, 7)) - np.float32(4.5)
    assert_array_equal(run(to_onnx(model, form), [x])[0], model(x.astype(np.float32)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", ["dense", "add", "concat", "table"])
def test_codes_of_two_types(form, layer):
    rng = np.random.default_rng(0)
    a, b = QuantizationParams(0.02, 100), QuantizationParams(0.03, 5, "int8")
    made, names = {
        "dense": (nn.Dense(rng.normal(size=(7, 7))).quantized(a, b), ("a",)),
        "add": (nn.Add(activation="relu").quantized([a, b], b), ("a", "b")),
        "concat": (nn.Concat().quantized([a, b], b), ("a", "b")),
        "table": (nn.Operator("HardSwish").quantized(a, b), ("a",)),
    }[layer]
    model = nn.QuantizedModel([("y", made, names)], "y", names, params={"a": a, "b": b, "y": b})
    inputs = [rng.normal(size=(9, 7)).astype(np.float32) for _ in names]
    got = run(to_onnx(model, form, input_shapes=dict.fromkeys(names, ("n", 7))), inputs)[0]
    assert steps_apart(got, model(*inputs), b).max() <= (0 if layer == "table" else 1)
