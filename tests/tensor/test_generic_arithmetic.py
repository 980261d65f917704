"""The generic tensor's arithmetic, exactly as NumPy's or as Python's integers."""

import itertools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes
from numpy.testing import assert_array_equal

from qcy.tensor.generic import DTYPES, FloatTensor, Tensor

INTEGERS = [dtype for dtype in DTYPES if dtype.kind != "f"]
OPERATORS = [operator.add, operator.sub, operator.mul]
#: Sizes on both sides of the blocks in which loops run.
SIZES = [1, 2, 15, 16, 17, 63, 255, 256, 257, 511, 512, 513, 767, 768, 1023, 1024, 1025, 3000]


def limits(dtype):
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([info.min, info.max], dtype).tolist()


def random_values(dtype, shape, seed=0):
    """Return values from all over the range of an integer dtype, or normal ones."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    low, high = limits(dtype)
    return rng.integers(low, high, shape, dtype, endpoint=True)


def small_values(dtype, shape, seed=0):
    """Return values whose sums, differences and products fit any dtype but by being negative."""
    if dtype.kind == "f":
        return random_values(dtype, shape, seed)
    return np.random.default_rng(seed).integers(0 if seed else 5, 5 if seed else 10, shape, dtype)


def as_numpy(op, a, b):
    with np.errstate(all="ignore"):
        return op(a, b)


def exact(op, a, b):
    """Return an integer result in Python's own integers, as an array of objects."""
    return np.asarray(op(a.astype(object), b.astype(object)), object)


def check_exact(op, a, b):
    """Check that a result is exact, or refused because it does not fit."""
    expected = exact(op, a, b)
    low, high = limits(a.dtype)
    if all(low <= value <= high for value in expected.flat):
        result = op(Tensor(a), Tensor(b))
        assert (result.dtype, result.shape) == (a.dtype, expected.shape)
        assert result.data.tolist() == expected.tolist()
    else:
        with pytest.raises(OverflowError, match=f"does not fit {a.dtype}"):
            op(Tensor(a), Tensor(b))


