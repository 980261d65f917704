"""Operators between DequantizeLinear and QuantizeLinear, in 8 bits, beside onnxruntime.

With its optimizations off it computes in float: codes are those next to its reals. By default it
computes some in integers too: then they are the same codes.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx_graphs import Graph, assert_rounded, by_qcy, is_in_8_bits, kinds

few = settings(max_examples=20)


def window(rng, n_axes, kernel):
    """Return attributes of a window."""
    return {
        "strides": rng.integers(1, 3, n_axes).tolist(),
        "pads": [int(rng.integers(0, k)) for k in (*kernel, *kernel)],
    }


def conv(g, rng):
    n_axes = int(rng.integers(1, 3))
    groups, per_group, n_out = rng.integers(1, 4, 3).tolist()
    kernel = rng.integers(1, 4, n_axes).tolist()
    x = g.codes(int(rng.integers(1, 3)), groups * per_group, *rng.integers(5, 8, n_axes).tolist())
    per_channel, dtype = rng.random() < 0.5, rng.choice([np.int8, np.uint8])
    scale, weight = g.weight((groups * n_out, per_group, *kernel), 0, dtype, per_channel)
    bias = [g.bias(groups * n_out, x, scale)] if rng.random() < 0.7 else []
    return g.op(
        "Conv", g.dq(x), weight, *bias, group=groups, **window(rng, n_axes, kernel),
        dilations=rng.integers(1, 3, n_axes).tolist() if min(kernel) > 1 else [1] * n_axes,
    )


def conv_transpose(g, rng):
    groups, per_group, n_out = rng.integers(1, 4, 3).tolist()
    kernel = rng.integers(2, 4, 2).tolist()
    x = g.codes(2, groups * per_group, *rng.integers(3, 6, 2).tolist())
    per_channel = rng.random() < 0.5
    scale, weight = g.weight((groups * per_group, n_out, *kernel), 1, np.int8, per_channel)
    scale = np.tile(scale, groups) if per_channel else scale
    bias = [g.bias(groups * n_out, x, scale)] if rng.random() < 0.7 else []
    return g.op("ConvTranspose", g.dq(x), weight, *bias, group=groups, strides=[2, 1])


def gemm(g, rng):
    k, n = rng.integers(1, 40, 2).tolist()
    x, turned = g.codes(int(rng.integers(1, 5)), k), int(rng.integers(2))
    axis = 0 if turned else 1
    scale, weight = g.weight((n, k) if turned else (k, n), axis, np.int8, rng.random() < 0.5)
    bias = [g.bias(n, x, scale)] if rng.random() < 0.7 else []
    return g.op("Gemm", g.dq(x), weight, *bias, transB=turned)


def mat_mul(g, rng):
    k, n = rng.integers(1, 40, 2).tolist()
    x = g.codes(*rng.integers(1, 4, rng.integers(1, 3)).tolist(), k)
    _, weight = g.weight((k, n), 1, np.int8, rng.random() < 0.5)
    return g.op("MatMul", g.dq(x), weight)


def mat_mul_of_two(g, rng):
    m, k, n = rng.integers(1, 12, 3).tolist()
    return g.op("MatMul", g.dq(g.codes(2, m, k)), g.dq(g.codes(2, k, n)))


def mat_mul_and_bias(g, rng):
    k, n = rng.integers(1, 40, 2).tolist()
    x = g.codes(2, k)
    scale, weight = g.weight((k, n), 1, np.int8)
    y, bias = g.op("MatMul", g.dq(x), weight), g.bias(n, x, scale)
    return g.op("Add", *((y, bias) if rng.random() < 0.5 else (bias, y)))


def relu(g, rng):
    return g.op("Relu", g.dq(g.codes(3, 40)))


def clip(g, rng):
    limits = [g.constant(np.float32(x)) for x in np.sort(rng.normal(size=2))]
    limits = ["" if rng.random() < 0.2 else name for name in limits]
    return g.op("Clip", g.dq(g.codes(3, 40)), *limits)


def max_pool(g, rng):
    kernel = rng.integers(1, 4, 2).tolist()
    return g.op("MaxPool", g.dq(g.codes(2, 3, 6, 7)), kernel_shape=kernel,
                **window(rng, 2, kernel))


def flatten(g, rng):
    return g.op("Flatten", g.dq(g.codes(2, 3, 4, 5)))


def reshape(g, rng):
    shape = [[2, -1], [0, 60], [6, 20], [2, 5, 12], [0, 3, -1], [-1]][rng.integers(6)]
    return g.op("Reshape", g.dq(g.codes(2, 3, 4, 5)), g.constant(np.array(shape)))


#: What onnxruntime computes in integers by default, too.
IN_INTEGERS = [conv, gemm, mat_mul, relu, clip, max_pool, flatten, reshape]


def average_pool(g, rng):
    kernel = rng.integers(1, 4, 2).tolist()
    return g.op("AveragePool", g.dq(g.codes(2, 3, 6, 7)), kernel_shape=kernel,
                count_include_pad=int(rng.integers(2)), **window(rng, 2, kernel))


def global_average_pool(g, rng):
    return g.op("GlobalAveragePool", g.dq(g.codes(2, 3, 4, 5)))


def mean(g, rng):
    return g.op("ReduceMean", g.dq(g.codes(2, 3, 4, 5)), g.constant(np.array([2, 3])),
                keepdims=int(rng.integers(2)))


def pair(op):
    def make(g, rng):
        shapes = [((2, 3, 4, 5), (2, 3, 4, 5)), ((2, 3, 4, 5), (3, 1, 1)), ((6, 7), (7,))]
        left, right = shapes[rng.integers(3)]
        return g.op(op, g.dq(g.codes(*left)), g.dq(g.codes(*right)))
    make.__name__ = op.lower()
    return make


def add_constant(g, rng):
    codes = rng.integers(-128, 128, (3, 1, 1), np.int8)
    constant = g.dq_constant(codes, 0.03, np.int8(3))
    return g.op("Add", constant, g.dq(g.codes(2, 3, 4, 5)))


def concat(g, rng):
    parts = [g.dq(g.codes(2, int(rng.integers(1, 4)), 4, 5)) for _ in range(3)]
    return g.op("Concat", *parts, axis=1)


def softmax(g, rng):
    return g.op("Softmax", g.dq(g.codes(3, 10, params=g.any_params(0.02))), axis=-1)


def resize(g, rng):
    scales = g.constant(np.float32([1, 1, 2, 0.5]))
    return g.op("Resize", g.dq(g.codes(2, 3, 4, 6)), "", scales, mode="nearest")


def max_pool_of_sequences(g, rng):
    kernel = rng.integers(1, 4, 1).tolist()
    return g.op("MaxPool", g.dq(g.codes(2, 3, 7)), kernel_shape=kernel, **window(rng, 1, kernel))


def maximum(g, rng):
    return g.op("Max", g.dq(g.codes(2, 3, 4)), g.dq(g.codes(2, 3, 4)))


def prelu(g, rng):
    slope = g.constant(np.float32(rng.normal(size=(3, 1, 1))))
    return g.op("PRelu", g.dq(g.codes(2, 3, 4, 5)), slope)


def layer_norm(g, rng):
    parts = [g.constant(rng.normal(size=12).astype(np.float32)) for _ in range(2)]
    return g.op("LayerNormalization", g.dq(g.codes(2, 3, 12)), *parts)


def mean_of_rows(g, rng):
    return g.op("ReduceMean", g.dq(g.codes(2, 3, 7)), g.constant(np.array([-1])))


def function(op, **attributes):
    def make(g, rng):
        return g.op(op, g.dq(g.codes(3, 40)), **attributes)
    make.__name__ = op.lower()
    return make


def with_number(op):
    def make(g, rng):
        number = g.constant(np.float32(rng.uniform(0.3, 3)))
        return g.op(op, g.dq(g.codes(3, 40)), number)
    make.__name__ = f"{op.lower()}_number"
    return make


def transpose(g, rng):
    return g.op("Transpose", g.dq(g.codes(2, 3, 4, 5)), perm=rng.permutation(4).tolist())


def pad(g, rng):
    return g.op("Pad", g.dq(g.codes(2, 3, 4)), g.constant(rng.integers(0, 3, 6)))


def take(g, rng):
    x = g.dq(g.codes(2, 3, 4, 5))
    parts = [[0, 1], [2, 4], [1, 2]]
    x = g.op("Slice", x, *(g.constant(np.array(part)) for part in parts))
    x = g.op("Unsqueeze", x, g.constant(np.array([1])))
    return g.op("Squeeze", x, g.constant(np.array([1])))


IN_8_BITS = [
    *IN_INTEGERS, conv_transpose, mat_mul_of_two, mat_mul_and_bias, average_pool,
    global_average_pool, mean, pair("Add"), pair("Mul"), pair("Sub"), add_constant, concat,
    function("Sigmoid"),
    function("Tanh"), function("LeakyRelu", alpha=0.1), function("HardSwish"), function("Elu"),
    function("Neg"), with_number("Mul"), with_number("Add"), with_number("Div"), transpose, pad,
    take, resize, max_pool_of_sequences, maximum, prelu, layer_norm,
    mean_of_rows,
]


def names(makers):
    return [pytest.param(make, id=make.__name__) for make in makers]


@pytest.mark.parametrize("make", names(IN_8_BITS))
@few
@given(seed=SEEDS, dtype=DTYPES)
def test_operator(make, seed, dtype):
    rng = np.random.default_rng(seed)
    g = Graph(rng, dtype)
    reals = make(g, rng)
    y = g.quantized(reals)
    model, [codes] = by_qcy(g, y)
    assert is_in_8_bits(model), model.summary()
    assert_rounded(g, codes, reals, g.params[y])
    if make in IN_INTEGERS:
        assert_array_equal(codes, g.run(y, optimize=True)[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_softmax_whose_steps_are_those_of_equation_18(dtype):
    g = Graph(np.random.default_rng(0), dtype)
    reals = softmax(g, g.rng)
    y = g.q(reals, (np.float32(1 / 256), dtype(np.iinfo(dtype).min)))
    model, [codes] = by_qcy(g, y)
    assert kinds(model) == ["SoftmaxQuantized"]
    assert_rounded(g, codes, reals, g.params[y])
    assert_array_equal(codes, g.run(y, optimize=True)[0])


@pytest.mark.parametrize("make", names([
    conv, conv_transpose, gemm, mat_mul, mat_mul_and_bias, pair("Add"), pair("Mul"), average_pool,
]))
@pytest.mark.parametrize("activation", ["Relu", "Clip06", "Clip", "Relu6 and more"])
@settings(max_examples=6)
@given(seed=SEEDS, dtype=DTYPES)
def test_activation_in_between(make, activation, seed, dtype):
    rng = np.random.default_rng(seed)
    g = Graph(rng, dtype)
    reals = make(g, rng)
    limits = {"Relu": (), "Clip06": (0, 6), "Clip": (-0.3, 0.4), "Relu6 and more": (-1e9, 1e9)}
    parts = [g.constant(np.float32(x)) for x in limits[activation]]
    reals = g.op("Clip" if parts else "Relu", reals, *parts)
    y = g.quantized(reals)
    model, [codes] = by_qcy(g, y)
    assert is_in_8_bits(model), model.summary()
    assert len(model.nodes[-1].covers) >= 1
    assert_rounded(g, codes, reals, g.params[y])
    assert kinds(model)[-1] != "Relu"
