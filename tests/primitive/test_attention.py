"""Attention on codes: exact scores, the float32 of equation (25), and its limits."""

import numpy as np
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, code_range, random_clamp, random_codes, random_zero_point

from qcy.primitive import attention_q8

NAMES = ("q", "k", "v", "out")
ONES = (1.0, 1.0, 1.0, 1.0)


def attend(q, k, v, n_heads, scales, zeros=(0, 0, 0), **keywords):
    """Call with scales of q, k, v and the output, and zero points of q, v and the output."""
    return attention_q8(
        q, k, v, n_heads=n_heads,
        **{f"{name}_scale": scale for name, scale in zip(NAMES, scales, strict=True)},
        **dict(zip(("q_zero_point", "v_zero_point", "out_zero_point"), zeros, strict=True)),
        **keywords,
    )


def random_operands(rng, dtypes, batch, n_queries, n_keys, n_heads, depth, width):
    shapes = (
        (*batch, n_queries, n_heads * depth), (*batch, n_keys, n_heads * depth),
        (*batch, n_keys, n_heads * width),
    )
    return [random_codes(rng, shape, d) for shape, d in zip(shapes, dtypes, strict=True)]


SIZES = {
    "batch": st.lists(st.integers(0, 3), max_size=2), "n_queries": st.integers(0, 40),
    "n_keys": st.integers(1, 140), "n_heads": st.integers(1, 4), "depth": st.integers(1, 70),
    "width": st.integers(1, 140),
}


@given(
    seed=SEEDS, dtypes=st.tuples(DTYPES, DTYPES, DTYPES), dtype=DTYPES,
    sizes=st.fixed_dictionaries(SIZES), n_threads=st.integers(1, 3),
    score_scale=st.sampled_from([None, None, 1.0, 0.3, 1e-6, 100.0]),
)
@example(
    seed=1, dtypes=(np.int8, np.uint8, np.int8), dtype=np.uint8, n_threads=3, score_scale=None,
    sizes={"batch": [3], "n_queries": 65, "n_keys": 129, "n_heads": 4, "depth": 33, "width": 31},
)
def test_codes_follow_equation_25(kernels, seed, dtypes, dtype, sizes, n_threads, score_scale):
    rng = np.random.default_rng(seed)
    q, k, v = random_operands(rng, dtypes, **sizes)
    scales = rng.choice([0.02, 0.003, 0.1, 2.0**-9, 1.0, 0.0007], 4)
    zeros = [random_zero_point(rng, d) for d in (dtypes[0], dtypes[2], dtype)]
    clamp, n_heads = random_clamp(rng, dtype), sizes["n_heads"]
    codes = attend(
        q, k, v, n_heads, scales, zeros, score_scale=score_scale, out_dtype=dtype, clamp=clamp,
        n_threads=n_threads,
    )
    assert codes.dtype == dtype
    want = oracles.attention(q, k, v, n_heads, scales, zeros, score_scale, dtype, clamp)
    assert_array_equal(codes, want)


def test_big_attention_is_the_same_bytes_on_1_to_3_threads(kernels):
    rng = np.random.default_rng(0)
    q, k, v = random_operands(rng, (np.uint8, np.int8, np.uint8), (2,), 70, 200, 3, 64, 48)
    scales, zeros = (0.02, 0.01, 0.1, 0.04), (131, 7, 120)
    want = oracles.attention(q, k, v, 3, scales, zeros)
    for n_threads in (1, 2, 3):
        assert_array_equal(attend(q, k, v, 3, scales, zeros, n_threads=n_threads), want)


@pytest.mark.parametrize("dtypes", [(np.int8, np.int8), (np.uint8, np.uint8)])
def test_one_key_gives_its_value(kernels, dtypes):
    q, k = (np.full((5, 3), code_range(dtypes[0])[1], dtypes[0]) for _ in range(2))
    v = random_codes(np.random.default_rng(0), (1, 7), dtypes[1])
    codes = attend(q, k[:1], v, 1, ONES, (0, 3, 3), out_dtype=dtypes[1])
    assert_array_equal(codes, np.repeat(v, 5, axis=0))


def test_equal_scores_give_the_mean(kernels):
    q, k = np.full((3, 4), 9, np.uint8), np.full((130, 4), 77, np.uint8)
    v = np.arange(130, dtype=np.uint8)[:, None].repeat(2, axis=1)
    v[:, 1] = 200
    assert_array_equal(attend(q, k, v, 1, ONES), [[64, 200]] * 3)       # 64.5, a tie


