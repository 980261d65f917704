"""Convolutions are exact to the last bit: every build, every window, grouping, layout."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS, nhwc, random_clamp, random_codes, random_zero_point

from qcy.primitive import conv2d_q8, conv2d_q8_accum, pack_conv_q8

LAYOUTS = ("NCHW", "NHWC")
WINDOWS = st.fixed_dictionaries({
    "stride": st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "padding": st.integers(0, 3) | st.tuples(*[st.integers(0, 3)] * 2)
    | st.tuples(*[st.integers(0, 4)] * 4),
    "dilation": st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)),
})
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))
# Groups, channels in and out of each: plain, grouped, depthwise, depthwise with a multiplier.
CHANNELS = st.sampled_from([
    (1, 1, 1), (1, 3, 5), (1, 6, 70), (1, 65, 2), (2, 3, 4), (3, 2, 17), (5, 1, 1), (66, 1, 1),
    (4, 1, 3), (2, 1, 65), (1, 68, 70), (1, 128, 3), (2, 8, 20), (130, 1, 1),
])


@st.composite
def problems(draw):
    """Draw a convolution: images, kernel, keywords of the sums."""
    seed, kernel, window = draw(SEEDS), draw(KERNELS), draw(WINDOWS)
    groups, depth, width = draw(CHANNELS)
    top, left, bottom, right = oracles.sides(window["padding"])
    reach = [
        d * (k - 1) + 1
        for d, k in zip(oracles.pair(window["dilation"]), kernel, strict=True)
    ]
    height = max(0, reach[0] - top - bottom) + draw(st.integers(0, 5))
    length = max(0, reach[1] - left - right) + draw(st.integers(0, 5))
    rng = np.random.default_rng(seed)
    x_dtype, w_dtype, batch = draw(DTYPES), draw(DTYPES), draw(st.integers(0, 3))
    x = random_codes(rng, (batch, groups * depth, height, length), x_dtype)
    w = random_codes(rng, (groups * width, depth, *kernel), w_dtype)
    keywords = {"x_zero_point": random_zero_point(rng, x_dtype), "groups": groups, **window}
    if rng.random() < 0.7:
        shape = (len(w),) if rng.random() < 0.5 else None
        keywords["w_zero_point"] = random_zero_point(rng, w_dtype, shape)
    if rng.random() < 0.5:
        keywords["bias"] = rng.integers(-(2**30), 2**30, len(w), dtype=np.int32)
    return rng, x, w, keywords


def exact(x, w, keywords):
    keywords = dict(keywords)
    zeros = keywords.pop("x_zero_point"), keywords.pop("w_zero_point", 0)
    return oracles.conv_sums(x, w, *zeros, **keywords)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(), n_threads=st.integers(1, 3))
def test_sums_are_exact(kernels, layout, problem, n_threads):
    _, x, w, keywords = problem
    want = exact(x, w, keywords)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    acc = conv2d_q8_accum(x, w, **keywords, layout=layout, n_threads=n_threads)
    assert acc.dtype == np.int32
    assert_array_equal(acc, want)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(), out_dtype=DTYPES, n_threads=st.integers(1, 3))
def test_codes_follow_equation_9(kernels, layout, problem, out_dtype, n_threads):
    rng, x, w, keywords = problem
    w_scale = rng.uniform(1e-4, 1e-2, len(w)) if rng.random() < 0.5 else 0.003
    zero, clamp = random_zero_point(rng, out_dtype), random_clamp(rng, out_dtype)
    step = np.reshape(oracles.multiplier(0.5, w_scale, 0.25), (-1, 1, 1))
    want = oracles.requantize(exact(x, w, keywords), step, zero, out_dtype, clamp)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = conv2d_q8(
        x, w, **keywords, x_scale=0.5, w_scale=w_scale, out_scale=0.25, out_zero_point=zero,
        out_dtype=out_dtype, clamp=clamp, layout=layout, n_threads=n_threads,
    )
    assert codes.dtype == out_dtype
    assert_array_equal(codes, want)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rounding", ["tflite", "tflite_single"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((5, 4, 3, 3), 1), ((7, 4, 1, 1), 1), ((4, 1, 2, 2), 4), ((6, 2, 2, 1), 2)],
    ids=["plain", "product", "depthwise", "grouped"],
)
def test_roundings_of_tflite(kernels, layout, rounding, shape, groups):
    rng = np.random.default_rng(shape[0])
    x, w = random_codes(rng, (2, 4, 5, 4), np.int8), rng.integers(-128, 128, shape, np.int8)
    w_scale = 2.0 ** -rng.integers(4, 9, shape[0])
    want = oracles.requantize_tflite(
        oracles.conv_sums(x, w, 3, groups=groups), w_scale.reshape(-1, 1, 1), -1, np.int8, rounding
    )
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = conv2d_q8(
        x, w, x_zero_point=3, groups=groups, x_scale=1, w_scale=w_scale, out_scale=1,
        out_zero_point=-1, out_dtype="int8", rounding=rounding, layout=layout,
    )
    assert_array_equal(codes, want)


@pytest.mark.parametrize(
    ("shape", "groups", "window"),
    [
        ((32, 16, 3, 3), 1, {"padding": 1}),
        ((200, 16, 1, 1), 1, {}),
        ((64, 4, 3, 3), 4, {"stride": 2, "padding": 2}),
        ((16, 1, 5, 5), 16, {"padding": 2}),
        ((18, 16, 1, 4), 1, {"dilation": 2}),
    ],
    ids=["plain", "product", "grouped", "depthwise", "dilated"],
)
def test_big_convolutions_are_the_same_bytes_on_1_to_3_threads(kernels, shape, groups, window):
    rng = np.random.default_rng(0)
    x = random_codes(rng, (4, 16, 33, 31), np.uint8)
    w = rng.integers(-128, 128, shape, np.int8)
    zeros = {"x_zero_point": 128, "w_zero_point": rng.integers(-2, 2, shape[0])}
    want = nhwc(oracles.conv_sums(x, w, *zeros.values(), groups=groups, **window))
    codes = oracles.requantize(want, oracles.multiplier(0.02, 0.01, 0.1), 0, np.uint8)
    for n_threads in (1, 2, 3):
        keywords = {**zeros, **window, "groups": groups, "layout": "NHWC", "n_threads": n_threads}
        assert_array_equal(conv2d_q8_accum(nhwc(x), w, **keywords), want)
        scales = {"x_scale": 0.02, "w_scale": 0.01, "out_scale": 0.1}
        assert_array_equal(conv2d_q8(nhwc(x), w, **keywords, **scales), codes)


@pytest.mark.parametrize("groups", [1, 4], ids=["plain", "depthwise"])
def test_images_smaller_than_their_padding(kernels, groups):
    x = np.full((1, 4, 1, 2), 250, np.uint8)
    w = np.ones((4, 4 // groups, 2, 2), np.int8)
    acc = conv2d_q8_accum(x, w, x_zero_point=50, padding=(4, 3, 0, 5), groups=groups)
    assert_array_equal(acc, oracles.conv_sums(x, w, 50, padding=(4, 3, 0, 5), groups=groups))
    acc = conv2d_q8_accum(x[:, :, :0], w, padding=1, groups=groups, bias=[1, 2, 3, 4])
    assert_array_equal(acc, np.broadcast_to(np.reshape([1, 2, 3, 4], (4, 1, 1)), (1, 4, 1, 3)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "groups"),
    [
        ((0, 3, 5, 5), (4, 3, 3, 3), 1),
        ((2, 3, 5, 5), (0, 3, 3, 3), 1),
        ((2, 0, 5, 5), (4, 0, 3, 3), 1),
        ((2, 0, 5, 5), (4, 0, 1, 1), 2),
        ((0, 4, 5, 5), (4, 1, 3, 3), 4),
    ],
    ids=["no images", "no outputs", "no inputs", "no inputs in groups", "no images, depthwise"],
)
def test_nothing_in_gives_the_bias_or_nothing(kernels, layout, x_shape, w_shape, groups):
    x, w = np.zeros(x_shape, np.uint8), np.zeros(w_shape, np.int8)
    bias = np.arange(w_shape[0], dtype=np.int32) * 10
    want = oracles.conv_sums(x, w, bias=bias, groups=groups)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    keywords = {"bias": bias, "groups": groups, "layout": layout}
    assert_array_equal(conv2d_q8_accum(x, w, **keywords), want)
    codes = conv2d_q8(x, w, **keywords, x_scale=1, w_scale=1, out_scale=1)
    assert_array_equal(codes, want)


@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 33026, 1, 1), 1), ((2, 3, 2, 5505), 2), ((3, 1, 2, 16513), 3)],
    ids=["product", "grouped", "depthwise"],
)
def test_the_largest_sum_is_exact_and_one_more_names_the_channel(kernels, shape, groups):
    most = 2**31 - 1
    w = np.zeros(shape, np.uint8)
    w[-1].flat = np.clip(most // 255 - 255 * np.arange(w[-1].size), 0, 255)
    x = np.full((1, shape[1] * groups, *shape[2:]), 255, np.uint8)
    bias = np.zeros(shape[0], np.int32)
    bias[-1] = most % 255
    acc = conv2d_q8_accum(x, w, bias=bias, groups=groups)
    assert acc.reshape(-1).tolist() == [0] * (shape[0] - 1) + [most]
    bias[-1] += 1
    with pytest.raises(ValueError, match=f"column {shape[0] - 1} can reach {most + 1}"):
        pack_conv_q8(w, bias=bias, groups=groups)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rounding", ["nearest_even", "tflite"])
def test_out_is_returned(kernels, layout, rounding):
    x, w = np.ones((1, 2, 3, 4), np.uint8), np.ones((5, 2, 2, 2), np.int8)
    shape = (1, 5, 2, 3)
    if layout == "NHWC":
        x, shape = nhwc(x), (1, 2, 3, 5)
    out = np.zeros(shape, np.int8)
    keywords = {"x_scale": 1, "w_scale": 1, "layout": layout, "rounding": rounding}
    assert conv2d_q8(x, w, **keywords, out_scale=1, out_dtype=np.int8, out=out) is out
    assert_array_equal(out, 8)
    sums = np.zeros(shape, np.int32)
    assert conv2d_q8_accum(x, w, layout=layout, out=sums) is sums
    assert_array_equal(sums, 8)


def test_operands_of_any_layout(kernels):
    rng = np.random.default_rng(3)
    x, w = random_codes(rng, (2, 3, 5, 6), np.uint8), rng.integers(-128, 128, (4, 3, 2, 2), np.int8)
    want = oracles.conv_sums(x, w, padding=1)
    wide = np.zeros((2, 3, 5, 12), np.uint8)
    wide[..., ::2] = x
    for images in (wide[..., ::2], np.asfortranarray(x), x[::-1].copy()[::-1]):
        images.flags.writeable = False
        assert_array_equal(conv2d_q8_accum(images, np.asfortranarray(w), padding=1), want)
    last = np.moveaxis(x, 1, 3)         # channels last by its strides alone
    assert_array_equal(conv2d_q8_accum(last, w, padding=1, layout="NHWC"), nhwc(want))
    assert_array_equal(conv2d_q8_accum(nhwc(x).transpose(0, 3, 1, 2), w, padding=1), want)


# (channels, outputs, groups, image, kernel, keywords): one of each way through the kernels, with
# more pixels than a block has, and images that end inside a tile.
WAYS = {
    "read in place": (68, 70, 1, 13, 3, {"padding": 1}),
    "read in place, strided": (128, 33, 1, 27, 3, {"padding": (2, 0, 1, 2), "stride": 2}),
    "read in place, dilated": (4, 5, 1, 40, 3, {"padding": 2, "dilation": 2}),
    "one cell, strided": (12, 100, 1, 31, 1, {"stride": 2}),
    "kernel rows": (3, 64, 1, 33, 7, {"padding": 3, "stride": 2}),
    "kernel rows, odd": (5, 7, 1, 13, 3, {"padding": 1}),
    "groups in place": (16, 24, 2, 13, 3, {"padding": 1}),
    "gathered groups": (6, 9, 3, 13, 3, {"padding": 1}),
    "gathered, dilated": (3, 9, 1, 21, 3, {"dilation": 3}),
    "depthwise": (70, 70, 70, 15, 3, {"padding": 1}),
    "depthwise, few channels": (5, 5, 5, 15, 3, {"padding": 1, "stride": 2}),
    "depthwise, dilated": (130, 130, 130, 15, 3, {"padding": 2, "dilation": 2}),
    "depthwise, five rows": (67, 67, 67, 15, 5, {"padding": 2}),
    "depthwise, two rows": (64, 64, 64, 9, 2, {}),
}


@pytest.mark.parametrize("x_dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("x_zero", [0, 77])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_through_the_kernels_is_exact(kernels, way, x_zero, x_dtype):
    channels, outputs, groups, size, kernel, window = WAYS[way]
    rng = np.random.default_rng(0)
    x = rng.integers(*oracles.code_range(x_dtype), (2, channels, size, size), x_dtype)
    w = rng.integers(-128, 128, (outputs, channels // groups, kernel, kernel), np.int8)
    bias = rng.integers(-(2**20), 2**20, outputs, np.int32)
    want = oracles.conv_sums(x, w, x_zero, bias=bias, groups=groups, **window)
    packed = pack_conv_q8(w, bias=bias, w_scale=0.01, groups=groups)
    for n_threads in (1, 2, 3):
        acc = conv2d_q8_accum(
            nhwc(x), packed, x_zero_point=x_zero, layout="NHWC", n_threads=n_threads, **window
        )
        assert_array_equal(acc, nhwc(want))
        codes = conv2d_q8(
            nhwc(x), packed, x_scale=0.1, out_scale=4.0, x_zero_point=x_zero, out_zero_point=9,
            layout="NHWC", n_threads=n_threads, **window,
        )
        step = oracles.multiplier(0.1, 0.01, 4.0)
        assert_array_equal(codes, nhwc(oracles.requantize(want, step, 9, np.uint8)))
