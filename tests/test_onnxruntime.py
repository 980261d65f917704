"""The second oracle: onnxruntime computes the same bytes from models of one operator or a few.

Ties and odd zero points are made often, since onnx's own node tests hold none. Where the CPU has no
VNNI, onnxruntime's own u8 * s8 kernels saturate pairs: weights stay in [-64, 63] there. Layers in
float agree to 1e-5: nobody promises the last bits of an exponential.
"""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_codes, random_zero_point

from qcy import _cpu, nn
from qcy.primitive import (
    conv2d_q8,
    conv2d_q8_accum,
    dequantize_q8,
    gemm_batched_q8,
    gemm_nn_q8,
    gemm_nn_q8_accum,
    quantize_q8,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

HAS_VNNI = _cpu.supports("avx512vnni") or _cpu.supports("avxvnni")


def compute(operator, inputs, out_dtype, **attributes):
    """Run one operator on arrays, None for an input left out."""
    names = [f"i{i}" if array is not None else "" for i, array in enumerate(inputs)]
    given_inputs = {n: array for n, array in zip(names, inputs, strict=True) if n}
    return run([(operator, names, ["y"], attributes)], given_inputs, out_dtype)


def run(nodes, inputs, out_dtype):
    """Run a graph on arrays by name, and return its "y"; graph optimizations off.

    Nodes are (operator, names of inputs, names of outputs, attributes).
    """
    given_inputs = {name: np.asarray(array) for name, array in inputs.items()}
    kind = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node, **attributes) for *node, attributes in nodes],
        "graph",
        [
            onnx.helper.make_tensor_value_info(n, kind(array.dtype), array.shape)
            for n, array in given_inputs.items()
        ],
        [onnx.helper.make_tensor_value_info("y", kind(np.dtype(out_dtype)), None)],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, given_inputs)[0]


def weights(rng, shape, dtype):
    """Return codes that onnxruntime multiplies exactly on this CPU."""
    if HAS_VNNI:
        return random_codes(rng, shape, dtype)
    low, high = (-64, 64) if dtype == np.int8 else (64, 192)
    return rng.integers(low, high, shape, dtype)


def scale(value):
    return np.asarray(value, np.float32)


def tie_scales(rng, n=None):
    """Return an output step that makes many ties, or one that makes few."""
    exponents = 2.0 ** rng.integers(-2, 9, n)
    return exponents if rng.random() < 0.5 else exponents * rng.uniform(0.5, 1, n)


@given(seed=SEEDS, m=st.integers(1, 9), k=st.integers(1, 70), n=st.integers(1, 40), dtype=DTYPES)
def test_qlinear_matmul(kernels, seed, m, k, n, dtype):
    rng = np.random.default_rng(seed)
    a, b = random_codes(rng, (m, k), dtype), weights(rng, (k, n), np.int8)
    a_zero, y_zero = random_zero_point(rng, dtype), random_zero_point(rng, dtype)
    per_column = rng.random() < 0.5
    b_scale = tie_scales(rng, n if per_column else None)
    out_scale = float(tie_scales(rng)) * 16
    b_zero = np.zeros_like(b_scale, np.int8)
    want = compute(
        "QLinearMatMul",
        [a, scale(1), dtype(a_zero), b, scale(b_scale), b_zero, scale(out_scale), dtype(y_zero)],
        dtype,
    )
    codes = gemm_nn_q8(
        a, b, a_scale=1, b_scale=b_scale, out_scale=out_scale, a_zero_point=a_zero,
        out_zero_point=y_zero, out_dtype=dtype,
    )
    assert_array_equal(codes, want)


@given(seed=SEEDS, k=st.integers(1, 40), b_zero=st.integers(0, 255))
def test_qlinear_matmul_of_batches_with_a_zero_point_of_b(kernels, seed, k, b_zero):
    rng = np.random.default_rng(seed)
    a, b = random_codes(rng, (3, 4, k), np.uint8), weights(rng, (3, k, 5), np.uint8)
    out_scale = float(tie_scales(rng)) * 64
    want = compute(
        "QLinearMatMul",
        [a, scale(1), np.uint8(7), b, scale(1), np.uint8(b_zero), scale(out_scale), np.uint8(99)],
        np.uint8,
    )
    codes = gemm_batched_q8(
        a, b, a_scale=1, b_scale=1, out_scale=out_scale, a_zero_point=7, b_zero_point=b_zero,
        out_zero_point=99,
    )
    assert_array_equal(codes, want)


@given(seed=SEEDS, m=st.integers(1, 9), k=st.integers(1, 70), n=st.integers(1, 40), b_dtype=DTYPES)
def test_matmul_integer(kernels, seed, m, k, n, b_dtype):
    rng = np.random.default_rng(seed)
    a, b = random_codes(rng, (m, k), np.uint8), weights(rng, (k, n), b_dtype)
    zeros = random_zero_point(rng, np.uint8), random_zero_point(rng, b_dtype)
    want = compute("MatMulInteger", [a, b, np.uint8(zeros[0]), b_dtype(zeros[1])], np.int32)
    acc = gemm_nn_q8_accum(a, b, a_zero_point=zeros[0], b_zero_point=zeros[1])
    assert_array_equal(acc, want)