# --------------------------------------------------------------------------------- + - and *


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_broadcasts_and_is_exact(kernels, op, dtype, data):
    shapes = data.draw(
        mutually_broadcastable_shapes(num_shapes=2, max_dims=5, min_side=0, max_side=4)
    )
    a, b = (data.draw(arrays(dtype, shape)) for shape in shapes.input_shapes)
    if dtype.kind != "f":
        check_exact(op, a, b)
        return
    result, expected = op(Tensor(a), Tensor(b)), np.asarray(as_numpy(op, a, b))
    assert (result.dtype, result.shape) == (dtype, expected.shape)
    assert_array_equal(result.data, expected)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_operands(kernels, op, dtype):
    for size in SIZES:
        a = small_values(dtype, (3, size))
        for other_shape in ((3, size), (size,), (3, 1), (1, 1), (2, 1, size)):
            b = small_values(dtype, other_shape, 1)
            assert_array_equal(op(Tensor(a), Tensor(b)).data, as_numpy(op, a, b))
        assert_array_equal(op(Tensor(a), 3).data, as_numpy(op, a, np.full_like(a, 3)))
        assert_array_equal(op(10, Tensor(a)).data, as_numpy(op, np.full_like(a, 10), a))


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_one_overflow_is_found_wherever_it_stands(kernels, op, dtype):
    low, high = limits(dtype)
    worst = {operator.add: (high, 1), operator.sub: (low, 1), operator.mul: (high, 2)}[op]
    for size in SIZES:
        for place in {0, size // 2, size - 1}:
            a, b = small_values(dtype, size), small_values(dtype, size, 1)
            a[place], b[place] = worst
            with pytest.raises(OverflowError, match=f"{worst[0]} . {worst[1]} does not fit"):
                op(Tensor(a), Tensor(b))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_at_their_limits(kernels, dtype):
    low, high = limits(dtype)
    edges = {low, low + 1, max(low, -1), 0, 1, 2, high // 2, high - 1, high}
    edges = np.array(sorted(edges), dtype)
    for op in OPERATORS:
        for x, y in itertools.product(edges, edges):
            check_exact(op, np.array([x]), np.array([y]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("number", [3, 3.0, np.int8(3), np.uint64(3), np.float32(3), np.float64(3)])
def test_numbers_on_either_side(kernels, dtype, number):
    cases = [(operator.add, [[1, 2]]), (operator.mul, [[1, 2]]), (operator.sub, [[3, 3]])]
    for op, values in cases:
        tensor = Tensor(values, dtype)
        for result, expected in [(op(tensor, number), op(np.array(values), 3)),
                                 (op(number, tensor), op(3, np.array(values)))]:
            assert result.dtype == dtype
            assert_array_equal(result.data, expected.astype(dtype))


def test_numbers_that_the_dtype_does_not_hold():
    for number, dtype in [(128, "int8"), (-1, "uint64"), (0.5, "int32"), (math.nan, "int8"),
                          (2**24 + 1, "float32"), (1e39, "float32"), (2**53 + 1, "float64")]:
        tensor = Tensor([1, 2], dtype)
        for op in OPERATORS:
            for operands in ((tensor, number), (number, tensor)):
                with pytest.raises(ValueError, match=dtype) as caught:
                    op(*operands)
                assert str(number) in str(caught.value)
    assert (FloatTensor([1]) * 0.1)[0] == np.float32(0.1)


@pytest.mark.parametrize("op", [*OPERATORS, operator.matmul])
def test_operands_of_another_type(op):
    tensor = Tensor([1, 2], "int8")
    for other in ("int16", "uint8", "float32"):
        with pytest.raises(TypeError, match=f"int8 and {other}: use astype"):
            op(tensor, Tensor([1, 2], other))
    values = np.array([1, 2], np.int8)
    for operands in ((tensor, values), (values, tensor), (tensor, values.reshape(1, 2))):
        with pytest.raises(TypeError, match="wrap it in Tensor"):
            op(*operands)
    for other in ("1", None, [1, 2], True, np.True_, 1j, object()):
        for operands in ((tensor, other), (other, tensor)):
            with pytest.raises(TypeError):
                op(*operands)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2,\) do not broadcast"):
        Tensor(np.zeros((2, 3))) + Tensor(np.zeros(2))


# -------------------------------------------------------------------------------------- @

PRODUCTS = [
    ((3, 4), (4, 5)), ((3, 4), (4, 1)), ((1, 4), (4, 300)), ((7, 300), (300, 33)), ((4,), (4,)),
    ((4,), (4, 3)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)), ((5, 1, 2, 3), (1, 4, 3, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)),
    ((3, 0), (0, 2)), ((0, 3), (3, 2)), ((3, 2), (2, 0)), ((0,), (0,)), ((0, 2, 3), (3, 2)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), PRODUCTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matmul_is_that_of_numpy(kernels, dtype, a_shape, b_shape):
    a, b = small_values(dtype, a_shape, 1), small_values(dtype, b_shape, 1)
    if dtype.itemsize == 1:         # so that the sums fit
        a, b = a // 3, b // 3 * (np.arange(b.size, dtype=dtype).reshape(b_shape) % 5 == 0)
    result, expected = Tensor(a) @ Tensor(b), np.asarray(a @ b)
    assert (result.dtype, result.shape) == (dtype, expected.shape)
    assert_array_equal(result.data, expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@given(data=st.data())
def test_integer_matmul_is_exact_or_refused(kernels, dtype, data):
    m, k, n = (data.draw(st.integers(1, 4)) for _ in range(3))
    a, b = data.draw(arrays(dtype, (m, k))), data.draw(arrays(dtype, (k, n)))
    expected = exact(operator.matmul, a, b)
    low, high = limits(dtype)
    try:
        result = Tensor(a) @ Tensor(b)
    except OverflowError:
        assert min(expected.flat) < low or max(expected.flat) > high
    else:
        assert result.data.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        ([[-(2**63)]], [[1]], "int64"),
        ([[2**62, 2**62]], [[2], [-2]], "int64"),
        ([2**62, 2**62], [2, -2], "int64"),
        ([[2**62, 2**62, 1]], [[[2], [-2], [7]]] * 3, "int64"),
        ([[[2**62, 2**62, -1]]] * 2, [2, -2, 2**63 - 1], "int64"),
        ([-(2**63), 2**63 - 1, -1], [-(2**63), 2**63 - 1, 2**63 - 1], "int64"),     # 1 too much
        ([[2**31, 1]], [[-(2**32)], [-1]], "int64"),                                # 1 too much
        ([[2**31, 1]], [[-(2**32)], [1]], "int64"),
        ([[2**32, 2**32 - 1]], [[2**32 - 1], [1]], "uint64"),
        ([[2**32, 2**32]], [[2**32 - 1], [1]], "uint64"),                           # 1 too much
        ([[2**64 - 1, 0]], [[1], [2**64 - 1]], "uint64"),
        ([[3, 2**63]], [[5, 1], [2, 1]], "uint64"),                                 # in one place
    ],
)
def test_matmul_is_exact_to_the_last_of_64_bits(kernels, a, b, dtype):
    a, b = np.array(a, dtype), np.array(b, dtype)
    low, high = limits(np.dtype(dtype))
    expected = np.asarray(exact(operator.matmul, a, b), object)
    misfits = [value for value in expected.flat if not low <= value <= high]
    if misfits:
        with pytest.raises(OverflowError, match=f"^{misfits[0]}, an element .* fit {dtype}$"):
            Tensor(a) @ Tensor(b)
    else:
        result = (Tensor(a) @ Tensor(b)).data
        assert (result.dtype, result.tolist()) == (dtype, expected.tolist())


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((2, 3), (2, 3)), ((3,), (2,)), ((2, 3), (2,)), ((), (3,)), ((3,), ()),
        ((2, 2, 3), (3, 3, 2)),
    ],
)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_matmul_of_shapes_that_do_not_fit(dtype, a_shape, b_shape):
    with pytest.raises(ValueError, match="do not make a matrix product") as caught:
        Tensor(np.zeros(a_shape, dtype)) @ Tensor(np.zeros(b_shape, dtype))
    assert f"{a_shape} and {b_shape}" in str(caught.value)


