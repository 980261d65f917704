"""Transposed convolution is exact to the last bit: it sums in 32 bits and rounds once."""

import pickle

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS, nhwc, random_clamp, random_codes, random_zero_point

from qcy.primitive import conv2d_q8, conv_transpose2d_q8, pack_conv_q8

LAYOUTS = ("NCHW", "NHWC")
ONES = {"x_scale": 1, "w_scale": 1, "out_scale": 1}
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
# Groups, channels in and out of each.
CHANNELS = st.sampled_from([(1, 1, 1), (1, 3, 5), (2, 3, 4), (3, 1, 2), (4, 1, 1), (1, 70, 2)])


@st.composite
def problems(draw):
    """Draw images, a kernel, and the keywords of their sums."""
    rng = np.random.default_rng(draw(SEEDS))
    groups, depth, width = draw(CHANNELS)
    kernel, stride, dilation = draw(PAIRS), draw(PAIRS), draw(PAIRS)
    size = [draw(st.integers(1, 5)) for _ in "hw"]
    extra = [draw(st.integers(0, max(stride[i], dilation[i]) - 1)) for i in range(2)]
    padding = []
    for i in range(2):
        full = (size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 + extra[i]
        first = draw(st.integers(0, full - 1))
        padding.append((first, draw(st.integers(0, full - 1 - first))))
    (top, bottom), (left, right) = padding
    x_dtype, w_dtype = draw(DTYPES), draw(DTYPES)
    x = random_codes(rng, (draw(st.integers(0, 2)), groups * depth, *size), x_dtype)
    w = random_codes(rng, (groups * depth, width, *kernel), w_dtype)
    per_channel = (groups * width,) if rng.random() < 0.5 else None
    zeros = random_zero_point(rng, x_dtype), random_zero_point(rng, w_dtype, per_channel)
    bias = rng.integers(-(2**30), 2**30, groups * width, dtype=np.int32)
    window = {
        "stride": stride, "dilation": dilation, "output_padding": extra, "groups": groups,
        "padding": (top, left, bottom, right),
    }
    return rng, x, w, zeros, bias if rng.random() < 0.5 else None, window


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(), out_dtype=DTYPES, n_threads=st.integers(1, 3))
def test_codes_follow_equation_23(kernels, layout, problem, out_dtype, n_threads):
    rng, x, w, zeros, bias, window = problem
    n_out = w.shape[1] * window["groups"]
    w_scale = rng.uniform(1e-4, 1e-2, n_out) if rng.random() < 0.5 else 0.003
    zero, clamp = random_zero_point(rng, out_dtype), random_clamp(rng, out_dtype)
    sums = oracles.conv_transpose_sums(x, w, *zeros, 0 if bias is None else bias, **window)
    step = np.reshape(oracles.multiplier(0.5, w_scale, 0.25), (-1, 1, 1))
    want = oracles.requantize(sums, step, zero, out_dtype, clamp)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = conv_transpose2d_q8(
        x, w, x_zero_point=zeros[0], w_zero_point=zeros[1], bias=bias, **window, x_scale=0.5,
        w_scale=w_scale, out_scale=0.25, out_zero_point=zero, out_dtype=out_dtype, clamp=clamp,
        layout=layout, n_threads=n_threads,
    )
    assert codes.dtype == out_dtype
    assert_array_equal(codes, want)


@pytest.mark.parametrize("rounding", ["tflite", "tflite_single"])
def test_roundings_of_tflite(kernels, rounding):
    rng = np.random.default_rng(0)
    x, w = random_codes(rng, (1, 3, 3, 4), np.int8), rng.integers(-128, 128, (3, 2, 2, 3), np.int8)
    bias = np.array([-300, 1000], np.int32)
    sums = oracles.conv_transpose_sums(x, w, -4, bias=bias, stride=2)
    codes = conv_transpose2d_q8(
        x, w, x_zero_point=-4, bias=bias, stride=2, x_scale=1, w_scale=2.0**-8, out_scale=1,
        rounding=rounding, out_dtype="int8",
    )
    assert_array_equal(codes, oracles.requantize_tflite(sums, 2.0**-8, 0, np.int8, rounding))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("batch", "channels", "width"), [(0, 3, 2), (2, 0, 2), (2, 3, 0)],
    ids=["no images", "no inputs", "no outputs"],
)
def test_nothing_in_gives_the_bias_or_nothing(kernels, layout, batch, channels, width):
    x, w = np.zeros((batch, channels, 4, 3), np.uint8), np.zeros((channels, width, 2, 2), np.int8)
    bias = np.arange(width, dtype=np.int32) * 10
    want = oracles.conv_transpose_sums(x, w, bias=bias)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = conv_transpose2d_q8(x, w, **ONES, bias=bias, layout=layout)
    assert_array_equal(codes, want)