CONVOLUTIONS = st.fixed_dictionaries({
    "seed": SEEDS,
    # groups, channels in and out of each: plain, grouped, depthwise, depthwise with a multiplier
    "channels": st.sampled_from(
        [(1, 1, 1), (1, 5, 7), (2, 3, 4), (6, 1, 1), (17, 1, 1), (3, 1, 2)]
    ),
    "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "padding": st.tuples(*[st.integers(0, 2)] * 4),
    "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
})


def convolution(problem, w_dtype, x_dtype):
    """Return images, kernel, ONNX's attributes and our keywords."""
    rng = np.random.default_rng(problem["seed"])
    groups, depth, width = problem["channels"]
    x = random_codes(rng, (2, groups * depth, *rng.integers(5, 9, 2)), x_dtype)
    w = weights(rng, (groups * width, depth, *problem["kernel"]), w_dtype)
    attributes = {
        "group": groups, "strides": problem["stride"], "pads": problem["padding"],
        "dilations": problem["dilation"], "kernel_shape": problem["kernel"],
    }
    names = ("stride", "padding", "dilation")
    return rng, x, w, attributes, {"groups": groups, **{name: problem[name] for name in names}}


@pytest.mark.parametrize("dtype", Q8)
@given(problem=CONVOLUTIONS)
def test_qlinear_conv(kernels, dtype, problem):
    rng, x, w, attributes, keywords = convolution(problem, np.int8, dtype)
    n_out = len(w)
    x_zero, y_zero = random_zero_point(rng, dtype), random_zero_point(rng, dtype)
    w_scale = tie_scales(rng, n_out if rng.random() < 0.5 else None)
    out_scale = float(tie_scales(rng)) * 16
    bias = rng.integers(-9999, 9999, n_out, dtype=np.int32) if rng.random() < 0.5 else None
    want = compute(
        "QLinearConv",
        [x, scale(1), dtype(x_zero), w, scale(w_scale), np.zeros_like(w_scale, np.int8),
         scale(out_scale), dtype(y_zero), bias],
        dtype, **attributes,
    )
    codes = conv2d_q8(
        x, w, x_scale=1, w_scale=w_scale, out_scale=out_scale, x_zero_point=x_zero, bias=bias,
        out_zero_point=y_zero, out_dtype=dtype, **keywords,
    )
    assert_array_equal(codes, want)


@given(problem=CONVOLUTIONS, w_zero=st.integers(0, 255))
def test_conv_integer(kernels, problem, w_zero):
    rng, x, w, attributes, keywords = convolution(problem, np.uint8, np.uint8)
    x_zero = random_zero_point(rng, np.uint8)
    inputs = [x, w, np.uint8(x_zero), np.uint8(w_zero)]
    want = compute("ConvInteger", inputs, np.int32, **attributes)
    acc = conv2d_q8_accum(x, w, x_zero_point=x_zero, w_zero_point=w_zero, **keywords)
    assert_array_equal(acc, want)


def reals(rng, shape, step):
    """Return numbers around the codes of a step: ties, infinities, and what lies between."""
    x = rng.integers(-600, 600, shape) / 2 + rng.choice([0, 0, 1e-3], shape)
    x = (x * step).astype(np.float32)
    x[rng.random(shape) < 0.02] = rng.choice([np.inf, -np.inf, 3e38, -3e38])
    return x


@given(seed=SEEDS, dtype=DTYPES, axis=st.sampled_from([None, 0, 1, 2]))
def test_quantize_linear_and_dequantize_linear(kernels, seed, dtype, axis):
    rng = np.random.default_rng(seed)
    shape = (4, 3, 5)
    n = None if axis is None else shape[axis]
    step = rng.choice([1, 0.5, 0.1, 0.3, 1e-3], n)
    zero = np.asarray(random_zero_point(rng, dtype, n))
    along = [1, 1, 1]
    if axis is not None:
        along[axis] = n
    x = reals(rng, shape, np.reshape(step, along))
    attributes = {} if axis is None else {"axis": axis}
    common = [scale(step), zero.astype(dtype)]
    want = compute("QuantizeLinear", [x, *common], dtype, **attributes)
    codes = quantize_q8(x, step, zero, axis=axis, dtype=dtype)
    assert_array_equal(codes, want)
    want = compute("DequantizeLinear", [codes, *common], np.float32, **attributes)
    assert_array_equal(dequantize_q8(codes, step, zero, axis=axis), want)


