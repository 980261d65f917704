"""Layer norm of codes: exact sums, the float32 of equation (24), and its limits."""

import numpy as np
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, code_range, random_clamp, random_codes, random_zero_point

from qcy.primitive import layer_norm_q8


def check(codes, gamma, beta, scale, out_scale, out_zero=0, epsilon=1e-5, dtype=np.uint8,
          clamp=None, n_threads=None):
    """Return the result, having compared it with the oracle."""
    result = layer_norm_q8(
        codes, gamma, beta, scale=scale, out_scale=out_scale, out_zero_point=out_zero,
        epsilon=epsilon, out_dtype=dtype, clamp=clamp, n_threads=n_threads,
    )
    assert result.dtype == dtype
    assert_array_equal(
        result,
        oracles.layer_norm(codes, gamma, beta, scale, out_scale, out_zero, epsilon, dtype, clamp),
    )
    return result


@given(
    seed=SEEDS, lead=st.lists(st.integers(0, 9), max_size=2), n=st.integers(1, 600),
    in_dtype=DTYPES, dtype=DTYPES, n_threads=st.integers(1, 3),
    epsilon=st.sampled_from([1e-5, 0.0, 1e-30, 0.1, 1e6, 1e300]),
    scale=st.sampled_from([0.1, 0.003, 1.0, 2.0**-126, 3e38]),
)
@example(seed=0, lead=[700], n=300, in_dtype=np.int8, dtype=np.uint8, n_threads=3, epsilon=1e-5,
         scale=0.1)
def test_codes_follow_equation_24(
    kernels, seed, lead, n, in_dtype, dtype, n_threads, epsilon, scale
):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, (*lead, n), in_dtype)
    gamma, beta = rng.normal(size=n), rng.normal(size=n)
    check(codes, gamma, beta, scale, rng.choice([0.03, 0.01, 0.5]), random_zero_point(rng, dtype),
          epsilon, dtype, random_clamp(rng, dtype), n_threads)


@pytest.mark.parametrize("dtype", Q8)
@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 1e-30, 1e-300, 5e-324, 1e300])
@pytest.mark.parametrize("scale", [2.0**-126, 0.1, 3e38])
def test_equal_codes_give_beta(kernels, dtype, epsilon, scale):
    for n in (1, 3, 64, 200):
        for code in (*code_range(dtype), 7):
            codes = np.full((3, n), code, dtype)
            beta = np.linspace(-1, 1, n)
            result = check(codes, np.full(n, -1e30), beta, scale, 0.01, 128, epsilon)
            assert_array_equal(result[0], oracles.quantize(beta, 0.01, 128, np.uint8))


def test_one_feature_is_at_its_mean(kernels):
    codes = np.arange(256, dtype=np.uint8)[:, None]
    assert np.all(check(codes, [5.0], [0.5], 0.1, 0.01, 3) == 53)


def test_the_most_features(kernels):
    rng, n = np.random.default_rng(0), 65536
    gamma, beta = rng.normal(size=n), rng.normal(size=n)
    rows = np.zeros((4, n), np.uint8)
    rows[1] = 255
    rows[2, ::2] = 255
    rows[3, 7] = 255                # a distance of sqrt(n)
    check(rows, gamma, beta, 0.1, 0.03, 128)
    check((rows ^ 0x80).view(np.int8), gamma, beta, 0.1, 2.0, 128)
    with pytest.raises(ValueError, match=r"codes must have 1 to 65536 features, got shape \(1, 65"):
        layer_norm_q8(np.zeros((1, n + 1), np.uint8), gamma, beta, scale=1, out_scale=1)


