"""The generic tensor's conversions between dtypes: exact, or refused."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from qcy.tensor.generic import DTYPES, Tensor

INTEGERS = [dtype for dtype in DTYPES if dtype.kind != "f"]
PAIRS = [pair for pair in itertools.product(DTYPES, DTYPES) if pair[0] != pair[1]]


def limits(dtype):
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def exact(value, dtype):
    """Return what `value` becomes in `dtype`, or None if it does not fit: in exact arithmetic."""
    if dtype.kind == "f":
        overflow = 2**128 - 2**103 if dtype == np.float32 else math.inf
        if math.isfinite(value) and abs(value) >= overflow:
            return None
        return dtype.type(value).item()
    low, high = limits(dtype)
    return math.trunc(value) if math.isfinite(value) and low <= math.trunc(value) <= high else None


def interesting(dtype):
    """Return values at and around every limit that `dtype` can hold."""
    found = {0, 1}
    for other in INTEGERS:
        for limit in limits(other):
            found |= {limit + step for step in (-1, Fraction(-1, 2), 0, Fraction(1, 2), 1)}
    found |= {Fraction(3, 2), Fraction(-3, 2), 2**24 + 1, 2**53 + 1, 2**60 + 1}
    if dtype.kind != "f":
        low, high = limits(dtype)
        return [int(x) for x in sorted(found) if x == int(x) and low <= x <= high]
    reals = {float(dtype.type(float(x))) for x in found}
    reals |= {math.nextafter(x, y) for x in reals for y in (-math.inf, math.inf)}
    reals |= {2.0**127, 2.0**128 - 2.0**103, 2.0**128 - 2.0**104, -1e39, 1e-50, 1e300}
    with np.errstate(all="ignore"):
        return [*np.unique(np.array(sorted(reals), dtype)).tolist(), -0.0, np.nan]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_astype_is_exact_or_an_error(kernels, source, target):
    values = interesting(source)
    fitting = [value for value in values if exact(value, target) is not None]
    expected = [exact(value, target) for value in fitting]
    converted = Tensor(np.array(fitting * 40, source).reshape(40, -1)).astype(target)
    assert converted.dtype == target
    assert_array_equal(converted.data, np.array([expected] * 40, target))
    for misfit in values:
        if exact(misfit, target) is None:
            for pad in (0, 700):
                data = np.array([*fitting, *[0] * pad, misfit, *fitting, values[0]], source)
                with pytest.raises(ValueError, match=f"does not fit {target}") as caught:
                    Tensor(data).astype(target)
                assert str(caught.value).startswith(str(data[len(fitting) + pad].item()))


def test_astype_makes_a_copy():
    tensor = Tensor([1.0, np.nan, np.inf])
    for dtype in ("float64", np.float32, ">f8", float):
        other = tensor.astype(dtype)
        assert other.dtype == np.dtype(dtype).newbyteorder("=")
        assert not np.shares_memory(other.data, tensor.data)
        assert_array_equal(other.data, tensor.data)
    assert Tensor(np.zeros((0, 3)), "int8").astype("float32").shape == (0, 3)
    assert Tensor(2.9).astype(int) == Tensor(2)