@pytest.mark.parametrize("zero_point", [0, 1, 77, 128, 254, 255])
def test_every_tie_of_quantize_linear(kernels, zero_point):
    x = np.arange(-300, 300, dtype=np.float32) + np.float32(0.5)
    want = compute("QuantizeLinear", [x, scale(1), np.uint8(zero_point)], np.uint8)
    assert_array_equal(quantize_q8(x, 1, zero_point), want)


# --------------------------------------------------------------------------------- dense, dynamic


@given(seed=SEEDS, k=st.integers(1, 70), n=st.integers(1, 40))
def test_dense_dynamic_of_one_row(kernels, seed, k, n):
    # ONNX quantizes a whole tensor: that is a row, if there is one.
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(1, k)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    weight, bias = weights(rng, (k, n), np.int8), rng.normal(size=n).astype(np.float32)
    weight_scale = rng.uniform(1e-3, 1, n).astype(np.float32)
    want = run([
        ("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"], {}),
        ("MatMulInteger", ["codes", "weight", "zero"], ["acc"], {}),
        ("Cast", ["acc"], ["sums"], {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["scale", "weight_scale"], ["multiplier"], {}),
        ("Mul", ["sums", "multiplier"], ["product"], {}),
        ("Add", ["product", "bias"], ["y"], {}),
    ], {"x": x, "weight": weight, "weight_scale": weight_scale, "bias": bias}, np.float32)
    assert_array_equal(nn.DenseDynamic(weight, weight_scale, bias)(x), want)


# --------------------------------------------------------------------------------- layers in float


@given(seed=SEEDS, shape=st.lists(st.integers(1, 20), min_size=1, max_size=3),
       epsilon=st.sampled_from([1e-5, 1e-12, 0.1]))
def test_layer_norm_in_float(seed, shape, epsilon):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape[1:], 5 * shape[0])).astype(np.float32)
    gamma, beta = rng.normal(size=(2, x.shape[-1])).astype(np.float32)
    want = compute("LayerNormalization", [x, gamma, beta], np.float32, axis=-1, epsilon=epsilon)
    assert_allclose(nn.LayerNorm(gamma, beta, epsilon=epsilon)(x), want, rtol=1e-5, atol=1e-5)


def test_gelu_in_float():
    x = np.concatenate([np.linspace(-2, 20, 5001), [0.0, 1e-30, -1e-30, 1e20]]).astype(np.float32)
    want = compute("Gelu", [x], np.float32)
    assert_allclose(nn.GELU()(x), want, rtol=1e-5)
    # Far below, onnxruntime's 1 + erf has lost its digits: all is small.
    x = np.linspace(-20, -2, 2001, dtype=np.float32)
    assert_allclose(nn.GELU()(x), compute("Gelu", [x], np.float32), rtol=0, atol=2e-6)


@given(
    seed=SEEDS, n_heads=st.integers(1, 3), n_queries=st.integers(1, 20),
    n_keys=st.integers(1, 20), depth=st.integers(1, 16), width=st.integers(1, 16),
)
def test_attention_in_float(seed, n_heads, n_queries, n_keys, depth, width):
    rng = np.random.default_rng(seed)
    sizes = ((n_queries, depth), (n_keys, depth), (n_keys, width))
    q, k, v = (rng.normal(size=(2, n, n_heads * w)).astype(np.float32) for n, w in sizes)
    heads = [
        np.ascontiguousarray(x.reshape(2, n, n_heads, w).swapaxes(1, 2))
        for x, (n, w) in zip((q, k, v), sizes, strict=True)
    ]
    want = run([
        ("Transpose", ["k"], ["columns"], {"perm": (0, 1, 3, 2)}),
        ("MatMul", ["q", "columns"], ["scores"], {}),
        ("Div", ["scores", "root"], ["scaled"], {}),
        ("Softmax", ["scaled"], ["weights"], {"axis": -1}),
        ("MatMul", ["weights", "v"], ["y"], {}),
    ], {**dict(zip("qkv", heads, strict=True)), "root": np.float32(depth**0.5)}, np.float32)
    got = nn.Attention(n_heads)(q, k, v)
    assert_allclose(
        got, want.swapaxes(1, 2).reshape(2, n_queries, n_heads * width), rtol=1e-5, atol=1e-5
    )


def test_embedding_in_float():
    rng = np.random.default_rng(0)
    rows, indices = rng.normal(size=(30, 5)).astype(np.float32), rng.integers(0, 30, (4, 7))
    assert_array_equal(nn.Embedding(rows)(indices), compute("Gather", [rows, indices], np.float32))


def test_what_is_compared_holds_ties():
    """The generators above must make ties often, or the comparison shows little."""
    rng = np.random.default_rng(0)
    acc = oracles.sums(random_codes(rng, (50, 9), np.uint8), weights(rng, (9, 50), np.int8), 3)
    found = [np.mean(np.abs(acc / (float(tie_scales(rng)) * 16) % 1 - 0.5) == 0) for _ in range(99)]
    assert np.mean(found) > 0.005
