"""Codes moved are the codes that NumPy moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES

from qcy.primitive import beside_q8, permute_q8


@given(
    data=st.data(), shape=st.lists(st.integers(0, 9), min_size=1, max_size=4), dtype=DTYPES,
    n_threads=st.integers(1, 3),
)
def test_permute(kernels, data, shape, dtype, n_threads):
    axes = data.draw(st.permutations(range(len(shape))))
    codes = np.random.default_rng(0).integers(0, 100, shape, dtype)
    moved = permute_q8(codes, axes, n_threads=n_threads)
    assert moved.flags.c_contiguous
    assert_array_equal(moved, codes.transpose(axes))


@pytest.mark.parametrize("channels", [1, 3, 4, 70])
def test_images_to_channels_last_and_back(kernels, channels):
    x = np.random.default_rng(0).integers(0, 256, (2, channels, 130, 70), np.uint8)
    last = permute_q8(x, (0, 2, 3, 1), n_threads=2)
    assert_array_equal(last, x.transpose(0, 2, 3, 1))
    assert_array_equal(permute_q8(last, (0, 3, 1, 2), n_threads=2), x)


@given(
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=4), axis=st.integers(0, 3),
    before=st.integers(0, 5), after=st.integers(0, 5),
)
def test_beside(kernels, shape, axis, before, after):
    axis %= len(shape)
    codes = np.random.default_rng(0).integers(0, 100, shape, np.uint8)
    size = (*shape[:axis], before + shape[axis] + after, *shape[axis + 1 :])
    out = np.full(size, 200, np.uint8)
    want = out.copy()
    want[(slice(None),) * axis + (slice(before, before + shape[axis]),)] = codes
    assert beside_q8(codes, size, axis, before, out=out) is out
    assert_array_equal(out, want)


@pytest.mark.parametrize("axes", [(0, 0), (0,), (0, 2), (1, 0, 2)])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(ValueError, match="axes must name each"):
        permute_q8(np.zeros((2, 3), np.uint8), axes)


def test_parts_that_do_not_fit_are_refused():
    codes = np.zeros((2, 3), np.uint8)
    for shape, axis, start in [((2, 5), 1, 3), ((3, 5), 1, 0), ((2, 3, 1), 1, 0)]:
        with pytest.raises(ValueError, match="codes of shape"):
            beside_q8(codes, shape, axis, start)
