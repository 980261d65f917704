"""The generic tensor as a container: what it holds, its elements, its protocols."""

import copy
import doctest
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from qcy.tensor import _broadcast, generic
from qcy.tensor.generic import DTYPES, FloatTensor, Tensor

INTEGERS = [dtype for dtype in DTYPES if dtype.kind != "f"]
REALS = [dtype for dtype in DTYPES if dtype.kind == "f"]
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
any_array = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, SHAPES))


def limits(dtype):
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([info.min, info.max], dtype).tolist()


# ------------------------------------------------------------------------------ construction


@given(values=any_array)
def test_shares_a_c_ordered_array(values):
    tensor = Tensor(values)
    assert tensor.data is values
    assert Tensor(tensor).data is values
    assert Tensor(tensor, values.dtype).data is values
    assert (tensor.shape, tensor.size, tensor.ndim, tensor.dtype) == (
        values.shape, values.size, values.ndim, values.dtype
    )


def test_holds_ten_dtypes():
    assert [str(dtype) for dtype in DTYPES] == [
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float32", "float64",
    ]
    for code in "bhilqBHILQfd":         # every C type is one of them, longlong too
        assert Tensor(np.zeros(2, code)).dtype in DTYPES


@pytest.mark.parametrize("dtype", ["?", "e", "F", "D", "O", "U3", "S3", "M8[s]", "m8[s]"])
def test_refuses_other_dtypes(dtype):
    message = re.escape(f"cannot hold {np.dtype(dtype)}, only int8, int16")
    with pytest.raises(TypeError, match=message):
        Tensor(np.zeros(2, dtype))
    with pytest.raises(TypeError, match="cannot hold"):
        Tensor([1], dtype)
    with pytest.raises(TypeError, match="cannot hold"):
        Tensor([1]).astype(dtype)


@pytest.mark.parametrize("data", [True, [False], None, "1", [1j], [None], [2**64], {1: 2}])
def test_refuses_what_is_no_number(data):
    with pytest.raises(TypeError, match="cannot hold"):
        Tensor(data)


def test_refuses_ragged_lists_and_no_dtype():
    with pytest.raises(ValueError, match="inhomogeneous"):
        Tensor([[1], [2, 3]], np.int8)
    with pytest.raises(TypeError, match="got None"):
        Tensor([1]).astype(None)


