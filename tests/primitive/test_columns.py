"""im2col copies codes, col2im sums them: every window, both layouts."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, SEEDS, nhwc, random_codes, random_zero_point

from qcy.primitive import col2im_q8, im2col_q8

LAYOUTS = ("NCHW", "NHWC")
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def problems(draw):
    """Draw a shape (B, C, H, W), a kernel size, and a window over it."""
    kernel, stride, dilation = draw(PAIRS), draw(PAIRS), draw(PAIRS)
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    size = [
        max(0, dilation[i] * (kernel[i] - 1) + 1 - padding[i] - padding[i + 2])
        + draw(st.integers(0, 5))
        for i in range(2)
    ]
    shape = (draw(st.integers(0, 2)), draw(st.integers(0, 5)), *size)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    return np.random.default_rng(draw(SEEDS)), shape, kernel, window


def matrix(images, kernel, window, fill):
    """Lay out windows as rows: channels, kernel rows, kernel columns."""
    cells = np.array([part for _, part in oracles.taps(images, kernel, fill=fill, **window)])
    n_taps, batch, channels, height, width = cells.shape
    return cells.transpose(1, 3, 4, 2, 0).reshape(batch * height * width, channels * n_taps)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(), dtype=DTYPES, n_threads=st.integers(1, 3))
def test_im2col(kernels, layout, problem, dtype, n_threads):
    rng, shape, kernel, window = problem
    x, zero = random_codes(rng, shape, dtype), random_zero_point(rng, dtype)
    columns = im2col_q8(
        x if layout == "NCHW" else nhwc(x), kernel, zero_point=zero, **window, layout=layout,
        n_threads=n_threads,
    )
    assert columns.dtype == dtype
    assert_array_equal(columns, matrix(x, kernel, window, zero))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_without_pixels_has_windows_of_border(kernels, layout):
    # There is no address to count from: once one was computed, which sanitizers refuse.
    x = np.zeros((1, 2, 0, 3) if layout == "NCHW" else (1, 0, 3, 2), np.uint8)
    columns = im2col_q8(x, 2, zero_point=7, padding=(1, 1, 1, 1), layout=layout)
    assert_array_equal(columns, np.full((4, 8), 7))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(problem=problems(), dtype=DTYPES, n_threads=st.integers(1, 3))
def test_col2im_is_the_transpose_in_32_bits(kernels, layout, problem, dtype, n_threads):
    rng, shape, kernel, window = problem
    where = matrix(np.arange(np.prod(shape)).reshape(shape), kernel, window, -1)
    columns, zero = random_codes(rng, where.shape, dtype), random_zero_point(rng, dtype)
    want = np.zeros(int(np.prod(shape)) + 1, np.int64)      # the last one gathers what is outside
    np.add.at(want, where, columns.astype(np.int64) - zero)
    want = want[:-1].reshape(shape)
    if layout == "NHWC":
        want, shape = nhwc(want), nhwc(want).shape
    images = col2im_q8(
        columns, shape, kernel, zero_point=zero, **window, layout=layout, n_threads=n_threads
    )
    assert images.dtype == np.int32
    assert_array_equal(images, want)


def test_out_is_returned(kernels):
    x = np.arange(36, dtype=np.int8).reshape(1, 3, 3, 4)
    columns = np.empty((6, 12), np.int8)
    assert im2col_q8(x, 2, zero_point=0, out=columns) is columns
    assert columns[0].tolist() == [0, 1, 4, 5, 12, 13, 16, 17, 24, 25, 28, 29]
    images = np.full(x.shape, 99, np.int32)
    assert col2im_q8(columns, x.shape, 2, zero_point=0, out=images) is images
    assert images[0, 0].tolist() == [[0, 2, 4, 3], [8, 20, 24, 14], [8, 18, 20, 11]]


def test_big_images_are_the_same_bytes_on_1_to_3_threads(kernels):
    rng = np.random.default_rng(0)
    x, window = random_codes(rng, (2, 5, 60, 50), np.uint8), {"stride": 1, "padding": 1}
    want = matrix(x, 3, window, 9)
    sums = None
    for n_threads in (1, 2, 3):
        columns = im2col_q8(x, 3, zero_point=9, **window, n_threads=n_threads)
        assert_array_equal(columns, want)
        images = col2im_q8(columns, x.shape, 3, zero_point=9, **window, n_threads=n_threads)
        sums = images if sums is None else sums
        assert_array_equal(images, sums)


def test_operands_of_any_layout(kernels):
    x = np.arange(-60, 60, dtype=np.int8).reshape(2, 3, 4, 5)
    columns = im2col_q8(x, 2, zero_point=1)
    sums = col2im_q8(columns, x.shape, 2, zero_point=1)
    for images in (np.asfortranarray(x), x[::-1].copy()[::-1]):
        images.flags.writeable = False
        assert_array_equal(im2col_q8(images, 2, zero_point=1), columns)
    for matrix_ in (np.asfortranarray(columns), columns[::-1].copy()[::-1]):
        matrix_.flags.writeable = False
        assert_array_equal(col2im_q8(matrix_, list(x.shape), 2, zero_point=1), sums)
