"""Products of reals with 8-bit weights, quantized on the way: equations (6) and (22), exactly."""

import numpy as np
import oracles
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import SEEDS

from qcy.primitive import gemm_dynamic_q8, pack_q8, quantize_dynamic_q8

F32 = np.float32


def params(x):
    """Return scale and zero point of equation (6), float32 throughout."""
    low, high = np.minimum(x.min(initial=0), F32(0)), np.maximum(x.max(initial=0), F32(0))
    scale = F32(1) if low == high else max((high - low) / F32(255), np.finfo(F32).tiny)
    return scale, int(np.rint(np.clip(-low / scale, 0, 255)))


def expected(a, b, b_scale, bias, per_row):
    """Return equation (22): two float32 roundings."""
    out = np.empty((len(a), b.shape[1]), F32)
    for i, row in enumerate(a):
        scale, zero = params(row if per_row else a)
        codes = oracles.quantize(row, scale, zero, np.uint8)
        acc = oracles.sums(codes[None], b, zero)[0]
        out[i] = acc.astype(F32) * (scale * np.broadcast_to(F32(b_scale), b.shape[1:])) + bias
    return out


@given(
    seed=SEEDS, m=st.integers(0, 30), k=st.integers(0, 150), n=st.integers(0, 150),
    per_row=st.booleans(), n_threads=st.integers(1, 3),
)
@example(seed=0, m=200, k=96, n=130, per_row=True, n_threads=2)
@example(seed=0, m=1, k=1100, n=1000, per_row=False, n_threads=3)
def test_reals_follow_equations_6_and_22(kernels, seed, m, k, n, per_row, n_threads):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((m, k), F32) * F32(10.0 ** rng.integers(-3, 4))
    a *= rng.random((m, 1)) > 0.1               # rows of zeros too
    a = np.abs(a) if rng.random() < 0.3 else a
    b = rng.integers(-127, 128, (k, n), np.int8)
    b_scale = rng.uniform(1e-3, 1, n) if rng.random() < 0.5 else 0.25
    bias = rng.standard_normal(n).astype(F32) if rng.random() < 0.5 else None
    packed = pack_q8(b, b_scale=b_scale)
    y = gemm_dynamic_q8(a, packed, bias=bias, per_row=per_row, n_threads=n_threads)
    assert y.dtype == np.float32
    assert_array_equal(y, expected(a, b, b_scale, F32(0) if bias is None else bias, per_row))


def test_codes_are_those_of_quantize_dynamic(kernels):
    a = np.random.default_rng(0).standard_normal((7, 33), F32)
    packed = pack_q8(np.eye(33, dtype=np.int8), b_scale=1.0)
    codes, scale, zero = quantize_dynamic_q8(a, per_row=True)
    reals = (codes.astype(F32) - zero[:, None].astype(F32)) * scale[:, None]
    assert_array_equal(gemm_dynamic_q8(a, packed), reals)


def test_uint8_weights(kernels):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 40), F32), rng.integers(-127, 128, (40, 20), np.int8)
    shifted = pack_q8((b.view(np.uint8) ^ 0x80), b_zero_point=128, b_scale=0.5)
    assert_array_equal(gemm_dynamic_q8(a, shifted), gemm_dynamic_q8(a, pack_q8(b, b_scale=0.5)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("per_row", [False, True])
def test_what_is_not_finite_is_refused(kernels, value, per_row):
    a = np.ones((3, 70), F32)
    packed = pack_q8(np.ones((70, 2), np.int8), b_scale=1.0)
    for place in (0, 69):
        a[2, place] = value
        with pytest.raises(ValueError, match="a must be finite and its range fit float32"):
            gemm_dynamic_q8(a, packed, per_row=per_row)
        a[2, place] = 1


def test_bad_arguments():
    packed = pack_q8(np.ones((3, 2), np.int8), b_scale=1.0)
    a = np.ones((1, 3), F32)
    for keywords, error, message in [
        ({"a": np.ones(3, F32)}, ValueError, "a must have 2 dimensions"),
        ({"a": np.ones((1, 4), F32)}, ValueError, "inner dimensions differ"),
        ({"b": np.ones((3, 2), np.int8)}, TypeError, "b must be PackedWeights"),
        ({"b": pack_q8(np.ones((3, 2), np.int8))}, ValueError, "without a scale"),
        ({"b": pack_q8(np.ones((3, 2), np.int8), b_scale=1, bias=[1, 2])}, ValueError, "bias"),
        ({"b": pack_q8(np.ones((3, 2), np.int8), b_scale=1, b_zero_point=3)}, ValueError,
         "zero points that stand for 0"),
        ({"bias": np.ones(3)}, ValueError, r"bias must have shape \(2,\)"),
        ({"out": np.ones((1, 2))}, ValueError, "out must be a writable"),
    ]:
        given = {"a": a, "b": packed, **keywords}
        with pytest.raises(error, match=message):
            gemm_dynamic_q8(given.pop("a"), given.pop("b"), **given)
