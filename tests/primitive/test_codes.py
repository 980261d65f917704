"""Quantize, dequantize, requantize, look up, copy: right on ties, extremes, and every dtype."""

import numpy as np
import oracles
import prove_quantize
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_clamp, random_codes, random_zero_point

from qcy.primitive import copy_q8, dequantize_q8, lookup_q8, quantize_q8, requantize_q8

FLOATS = st.floats(width=32, allow_nan=False)
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
TINY = 2.0**-126
ROUNDINGS = ("tflite", "tflite_single")

# ----------------------------------------------------------------------------------- quantize


@given(
    x=arrays(np.float32, SHAPES, elements=FLOATS), dtype=DTYPES, seed=SEEDS,
    scale=st.floats(TINY, 2.0**127, width=32), n_threads=st.integers(1, 3),
)
def test_quantize_follows_equation_4(kernels, x, dtype, seed, scale, n_threads):
    zero = random_zero_point(np.random.default_rng(seed), dtype)
    codes = quantize_q8(x, scale, zero, dtype=dtype, n_threads=n_threads)
    assert codes.dtype == dtype
    assert_array_equal(codes, oracles.quantize(x, scale, zero, dtype))


@given(seed=SEEDS, shape=array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9), dtype=DTYPES)
@example(seed=0, shape=(3, 0, 2), dtype=np.uint8)
def test_quantize_and_dequantize_per_channel(kernels, seed, shape, dtype):
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    along = np.ones(len(shape), int)
    along[axis] = shape[axis]
    scale = rng.uniform(0.1, 2, shape[axis]).astype(np.float32)
    zero = random_zero_point(rng, dtype, (shape[axis],))
    x = np.rint(rng.uniform(-300, 300, shape)) / 2 * scale.reshape(along)      # many ties
    codes = quantize_q8(x, scale, zero, axis=axis, dtype=dtype)
    per_channel = scale.reshape(along), zero.reshape(along)
    assert_array_equal(codes, oracles.quantize(x, *per_channel, dtype))
    reals = dequantize_q8(codes, scale, zero, axis=axis)
    assert reals.dtype == np.float32
    assert_array_equal(reals, oracles.dequantize(codes, *per_channel))


@pytest.mark.parametrize(
    "shape", [(100_001,), (3, 40_000), (40_000, 3), (7, 5_000, 1), (2, 9_000, 4)]
)
def test_big_arrays_are_the_same_bytes_on_1_to_3_threads(kernels, shape):
    rng = np.random.default_rng(1)
    x = rng.normal(0, 50, shape).astype(np.float32)
    axis = None if len(shape) == 1 else 1
    scale, zero = np.float32(0.7), 3
    if axis is not None:
        scale = rng.uniform(0.1, 2, shape[1]).astype(np.float32)
        zero = rng.integers(-128, 128, shape[1])
    along = (-1,) + (1,) * (len(shape) - 2) if axis else ()
    per_channel = np.reshape(scale, along), np.reshape(zero, along)
    for n_threads in (1, 2, 3):
        codes = quantize_q8(x, scale, zero, axis=axis, dtype="int8", n_threads=n_threads)
        assert_array_equal(codes, oracles.quantize(x, *per_channel, np.int8))
        reals = dequantize_q8(codes, scale, zero, axis=axis, n_threads=n_threads)
        assert_array_equal(reals, oracles.dequantize(codes, *per_channel))
        same = np.arange(-128, 128, dtype=np.int8)
        assert_array_equal(lookup_q8(codes, same, n_threads=n_threads), codes)


@pytest.mark.parametrize("zero_point", [0, 7, 128, 255])
def test_ties_go_to_even_before_the_zero_point_is_added(kernels, zero_point):
    x = np.arange(-300, 300, dtype=np.float32) + np.float32(0.5)
    for scale in (1.0, 0.25, 2.0**-126, 2.0**100):
        with np.errstate(over="ignore"):
            codes = quantize_q8(x * np.float32(scale), scale, zero_point)
        even = [round(float(value)) + zero_point for value in x]       # Python's ties go to even
        assert codes.tolist() == [min(max(value, 0), 255) for value in even]


def test_quantize_divides(kernels):
    scale = np.float32(0.3)
    x = np.arange(0.5, 255, 1, np.float32) * scale
    assert np.any(np.rint(x / scale) != np.rint(x * (np.float32(1) / scale)))
    assert_array_equal(quantize_q8(x, scale), oracles.quantize(x, scale, 0, np.uint8))


@pytest.mark.parametrize("dtype", Q8)
def test_infinities_and_extremes_saturate(kernels, dtype):
    low, high = oracles.code_range(dtype)
    x = np.array([np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0] * 9, np.float32)
    for scale in (TINY, 1.0, 3.4e38):
        codes = quantize_q8(x, scale, low + 5, dtype=dtype)
        assert_array_equal(codes, oracles.quantize(x, scale, low + 5, dtype))
        assert codes[:2].tolist() == [high, low]
    wide = np.array([1e300, -1e300, 1e-300, np.inf])        # overflow float32, or vanish in it
    assert quantize_q8(wide, 1.0, 3).tolist() == [255, 0, 3, 255]