# ---------------------------------------------------------------------------------- scale


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@given(data=st.data())
def test_scale_rounds_half_to_even(kernels, dtype, data):
    low, high = (max(-(2**53), limits(dtype)[0]), min(2**53, limits(dtype)[1]))
    values = data.draw(arrays(dtype, st.integers(0, 40), elements=st.integers(low, high)))
    factor = data.draw(
        st.sampled_from([0, 0.5, -0.5, 0.25, 1, 1.5, -1, 0.1, 2]) | st.floats(-3, 3)
    )
    exact = [round(value * float(factor)) for value in values.tolist()]
    misfits = [
        value
        for value, product in zip(values.tolist(), exact, strict=True)
        if not limits(dtype)[0] <= product <= limits(dtype)[1]
    ]
    if misfits:
        with pytest.raises(ValueError, match=f"does not fit {dtype}") as caught:
            Tensor(values).scale(factor)
        assert str(caught.value).startswith(f"{misfits[0]} * ")
    else:
        assert Tensor(values).scale(factor).data.tolist() == exact


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_scale_at_the_limits(kernels, dtype):
    low, high = limits(dtype)
    middle = (high + 1) // 2
    assert Tensor([low, 0, 1], dtype).scale(1).data.tolist() == [low, 0, 1]
    with pytest.raises(ValueError, match=f"{middle} \\* 2.0 does not fit {dtype}"):
        Tensor([1, middle, high], dtype).scale(2)
    if low:
        with pytest.raises(ValueError, match=f"{low} \\* -1.0 does not fit"):
            Tensor([low], dtype).scale(-1)
        assert Tensor([-1, -3, -5], dtype).scale(0.5).data.tolist() == [0, -2, -2]
    else:
        assert Tensor([1], dtype).scale(-0.5)[0] == 0       # rounds to 0, which fits
        with pytest.raises(ValueError, match=r"3 \* -0.5"):
            Tensor([1, 3], dtype).scale(-0.5)
    for size in SIZES:
        values = random_values(dtype, size) // 2
        expected = [round(float(value) * 0.7) for value in values.tolist()]
        assert Tensor(values).scale(0.7).data.tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scale_of_reals(kernels, dtype):
    for size in SIZES:
        values = random_values(np.dtype(dtype), size)
        assert_array_equal(Tensor(values).scale(0.1).data, values * values.dtype.type(0.1))
    assert Tensor([np.inf, -0.0], dtype).scale(-2).data.tolist() == [-np.inf, 0.0]
    assert Tensor(np.zeros((0, 3), dtype)).scale(2).shape == (0, 3)


