"""Matrix products are exact to the last bit: every build, every shape, 1 to 3 threads."""

import numpy as np
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_clamp, random_codes, random_zero_point

from qcy.primitive import gemm_batched_q8, gemm_nn_q8, gemm_nn_q8_accum, pack_q8

ROWS = st.integers(0, 30)
INNER = st.integers(0, 40)
COLUMNS = st.integers(0, 150)       # past two of the widest panels
SCALES = st.sampled_from([1.0, 0.5, 0.25, 1e-3, 0.017, 3.0])


def random_product(rng, m, k, n, a_dtype, b_dtype):
    """Return two operands and the keywords that tell their zero points and a bias."""
    a, b = random_codes(rng, (m, k), a_dtype), random_codes(rng, (k, n), b_dtype)
    keywords = {"a_zero_point": random_zero_point(rng, a_dtype)}
    per_column = rng.random() < 0.5
    if rng.random() < 0.8:
        keywords["b_zero_point"] = random_zero_point(rng, b_dtype, (n,) if per_column else None)
    if rng.random() < 0.5:
        keywords["bias"] = rng.integers(-(2**30), 2**30, n, dtype=np.int32)
    return a, b, keywords


def exact(a, b, keywords):
    names = ("a_zero_point", "b_zero_point", "bias")
    return oracles.sums(a, b, *(keywords.get(name, 0) for name in names))


@given(
    seed=SEEDS, m=ROWS, k=INNER, n=COLUMNS, a_dtype=DTYPES, b_dtype=DTYPES,
    n_threads=st.integers(1, 3),
)
@example(seed=0, m=5, k=0, n=7, a_dtype=np.uint8, b_dtype=np.int8, n_threads=1)
@example(seed=0, m=25, k=33, n=129, a_dtype=np.int8, b_dtype=np.uint8, n_threads=2)
def test_sums_are_exact(kernels, seed, m, k, n, a_dtype, b_dtype, n_threads):
    rng = np.random.default_rng(seed)
    a, b, keywords = random_product(rng, m, k, n, a_dtype, b_dtype)
    acc = gemm_nn_q8_accum(a, b, **keywords, n_threads=n_threads)
    assert acc.dtype == np.int32
    assert_array_equal(acc, exact(a, b, keywords))


@given(
    seed=SEEDS, m=ROWS, k=INNER, n=COLUMNS, a_dtype=DTYPES, b_dtype=DTYPES, out_dtype=DTYPES,
    out_scale=SCALES, n_threads=st.integers(1, 3),
)
def test_codes_follow_equation_9(
    kernels, seed, m, k, n, a_dtype, b_dtype, out_dtype, out_scale, n_threads
):
    rng = np.random.default_rng(seed)
    a, b, keywords = random_product(rng, m, k, n, a_dtype, b_dtype)
    b_scale = rng.uniform(1e-3, 1, n) if rng.random() < 0.5 else rng.uniform(1e-3, 1)
    zero, clamp = random_zero_point(rng, out_dtype), random_clamp(rng, out_dtype)
    codes = gemm_nn_q8(
        a, b, **keywords, a_scale=0.5, b_scale=b_scale, out_scale=out_scale, clamp=clamp,
        out_zero_point=zero, out_dtype=out_dtype, n_threads=n_threads,
    )
    assert codes.dtype == out_dtype
    step = oracles.multiplier(0.5, b_scale, out_scale)
    assert_array_equal(
        codes, oracles.requantize(exact(a, b, keywords), step, zero, out_dtype, clamp)
    )


@pytest.mark.parametrize("dtype", Q8)
def test_ties_go_to_even_before_the_zero_point_is_added(kernels, dtype):
    a = np.arange(12, dtype=np.uint8).reshape(-1, 1)
    b = np.ones((1, 70), np.int8)
    codes = gemm_nn_q8(
        a, b, a_scale=1, b_scale=1, out_scale=2, a_zero_point=6, out_zero_point=7, out_dtype=dtype
    )
    assert codes[:, 0].tolist() == codes[:, -1].tolist() == [4, 5, 5, 5, 6, 7, 7, 7, 8, 9, 9, 9]


@pytest.mark.parametrize("rounding", ["tflite", "tflite_single"])
@given(seed=SEEDS, m=st.integers(0, 4), k=INNER, n=st.integers(0, 20), out_dtype=DTYPES)
def test_roundings_of_tflite(kernels, rounding, seed, m, k, n, out_dtype):
    rng = np.random.default_rng(seed)
    a, b, keywords = random_product(rng, m, k, n, np.int8, np.int8)
    keywords.pop("bias", None)
    b_scale = 2.0 ** rng.integers(-12, 2, n) * rng.choice([1.0, 0.75, 0.3], n)
    zero, clamp = random_zero_point(rng, out_dtype), random_clamp(rng, out_dtype)
    codes = gemm_nn_q8(
        a, b, **keywords, a_scale=1, b_scale=b_scale, out_scale=1, out_zero_point=zero,
        out_dtype=out_dtype, rounding=rounding, clamp=clamp,
    )
    step = oracles.multiplier(1, b_scale, 1)
    assert_array_equal(codes, oracles.requantize_tflite(
        exact(a, b, keywords), step, zero, out_dtype, rounding, clamp
    ))


