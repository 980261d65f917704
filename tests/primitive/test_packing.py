"""Packed weights give the same bytes as plain ones, travel in pickles, and refuse misuse."""

import copy
import pickle

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_codes, random_zero_point

from qcy import _kernels
from qcy.primitive import (
    PackedWeights,
    conv2d_q8,
    conv2d_q8_accum,
    gemm_batched_q8,
    gemm_nn_q8,
    gemm_nn_q8_accum,
    pack_conv_q8,
    pack_q8,
)


def random_matrix(rng, k, n, dtype):
    """Return a matrix of codes and the keywords to pack it with."""
    b = random_codes(rng, (k, n), dtype)
    return b, {
        "b_zero_point": random_zero_point(rng, dtype, (n,)),
        "bias": rng.integers(-999, 999, n, dtype=np.int32),
        "b_scale": rng.uniform(0.1, 1, n).astype(np.float32),
    }


@given(seed=SEEDS, k=st.integers(0, 70), n=st.integers(0, 200), dtype=DTYPES)
def test_codes_come_back(kernels, seed, k, n, dtype):
    b, keywords = random_matrix(np.random.default_rng(seed), k, n, dtype)
    packed = pack_q8(b, **keywords)
    assert (packed.shape, packed.dtype, packed.groups) == ((k, n), dtype, None)
    for again in (packed, pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert again.codes.dtype == dtype
        assert_array_equal(again.codes, b)
        assert_array_equal(again.zero_point, keywords["b_zero_point"])
        assert_array_equal(again.bias, keywords["bias"])
        assert_array_equal(again.scale, keywords["b_scale"])


@given(
    seed=SEEDS, groups=st.integers(1, 4), n=st.integers(0, 40), depth=st.integers(0, 9),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), dtype=DTYPES,
)
def test_codes_of_convolutions_come_back(kernels, seed, groups, n, depth, kernel, dtype):
    w = random_codes(np.random.default_rng(seed), (n * groups, depth, *kernel), dtype)
    packed = pack_conv_q8(w, groups=groups, w_scale=0.5)
    assert (packed.shape, packed.dtype, packed.groups) == (w.shape, dtype, groups)
    assert packed.bias is None
    assert_array_equal(packed.codes, w)
    again = pickle.loads(pickle.dumps(packed))
    assert (again.groups, again.scale, again.bias) == (groups, 0.5, None)
    assert_array_equal(again.codes, w)


