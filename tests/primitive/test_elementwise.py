"""Sums, products, clamps and softmax of codes: the float32 of (15), the integers of (18)."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_clamp, random_codes, random_zero_point

from qcy.primitive import add_q8, clamp_q8, mul_q8, softmax_q8
from qcy.primitive.elementwise import softmax_table

SHAPES = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=9, min_side=0)
BINARY = pytest.mark.parametrize(
    ("operate", "oracle"), [(add_q8, oracles.add), (mul_q8, oracles.mul)], ids=["add", "mul"]
)


def keywords_of(scales, zeros, dtype):
    names = ("a_scale", "b_scale", "out_scale", "a_zero_point", "b_zero_point", "out_zero_point")
    return {**dict(zip(names, (*scales, *zeros), strict=True)), "out_dtype": dtype}


@BINARY
@given(
    shapes=SHAPES, seed=SEEDS, a_dtype=DTYPES, b_dtype=DTYPES, dtype=DTYPES,
    n_threads=st.integers(1, 3),
)
def test_codes_follow_the_equations(
    kernels, operate, oracle, shapes, seed, a_dtype, b_dtype, dtype, n_threads
):
    rng = np.random.default_rng(seed)
    a, b = (
        random_codes(rng, shape, d) for shape, d in zip(shapes[0], (a_dtype, b_dtype), strict=True)
    )
    scales = rng.choice([1.0, 0.5, 0.1, 0.017, 3.0, 2.0**-9], 3)
    zeros = [random_zero_point(rng, d) for d in (a_dtype, b_dtype, dtype)]
    clamp = random_clamp(rng, dtype)
    codes = operate(a, b, **keywords_of(scales, zeros, dtype), clamp=clamp, n_threads=n_threads)
    assert codes.dtype == dtype
    assert_array_equal(codes, oracle(a, b, scales, zeros, dtype, clamp))


@BINARY
@pytest.mark.parametrize("dtype", Q8)
def test_every_pair_of_codes(kernels, operate, oracle, dtype):
    low, high = oracles.code_range(dtype)
    line = np.arange(low, high + 1).astype(dtype)
    for scales in ((0.1, 0.07, 0.13), (0.5, 0.25, 1.0), (1.0, 3.0, 200.0)):
        zeros = (low + 3, high - 100, low + 77)
        codes = operate(line[:, None], line, **keywords_of(scales, zeros, dtype))
        assert_array_equal(codes, oracle(line[:, None], line, scales, zeros, dtype))


def test_add_rounds_two_products_and_their_sum(kernels):
    # One fused multiply-add, or a sum in float64, gives another code for some of these.
    a, b = (codes.reshape(-1) for codes in np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2))
    found = 0
    for out_scale in (0.3, 0.7, 0.9, 1.1):
        scales = (0.1 * out_scale, 0.7 * out_scale, out_scale)
        codes = add_q8(a, b, **keywords_of(scales, (0, 0, 0), np.uint8))
        assert_array_equal(codes, oracles.add(a, b, scales, (0, 0, 0), np.uint8))
        ratios = [np.float32(scale) / np.float32(out_scale) for scale in scales[:2]]
        in_float64 = np.rint(a * np.float64(ratios[0]) + b * np.float64(ratios[1]))
        found += np.count_nonzero(oracles.saturate(in_float64, 0, np.uint8) != codes)
    assert found > 0


@pytest.mark.parametrize("operate", [add_q8, mul_q8])
def test_infinite_products_saturate(kernels, operate):
    a, b = np.array([0, 1, 255] * 30, np.uint8), np.array([1, 1, 1] * 30, np.uint8)
    codes = operate(a, b, **keywords_of((3e38, 1, 1), (1, 0, 7), np.uint8))
    assert codes[:3].tolist() == [0, 8 if operate is add_q8 else 7, 255]


def test_infinities_that_cancel_are_the_lowest_code_in_every_build(kernels):
    a, b = np.full(90, 255, np.uint8), np.zeros(90, np.uint8)
    codes = add_q8(a, b, **keywords_of((3e38, 3e38, 1), (0, 255, 7), np.uint8), clamp=(3, 200))
    assert codes.tolist() == [3] * 90


def test_the_smallest_multiplier_and_one_less(kernels):
    a = np.array([255], np.uint8)
    assert mul_q8(a, a, **keywords_of((2.0**-100, 2.0**-26, 1), (0, 0, 4), np.uint8)) == [4]
    assert add_q8(a, a, **keywords_of((2.0**-126, 1, 1), (0, 0, 0), np.uint8)) == [255]
    with pytest.raises(ValueError, match=r"multiplier of channel 0 is 5\.8.*a_scale=.*b_scale="):
        mul_q8(a, a, **keywords_of((2.0**-100, 2.0**-27, 1), (0, 0, 4), np.uint8))
    with pytest.raises(ValueError, match=r"multiplier of channel 0 is 3\.3.*b_scale=.*out_scale="):
        add_q8(a, a, **keywords_of((3e38, 1, 3e38), (0, 0, 0), np.uint8))
    with pytest.raises(ValueError, match=r"multiplier of channel 0 is inf.*a_scale=.*out_scale="):
        add_q8(a, a, **keywords_of((1e38, 1, 1e-3), (0, 0, 0), np.uint8))


@BINARY
def test_big_arrays_are_the_same_bytes_on_1_to_3_threads(kernels, operate, oracle):
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (300, 401), np.int8), random_codes(rng, 401, np.uint8)
    scales, zeros = (0.1, 0.2, 0.3), (4, 5, -6)
    want = oracle(a, b, scales, zeros, np.int8)
    for n_threads in (1, 2, 3):
        codes = operate(a, b, **keywords_of(scales, zeros, np.int8), n_threads=n_threads)
        assert_array_equal(codes, want)
        clamped = clamp_q8(codes, -5, 90, n_threads=n_threads)
        assert_array_equal(clamped, np.clip(codes, -5, 90))


@BINARY
def test_operands_of_any_layout_and_out(kernels, operate, oracle):
    rng = np.random.default_rng(1)
    a, b = random_codes(rng, (6, 8), np.uint8), random_codes(rng, (6, 8), np.int8)
    b.flags.writeable = False
    keywords = keywords_of((1, 0.5, 0.7), (7, 8, 9), np.uint8)
    for left, right in ((a.T, b.T), (a[::2], b[1::2]), (np.asfortranarray(a), b), (a, b[::-1])):
        out = np.empty(left.shape, np.uint8)
        assert operate(left, right, **keywords, out=out) is out
        assert_array_equal(out, oracle(left, right, (1, 0.5, 0.7), (7, 8, 9), np.uint8))


@given(shape=array_shapes(min_dims=0, max_dims=3, min_side=0), seed=SEEDS, dtype=DTYPES)
def test_clamp(kernels, shape, seed, dtype):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, shape, dtype)
    low, high = random_clamp(rng, dtype) or oracles.code_range(dtype)
    assert_array_equal(clamp_q8(codes, low, high), np.clip(codes, low, high))
    out = np.empty_like(codes)
    assert clamp_q8(codes, low, high, out=out) is out


# ------------------------------------------------------------------------------------- softmax


@given(
    seed=SEEDS, shape=array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=12),
    dtype=DTYPES, out_dtype=DTYPES, scale=st.sampled_from([2.0**-126, 0.003, 0.1, 1.0, 9.0, 1e30]),
)
def test_softmax_follows_equation_18(kernels, seed, shape, dtype, out_dtype, scale):
    codes = random_codes(np.random.default_rng(seed), shape, dtype)
    result = softmax_q8(codes, softmax_table(scale), out_dtype=out_dtype)
    assert result.dtype == out_dtype
    assert result.shape == shape
    if codes.size:
        rows, results = (array.reshape(-1, shape[-1]) for array in (codes, result))
        for row, got in zip(rows, results, strict=True):
            assert_array_equal(got, oracles.softmax(row, scale, out_dtype))


def test_softmax_table_is_that_of_equation_18():
    table = softmax_table(0.1)
    assert table.dtype == np.int32
    assert table[0] == 2**24
    assert table[1] == 15180653         # 2**24 * exp(-float32(0.1)) = 15180652.8
    assert np.all(np.diff(table) <= 0)


def test_softmax_of_long_rows_and_3_threads(kernels):
    codes = random_codes(np.random.default_rng(2), (700, 301), np.int8)
    table = softmax_table(0.05)
    results = [softmax_q8(codes, table, n_threads=n) for n in (1, 2, 3)]
    assert_array_equal(results[0][0], oracles.softmax(codes[0], 0.05, np.uint8))
    assert_array_equal(results[0], results[1])
    assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros(256, np.int32), r"table\[0\] must be positive"),
        (-softmax_table(0.1), "table must hold no negative number"),
    ],
)
def test_tables_that_are_no_exponentials_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        softmax_q8(np.zeros((2, 2), np.uint8), table)