def test_zero_point_of_the_keys_changes_nothing(kernels):
    rng = np.random.default_rng(0)
    q, k, v = random_operands(rng, (np.uint8,) * 3, (2,), 9, 30, 2, 20, 10)
    keys = k // 2
    one, two = (
        attend(q, moved, v, 2, (0.02, 0.05, 1, 1), (90, 0, 0))
        for moved in (keys, keys + np.uint8(100))
    )
    assert_array_equal(one, two)
    flipped = (keys ^ 0x80).view(np.int8)
    assert_array_equal(attend(q, flipped, v, 2, (0.02, 0.05, 1, 1), (90, 0, 0)), one)


def test_weights_at_every_distance(kernels):
    # One query, two keys of one number: the second lies 0 to 255 steps behind the first.
    weights = []
    for step in (2.0**-9, 2.0**-5, 0.1, 0.5, 1.0, 3.0, 20.0):
        scale = step / np.log2(np.e)
        k = np.stack([np.full(256, 255), np.arange(256)], axis=1).astype(np.uint8)
        q, v = np.ones((256, 1, 1), np.uint8), np.array([[0], [255]], np.uint8)
        codes = attend(
            q, k[..., None], np.broadcast_to(v, (256, 2, 1)), 1, (scale, 1, 1, 1), score_scale=1
        )
        want = oracles.attention(
            q, k[..., None], np.broadcast_to(v, (256, 2, 1)), 1, (scale, 1, 1, 1), score_scale=1
        )
        assert_array_equal(codes, want)
        weights.append(codes.ravel())
        assert np.all(np.diff(codes.ravel().astype(int)) >= 0)
    # More than 16 powers of two behind, nothing is left of it; nor of what is 9 behind.
    assert weights[-1][:255].tolist() == [0] * 255
    assert weights[4][-17:].tolist()[:8] == [0] * 8


def test_weights_are_powers_of_two_within_a_fortieth_of_a_code():
    distances = np.arange(0, 2**16)
    step = np.float32(16 / 2**16)
    weights = oracles.attention_weights(-np.append(0, distances), step)[1:]
    exact = 255 * 2.0 ** (-distances * np.float64(step))
    assert np.abs(weights - exact).max() <= 0.5 + 1 / 40
    # Sharper, without the last rounding:
    part = np.linspace(-0.5, 0.5, 9999)
    power = np.polynomial.polynomial.polyval(part, [1, -0.6932829, 0.24221095, -0.05500893])
    assert np.abs(power * 2.0**part - 1).max() < 1.02e-4


@pytest.mark.parametrize("dtype", Q8)
def test_the_longest_sums_fit(kernels, dtype):
    low, high = code_range(dtype)
    q = np.full((1, 32768), high, dtype)
    k = np.stack([np.full(32768, high, dtype), np.full(32768, low, dtype)])
    v = np.array([[high], [low]], dtype)
    # Scores 2**31 - 2**25 apart or so, and the sum of 255 * 255, 32768 times.
    for zero in (low, high):
        for keys in (k, k[::-1].copy()):
            scales, zeros = (1e-9, 1, 1, 1), (zero, low, low)
            codes = attend(q, keys, v, 1, scales, zeros, score_scale=1, out_dtype=dtype)
            want = oracles.attention(q, keys, v, 1, scales, zeros, 1, dtype)
            assert_array_equal(codes, want)
    many = np.full((32768, 1), high, dtype)
    for v_zero in (low, high):
        codes = attend(
            many[:1], many, many, 1, ONES, (low, v_zero, v_zero), out_dtype=dtype
        )
        assert_array_equal(codes, [[high]])


@pytest.mark.parametrize("scales", [
    (2.0**-126, 2.0**-126, 1, 1), (3e38, 3e38, 1, 1), (1e-20, 1e-20, 1, 1),
    (1, 1, 2.0**-126, 3e38), (1, 1, 3e38, 2.0**-126), (0.1, 0.1, 2.0**30, 1),
    (0.1, 0.1, 1, 2.0**-24),
])
def test_extreme_scales(kernels, scales):
    rng = np.random.default_rng(0)
    q, k, v = random_operands(rng, (np.uint8, np.int8, np.uint8), (3,), 5, 70, 2, 9, 40)
    for zeros in ((0, 0, 0), (255, 255, 255), (128, 100, 7)):
        codes = attend(q, k, v, 2, scales, zeros, clamp=(3, 250))
        want = oracles.attention(q, k, v, 2, scales, zeros, clamp=(3, 250))
        assert_array_equal(codes, want)


