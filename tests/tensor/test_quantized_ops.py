"""What QuantizedTensors compute: the equations to the bit, and float arithmetic within steps."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizedTensor, Tensor


def random_params(rng, dtype):
    return QuantizationParams(
        10.0 ** rng.uniform(-2, 1), oracles.random_zero_point(rng, dtype), dtype
    )


def random_tensor(rng, shape, dtype):
    return QuantizedTensor(oracles.random_codes(rng, shape, dtype), random_params(rng, dtype))


def random_weight(rng, shape, axis):
    """Return a kernel: per tensor, or per channel of `axis`; int8 or uint8, any zero points."""
    dtype = rng.choice(oracles.Q8)
    codes = oracles.random_codes(rng, shape, dtype)
    if rng.random() < 0.5:
        return QuantizedTensor(codes, random_params(rng, dtype))
    n = shape[axis]
    scale = 10.0 ** rng.uniform(-2, 1, n)
    zero = oracles.random_zero_point(rng, dtype, n)
    return QuantizedTensor(codes, QuantizationParams(scale, zero, dtype, axis))


def steps_apart(y, reals):
    """Return the largest distance of `y` from `reals`, in steps, where those can be expressed."""
    inside = np.clip(reals, y.params.low, y.params.high)
    return np.abs(y.dequantize().data - inside).max(initial=0) / np.float64(y.scale)


def range_params(low, high, dtype):
    return QuantizationParams.from_range(float(low), float(high), dtype)


# ---------------------------------------------------------------------------- add, mul, scale_by

PAIRS = {"add": (oracles.add, np.add), "mul": (oracles.mul, np.multiply)}


@pytest.mark.parametrize("name", PAIRS)
@given(seed=oracles.SEEDS, a_dtype=oracles.DTYPES, b_dtype=oracles.DTYPES, dtype=oracles.DTYPES)
def test_add_and_mul_are_their_equations(name, seed, a_dtype, b_dtype, dtype):
    rng = np.random.default_rng(seed)
    oracle, exact = PAIRS[name]
    a, b = random_tensor(rng, (3, 5), a_dtype), random_tensor(rng, (3, 5), b_dtype)
    out = random_params(rng, dtype)
    y = getattr(a, name)(b, out_params=out)
    assert y.params is out
    scales, zeros = zip(*((p.scale, p.zero_point) for p in (a.params, b.params, out)), strict=True)
    assert_array_equal(y.codes.data, oracle(a.codes.data, b.codes.data, scales, zeros, dtype))
    reals = exact(a.dequantize().data.astype(np.float64), b.dequantize().data)
    assert steps_apart(y, reals) <= 0.5001


@pytest.mark.parametrize("name", PAIRS)
@given(seed=oracles.SEEDS, a_dtype=oracles.DTYPES, b_dtype=oracles.DTYPES)
def test_add_and_mul_choose_what_both_params_can_reach(name, seed, a_dtype, b_dtype):
    rng = np.random.default_rng(seed)
    exact = PAIRS[name][1]
    a, b = random_tensor(rng, (4,), a_dtype), random_tensor(rng, (4,), b_dtype)
    corners = exact.outer([a.params.low, a.params.high], [b.params.low, b.params.high])
    y = getattr(a, name)(b)
    assert y.params == range_params(corners.min(), corners.max(), a.dtype)
    assert y == getattr(a, name)(b, out_params=y.params)
    assert y == (a + b if name == "add" else a * b)
    # Nothing saturates, but by the half step that the rounded zero point shifts the range.
    reals = exact(a.dequantize().data.astype(np.float64), b.dequantize().data)
    error = np.abs(y.dequantize().data - reals).max()
    assert error <= 1.001 * np.float64(y.scale)


def test_add_and_mul_broadcast():
    rng = np.random.default_rng(0)
    for shapes in (((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((2, 3), ()), ((0, 3), (3,))):
        a, b = (random_tensor(rng, shape, np.uint8) for shape in shapes)
        for y, exact in ((a + b, np.add), (a * b, np.multiply)):
            reals = exact(a.dequantize().data.astype(np.float64), b.dequantize().data)
            assert y.shape == reals.shape
            assert steps_apart(y, reals) <= 0.5001


@given(
    seed=oracles.SEEDS, dtype=oracles.DTYPES,
    factor=st.floats(1e-3, 1e3) | st.integers(1, 1000) | st.just(np.float32(0.1)),
)
def test_scale_by_is_equation_20(seed, dtype, factor):
    x = random_tensor(np.random.default_rng(seed), (4, 3), dtype)
    y = x.scale_by(factor)
    assert_array_equal(y.codes.data, x.codes.data)
    assert y.scale == np.float32(np.float64(x.scale) * float(factor))
    assert (y.zero_point, y.dtype) == (x.zero_point, x.dtype)
    assert y == x * factor == factor * x
    negative = x.scale_by(-factor)
    assert negative.params == range_params(
        x.params.high * -float(factor), x.params.low * -float(factor), dtype
    )
    reals = -float(factor) * x.dequantize().data.astype(np.float64)
    assert np.abs(negative.dequantize().data - reals).max() <= 1.001 * negative.scale
    assert negative == x * -factor


def test_scale_by_keeps_channels_apart():
    params = QuantizationParams([0.5, 2.0], [1, 2], axis=1)
    x = QuantizedTensor(np.arange(6, dtype=np.uint8).reshape(3, 2), params)
    y = x * 3
    assert y.params == QuantizationParams([1.5, 6.0], [1, 2], axis=1)
    assert_array_equal(y.dequantize().data, 3 * x.dequantize().data)
    with pytest.raises(ValueError, match="one per channel"):
        x.scale_by(-1)


# ---------------------------------------------------------------------------------------- matmul


def matmul_operands(rng, a_dtype):
    m, k, n = rng.integers(0, 7), rng.integers(0, 20), rng.integers(1, 7)
    a, b = random_tensor(rng, (m, k), a_dtype), random_weight(rng, (k, n), 1)
    bias = None if rng.random() < 0.5 else rng.integers(-9000, 9000, n).astype(np.int32)
    return a, b, bias


def product_sums(a, b, bias):
    return oracles.sums(
        a.codes.data, b.codes.data, a.zero_point, b.zero_point, 0 if bias is None else bias
    )


@given(seed=oracles.SEEDS, a_dtype=oracles.DTYPES, dtype=oracles.DTYPES)
def test_matmul_is_equations_7_and_9(seed, a_dtype, dtype):
    rng = np.random.default_rng(seed)
    a, b, bias = matmul_operands(rng, a_dtype)
    out = random_params(rng, dtype)
    y = a.matmul(b, bias=None if bias is None else Tensor(bias), out_params=out)
    step = oracles.multiplier(a.scale, b.scale, out.scale)
    expected = oracles.requantize(product_sums(a, b, bias), step, out.zero_point, dtype)
    assert y.params is out
    assert_array_equal(y.codes.data, expected)


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_matmul_without_params_covers_its_own_result(seed, dtype):
    rng = np.random.default_rng(seed)
    a, b, bias = matmul_operands(rng, dtype)
    y = a.matmul(b, bias=bias)
    reals = product_sums(a, b, bias) * np.float64(a.scale * b.scale)
    assert y.params == range_params(reals.min(initial=0), reals.max(initial=0), dtype)
    assert y == a.matmul(b, bias=bias, out_params=y.params)
    assert np.abs(y.dequantize().data - reals).max(initial=0) <= 1.001 * y.scale
    if bias is None:
        assert y == a @ b


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((4,), (4, 3)), ((2, 4), (4,)), ((4,), (4,)), ((5, 2, 4), (4, 3)), ((5, 2, 4), (5, 4, 3)),
     ((2, 4), (5, 4, 3)), ((6, 1, 2, 4), (5, 4, 3)), ((0, 2, 4), (4, 3)), ((2, 0), (0, 3))],
)
def test_matmul_takes_the_shapes_of_numpy(a_shape, b_shape):
    rng = np.random.default_rng(1)
    a, b = random_tensor(rng, a_shape, np.uint8), random_tensor(rng, b_shape, np.int8)
    reals = a.dequantize().data.astype(np.float64) @ b.dequantize().data.astype(np.float64)
    for y in (a @ b, a.matmul(b, out_params=QuantizationParams(1.5, 100))):
        assert y.shape == reals.shape
        assert steps_apart(y, reals) <= 0.5 + 1e-3


def test_matmul_of_nothing_is_zero():
    a = QuantizedTensor(np.zeros((2, 0), np.uint8), QuantizationParams(0.5))
    b = QuantizedTensor(np.zeros((0, 3), np.int8), QuantizationParams(0.5, 0, "int8"))
    assert_array_equal((a @ b).dequantize().data, np.zeros((2, 3)))


# ---------------------------------------------------------------------------------------- conv2d


def conv_case(rng):
    """Return (x, kernel, options) of a random convolution, NCHW."""
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, n_out = groups * rng.integers(1, 4), groups * rng.integers(1, 4)
    kernel = tuple(rng.integers(1, 4, 2))
    x = random_tensor(rng, (2, channels, *rng.integers(5, 9, 2)), rng.choice(oracles.Q8))
    w = random_weight(rng, (n_out, channels // groups, *kernel), 0)
    options = {
        "stride": tuple(rng.integers(1, 4, 2)), "dilation": tuple(rng.integers(1, 3, 2)),
        "padding": tuple(rng.integers(0, 3, 4)), "groups": groups,
    }
    options = {k: tuple(map(int, v)) if k != "groups" else v for k, v in options.items()}
    bias = None if rng.random() < 0.5 else rng.integers(-9000, 9000, n_out).astype(np.int32)
    return x, w, bias, options


def conv_acc(x, w, bias, options):
    zeros = {"x_zero": x.zero_point, "w_zero": w.zero_point}
    return oracles.conv_sums(
        x.codes.data, w.codes.data, **zeros, bias=0 if bias is None else bias, **options
    )


def by_channel(scale):
    return np.reshape(scale, (-1, 1, 1))


def channels_last(x):
    return QuantizedTensor(oracles.nhwc(x.codes.data), x.params)


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_conv2d_is_equations_7_9_and_13(seed, dtype):
    rng = np.random.default_rng(seed)
    x, w, bias, options = conv_case(rng)
    out = random_params(rng, dtype)
    y = x.conv2d(w, bias=bias, out_params=out, **options)
    step = oracles.multiplier(x.scale, by_channel(w.scale), out.scale)
    expected = oracles.requantize(conv_acc(x, w, bias, options), step, out.zero_point, dtype)
    assert y.params is out
    assert_array_equal(y.codes.data, expected)
    last = channels_last(x).conv2d(w, bias=bias, out_params=out, layout="NHWC", **options)
    assert last == channels_last(y)


@given(seed=oracles.SEEDS)
def test_conv2d_without_params_covers_its_own_result(seed):
    rng = np.random.default_rng(seed)
    x, w, bias, options = conv_case(rng)
    y = x.conv2d(w, bias=bias, **options)
    reals = conv_acc(x, w, bias, options) * np.float64(x.scale * by_channel(w.scale))
    assert y.params == range_params(reals.min(), reals.max(), x.dtype)
    assert y == x.conv2d(w, bias=bias, out_params=y.params, **options)
    assert np.abs(y.dequantize().data - reals).max() <= 1.001 * y.scale
    assert channels_last(x).conv2d(w, bias=bias, layout="NHWC", **options) == channels_last(y)


# -------------------------------------------------------------------------- activations, pooling


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_relu_keeps_params(seed, dtype):
    x = random_tensor(np.random.default_rng(seed), (3, 4), dtype)
    y = x.relu()
    assert y.params == x.params
    assert_array_equal(y.codes.data, np.maximum(x.codes.data.astype(int), x.zero_point))
    assert_array_equal(y.dequantize().data, np.maximum(x.dequantize().data, 0))


def test_relu_per_channel():
    params = QuantizationParams([0.5, 2.0, 1.0], [-128, 0, 127], "int8", axis=1)
    x = QuantizedTensor(np.arange(-9, 9, dtype=np.int8).reshape(2, 3, 3), params)
    assert_array_equal(x.relu().dequantize().data, np.maximum(x.dequantize().data, 0))


def table_17(function, params, out):
    """Equation (17), in Python floats."""
    codes = []
    for code in range(params.qmin, params.qmax + 1):
        step = round(function(float(params.scale) * (code - params.zero_point)) / float(out.scale))
        codes.append(min(max(step + out.zero_point, out.qmin), out.qmax))
    return np.array(codes, out.dtype)


@pytest.mark.parametrize("dtype", oracles.Q8)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_tables_are_equation_17(name, dtype):
    function = {"sigmoid": lambda x: 1 / (1 + math.exp(-x)), "tanh": math.tanh}[name]
    fixed = {
        "sigmoid": QuantizationParams(1 / 256, 0 if dtype is np.uint8 else -128, dtype),
        "tanh": QuantizationParams(1 / 128, 128 if dtype is np.uint8 else 0, dtype),
    }[name]
    low, high = oracles.code_range(dtype)
    codes = np.arange(low, high + 1).astype(dtype).reshape(16, 16)
    for scale in (0.01, 0.05, 1.0):
        x = QuantizedTensor(codes, QuantizationParams(scale, low + 100, dtype))
        for out in (None, QuantizationParams(0.02, 5, "int8")):
            y = getattr(x, name)(out) if out else getattr(x, name)()
            assert y.params == (out or fixed)
            assert_array_equal(
                y.codes.data.reshape(-1), table_17(function, x.params, y.params)
            )
            reals = np.vectorize(function)(x.dequantize().data.astype(np.float64))
            assert steps_apart(y, reals) <= 0.5 + 1e-3


def test_sigmoid_of_large_numbers_does_not_overflow():
    x = qcy.quantize([-1e30, 0.0, 1e30])
    assert_array_equal(x.sigmoid().codes.data, [0, 128, 255])


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_pooling_is_equations_13_14_and_16(seed, dtype):
    rng = np.random.default_rng(seed)
    x = random_tensor(rng, (2, 3, 7, 6), dtype)
    kernel = tuple(map(int, rng.integers(1, 4, 2)))
    window = {
        "stride": tuple(map(int, rng.integers(1, 4, 2))),
        "padding": tuple(int(rng.integers(0, kernel[i % 2])) for i in range(4)),
    }
    largest = x.max_pool2d(kernel, **window)
    assert largest.params == x.params
    assert_array_equal(largest.codes.data, oracles.max_pool(x.codes.data, kernel, **window))
    out = random_params(rng, dtype)
    for count_all in (False, True):
        for target in (None, out):
            mean = x.avg_pool2d(kernel, count_include_pad=count_all, out_params=target, **window)
            assert mean.params == (target or x.params)
            assert_array_equal(mean.codes.data, oracles.avg_pool(
                x.codes.data, kernel, x.scale, mean.scale, x.zero_point, mean.zero_point,
                count_include_pad=count_all, **window,
            ))
    last = channels_last(x)
    assert last.max_pool2d(kernel, layout="NHWC", **window) == channels_last(largest)
    assert last.avg_pool2d(
        kernel, count_include_pad=True, out_params=out, layout="NHWC", **window
    ) == channels_last(mean)


def test_mean_stays_in_the_narrow_range():
    x = QuantizedTensor(np.full((1, 1, 2, 2), -127, np.int8), QuantizationParams(4, 0, "int8"))
    out = QuantizationParams(1, 0, "int8", narrow_range=True)
    assert_array_equal(x.avg_pool2d(2, out_params=out).codes.data, [[[[-127]]]])


def test_single_numbers_stay_single():
    x = QuantizedTensor(np.array(9, np.uint8), QuantizationParams(0.5, 1))
    matrix = QuantizedTensor(np.ones((4, 4), np.uint8), QuantizationParams(0.5, 1))
    for y in (
        x + x, x * x, x * 2, x * -2, x.relu(), x.sigmoid(), x.requantize(0.25, 3), x.transpose(),
        x.reshape(()), x[()], matrix[0, 0],
    ):
        assert y.shape == y.dequantize().shape == ()
