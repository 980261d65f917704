"""Pooling: cells outside the image take no part, means round once, every window and layout."""

import numpy as np
import oracles
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, nhwc, random_codes, random_zero_point

from qcy.primitive import avg_pool2d_q8, max_pool2d_q8

LAYOUTS = ("NCHW", "NHWC")
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def meets_image(size, kernel, stride, dilation, before, after):
    """Whether each window along one axis has a cell inside the image."""
    reach = dilation * (kernel - 1)
    return all(
        any(0 <= start + dilation * k < size for k in range(kernel))
        for start in range(-before, size + after - reach, stride)
    )


@st.composite
def problems(draw, dilated):
    """Draw images, a kernel size, and a window over them."""
    kernel, stride = draw(PAIRS), draw(PAIRS)
    dilation = draw(PAIRS) if dilated else (1, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding = [draw(st.integers(0, reach[i % 2] - 1)) for i in range(4)]
    size = [
        max(1, reach[i] - padding[i] - padding[i + 2]) + draw(st.integers(0, 5)) for i in range(2)
    ]
    assume(all(
        meets_image(size[i], kernel[i], stride[i], dilation[i], padding[i], padding[i + 2])
        for i in range(2)
    ))
    batch, channels = draw(st.integers(0, 2)), draw(st.sampled_from([0, 1, 3, 64, 70]))
    x = random_codes(
        np.random.default_rng(draw(SEEDS)), (batch, channels, *size), draw(DTYPES)
    )
    window = {"stride": stride, "padding": padding}
    return x, kernel, {**window, "dilation": dilation} if dilated else window


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(dilated=True), n_threads=st.integers(1, 3))
def test_max_pool(kernels, layout, problem, n_threads):
    x, kernel, window = problem
    want = oracles.max_pool(x, kernel, **window)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = max_pool2d_q8(x, kernel, **window, layout=layout, n_threads=n_threads)
    assert codes.dtype == x.dtype
    assert_array_equal(codes, want)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    problem=problems(dilated=False), seed=SEEDS, outside=st.booleans(), n_threads=st.integers(1, 3)
)
def test_avg_pool_follows_equation_16(kernels, layout, problem, seed, outside, n_threads):
    x, kernel, window = problem
    rng = np.random.default_rng(seed)
    zeros = random_zero_point(rng, x.dtype), random_zero_point(rng, x.dtype)
    x_scale, out_scale = rng.choice([1.0, 0.5, 0.1, 0.017, 3.0], 2)
    want = oracles.avg_pool(x, kernel, x_scale, out_scale, *zeros, outside, **window)
    if layout == "NHWC":
        x, want = nhwc(x), nhwc(want)
    codes = avg_pool2d_q8(
        x, kernel, **window, x_scale=x_scale, out_scale=out_scale, x_zero_point=zeros[0],
        out_zero_point=zeros[1], count_include_pad=outside, layout=layout, n_threads=n_threads,
    )
    assert codes.dtype == x.dtype
    assert_array_equal(codes, want)


def test_a_dilated_window_that_steps_over_the_image_is_refused():
    with pytest.raises(ValueError, match="each window must have a cell inside the image"):
        max_pool2d_q8(np.full((1, 1, 1, 1), 7, np.uint8), 2, padding=2, dilation=3, stride=1)
    with pytest.raises(ValueError, match="each window must have a cell inside the image"):
        max_pool2d_q8(np.zeros((1, 3, 0, 5), np.uint8), 2, padding=1)


@pytest.mark.parametrize("dtype", Q8)
def test_padded_max_pool_of_a_negative_image_stays_negative(kernels, dtype):
    low = oracles.code_range(dtype)[0]
    x = np.full((1, 2, 3, 3), low + 5, dtype)       # all below the zero point, whatever it is
    assert_array_equal(max_pool2d_q8(x, 2, stride=1, padding=1), np.full((1, 2, 4, 4), low + 5))


def test_padded_mean_divides_by_the_cells_inside_unless_told_otherwise(kernels):
    x = np.full((1, 1, 2, 2), 100, np.uint8)
    keywords = {"x_scale": 1, "out_scale": 1, "stride": 1, "padding": 1}
    assert_array_equal(avg_pool2d_q8(x, 2, **keywords), np.full((1, 1, 3, 3), 100))
    counted = avg_pool2d_q8(x, 2, **keywords, count_include_pad=True)
    assert counted[0, 0].tolist() == [[25, 50, 25], [50, 100, 50], [25, 50, 25]]


def test_stride_is_the_kernel_by_default(kernels):
    x = np.arange(36, dtype=np.int8).reshape(1, 1, 6, 6)
    assert max_pool2d_q8(x, (2, 3))[0, 0].tolist() == [[8, 11], [20, 23], [32, 35]]
    assert avg_pool2d_q8(x, (2, 3), x_scale=1, out_scale=1)[0, 0].tolist() == [
        [4, 7], [16, 19], [28, 31]
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_big_images_are_the_same_bytes_on_1_to_3_threads_and_out_is_returned(kernels, layout):
    x = random_codes(np.random.default_rng(0), (3, 20, 41, 43), np.int8)
    x = x if layout == "NCHW" else nhwc(x)
    x.flags.writeable = False
    scales = {"x_scale": 0.3, "out_scale": 0.2, "layout": layout}
    largest = max_pool2d_q8(x, 3, stride=2, layout=layout, n_threads=1)
    means = avg_pool2d_q8(x, 3, stride=2, **scales, n_threads=1)
    for n_threads in (2, 3):
        out = np.empty_like(means)
        assert avg_pool2d_q8(x, 3, stride=2, **scales, out=out, n_threads=n_threads) is out
        assert_array_equal(out, means)
        assert max_pool2d_q8(x, 3, stride=2, layout=layout, out=out, n_threads=n_threads) is out
        assert_array_equal(out, largest)


def test_images_of_any_layout(kernels):
    x = random_codes(np.random.default_rng(0), (4, 3, 5, 6), np.uint8)
    for images in (np.asfortranarray(x), x[::2], x[:, :, ::-1], nhwc(x).transpose(0, 3, 1, 2)):
        assert_array_equal(max_pool2d_q8(images, 2), oracles.max_pool(images, 2, stride=2))
        means = avg_pool2d_q8(images, 2, x_scale=1, out_scale=1)
        assert_array_equal(means, oracles.avg_pool(images, 2, 1, 1, stride=2))


def test_the_mean_of_a_huge_window_cannot_overflow():
    x = np.full((1, 1, 2905, 2900), 255, np.uint8)      # 255 * 2905 * 2900 > 2**31 - 1
    with pytest.raises(ValueError, match=r"must cover at most 8421504 cells.*8424500"):
        avg_pool2d_q8(x, (2905, 2900), x_scale=1, out_scale=1)
    codes = avg_pool2d_q8(x[:, :, :2900], 2900, x_scale=1, out_scale=1)
    assert codes.tolist() == [[[[255]]]]


def test_multipliers_out_of_range_are_refused():
    x = np.zeros((1, 1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"multiplier of cell count 4 .*x_scale=.*out_scale="):
        avg_pool2d_q8(x, 2, x_scale=4e-38, out_scale=1)
    with pytest.raises(ValueError, match="multiplier of cell count 0 is inf"):
        avg_pool2d_q8(x, 2, x_scale=3e38, out_scale=0.1)