@pytest.mark.parametrize("size", [1e7, 2.0**30, 2.0**31, 1e20, 3e38])
@pytest.mark.parametrize("dtype", Q8)
def test_wild_outputs_saturate(kernels, size, dtype):
    rng = np.random.default_rng(0)
    codes = random_codes(rng, (50, 90), np.uint8)
    codes[:40] = rng.integers(0, 256, (40, 90))
    signs = rng.choice([-1.0, 1.0], (2, 90))
    low, high = code_range(dtype)
    for gamma, beta in ((size, 1), (1, size), (size, size), (0, size), (size, 0)):
        result = check(
            codes, gamma * signs[0], beta * signs[1], 0.1, 1.0, low + 9, dtype=dtype,
            clamp=(low + 2, high - 5),
        )
        assert {low + 2, high - 5} <= set(result.ravel().tolist())


def test_the_zero_point_cancels(kernels):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 100, (9, 77), np.uint8)
    keywords = {"scale": 0.1, "out_scale": 0.02, "out_zero_point": 128}
    gamma, beta = rng.normal(size=(2, 77))
    want = layer_norm_q8(codes, gamma, beta, **keywords)
    assert_array_equal(layer_norm_q8(codes + np.uint8(155), gamma, beta, **keywords), want)
    assert_array_equal(layer_norm_q8(codes.view(np.int8), gamma, beta, **keywords), want)


def test_rounding_of_gamma_and_beta_is_to_float32_once(kernels):
    # Taken as float32, divided in float64, rounded once more.
    rng = np.random.default_rng(0)
    codes = random_codes(rng, (3, 500), np.uint8)
    gamma, beta = rng.normal(size=(2, 500)).astype(np.float32)
    a = check(codes, gamma, beta, 0.1, 0.3, 100)
    assert_array_equal(check(codes, gamma.astype(np.float64), beta.tolist(), 0.1, 0.3, 100), a)


GOOD = {"codes": np.ones((2, 3), np.uint8), "gamma": np.ones(3), "beta": np.zeros(3)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"codes": np.ones((2, 3))}, TypeError, "codes must be int8 or uint8"),
        ({"codes": np.ones((2, 0), np.uint8)}, ValueError, "codes must have 1 to 65536 features"),
        ({"codes": np.uint8(3)}, ValueError, r"65536 features, got shape \(\)"),
        ({"gamma": np.ones(4)}, ValueError, r"gamma must have shape \(3,\), one for each feature"),
        ({"beta": 1.0}, ValueError, r"beta must have shape \(3,\)"),
        ({"beta": "x"}, TypeError, "beta must hold real numbers"),
        ({"gamma": [1, np.nan, 1]}, ValueError, "gamma must be finite, got nan"),
        ({"beta": [1, np.inf, 1]}, ValueError, "beta must be finite, got inf"),
        ({"beta": [1, 1e39, 1]}, ValueError, "beta must be finite, got inf"),
        ({"scale": 0}, ValueError, "scale must be positive"),
        ({"out_scale": np.nan}, ValueError, "out_scale must be positive"),
        ({"out_scale": 1e-37, "gamma": [-100.0, 0, 0]}, ValueError,
         "gamma / out_scale must fit float32, got gamma of 100 and an out_scale of 1e-37"),
        ({"out_scale": 1e-37, "beta": [0, 200.0, 0]}, ValueError,
         "beta / out_scale must fit float32, got beta of 200"),
        ({"epsilon": -1e-9}, ValueError, "epsilon must not be negative"),
        ({"epsilon": np.nan}, ValueError, "epsilon must not be negative, got nan"),
        ({"epsilon": "a"}, TypeError, "epsilon must be a real number"),
        ({"out_zero_point": -1}, ValueError, "out_zero_point must be in"),
        ({"out_dtype": "float32"}, TypeError, "out_dtype must be int8 or uint8"),
        ({"clamp": (5, 4)}, ValueError, "clamp must"),
        ({"n_threads": "2"}, TypeError, "n_threads must be an int"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, error, message):
    given = {**GOOD, "scale": 1, "out_scale": 1, **changes}
    out = np.full((2, 3), 77, np.uint8)
    operands = (given.pop("codes"), given.pop("gamma"), given.pop("beta"))
    with pytest.raises(error, match=message):
        layer_norm_q8(*operands, **given, out=out)
    assert np.all(out == 77)