@pytest.mark.parametrize(
    "dtype", ["f2", "f8", "i1", "u1", "i2", "u4", "i8", "u8", ">f4", ">f8", ">i4"]
)
def test_reals_of_every_dtype_are_rounded_to_float32_first(kernels, dtype):
    x = np.array([0, 1, 3, 5, 100, 127]).astype(dtype)
    assert quantize_q8(x, 2, 1).tolist() == [1, 1, 3, 3, 51, 65]
    assert quantize_q8(x[::-1], 2, 1).tolist() == [65, 51, 3, 3, 1, 1]


def test_rounding_to_float32_comes_before_the_division(kernels):
    x = np.array([0.5 + 2.0**-40])      # above the tie in float64, on it in float32
    assert quantize_q8(x, 1.0).tolist() == [0]
    assert quantize_q8(np.array([2**25 + 3]), 2.0**25).tolist() == [1]
    assert quantize_q8([0.5, 1.5, 2.5], 1.0).tolist() == [0, 2, 2]
    assert quantize_q8(np.float32(7.0), 2.0).shape == ()


@pytest.mark.parametrize("n_nan", [1, 3])
@pytest.mark.parametrize("shape", [(5,), (70_000,), (3, 30_000), (30_000, 3)])
@pytest.mark.parametrize(("n_threads", "dtype"), [(1, "f4"), (3, "f4"), (1, "f2"), (2, "f8")])
def test_nan_is_an_error_that_counts_them(kernels, n_nan, shape, n_threads, dtype):
    x = np.zeros(shape, dtype)
    x.flat[[0, -1, x.size // 2][:n_nan]] = np.nan
    scale = 1.0 if x.ndim == 1 else np.ones(shape[-1])
    with pytest.raises(ValueError, match=f"x must not hold NaN, got {n_nan} of them"):
        quantize_q8(x, scale, axis=None if x.ndim == 1 else -1, n_threads=n_threads)


@pytest.mark.parametrize("dtype", Q8)
def test_every_code_survives_a_round_trip(kernels, dtype):
    low, high = oracles.code_range(dtype)
    codes = np.arange(low, high + 1).astype(dtype)
    for scale, zero in ((0.1, low), (TINY, 0), (1e36, high), (1 / 3, 1)):
        reals = dequantize_q8(codes, scale, zero)
        assert_array_equal(reals, oracles.dequantize(codes, scale, zero))
        assert_array_equal(quantize_q8(reals, scale, zero, dtype=dtype), codes)


# --------------------------------------------------------------------------------- requantize


@st.composite
def accumulators(draw):
    """Draw sums of all sizes, half of them near ties, and multipliers of all sizes."""
    rng = np.random.default_rng(draw(SEEDS))
    shape = draw(array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7))
    fraction = rng.choice([1, 1, 1, 0.75, 0.9999999, 0.7], shape[-1])
    step = (fraction * 2.0 ** rng.integers(-34, 12, shape[-1])).astype(np.float32)
    ties = np.rint((rng.integers(-300, 300, shape) + 0.5) / step)
    anywhere = rng.integers(-(2**31), 2**31, shape) >> rng.integers(0, 32, shape)
    acc = np.where(rng.random(shape) < 0.5, ties, anywhere)
    return rng, np.clip(acc, -(2**31), 2**31 - 1).astype(np.int32), step


@given(problem=accumulators(), dtype=DTYPES, n_threads=st.integers(1, 3))
def test_requantize_follows_equation_9(kernels, problem, dtype, n_threads):
    rng, acc, step = problem
    zero, clamp = random_zero_point(rng, dtype), random_clamp(rng, dtype)
    keywords = {"zero_point": zero, "dtype": dtype, "clamp": clamp, "n_threads": n_threads}
    assert_array_equal(
        requantize_q8(acc, step, **keywords), oracles.requantize(acc, step, zero, dtype, clamp)
    )
    bias = rng.integers(-(2**31), 2**31, len(step)).astype(np.int32)
    assert_array_equal(
        requantize_q8(acc, step, **keywords, bias=bias),
        oracles.requantize(acc.astype(np.int64) + bias, step, zero, dtype, clamp),
    )


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(problem=accumulators(), dtype=DTYPES)
def test_requantize_as_tflite_follows_equation_10(kernels, rounding, problem, dtype):
    rng, acc, step = problem
    zero, clamp = random_zero_point(rng, dtype), random_clamp(rng, dtype)
    keywords = {"zero_point": zero, "dtype": dtype, "clamp": clamp, "rounding": rounding}
    assert_array_equal(
        requantize_q8(acc, step, **keywords),
        oracles.requantize_tflite(acc, step, zero, dtype, rounding, clamp),
    )
    acc //= 2
    bias = rng.integers(-(2**30), 2**30, len(step)).astype(np.int32)
    assert_array_equal(
        requantize_q8(acc, step, **keywords, bias=bias),
        oracles.requantize_tflite(acc + bias, step, zero, dtype, rounding, clamp),
    )


@pytest.mark.parametrize(
    ("rounding", "codes"),
    [
        ("nearest_even", [-2, 0, 0, 0, 0, 0, 2]),
        ("tflite", [-2, -1, 0, 0, 1, 1, 2]),        # rounds twice: 1/4 becomes 1/2, then 1
        ("tflite_single", [-1, 0, 0, 0, 0, 1, 2]),
    ],
)
def test_the_three_roundings_differ_on_ties(kernels, rounding, codes):
    acc = np.array([-6, -2, -1, 0, 1, 2, 6], np.int32)
    assert requantize_q8(acc, 0.25, dtype="int8", rounding=rounding).tolist() == codes


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("exponent", [-126, -33, -32, -31, -30, -1, 0, 1, 9, 10, 11, 31, 127])
def test_extremes_of_the_fixed_point_shift(kernels, rounding, exponent):
    acc = np.array([-(2**31), 1 - 2**31, -(2**30), -3, -1, 0, 1, 3, 2**30, 2**31 - 1], np.int32)
    for fraction in (1.0, 1.5, 2 - 2.0**-23):
        step = np.float32(fraction * 2.0**exponent)
        codes = requantize_q8(acc, step, zero_point=1, dtype="int8", rounding=rounding)
        assert_array_equal(codes, oracles.requantize_tflite(acc, step, 1, np.int8, rounding))


def test_requantize_takes_sums_of_any_integer_dtype_and_layout(kernels):
    acc = np.array([[1, -3, 5], [7, 300, -9]])
    want = requantize_q8(acc.astype(np.int32), [0.5, 1, 2], zero_point=9)
    assert want.tolist() == [[9, 6, 19], [13, 255, 0]]
    for form in (acc, acc.astype(">i4"), np.asfortranarray(acc), acc.tolist(), acc.astype("i2")):
        assert_array_equal(requantize_q8(form, [0.5, 1, 2], zero_point=9), want)
    assert requantize_q8(np.int32(5), 0.5).tolist() == 2
    out = np.empty((2, 3), np.int8)
    assert requantize_q8(acc, 0.01, dtype="int8", out=out) is out


def test_infinite_products_saturate(kernels):
    acc = np.array([-(2**31), -1, 0, 1, 2**31 - 1] * 9, np.int32)
    codes = requantize_q8(acc, 3.4e38, zero_point=5)
    assert codes[:5].tolist() == [0, 0, 5, 255, 255]


# ------------------------------------------------------------------------------ look up, copy


@given(seed=SEEDS, shape=SHAPES, dtype=DTYPES, table_dtype=DTYPES)
def test_lookup_reads_entry_code_less_qmin(kernels, seed, shape, dtype, table_dtype):
    rng = np.random.default_rng(seed)
    codes, table = random_codes(rng, shape, dtype), rng.permutation(256).astype(np.uint8)
    table = table.view(table_dtype)
    looked = lookup_q8(codes, table)
    assert looked.dtype == table_dtype
    assert_array_equal(looked, table[codes.astype(int) - oracles.code_range(dtype)[0]])


@given(
    seed=SEEDS, dtype=DTYPES, n=st.integers(0, 20), stride_in=st.integers(1, 4),
    stride_out=st.integers(1, 4),
)
def test_copy_writes_every_nth_code_and_nothing_else(seed, dtype, n, stride_in, stride_out):
    rng = np.random.default_rng(seed)
    x, out = random_codes(rng, 80, dtype), random_codes(rng, 80, dtype)
    want = out.copy()
    want[: n * stride_out : stride_out] = x[: n * stride_in : stride_in]
    assert copy_q8(x, out, n, stride_in=stride_in, stride_out=stride_out) is out
    assert_array_equal(out, want)


def test_copy_takes_all_that_x_holds_by_default():
    x, out = np.arange(7, dtype=np.int8), np.zeros(7, np.int8)
    assert copy_q8(x, out, stride_in=3).tolist() == [0, 3, 6, 0, 0, 0, 0]
    assert copy_q8(x[:0], out[:0]).size == 0
    assert copy_q8(x[::-2], out, stride_out=2).tolist() == [6, 3, 4, 0, 2, 0, 0]


@pytest.mark.parametrize("scale", prove_quantize.SCALES)
def test_codes_are_those_of_division(kernels, scale):
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 2**32, 2**18, np.uint32).view(np.float32)
    # Around the ties, where one unit in the last place decides.
    ties = ((rng.integers(-130, 130, 2**16) + 0.5) * np.float32(scale)).astype(np.float32)
    near = ties.view(np.int32) + rng.integers(-4, 5, ties.size, np.int32)
    for x in (anything, ties, near.view(np.float32)):
        assert prove_quantize.differences(x, scale).size == 0