def test_scale_takes_finite_real_numbers():
    for tensor in (Tensor([1], "int8"), FloatTensor([1]), Tensor([], "int8")):
        for s in (np.inf, np.nan, -np.inf):
            with pytest.raises(ValueError, match="s must be finite"):
                tensor.scale(s)
        for s in ("2", None, True, 1j, [2]):
            with pytest.raises(TypeError, match="s must be a real number"):
                tensor.scale(s)
        assert tensor.scale(np.float32(2)) == tensor.scale(2) == tensor * 2
    with pytest.raises(ValueError, match="does not fit float32"):
        FloatTensor([1]).scale(1e39)


# ------------------------------------------------------------------------- range and sums


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_min_max(kernels, dtype, size):
    values = random_values(dtype, size)
    low, high = limits(dtype)
    for position in {0, size // 3, size // 2, max(0, size - 257), max(0, size - 2), size - 1}:
        for extreme in (low, high):
            changed = values.copy()
            changed[position] = extreme
            tensor = Tensor(changed)
            assert tensor.min_max() == (changed.min(), changed.max())
            assert (tensor.min(), tensor.max()) == tensor.min_max()
            assert type(tensor.min()) is type(changed.item(0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 16, 255, 256, 511, 512, 513, 1300])
def test_min_max_finds_every_nan(kernels, dtype, size):
    values = np.random.default_rng(0).standard_normal(size).astype(dtype)
    values[0], values[size // 2] = np.inf, -np.inf
    for position in range(size):
        for nan in (np.nan, -np.nan):
            changed = values.copy()
            changed[position] = nan
            with pytest.raises(ValueError, match="NaN has no range"):
                Tensor(changed).min_max()
    low, high = Tensor(values).min_max()
    assert (low, high) == (values.min(), values.max())


def test_min_max_of_nothing():
    for tensor in (Tensor([]), Tensor(np.zeros((3, 0), np.int8))):
        for call in (tensor.min_max, tensor.min, tensor.max):
            with pytest.raises(ValueError, match="empty"):
                call()
    assert Tensor(7).min_max() == (7, 7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sum_does_not_overflow(dtype):
    low, high = limits(dtype)
    if dtype.kind == "f":
        low, high = -1.0, 1.0
    if dtype.itemsize < 8:
        tensor = Tensor(np.full((3, 500), high, dtype))
        assert tensor.sum() == 1500 * high
        assert Tensor(np.full((3, 500), low, dtype)).sum() == 1500 * low
    tensor = Tensor(np.arange(24).reshape(2, 3, 4), dtype)
    wide = {"i": np.int64, "u": np.uint64, "f": dtype}[dtype.kind]
    assert type(tensor.sum()) is (float if dtype.kind == "f" else int)
    for axis in (0, 1, -1, (0, 2), (0, 1, 2)):
        total = tensor.sum(axis)
        assert total.dtype == wide
        assert_array_equal(total.data, tensor.data.sum(axis))
    with pytest.raises(ValueError, match="out of bounds"):
        tensor.sum(3)
    assert Tensor(np.zeros((0, 2), dtype)).sum() == 0


def test_sum_of_float32_is_taken_in_float64():
    values = np.full(100_000, 0.1, np.float32)
    assert FloatTensor(values).sum() == pytest.approx(1e5 * float(np.float32(0.1)), rel=1e-12)
    columns = FloatTensor(values.reshape(-1, 2)).sum(0)
    assert columns.data.tolist() == [np.float32(5e4 * float(np.float32(0.1)))] * 2


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_sum_that_does_not_fit(dtype):
    high = np.iinfo(dtype).max
    rows = Tensor([[high, 0], [0, high - 1]], dtype)
    assert rows.sum(0).data.tolist() == rows.sum(1).data.tolist() == [high, high - 1]
    for axis in (None, (0, 1)):
        with pytest.raises(OverflowError, match=f"a sum does not fit {dtype}"):
            rows.sum(axis)
    assert "OverflowError" in Tensor.sum.__doc__