@pytest.mark.parametrize("data", [5, 1.5, [1, 2], [[1.0]], [], (1, 2), range(3), np.int16(3)])
def test_lists_and_numbers_have_the_dtype_of_numpy(data):
    tensor, expected = Tensor(data), np.asarray(data)
    assert tensor.dtype == expected.dtype
    assert_array_equal(tensor.data, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_converts_lists_exactly(dtype):
    low, high = limits(dtype)
    tensor = Tensor([[low, 0], [1, high]], dtype)
    assert tensor.dtype == dtype
    assert [tensor[0, 0], tensor[0, 1], tensor[1, 0], tensor[1, 1]] == [low, 0, 1, high]
    assert Tensor([], dtype).dtype == dtype
    if dtype.kind != "f":
        for misfit in (low - 1, high + 1, 2**70, -(2**70)):
            with pytest.raises(ValueError, match=f"^{misfit} does not fit {dtype}"):
                Tensor([0, misfit, low - 2], dtype)


def test_float_tensor():
    tensor = FloatTensor([[1, 2.5]])
    assert (tensor.dtype, tensor.shape, tensor[0, 1]) == (np.float32, (1, 2), 2.5)
    values = np.zeros(3, np.float32)
    assert FloatTensor(values).data is values
    with pytest.raises(ValueError, match=r"1e\+39 does not fit float32"):
        FloatTensor([0, 1e39])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_brings_any_array_into_c_order(kernels, dtype):
    expected = np.arange(24).reshape(4, 6).astype(dtype)
    unaligned = np.frombuffer(b"x" + expected.tobytes(), np.uint8)[1:].view(dtype).reshape(4, 6)
    read_only = expected.copy()
    read_only.flags.writeable = False
    for values in (
        expected[:, ::-1][:, ::-1], np.asfortranarray(expected), unaligned, read_only,
        expected.astype(dtype.newbyteorder(">")), expected.astype(dtype.newbyteorder("<")),
        np.repeat(expected, 2, axis=1)[:, ::2], expected.view(np.matrix),
    ):
        tensor = Tensor(values)
        assert tensor.dtype == dtype
        assert tensor.dtype.isnative
        assert tensor.data.flags.c_contiguous
        assert tensor.data.flags.aligned
        assert type(tensor.data) is np.ndarray
        assert_array_equal(tensor.data, expected)
        assert_array_equal((tensor + tensor).data, expected + expected)
        assert tensor.min_max() == (0, 23)
        assert tensor[3, 5] == 23
        assert_array_equal(tensor.scale(2).data, expected * dtype.type(2))


# ---------------------------------------------------------------------------------- elements


@given(values=any_array)
def test_elements_are_those_of_numpy(kernels, values):
    tensor = Tensor(values)
    for index in np.ndindex(values.shape):
        assert_array_equal(tensor.at(*index), values[index].item())
        assert_array_equal(tensor[index], values[index].item())
        assert type(tensor[index]) is type(values[index].item())


def test_one_axis_takes_a_bare_index():
    tensor = Tensor([5, 6, 7])
    tensor[np.int8(1)] = 8
    tensor.set_at(0, 9)
    assert (tensor[0], tensor[1], tensor.at(2)) == (9, 8, 7)


@pytest.mark.parametrize("index", [(0,), (0, 0, 0), (), (2, 0), (0, 3), (-1, 0), (0, -1)])
def test_index_out_of_bounds(index):
    tensor = Tensor(np.zeros((2, 3)))
    with pytest.raises(IndexError, match=r"shape \(2, 3\)"):
        tensor[index]
    with pytest.raises(IndexError):
        tensor[index] = 1
    with pytest.raises(IndexError):
        tensor[0, 2**70]
    assert not tensor.data.any()


@pytest.mark.parametrize("index", [slice(None), (0, slice(2)), ..., None, 1.0, [0, 1], True, "0"])
def test_index_of_another_type(index):
    with pytest.raises(TypeError, match=r"use \.data"):
        Tensor(np.zeros((2, 3)))[index]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_set_at_changes_one_element(kernels, dtype):
    low, high = limits(dtype)
    for value in (low, high, 7, np.int64(7), np.float32(7), 7.0, np.uint64(7)):
        values = np.zeros((3, 4), dtype)
        expected = values.copy()
        Tensor(values)[1, 2] = value
        expected[1, 2] = value
        assert_array_equal(values, expected)
        assert Tensor(values)[1, 2] == value


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100, 1000])
def test_fill(kernels, dtype, size):
    for value in (*limits(dtype), 3):
        values = np.zeros(size, dtype)
        assert Tensor(values).fill(value) is None
        assert_array_equal(values, np.full(size, value, dtype))
    whole = np.zeros((2, 3, size), dtype)
    Tensor(whole[1]).fill(1)            # and nothing around it
    assert whole.sum() == whole[1].sum() == 3 * size


MISFITS = [
    (dtype, value, ValueError)
    for dtype in INTEGERS
    for value in (
        limits(dtype)[0] - 1, limits(dtype)[1] + 1, 2**100, 0.5, -1.5, 1e300, np.inf, np.nan,
        np.float32(0.25),
    )
] + [
    (np.dtype(np.float32), value, ValueError)
    for value in (1e39, -1e39, 2**24 + 1, 2.0**128 - 2.0**103, 2**128, 10**400)
] + [
    (np.dtype(np.float64), value, ValueError) for value in (2**53 + 1, 10**400, 2**1024)
] + [
    (dtype, value, TypeError)
    for dtype in DTYPES
    for value in (True, np.True_, 1j, "1", None, [1], np.ones(1), np.array(1))
]


@pytest.mark.parametrize(("dtype", "value", "error"), MISFITS)
def test_a_value_that_does_not_fit_changes_nothing(dtype, value, error):
    tensor = Tensor(np.arange(6).reshape(2, 3), dtype)
    with pytest.raises(error, match=str(dtype)) as caught:
        tensor[0, 1] = value
    if error is ValueError:
        assert str(value) in str(caught.value)
    with pytest.raises(error, match=str(dtype)):
        tensor.fill(value)
    assert_array_equal(tensor.data, np.arange(6).reshape(2, 3))


def test_float32_holds_the_nearest_of_a_float():
    tensor = FloatTensor([0, 0, 0, 0])
    for i, value in enumerate([0.1, np.inf, 2.0**128 - 2.0**103 - 2.0**75, np.nan]):
        tensor[i] = value
    assert_array_equal(
        tensor.data, np.array([0.1, np.inf, np.finfo(np.float32).max, np.nan], np.float32)
    )


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="no long double")
def test_a_long_double_may_be_too_large():
    with pytest.raises(ValueError, match="does not fit float64"):
        Tensor([0.0]).fill(np.longdouble(2) ** 2000)