def test_out_is_returned(kernels):
    x, w = np.ones((1, 1, 2, 2), np.uint8), np.ones((1, 3, 2, 2), np.int8)
    for shape, layout in (((1, 3, 3, 3), "NCHW"), ((1, 3, 3, 3), "NHWC")):
        out = np.zeros(shape, np.uint8)
        images = x if layout == "NCHW" else nhwc(x)
        assert conv_transpose2d_q8(images, w, **ONES, layout=layout, out=out) is out
        centre = out[0, :, 1, 1] if layout == "NCHW" else out[0, 1, 1]
        assert centre.tolist() == [4, 4, 4]


def test_operands_of_any_layout(kernels):
    rng = np.random.default_rng(3)
    x, w = random_codes(rng, (2, 3, 5, 6), np.uint8), rng.integers(-128, 128, (3, 4, 2, 2), np.int8)
    want = conv_transpose2d_q8(x, w, **ONES)
    assert_array_equal(want, oracles.requantize(oracles.conv_transpose_sums(x, w), 1, 0, np.uint8))
    for images in (np.asfortranarray(x), x[::-1].copy()[::-1]):
        images.flags.writeable = False
        assert_array_equal(conv_transpose2d_q8(images, np.asfortranarray(w), **ONES), want)


def test_the_largest_sum_is_exact_and_one_more_names_the_channel(kernels):
    most = 2**31 - 1
    w = np.zeros((33026, 2, 1, 1), np.uint8)
    w[:, 1, 0, 0] = np.clip(most // 255 - 255 * np.arange(len(w)), 0, 255)
    x = np.full((1, len(w), 1, 1), 255, np.uint8)
    bias = np.array([0, most % 255], np.int32)
    codes = conv_transpose2d_q8(x, w, **{**ONES, "out_scale": 2.0**24}, bias=bias)
    assert codes.reshape(-1).tolist() == [0, 128]
    with pytest.raises(ValueError, match=f"channel 1 can reach {most + 1}"):
        conv_transpose2d_q8(x, w, **ONES, bias=bias + 1)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("w_dtype", oracles.Q8)
def test_packed_kernels_give_the_same(kernels, groups, w_dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 4, 5, 6), np.uint8)
    w = rng.integers(*oracles.code_range(w_dtype), (4, 3, 2, 3), w_dtype)
    settings = {
        "w_zero_point": rng.integers(0, 5, 3 * groups), "bias": rng.integers(-99, 99, 3 * groups),
        "w_scale": rng.uniform(0.01, 0.02, 3 * groups), "groups": groups,
    }
    window = {"x_scale": 0.5, "out_scale": 2.0, "x_zero_point": 7, "stride": 2, "padding": 1}
    packed = pack_conv_q8(w, transposed=True, **settings)
    want = conv_transpose2d_q8(x, w, **settings, **window)
    assert_array_equal(conv_transpose2d_q8(x, packed, **window), want)
    assert_array_equal(packed.codes, w)
    copy = pickle.loads(pickle.dumps(packed))
    assert_array_equal(conv_transpose2d_q8(x, copy, **window), want)
    assert "transposed=True" in repr(packed)


def test_kernels_packed_for_something_else_are_refused():
    x, w = np.zeros((1, 4, 5, 5), np.uint8), np.ones((4, 4, 2, 2), np.int8)
    scales = {"x_scale": 1.0, "out_scale": 1.0}
    with pytest.raises(ValueError, match="with transposed=True, it is not"):
        conv_transpose2d_q8(x, pack_conv_q8(w, w_scale=1.0), **scales)
    packed = pack_conv_q8(w, w_scale=1.0, transposed=True)
    with pytest.raises(ValueError, match="packed for a transposed convolution"):
        conv2d_q8(x, packed, **scales)
    with pytest.raises(TypeError, match="w_scale is part of the packed w"):
        conv_transpose2d_q8(x, packed, w_scale=1.0, **scales)