@pytest.mark.parametrize("dtype", Q8)
def test_products_are_those_of_plain_operands(kernels, dtype):
    rng = np.random.default_rng(0)
    a = random_codes(rng, (5, 30), np.int8)
    b, keywords = random_matrix(rng, 30, 70, dtype)
    scales = {"a_scale": 0.1, "out_scale": 0.7, "a_zero_point": -7}
    want = gemm_nn_q8(a, b, **keywords, **scales)
    packed = pack_q8(b, **keywords)
    for weights in (packed, pickle.loads(pickle.dumps(packed))):
        assert_array_equal(gemm_nn_q8(a, weights, **scales), want)
        assert_array_equal(gemm_batched_q8(a[None], weights, **scales), want[None])
        sums = oracles.sums(a, b, -7, keywords["b_zero_point"], keywords["bias"])
        assert_array_equal(gemm_nn_q8_accum(a, weights, a_zero_point=-7), sums)


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["plain", "grouped", "depthwise"])
@pytest.mark.parametrize("dtype", Q8)
def test_convolutions_are_those_of_plain_kernels(kernels, dtype, groups):
    rng = np.random.default_rng(0)
    x = random_codes(rng, (2, 6, 5, 5), np.uint8)
    w = random_codes(rng, (6, 6 // groups, 3, 2), dtype)
    weights = {
        "w_zero_point": random_zero_point(rng, dtype, (6,)), "w_scale": rng.uniform(0.1, 1, 6),
        "bias": rng.integers(-99, 99, 6), "groups": groups,
    }
    scales = {"x_scale": 0.1, "out_scale": 0.7, "x_zero_point": 7, "padding": 1}
    want = conv2d_q8(x, w, **weights, **scales)
    packed = pack_conv_q8(w, **weights)
    for kernel in (packed, pickle.loads(pickle.dumps(packed))):
        assert_array_equal(conv2d_q8(x, kernel, **scales), want)
        assert_array_equal(conv2d_q8(x, kernel, **scales, groups=groups), want)


@pytest.mark.parametrize("made_under", _kernels.usable_variants())
def test_weights_packed_under_another_variant_still_work(kernels, made_under, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (7, 37), np.uint8), rng.integers(-128, 128, (37, 70), np.int8)
    x = a[:, :36].reshape(7, 4, 3, 3)
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "active", _kernels.load(made_under))
        packed = pack_q8(b)
        packed_plain = pack_conv_q8(b[:36].reshape(70, 4, 3, 3))
        packed_depthwise = pack_conv_q8(b[:4, :9].reshape(4, 1, 3, 3), groups=4)
    assert_array_equal(gemm_nn_q8_accum(a, packed), oracles.sums(a, b))
    assert_array_equal(
        conv2d_q8_accum(x, packed_plain), oracles.conv_sums(x, b[:36].reshape(70, 4, 3, 3))
    )
    assert_array_equal(
        conv2d_q8_accum(x, packed_depthwise),
        oracles.conv_sums(x, b[:4, :9].reshape(4, 1, 3, 3), groups=4),
    )
    assert_array_equal(pickle.loads(pickle.dumps(packed)).codes, b)


def test_what_was_packed_does_not_change_with_the_arrays_it_was_made_of():
    a, b = np.ones((1, 2), np.uint8), np.ones((2, 3), np.int8)
    zero, bias, scale = np.zeros(3, np.int32), np.zeros(3, np.int32), np.ones(3, np.float32)
    packed = pack_q8(b, b_zero_point=zero, bias=bias, b_scale=scale)
    for array in (b, zero, bias, scale):
        array[...] = 5
    assert gemm_nn_q8(a, packed, a_scale=1, out_scale=1).tolist() == [[2, 2, 2]]
    again = pickle.loads(pickle.dumps(packed))
    assert gemm_nn_q8(a, again, a_scale=1, out_scale=1).tolist() == [[2, 2, 2]]
    for array in (packed.zero_point, packed.bias, packed.scale):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_one_pack_serves_many_left_operands(kernels):
    # What is folded for one zero point and one pair of scales must not be used for another.
    b = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    packed = pack_q8(b, b_scale=0.5, bias=[1, 2, 3])
    for dtype, zero, a_scale, out_scale in (
        (np.uint8, 0, 1, 1), (np.uint8, 9, 1, 1), (np.int8, 9, 1, 1), (np.uint8, 9, 2, 1),
        (np.uint8, 9, 2, 3), (np.uint8, 0, 1, 1),
    ):
        a = np.arange(8, dtype=dtype).reshape(2, 4)
        sums = oracles.sums(a, b, zero, bias=[1, 2, 3])
        assert_array_equal(gemm_nn_q8_accum(a, packed, a_zero_point=zero), sums)
        codes = gemm_nn_q8(
            a, packed, a_scale=a_scale, out_scale=out_scale, a_zero_point=zero, out_zero_point=99
        )
        step = oracles.multiplier(a_scale, 0.5, out_scale)
        assert_array_equal(codes, oracles.requantize(sums, step, 99, np.uint8))


MATRIX = pack_q8(np.ones((2, 3), np.int8), b_scale=1)
KERNEL = pack_conv_q8(np.ones((3, 2, 1, 1), np.int8), w_scale=1)
A, X = np.ones((1, 2), np.uint8), np.ones((1, 2, 1, 1), np.uint8)


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"scale": 1.0}, "scale"),
        ({"zero_point": 1}, "zero_point"),
        ({"zero_point": [0, 0, 0]}, "zero_point"),
        ({"zero_point": np.array([1, 2, 3])}, "zero_point"),
        ({"bias": [1, 2, 3]}, "bias"),
        ({"bias": np.zeros(3, np.int32)}, "bias"),
    ],
)
def test_what_is_packed_cannot_be_given_again(keywords, name):
    def named(prefix):
        return {key if key == "bias" else f"{prefix}_{key}": v for key, v in keywords.items()}

    b_name, w_name = (name if name == "bias" else f"{prefix}_{name}" for prefix in "bw")
    with pytest.raises(TypeError, match=f"{b_name} is part of the packed b"):
        gemm_nn_q8(A, MATRIX, a_scale=1, out_scale=1, **named("b"))
    with pytest.raises(TypeError, match=f"{b_name} is part of the packed b"):
        gemm_batched_q8(A, MATRIX, a_scale=1, out_scale=1, **named("b"))
    with pytest.raises(TypeError, match=f"{w_name} is part of the packed w"):
        conv2d_q8(X, KERNEL, x_scale=1, out_scale=1, **named("w"))
    if "scale" not in keywords:
        with pytest.raises(TypeError, match=f"{b_name} is part of the packed b"):
            gemm_nn_q8_accum(A, MATRIX, **named("b"))
        with pytest.raises(TypeError, match=f"{w_name} is part of the packed w"):
            conv2d_q8_accum(X, KERNEL, **named("w"))


def test_the_wrong_kind_of_packed_weights():
    for multiply in (gemm_nn_q8, gemm_batched_q8):
        with pytest.raises(ValueError, match="packed by pack_q8, it was packed for a convolution"):
            multiply(A, KERNEL, a_scale=1, out_scale=1)
    with pytest.raises(ValueError, match="packed by pack_q8, it was packed for a convolution"):
        gemm_nn_q8_accum(A, KERNEL)
    for groups in (1, 2):
        with pytest.raises(ValueError, match=r"packed by pack_conv_q8, .* for a matrix product"):
            conv2d_q8(X, MATRIX, x_scale=1, out_scale=1, groups=groups)
    with pytest.raises(ValueError, match="groups must be the 1 that w was packed with, got 2"):
        conv2d_q8_accum(X, KERNEL, groups=2)


def test_codes_need_a_scale():
    with pytest.raises(ValueError, match="b was packed without a scale"):
        gemm_nn_q8(A, pack_q8(np.ones((2, 3), np.int8)), a_scale=1, out_scale=1)
    with pytest.raises(TypeError, match="b_scale is needed"):
        gemm_nn_q8(A, np.ones((2, 3), np.int8), a_scale=1, out_scale=1)
    with pytest.raises(TypeError, match="w_scale is needed"):
        conv2d_q8(X, np.ones((3, 2, 1, 1), np.int8), x_scale=1, out_scale=1)


def test_repr_says_what_is_packed():
    assert repr(MATRIX) == "PackedWeights(shape=(2, 3), dtype=int8)"
    assert repr(KERNEL) == "PackedWeights(shape=(3, 2, 1, 1), dtype=int8, groups=1)"
    assert isinstance(MATRIX, PackedWeights)