def test_read_only_values_stay():
    values = np.arange(3.0)
    values.flags.writeable = False
    tensor = Tensor(values)
    for write in (lambda: tensor.fill(1), lambda: tensor.set_at(0, 1)):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert tensor.clone().data.flags.writeable
    with pytest.raises(AttributeError):
        tensor.data = np.zeros(3)


# ------------------------------------------------------------------------------------ shapes


@given(values=any_array, data=st.data())
def test_shapes_are_those_of_numpy(values, data):
    tensor = Tensor(values)
    assert tensor.reshape(-1 if values.size else 0).shape == (values.size,)
    assert np.shares_memory(tensor.reshape((values.size,)).data, values) or not values.size
    axes = data.draw(st.permutations(range(values.ndim)))
    assert_array_equal(tensor.transpose(*axes).data, values.transpose(axes))
    assert_array_equal(tensor.transpose().data, values.T)
    for other in (tensor.clone(), tensor.transpose(*axes)):
        assert other.data.flags.c_contiguous
        assert not np.shares_memory(other.data, values)


def test_shapes_that_do_not_fit():
    tensor = Tensor(np.zeros((2, 3)))
    for wrong in (lambda: tensor.reshape(4), lambda: tensor.reshape(-1, 4),
                  lambda: tensor.transpose(0, 0), lambda: tensor.transpose(1)):
        with pytest.raises(ValueError):
            wrong()


# --------------------------------------------------------------------------------- protocols


def test_equality():
    tensor = Tensor([[1, 2]], np.int8)
    assert tensor == Tensor(np.array([[1, 2]], np.int8))
    assert tensor != Tensor([[1, 3]], np.int8)
    assert tensor != Tensor([1, 2], np.int8)
    assert tensor != Tensor([[1, 2]], np.int16)
    assert Tensor([np.nan]) != Tensor([np.nan])
    assert (tensor == [[1, 2]]) is False
    assert type(tensor == tensor) is bool
    with pytest.raises(TypeError, match="unhashable"):
        hash(tensor)


def test_length_truth_and_iteration():
    tensor = Tensor(np.zeros((2, 3)))
    assert len(tensor) == 2
    with pytest.raises(TypeError, match="no length"):
        len(Tensor(1))
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(tensor)
    with pytest.raises(TypeError, match=r"use \.data"):
        list(tensor)


def test_repr_shows_small_tensors():
    assert repr(Tensor([[1, -2], [30, 4]], "int8")) == (
        "Tensor([[1, -2], [30, 4]], shape=(2, 2), dtype=int8)"
    )
    assert repr(FloatTensor(0.1)) == "Tensor(0.1, shape=(), dtype=float32)"
    assert repr(Tensor(np.zeros((0, 3)))) == "Tensor([], shape=(0, 3), dtype=float64)"
    assert repr(Tensor(np.zeros((4, 5)))) == "Tensor(shape=(4, 5), dtype=float64)"


@given(values=any_array)
def test_copies_and_pickles(values):
    tensor = Tensor(values)
    copies = [copy.copy(tensor), copy.deepcopy(tensor), tensor.clone()]
    copies += [pickle.loads(pickle.dumps(tensor, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert type(other) is Tensor
        assert other.dtype == values.dtype
        assert_array_equal(other.data, values)
        assert not np.shares_memory(other.data, values)


@given(values=any_array)
def test_ways_out_share_the_values(values):
    tensor = Tensor(values)
    outs = [np.asarray(tensor), np.asarray(memoryview(tensor)), np.from_dlpack(tensor)]
    for out in [*outs, tensor.__array__()]:
        assert out.dtype == values.dtype
        assert_array_equal(out, values)
        assert np.shares_memory(out, values) or not values.size
    assert tensor.__dlpack_device__() == values.__dlpack_device__()
    assert not np.shares_memory(np.array(tensor), values)
    assert np.asarray(tensor, np.float64).dtype == np.float64


def test_array_and_buffer_arguments():
    tensor = Tensor([1, 2], "uint8")
    assert tensor.__array__(np.float32).dtype == np.float32
    assert not np.shares_memory(tensor.__array__(copy=True), tensor.data)
    with memoryview(tensor) as view:
        assert (view.format, view.shape, view.readonly) == ("B", (2,), False)
        view[0] = 9
    assert tensor[0] == 9
    tensor.data.flags.writeable = False
    assert memoryview(tensor).readonly
    with pytest.raises(TypeError):
        memoryview(tensor)[0] = 1


def test_docstring_examples():
    for module in (generic, _broadcast):
        assert doctest.testmod(module).attempted
        assert not doctest.testmod(module).failed
