"""Codes moved, and rows taken, are those that NumPy moves and takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES

from qcy.primitive import beside_q8, embed_q8, gather_q8, permute_q8, strided_q8


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


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), data=st.data(), dtype=DTYPES,
    n_threads=st.integers(1, 3),
)
def test_strided(kernels, shape, data, dtype, n_threads):
    x = np.arange(np.prod(shape, dtype=int)).astype(np.uint8).view(dtype).reshape(shape)
    view = x[tuple(
        slice(*data.draw(st.sampled_from([(None,), (1, None), (None, None, -1), (None, None, 2)])))
        for _ in shape
    )].transpose(data.draw(st.permutations(range(len(shape)))))
    view = np.broadcast_to(view, (data.draw(st.integers(1, 3)), *view.shape))
    offset = view.ctypes.data - x.ctypes.data if view.size else 0
    y = strided_q8(x, view.shape, view.strides, offset, n_threads=n_threads)
    assert_array_equal(y, view, strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), (3,)), r"steps must be one for each axis of \(2, 3\), got \(3,\)"),
        (((2, 3), (3, 2)), "steps must stay within the 6 codes, got 0 to 7"),
        (((2, 3), (3, 1), 1), "steps must stay within the 6 codes, got 1 to 6"),
        (((2, 3), (-3, 1)), "steps must stay within the 6 codes, got -3 to 2"),
        (((2, -1), (3, 1)), "shape must be at least 0, got -1"),
        (((1, 2, 2, 2, 2, 2), (0, 0, 1, 0, 1, 0)), "at most 4 axes with different steps, got 5"),
        (((2,), (7,)), r"steps must be in \[-6, 6\], got 7"),
    ],
)
def test_steps_that_leave_the_codes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        strided_q8(np.zeros(6, np.uint8), *arguments)


@given(
    index=st.lists(st.tuples(st.integers(-1, 9), st.integers(1, 3)), max_size=9), dtype=DTYPES,
    fill=st.integers(0, 127), n_threads=st.integers(1, 3),
)
def test_gather(kernels, index, dtype, fill, n_threads):
    x = np.arange(12).astype(np.uint8).view(dtype)
    index = np.array([-1 if i < 0 else i + k for i, n in index for k in range(n)], np.int64)
    expected = np.where(index < 0, fill, x[index]).astype(dtype)
    assert_array_equal(gather_q8(x, index, fill=fill, n_threads=n_threads), expected, strict=True)


def test_gather_of_many_pieces(kernels):
    x = np.random.default_rng(0).integers(0, 256, 70000, np.uint8)
    index = np.random.default_rng(1).integers(-1, 70000, 200000)
    expected = np.where(index < 0, 7, x[index]).astype(np.uint8)
    for n_threads in (1, 2, 3):
        assert_array_equal(gather_q8(x, index, fill=7, n_threads=n_threads), expected)
    rows = np.arange(70000).reshape(-1, 10)[::-1]
    assert_array_equal(gather_q8(x, rows), x[rows])


@pytest.mark.parametrize(
    ("index", "settings", "error", "message"),
    [
        ([6], {}, ValueError, r"index must be in \[-1, 5\], got 6"),
        ([0, -2], {}, ValueError, r"index must be in \[-1, 5\], got -2"),
        ([0.5], {}, TypeError, "index must hold integers, got float64"),
        ([0], {"fill": 256}, ValueError, r"fill must be in \[0, 255\], got 256"),
    ],
)
def test_places_that_do_not_fit_are_refused(index, settings, error, message):
    with pytest.raises(error, match=message):
        gather_q8(np.zeros(6, np.uint8), index, **settings)


@pytest.mark.parametrize("axes", [(0, 0), (0,), (0, 2), (1, 0, 2)])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(ValueError, match="axes must name each"):
        permute_q8(np.zeros((2, 3), np.uint8), axes)


def test_parts_that_do_not_fit_are_refused():
    codes = np.zeros((2, 3), np.uint8)
    for shape, axis, start in [((2, 5), 1, 3), ((3, 5), 1, 0), ((2, 3, 1), 1, 0)]:
        with pytest.raises(ValueError, match="codes of shape"):
            beside_q8(codes, shape, axis, start)


# -------------------------------------------------------------------------------- rows by number


@given(
    shape=st.lists(st.integers(0, 9), max_size=3), n_rows=st.integers(1, 40),
    n_features=st.integers(0, 70), dtype=DTYPES,
    kind=st.sampled_from([np.float32, np.float64, np.int64, np.uint8]),
)
def test_embed(kernels, shape, n_rows, n_features, dtype, kind):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 100, (n_rows, n_features), dtype)
    indices = rng.integers(0, n_rows, shape)
    taken = embed_q8(indices.astype(kind), rows)
    assert_array_equal(taken, rows[indices], strict=True)
    assert_array_equal(embed_q8(indices.astype(kind), np.asfortranarray(rows)), taken)


def test_embed_counts_to_the_last_row_that_float32_can(kernels):
    rows = np.zeros((2**24, 1), np.uint8)
    rows[-2:, 0] = 5, 7
    assert embed_q8([2**24 - 1, 0, 2**24 - 2], rows).ravel().tolist() == [7, 0, 5]
    with pytest.raises(ValueError, match="from 0 to 16777215; 1 are not"):
        embed_q8([2**24 - 1, 2**24], rows)
    with pytest.raises(ValueError, match=r"rows must be 1 to 16777216, got shape \(16777217, 1\)"):
        embed_q8([0], np.zeros((2**24 + 1, 1), np.uint8))


@pytest.mark.parametrize("bad", [np.nan, 1.5, -1, -0.25, 3, 1e30, np.inf, -np.inf])
def test_what_is_no_number_of_a_row_is_counted(kernels, bad):
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    indices = np.array([[0, 2, -0.0], [1, bad, bad]], np.float32)
    with pytest.raises(ValueError, match="indices must be whole numbers from 0 to 2; 2 are not"):
        embed_q8(indices, rows)
    indices[1] = 1
    bound = embed_q8.bind(indices, rows)
    assert_array_equal(bound(), rows[[[0, 2, 0], [1, 1, 1]]])
    indices[0, 1] = bad
    with pytest.raises(ValueError, match="; 1 are not"):
        bound()


@pytest.mark.parametrize(
    ("indices", "rows", "error", "message"),
    [
        (["a"], np.zeros((2, 2), np.uint8), TypeError, "indices must hold real numbers"),
        ([True], np.zeros((2, 2), np.uint8), TypeError, "indices must hold real numbers"),
        ([0], np.zeros(2, np.uint8), ValueError, "rows must have 2 dimensions"),
        ([0], np.zeros((2, 2)), TypeError, "rows must be int8 or uint8"),
        ([0], np.zeros((0, 2), np.uint8), ValueError, "rows must be 1 to 16777216"),
    ],
)
def test_rows_and_indices_that_do_not_fit(indices, rows, error, message):
    out = np.full((1, 2), 77, np.uint8)
    with pytest.raises(error, match=message):
        embed_q8(indices, rows, out=out)
    assert np.all(out == 77)