@pytest.mark.parametrize(
    ("m", "k", "n"), [(400, 64, 100), (4, 700, 600), (97, 257, 65)],
    ids=["split by rows", "split by panels", "odd"],
)
@pytest.mark.parametrize("zero_point", [0, 3])
def test_big_products_are_the_same_bytes_on_1_to_3_threads(kernels, m, k, n, zero_point):
    rng = np.random.default_rng(m)
    a, b = random_codes(rng, (m, k), np.uint8), rng.integers(-128, 128, (k, n), np.int8)
    want = oracles.sums(a, b, 7, zero_point)
    step = oracles.multiplier(0.1, 0.02, 3)
    for n_threads in (1, 2, 3):
        zeros = {"a_zero_point": 7, "b_zero_point": zero_point, "n_threads": n_threads}
        assert_array_equal(gemm_nn_q8_accum(a, b, **zeros), want)
        codes = gemm_nn_q8(a, b, **zeros, a_scale=0.1, b_scale=0.02, out_scale=3)
        assert_array_equal(codes, oracles.requantize(want, step, 0, np.uint8))


# ------------------------------------------------------------------------------ numeric limits

MAX = 2**31 - 1
WHOLE, REST = divmod(MAX // 255, 255)       # 255 * (WHOLE * 255 + REST) + 127 == MAX


def longest_column(dtype):
    """Return a column and its zero point with ``255 * sum |b - zb| == MAX - 127``."""
    low, high = oracles.code_range(dtype)
    return np.array([high] * WHOLE + [low + REST], dtype).reshape(-1, 1), low


@pytest.mark.parametrize("dtype", Q8)
@pytest.mark.parametrize("a_dtype", Q8)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_is_exact(kernels, dtype, a_dtype, sign):
    b, zero = longest_column(dtype)
    b = np.concatenate([np.full_like(b, zero), b], axis=1)
    low, high = oracles.code_range(a_dtype)
    a = np.full((3, len(b)), high if sign > 0 else low, a_dtype)
    zeros = {"a_zero_point": low if sign > 0 else high, "b_zero_point": zero}
    acc = gemm_nn_q8_accum(a, b, **zeros, bias=np.array([5, sign * 127]))
    assert acc.tolist() == [[5, sign * MAX]] * 3


@pytest.mark.parametrize("dtype", Q8)
@pytest.mark.parametrize("bias", [128, -128])
def test_one_more_than_the_largest_sum_names_the_column(kernels, dtype, bias):
    b, zero = longest_column(dtype)
    b = np.concatenate([np.full_like(b, zero), b], axis=1)
    with pytest.raises(ValueError, match=f"column 1 can reach {MAX + 1}, .* not exceed {MAX}"):
        pack_q8(b, b_zero_point=zero, bias=np.array([0, bias]))


def test_zero_weights_far_from_their_zero_point_are_too_long():
    with pytest.raises(ValueError, match="column 0 can reach 2266950000"):
        gemm_nn_q8_accum(
            np.zeros((1, 70000), np.uint8), np.zeros((70000, 1), np.int8), b_zero_point=127
        )


def test_raw_sums_may_wrap_if_the_final_sum_fits(kernels):
    a, b = np.full((2, 70000), 255, np.uint8), np.full((70000, 3), 127, np.int8)
    acc = gemm_nn_q8_accum(a, b, b_zero_point=127, bias=np.array([-9, 0, 9]))
    assert acc.tolist() == [[-9, 0, 9]] * 2


def test_the_smallest_multiplier(kernels):
    a, b = np.full((1, 1), 255, np.uint8), np.ones((1, 3), np.int8)
    codes = gemm_nn_q8(a, b, a_scale=2.0**-100, b_scale=2.0**-26, out_scale=1, out_zero_point=9)
    assert codes.tolist() == [[9, 9, 9]]


@pytest.mark.parametrize(
    ("a_scale", "b_scale", "out_scale", "value"),
    [
        (2.0**-100, [1, 2.0**-26, 2.0**-27], 1, "5.87"),        # just below the smallest normal
        (1e-30, [1, 1, 1e-30], 1e-30, "0.0"),       # the product underflows first
        (1e20, [1, 1, 1e20], 1e20, "inf"),          # and overflows first
        (1, [1, 1, 3e38], 0.5, "inf"),
    ],
)
@pytest.mark.parametrize("rounding", ["nearest_even", "tflite"])
def test_multipliers_out_of_range_name_the_channel(a_scale, b_scale, out_scale, value, rounding):
    a, b = np.zeros((1, 1), np.uint8), np.ones((1, 3), np.int8)
    with pytest.raises(ValueError, match=f"multiplier of channel 2 is {value}.*weight scale="):
        gemm_nn_q8(
            a, b, a_scale=a_scale, b_scale=b_scale, out_scale=out_scale, rounding=rounding
        )


def test_infinite_products_saturate(kernels):
    a = np.array([[0], [1], [255]], np.uint8)
    b = np.array([[-128, 127]], np.int8)
    codes = gemm_nn_q8(a, b, a_scale=3e38, b_scale=1, out_scale=1, out_zero_point=100)
    assert codes.tolist() == [[100, 100], [0, 255], [0, 255]]


# ------------------------------------------------------------------------------- at the door


def variations(array):
    """Return the same values in every form that a caller may hold them in."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    fixed = array.copy()
    fixed.flags.writeable = False
    return {
        "read-only": fixed,
        "strided": wide[..., ::2],
        "reversed": array[..., ::-1].copy()[..., ::-1],
        "Fortran": np.asfortranarray(array),
        "broadcast": np.broadcast_to(array[:1], array.shape),
    }


@pytest.mark.parametrize("form", ["read-only", "strided", "reversed", "Fortran", "broadcast"])
def test_operands_of_any_layout(kernels, form):
    rng = np.random.default_rng(3)
    a = variations(random_codes(rng, (9, 13), np.uint8))[form]
    b = variations(rng.integers(-128, 128, (13, 21), np.int8))[form]
    assert_array_equal(gemm_nn_q8_accum(a, b), oracles.sums(a, b))


def test_parameters_of_any_integer_and_real_kind(kernels):
    a, b = np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((3, 2), np.int8)
    want = gemm_nn_q8(
        a, b, a_scale=1, b_scale=[1, 2], out_scale=1, bias=np.array([3, -1], np.int32),
        b_zero_point=[1, 0],
    )
    codes = gemm_nn_q8(
        a, b, a_scale=np.float64(1), b_scale=np.array([1, 2], ">f8"), out_scale=np.array(1),
        bias=np.array([3, -1], ">i8"), b_zero_point=np.array([1, 0], ">u2"),
        a_zero_point=np.int16(0), clamp=(np.uint8(0), 255),
    )
    assert_array_equal(codes, want)


def test_out_is_returned(kernels):
    a, b = np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8)
    out = np.full((2, 4), -1, np.int32)
    assert gemm_nn_q8_accum(a, b, out=out) is out
    assert_array_equal(out, 3)
    out = np.full((2, 4), -1, np.int8)
    scales = {"a_scale": 1, "b_scale": 1, "out_scale": 1}
    assert gemm_nn_q8(a, b, **scales, out_dtype="int8", out=out) is out
    assert_array_equal(out, 3)
    assert gemm_nn_q8(
        a, b, **scales, out_dtype="int8", out=out, rounding="tflite", out_zero_point=1
    ) is out
    assert_array_equal(out, 4)


# ------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize(
    ("lead_a", "lead_b"),
    [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((2, 3), (1, 1)), ((0,), ()), ((), (0, 2)),
     ((1, 4), (0, 1)), ((2,), (2,))],
)
@pytest.mark.parametrize("inner", [0, 7])
def test_leading_axes_broadcast(kernels, lead_a, lead_b, inner):
    rng = np.random.default_rng(len(lead_a))
    a = random_codes(rng, (*lead_a, 4, inner), np.int8)
    b = random_codes(rng, (*lead_b, inner, 5), np.uint8)
    bias = rng.integers(-99, 99, 5, dtype=np.int32)
    zeros = {"a_zero_point": -7, "b_zero_point": [0, 1, 2, 128, 255]}
    codes = gemm_batched_q8(
        a, b, **zeros, bias=bias, a_scale=0.5, b_scale=0.01, out_scale=1, out_zero_point=30
    )
    step = oracles.multiplier(0.5, 0.01, 1)
    want = oracles.sums(a, b, *zeros.values(), bias)
    assert_array_equal(codes, oracles.requantize(want, step, 30, np.uint8))


def test_batches_take_packed_weights_and_out(kernels):
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (2, 3, 4, 6), np.uint8), rng.integers(-128, 128, (6, 5), np.int8)
    packed = pack_q8(b, b_scale=0.01)
    out = np.empty((2, 3, 4, 5), np.uint8)
    assert gemm_batched_q8(a, packed, a_scale=1, out_scale=1, out=out) is out
    want = oracles.requantize(oracles.sums(a, b), np.float32(0.01), 0, np.uint8)
    assert_array_equal(out, want)
