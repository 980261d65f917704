"""Operators that take codes and give codes, as layers: the codes that onnxruntime gives.

With its optimizations and without, to the bit; but for sums, products and means of windows: where a
number lies in the middle of two codes, onnxruntime takes the even one with the zero point added
(or computes in float32), qcy without.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx_graphs import (
    MICROSOFT, Graph, assert_rounded, by_qcy, is_in_8_bits, kinds, weights,
)

from qcy.nn import storage


def operand(g, x):
    """Return codes, their scale and their zero point."""
    return [x, *g.stated(g.params[x])]


def target(g, scale):
    """Return the parameters of an output, and constants of them."""
    params = g.any_params(scale)
    return params, g.stated(params)


def named(g, name, params):
    g.params[name] = params
    return name


def weight_of(g, rng, shape, axis, per_channel):
    """Return a constant weight, its scale and its zero point."""
    dtype = np.int8 if g.dtype == np.int8 or rng.random() < 0.5 else np.uint8
    n = shape[axis] if per_channel else None
    scale = np.float32(rng.uniform(0.002, 0.02, n))
    zero = np.zeros(np.shape(scale), np.int8) if dtype == np.int8 else (
        np.uint8(np.full(np.shape(scale), 128))
    )
    return [g.constant(x) for x in (weights(rng, shape, dtype), scale, zero)]


def conv(g, rng):
    n_axes = int(rng.integers(1, 3))
    groups, per_group, n_out = rng.integers(1, 4, 3).tolist()
    kernel = rng.integers(1, 4, n_axes).tolist()
    x = g.codes(2, groups * per_group, *rng.integers(5, 8, n_axes).tolist())
    weight = weight_of(g, rng, (groups * n_out, per_group, *kernel), 0, rng.random() < 0.5)
    params, stated = target(g, 0.05)
    bias = rng.integers(-3000, 3000, groups * n_out).astype(np.int32)
    bias = [g.constant(bias)] if rng.random() < 0.7 else []
    return named(g, g.op(
        "QLinearConv", *operand(g, x), *weight, *stated, *bias, group=groups,
        strides=rng.integers(1, 3, n_axes).tolist(),
        pads=[int(rng.integers(0, k)) for k in (*kernel, *kernel)],
    ), params)


def mat_mul(g, rng):
    k, n = rng.integers(1, 40, 2).tolist()
    x = g.codes(*rng.integers(1, 4, rng.integers(1, 3)).tolist(), k)
    params, stated = target(g, 0.05)
    weight = weight_of(g, rng, (k, n), 1, rng.random() < 0.5)
    return named(g, g.op("QLinearMatMul", *operand(g, x), *weight, *stated), params)


def mat_mul_of_two(g, rng):
    m, k, n = rng.integers(1, 12, 3).tolist()
    a, b = g.codes(2, m, k), g.codes(2, k, n)
    g.inputs[b] = weights(rng, (2, k, n), g.dtype.type)
    params, stated = target(g, 0.05)
    return named(
        g, g.op("QLinearMatMul", *operand(g, a), *operand(g, b), *stated), params
    )


def gemm(g, rng):
    k, n = rng.integers(1, 40, 2).tolist()
    x, turned = g.codes(int(rng.integers(1, 5)), k), int(rng.integers(2))
    axis = 0 if turned else 1
    weight = weight_of(g, rng, (n, k) if turned else (k, n), axis, rng.random() < 0.5)
    bias = g.constant(rng.integers(-3000, 3000, n).astype(np.int32)) if rng.random() < 0.7 else ""
    params, stated = target(g, 0.05)
    return named(g, g.op(
        f"{MICROSOFT}:QGemm", *operand(g, x), *weight, bias, *stated, transB=turned
    ), params)


def pair(op):
    def make(g, rng):
        shapes = [((2, 3, 4, 5), (2, 3, 4, 5)), ((6, 7), (7,)), ((2, 3, 4), (3, 1))]
        left, right = shapes[rng.integers(3)]
        params, stated = target(g, 0.05)
        codes = [g.codes(*shape) for shape in (left, right)]
        g.reals = g.op(op.removeprefix("QLinear"), *map(g.dq, codes))
        a, b = (operand(g, x) for x in codes)
        return named(g, g.op(f"{MICROSOFT}:{op}", *a, *b, *stated), params)
    make.__name__ = op
    return make


def add_constant(g, rng):
    codes, of_codes = rng.integers(-100, 100, (4, 5)).astype(g.dtype), g.any_params()
    x = g.codes(3, 4, 5)
    g.reals = g.op("Add", g.dq_constant(codes, *of_codes), g.dq(x))
    params, stated = target(g, 0.05)
    parts = [g.constant(codes), *g.stated(of_codes), *operand(g, x), *stated]
    return named(g, g.op(f"{MICROSOFT}:QLinearAdd", *parts), params)


def function(op, scale, **attributes):
    def make(g, rng):
        params, stated = target(g, scale)
        x = operand(g, g.codes(3, 40))
        return named(g, g.op(f"{MICROSOFT}:{op}", *x, *stated, **attributes), params)
    make.__name__ = op
    return make


def softmax(g, rng):
    x = operand(g, g.codes(3, 10, params=g.any_params(0.02)))
    low = np.iinfo(g.dtype).min
    params = [(np.float32(1 / 256), g.dtype.type(low)), g.any_params(0.005)][rng.integers(2)]
    return named(g, g.op(
        f"{MICROSOFT}:QLinearSoftmax", *x, *g.stated(params), axis=-1, opset=13
    ), params)


def concat(g, rng):
    parts = [operand(g, g.codes(2, int(rng.integers(1, 4)), 4, 5)) for _ in range(3)]
    params, stated = target(g, 0.03)
    inputs = [name for part in parts for name in part]
    return named(g, g.op(f"{MICROSOFT}:QLinearConcat", *stated, *inputs, axis=1), params)


def average_pool(g, rng):
    kernel = rng.integers(1, 4, 2).tolist()
    x = g.codes(2, 3, 6, 7)
    params, stated = target(g, 0.03)
    window = {
        "kernel_shape": kernel, "count_include_pad": int(rng.integers(2)),
        "strides": rng.integers(1, 3, 2).tolist(),
        "pads": [int(rng.integers(0, k)) for k in (*kernel, *kernel)],
    }
    g.reals = g.op("AveragePool", g.dq(x), **window)
    parts = [*operand(g, x), *stated]
    return named(g, g.op(f"{MICROSOFT}:QLinearAveragePool", *parts, **window), params)


def global_average_pool(g, rng):
    x = operand(g, g.codes(2, 3, 4, 5))
    params, stated = target(g, 0.03)
    return named(g, g.op(f"{MICROSOFT}:QLinearGlobalAveragePool", *x, *stated), params)


TO_THE_BIT = [
    conv, mat_mul, mat_mul_of_two, gemm, function("QLinearSigmoid", 1 / 256),
    function("QLinearLeakyRelu", 0.03, alpha=0.1), softmax, concat, global_average_pool,
]
BUT_FOR_TIES = [pair("QLinearAdd"), pair("QLinearMul"), add_constant, average_pool]


@pytest.mark.parametrize(
    "make", [pytest.param(make, id=make.__name__) for make in (*TO_THE_BIT, *BUT_FOR_TIES)]
)
@settings(max_examples=25)
@given(seed=SEEDS, dtype=DTYPES)
def test_operator(make, seed, dtype):
    rng = np.random.default_rng(seed)
    g = Graph(rng, dtype)
    y = make(g, rng)
    model, [codes] = by_qcy(g, y)
    assert is_in_8_bits(model)
    assert not any(kind.startswith("QLinearC") for kind in kinds(model))
    for optimize in (False, True):
        [wanted] = g.run(y, optimize=optimize)
        if make in TO_THE_BIT:
            assert_array_equal(codes, wanted, strict=True)
        else:
            assert np.abs(codes.astype(int) - wanted).max() <= 1
    if make in BUT_FOR_TIES:
        assert_rounded(g, codes, g.reals, g.params[y])
    again = storage.from_bytes(model.to_bytes())
    assert_array_equal(again(*g.inputs.values()), codes, strict=True)


# ------------------------------------------------------------------------------------------ graphs


def net(g, dtype):
    """Return a small network of codes, as quantizers write it."""
    rng = g.rng
    x = g.q(g.input(rng.normal(size=(2, 3, 8, 8)).astype(np.float32)), g.any_params(0.02))
    shape = {"pads": [1, 1, 1, 1]}
    outputs = [target(g, 0.05) for _ in range(3)]
    a = g.op("QLinearConv", *operand(g, x), *weight_of(g, rng, (4, 3, 3, 3), 0, True),
             *outputs[0][1], **shape)
    a = g.op("MaxPool", named(g, a, outputs[0][0]), kernel_shape=[2, 2], strides=[2, 2])
    b = g.op("QLinearConv", *operand(g, named(g, a, outputs[0][0])),
             *weight_of(g, rng, (4, 4, 3, 3), 0, False), *outputs[1][1], **shape)
    named(g, b, outputs[1][0])
    c = g.op(f"{MICROSOFT}:QLinearConcat", *outputs[2][1], *operand(g, a), *operand(g, b), axis=1)
    c = g.op(f"{MICROSOFT}:QLinearGlobalAveragePool", *operand(g, named(g, c, outputs[2][0])),
             *outputs[2][1])
    c = g.op("Reshape", c, g.constant(np.array([0, -1])))
    named(g, c, outputs[2][0])
    params, stated = target(g, 0.1)
    y = g.op(f"{MICROSOFT}:QGemm", *operand(g, c), *weight_of(g, rng, (8, 5), 1, True), "",
             *stated)
    return g.dq(named(g, y, params))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_network_is_a_program(dtype):
    g = Graph(np.random.default_rng(2), dtype, opset=13)
    y = net(g, dtype)
    model, [reals] = by_qcy(g, y)
    for optimize in (False, True):
        assert_array_equal(reals, g.run(y, optimize=optimize)[0], strict=True)
    assert kinds(model) == [
        "Conv2DQuantized", "MaxPool2DQuantized", "Conv2DQuantized", "ConcatQuantized",
        "GlobalAvgPool2DQuantized", "Reshape", "DenseQuantized",
    ]
    assert model._compiled(list(g.inputs.values()), False) is not None


def test_what_has_no_layer_leaves_all_to_the_operators():
    g = Graph(np.random.default_rng(0))
    x = g.codes(1, 2, 4, 4, 4)
    params, stated = target(g, 0.05)
    y = g.op("QLinearConv", *operand(g, x), *weight_of(g, g.rng, (3, 2, 2, 2, 2), 0, True), *stated)
    z = named(g, g.op("Relu", g.dq(named(g, y, params))), params)
    g.params.pop(z)
    model, [reals] = by_qcy(g, z)
    assert kinds(model) == ["QLinearConv", "DequantizeLinear", "ReLU"]
    assert_array_equal(reals, g.run(z)[0], strict=True)


@pytest.mark.parametrize("place", ["operand", "weight"])
def test_scales_that_are_computed_leave_all_to_the_operators(place):
    g = Graph(np.random.default_rng(0))
    x = operand(g, g.codes(3, 6))
    weight = weight_of(g, g.rng, (6, 4), 1, False)
    params, stated = target(g, 0.05)
    scale = g.input(np.float32(0.01))
    (x if place == "operand" else weight)[1] = scale
    y = named(g, g.op("QLinearMatMul", *x, *weight, *stated), params)
    model, [codes] = by_qcy(g, y)
    assert kinds(model) == ["QLinearMatMul"]
    assert_array_equal(codes, g.run(y)[0], strict=True)


def test_codes_said_to_be_two_things_are_left_to_the_operators():
    g = Graph(np.random.default_rng(0))
    x = g.codes(3, 6)
    outputs = []
    for _ in range(2):
        params, stated = target(g, 0.05)
        weight = weight_of(g, g.rng, (6, 4), 1, False)
        outputs.append(named(g, g.op("QLinearMatMul", *operand(g, x), *weight, *stated), params))
        g.params[x] = g.any_params(0.1)
    model, results = by_qcy(g, *outputs)
    assert kinds(model) == ["QLinearMatMul"] * 2
    for result, wanted in zip(results, g.run(*outputs), strict=True):
        assert_array_equal(result, wanted, strict=True)


def test_a_product_that_gives_reals_is_left_to_the_operators():
    g = Graph(np.random.default_rng(0))
    x = operand(g, g.codes(3, 6))
    y = g.op(f"{MICROSOFT}:QGemm", *x, *weight_of(g, g.rng, (6, 4), 1, True))
    model, [reals] = by_qcy(g, y)
    assert kinds(model) == ["com.microsoft:QGemm"]
    assert_array_equal(reals, g.run(y)[0], strict=True)


@pytest.mark.parametrize("channels_last", [0, 1])
def test_pooling_that_no_layer_covers(channels_last):
    g = Graph(np.random.default_rng(0))
    shape = (2, 4, 5, 3) if channels_last else (2, 3, 7)
    params, stated = target(g, 0.03)
    x = operand(g, g.codes(*shape))
    y = named(g, g.op(f"{MICROSOFT}:QLinearGlobalAveragePool", *x, *stated,
                      channels_last=channels_last), params)
    model, [codes] = by_qcy(g, y)
    assert kinds(model) == [f"{MICROSOFT}:QLinearGlobalAveragePool"]
    assert is_in_8_bits(model)
    assert_array_equal(codes, g.run(y)[0], strict=True)


# ------------------------------------------------------------------- operators on codes themselves


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("way", ["relu", "both", "low", "high"])
def test_codes_are_clamped(dtype, way):
    g = Graph(np.random.default_rng(0), dtype, opset=13)
    x = g.codes(3, 50, params=(np.float32(0.1), dtype(20)))
    limits = {"relu": (20, None), "both": (3, 90), "low": (7, None), "high": (None, 60)}[way]
    limits = ["" if n is None else g.constant(dtype(n)) for n in limits]
    y = named(g, g.op("Clip", x, *limits), g.params[x])
    model, results = by_qcy(g, y, g.dq(y))
    assert kinds(model)[0] == ("ReLUQuantized" if way == "relu" else "TableQuantized")
    for result, wanted in zip(results, g.run(y, g.nodes[-1].output[0]), strict=True):
        assert_array_equal(result, wanted, strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("entries", [np.uint8, np.int8])
def test_tables_are_looked_up(dtype, entries):
    g = Graph(np.random.default_rng(0), dtype, opset=13)
    x = g.codes(3, 50)
    table = g.constant(g.rng.integers(0, 100, 256).astype(entries))
    y = g.op("Gather", table, g.op("Cast", x, to=6))
    named(g, y, g.any_params(0.1, entries))
    z = g.dq(y)
    model, [reals, _] = by_qcy(g, z, g.dq(x))
    assert kinds(model) == ["TableQuantized"]
    assert_array_equal(reals, g.run(z)[0], strict=True)


def test_codes_that_mean_the_same_side_by_side():
    g = Graph(np.random.default_rng(0))
    params = g.any_params()
    parts = [g.codes(2, n, params=params) for n in (3, 4)]
    y = named(g, g.op("Concat", *parts, axis=1), params)
    z = g.dq(y)
    model, [reals] = by_qcy(g, z)
    assert kinds(model) == ["ConcatQuantized"]
    assert_array_equal(reals, g.run(z)[0], strict=True)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_rows_of_codes(shape):
    g = Graph(np.random.default_rng(0), opset=13)
    table = g.constant(g.rng.integers(0, 255, (7, 4), np.uint8))
    rows = g.op("Gather", table, g.input(g.rng.integers(0, 7, shape)))
    y = g.dq(named(g, rows, g.any_params()))
    model, [reals] = by_qcy(g, y)
    assert kinds(model) == (
        ["EmbeddingQuantized"] if len(shape) < 3 else ["Constant", "Gather", "DequantizeLinear"]
    )
    assert_array_equal(reals, g.run(y)[0], strict=True)