def test_operands_of_any_layout():
    rng = np.random.default_rng(1)
    q, k, v = random_operands(rng, (np.uint8,) * 3, (3,), 6, 8, 2, 5, 4)
    want = attend(q, k, v, 2, (0.01, 0.1, 1, 1))
    q.flags.writeable = False
    wide = np.repeat(v, 2, axis=1)[:, ::2]
    assert_array_equal(attend(q, np.asfortranarray(k), wide, 2, (0.01, 0.1, 1, 1)), want)
    one = attend(q[1], k[1], v[1], 2, (0.01, 0.1, 1, 1))
    assert_array_equal(one, want[1])


GOOD = {"q": np.ones((2, 3, 4), np.uint8), "k": np.ones((2, 5, 4), np.uint8),
        "v": np.ones((2, 5, 6), np.uint8)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"q": np.ones((2, 3, 4))}, TypeError, "q must be int8 or uint8"),
        ({"k": np.ones((2, 5, 4), np.int16)}, TypeError, "k must be int8 or uint8"),
        ({"v": [[1.5]]}, TypeError, "v must be int8 or uint8"),
        ({"q": np.ones(4, np.uint8)}, ValueError, "q must have at least 2 dimensions"),
        ({"k": np.ones((2, 5, 3), np.uint8)}, ValueError, "k must have a multiple of 2 features"),
        ({"v": np.ones((2, 5, 0), np.uint8)}, ValueError, "v must have a multiple of 2 features"),
        ({"q": np.ones((3, 3, 4), np.uint8)}, ValueError, "q, k and v must be .*got shapes"),
        ({"q": np.ones((2, 3, 6), np.uint8)}, ValueError, "q, k and v must be"),
        ({"v": np.ones((2, 4, 6), np.uint8)}, ValueError, "q, k and v must be"),
        ({"k": np.ones((2, 0, 4), np.uint8), "v": np.ones((2, 0, 6), np.uint8)}, ValueError,
         r"k must have 1 to 32768 rows, got shape \(2, 0, 4\)"),
        ({"k": np.ones((2, 32769, 4), np.uint8), "v": np.ones((2, 32769, 6), np.uint8)},
         ValueError, "k must have 1 to 32768 rows"),
        ({"q": np.ones((2, 1, 65538), np.uint8), "k": np.ones((2, 5, 65538), np.uint8)},
         ValueError, "q must have at most 32768 features a head, got 32769"),
        ({"n_heads": 0}, ValueError, "n_heads must be at least 1"),
        ({"n_heads": 2.0}, TypeError, "n_heads must be an int"),
        ({"q_scale": 0}, ValueError, "q_scale must be positive"),
        ({"k_scale": "1"}, TypeError, "k_scale must be a real number"),
        ({"v_scale": np.inf}, ValueError, "v_scale must be positive, finite"),
        ({"out_scale": [1, 1]}, ValueError, "out_scale must be"),
        ({"score_scale": -1}, ValueError, "score_scale must be positive"),
        ({"q_zero_point": 256}, ValueError, "q_zero_point must be in"),
        ({"v_zero_point": -1}, ValueError, "v_zero_point must be in"),
        ({"out_zero_point": 300}, ValueError, "out_zero_point must be in"),
        ({"out_dtype": "int16"}, TypeError, "out_dtype must be int8 or uint8"),
        ({"clamp": (9, 3)}, ValueError, "clamp must"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, error, message):
    given = {**GOOD, "n_heads": 2, **{f"{name}_scale": 1 for name in NAMES}, **changes}
    out = np.full((2, 3, 6), 77, np.uint8)
    with pytest.raises(error, match=message):
        attention_q8(given.pop("q"), given.pop("k"), given.pop("v"), **given, out=out)
    assert np.all(out == 77)


def test_the_polynomial_of_the_oracle_is_monotonous_at_the_seams():
    weights = oracles.attention_weights(-np.arange(0, 2**14), np.float32(2.0**-10))
    assert np.all(np.diff(weights) <= 0)
    assert (weights[0], weights[-1]) == (255, 0)
    assert weights[1024] in (127, 128)
