"""Quantization parameters: what they refuse, and how they come from a range of reals."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizationScheme

SYMMETRIC = QuantizationScheme.SYMMETRIC
ASYMMETRIC = QuantizationScheme.ASYMMETRIC
PER_CHANNEL = QuantizationScheme.PER_CHANNEL
PER_TENSOR = QuantizationScheme.PER_TENSOR
TINY = np.finfo(np.float32).tiny
CODES = {"uint8": (0, 255), "int8": (-128, 127)}
DTYPES = st.sampled_from(sorted(CODES))
REALS = st.floats(-1e30, 1e30, allow_subnormal=False)


# ------------------------------------------------------------------------------------- schemes


@pytest.mark.parametrize(
    ("scheme", "is_symmetric", "is_per_channel"),
    [
        (SYMMETRIC, True, False),
        (ASYMMETRIC, False, False),
        (PER_CHANNEL, False, True),
        (PER_TENSOR, False, False),
        (SYMMETRIC | PER_CHANNEL, True, True),
        (SYMMETRIC | PER_TENSOR, True, False),
        (ASYMMETRIC | PER_CHANNEL, False, True),
        (ASYMMETRIC | PER_TENSOR, False, False),
    ],
)
def test_scheme_answers_two_questions(scheme, is_symmetric, is_per_channel):
    assert scheme.is_symmetric is is_symmetric
    assert scheme.is_per_channel is is_per_channel


@pytest.mark.parametrize("scheme", [SYMMETRIC | ASYMMETRIC, PER_CHANNEL | PER_TENSOR])
def test_scheme_that_contradicts_itself(scheme):
    for ask in (lambda: scheme.is_symmetric, lambda: scheme.is_per_channel, scheme.check):
        with pytest.raises(ValueError, match="both halves"):
            ask()
    with pytest.raises(ValueError, match="both halves"):
        QuantizationParams.from_range(0, 1, scheme=scheme)


def test_scheme_has_the_four_names_of_the_roadmap():
    assert [s.name for s in QuantizationScheme] == [
        "SYMMETRIC", "ASYMMETRIC", "PER_CHANNEL", "PER_TENSOR",
    ]


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("dtype", [*CODES, np.uint8, np.dtype("int8")])
def test_params_per_tensor(dtype):
    params = QuantizationParams(0.1, 5, dtype)
    assert params.scale == np.float32(0.1)
    assert params.scale.dtype == np.float32
    assert params.zero_point == 5
    assert type(params.zero_point) is int
    assert params.dtype == np.dtype(dtype)
    assert params.axis is None
    assert (params.qmin, params.qmax) == CODES[np.dtype(dtype).name]
    assert (type(params.qmin), type(params.qmax)) == (int, int)
    assert not params.narrow_range


def test_params_defaults():
    params = QuantizationParams(0.5)
    assert (params.zero_point, params.dtype, params.axis) == (0, np.uint8, None)


def test_params_per_channel():
    params = QuantizationParams([0.5, 0.25], [1, 2], "int8", axis=3)
    assert_array_equal(params.scale, np.array([0.5, 0.25], np.float32))
    assert_array_equal(params.zero_point, np.array([1, 2], np.int32))
    assert (params.scale.dtype, params.zero_point.dtype) == (np.float32, np.int32)
    assert params.axis == 3
    assert params.channel_shape(5) == (1, 1, 1, -1, 1)
    assert QuantizationParams(0.5).channel_shape(2) == ()


def test_params_do_not_share_memory_with_what_made_them():
    scale, zero = np.array([0.5, 0.25], np.float32), np.array([1, 2], np.int32)
    params = QuantizationParams(scale, zero, axis=0)
    scale[:], zero[:] = 9, 9
    assert_array_equal(params.scale, [0.5, 0.25])
    assert_array_equal(params.zero_point, [1, 2])


@pytest.mark.parametrize("dtype", CODES)
def test_limits_of_params_are_allowed(dtype):
    low, high = CODES[dtype]
    for zero in (low, high):
        assert QuantizationParams(TINY, zero, dtype).zero_point == zero
    assert QuantizationParams(np.finfo(np.float32).max).scale == np.finfo(np.float32).max


def test_narrow_range_ends_at_minus_127():
    params = QuantizationParams(0.5, 0, "int8", narrow_range=True)
    assert (params.qmin, params.qmax) == (-127, 127)
    assert (params.low, params.high) == (-63.5, 63.5)
    with pytest.raises(ValueError, match=r"\[-127, 127\]"):
        QuantizationParams(0.5, -128, "int8", narrow_range=True)
    with pytest.raises(ValueError, match="narrow_range is for int8"):
        QuantizationParams(0.5, 0, "uint8", narrow_range=True)


def test_low_and_high_are_what_codes_stand_for():
    params = QuantizationParams(0.5, 10)
    assert (params.low, params.high) == (-5.0, 122.5)
    params = QuantizationParams([0.5, 2.0], [0, -128], "int8", axis=0)
    assert_array_equal(params.low, [-64.0, 0.0])
    assert_array_equal(params.high, [63.5, 510.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0,), ValueError, "scale must be positive, finite"),
        ((-0.5,), ValueError, "scale must be positive, finite"),
        ((np.nan,), ValueError, "scale must be positive, finite"),
        ((np.inf,), ValueError, "scale must be positive, finite"),
        ((1e39,), ValueError, "scale must be positive, finite"),
        ((1e-45,), ValueError, "2\\*\\*-126"),
        (([0.5, 0.0], [0, 0], "uint8", 0), ValueError, "scale must be positive.*got 0.0"),
        ((1j,), TypeError, "scale must be a real number"),
        (("wide",), TypeError, "scale must be a real number"),
        (([0.5, 0.5],), ValueError, "scale must be a number"),
        ((0.5, [1, 1]), ValueError, "zero_point must be a number"),
        ((0.5, 0, "uint8", 0), ValueError, "scale must be 1-D"),
        (([0.5, 0.5], 0, "uint8", 0), ValueError, "zero_point must be 1-D"),
        (([0.5, 0.5], [0], "uint8", 0), ValueError, "one length, got 2 and 1"),
        (([[0.5]], [[0]], "uint8", 0), ValueError, "scale must be 1-D"),
        ((0.5, 256), ValueError, r"zero_point must be in \[0, 255\], got 256"),
        ((0.5, -1), ValueError, r"zero_point must be in \[0, 255\]"),
        ((0.5, 128, "int8"), ValueError, r"zero_point must be in \[-128, 127\]"),
        ((0.5, -129, "int8"), ValueError, r"zero_point must be in \[-128, 127\]"),
        ((0.5, 1.0), TypeError, "zero_point must hold integers"),
        ((0.5, 0, "int16"), TypeError, "dtype must be int8 or uint8"),
        ((0.5, 0, "float32"), TypeError, "dtype must be int8 or uint8"),
        ((0.5, 0, "nonsense"), TypeError, "dtype must be int8 or uint8"),
        (([0.5], [0], "uint8", -1), ValueError, "axis must be at least 0"),
        (([0.5], [0], "uint8", 0.0), TypeError, "axis must be an int"),
    ],
)
def test_params_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        QuantizationParams(*arguments)


def test_params_are_immutable():
    params = QuantizationParams([0.5, 0.25], [1, 2], axis=0)
    for name in ("scale", "zero_point", "dtype", "axis", "narrow_range"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(params, name, None)
    for array in (params.scale, params.zero_point):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3


DIFFERENT = [
    QuantizationParams(0.5, 1),
    QuantizationParams(0.25, 1),
    QuantizationParams(0.5, 2),
    QuantizationParams(0.5, 1, "int8"),
    QuantizationParams(0.5, 1, "int8", narrow_range=True),
    QuantizationParams([0.5], [1], axis=0),
    QuantizationParams([0.5], [1], axis=1),
    QuantizationParams([0.5, 0.5], [1, 1], axis=0),
    QuantizationParams([0.5, 0.5], [1, 2], axis=0),
]


def test_equality_and_hash_look_at_every_field():
    for i, a in enumerate(DIFFERENT):
        for j, b in enumerate(DIFFERENT):
            assert (a == b) is (i == j)
            assert (a != b) is (i != j)
        twin = copy.deepcopy(a)
        assert twin is not a
        assert twin == a
        assert hash(twin) == hash(a)
    assert len(set(DIFFERENT)) == len(DIFFERENT)
    assert DIFFERENT[0] != 0.5
    assert DIFFERENT[0] != "params"


@pytest.mark.parametrize("params", DIFFERENT, ids=str)
def test_pickle_and_copy_round_trip(params):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(params, protocol))
        assert again == params
        assert again.scale.dtype == np.float32
    assert copy.copy(params) == params
    if params.axis is not None:
        with pytest.raises(ValueError, match="read-only"):
            copy.deepcopy(params).scale[0] = 3


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(QuantizationParams(0.1, 3)) == (
        "QuantizationParams(scale=0.1, zero_point=3, dtype=uint8)"
    )
    text = repr(QuantizationParams([0.5], [0], "int8", axis=2, narrow_range=True))
    assert text.endswith("dtype=int8, axis=2, narrow_range=True)")


# ------------------------------------------------------------------ from a range, (2) and (3)


def asymmetric(low, high, dtype):
    """Equation (2), in Python floats; the scale rounded to float32 first."""
    qmin, qmax = CODES[dtype]
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    scale = 1.0 if scale == 0 else max(float(np.float32(scale)), float(TINY))
    return np.float32(scale), min(max(round(qmin - low / scale), qmin), qmax)


def symmetric(low, high, dtype):
    """Equation (3)."""
    scale = max(abs(low), abs(high)) / 127
    scale = 1.0 if scale == 0 else max(float(np.float32(scale)), float(TINY))
    return np.float32(scale), 128 if dtype == "uint8" else 0


@given(a=REALS, b=REALS, dtype=DTYPES, is_symmetric=st.booleans())
def test_from_range_is_equations_2_and_3(a, b, dtype, is_symmetric):
    low, high = min(a, b), max(a, b)
    scheme = SYMMETRIC if is_symmetric else ASYMMETRIC
    params = QuantizationParams.from_range(low, high, dtype, scheme)
    expected = (symmetric if is_symmetric else asymmetric)(low, high, dtype)
    assert (params.scale, params.zero_point) == expected
    assert params.narrow_range is (is_symmetric and dtype == "int8")
    assert params == QuantizationParams.from_range(low, high, dtype, scheme | PER_TENSOR)


@given(a=REALS, b=REALS, dtype=DTYPES, is_symmetric=st.booleans())
def test_from_range_covers_the_range_and_zero_exactly(a, b, dtype, is_symmetric):
    low, high = min(a, b), max(a, b)
    scheme = SYMMETRIC if is_symmetric else ASYMMETRIC
    params = QuantizationParams.from_range(low, high, dtype, scheme)
    bounds = np.array([low, 0.0, high], np.float32)
    back = qcy.quantize(bounds, params).dequantize().data.astype(np.float64)
    assert back[1] == 0
    # The rounded zero point shifts both ends by up to half a step, and rounding adds another.
    assert np.abs(back - bounds).max() <= 1.001 * float(params.scale)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (-0.0, 0.0), (1.0, 1.0), (-3.0, -2.0), (2.0, 3.0), (0.0, 1e-45), (-1e-300, 0.0)],
)
def test_degenerate_ranges(low, high, dtype):
    for scheme, oracle in ((ASYMMETRIC, asymmetric), (SYMMETRIC, symmetric)):
        params = QuantizationParams.from_range(low, high, dtype, scheme)
        assert (params.scale, params.zero_point) == oracle(low, high, dtype)
        assert params.scale >= TINY
    if low == high == 0:
        assert params.scale == 1


def test_zero_point_comes_from_the_rounded_scale():
    # A range whose zero point differs if the scale is not rounded to float32 first.
    rng = np.random.default_rng(5)
    high = rng.uniform(0.5, 2, 400_000)
    low = -high * rng.uniform(0.2, 5, high.size)
    exact = (high - low) / 255
    rounded = exact.astype(np.float32).astype(np.float64)
    differs = np.rint(-low / exact) != np.rint(-low / rounded)
    assert differs.any()
    params = QuantizationParams.from_range(
        low[differs], high[differs], scheme=PER_CHANNEL, axis=0
    )
    assert_array_equal(params.zero_point, np.rint(-low / rounded)[differs])


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("scheme", [SYMMETRIC, ASYMMETRIC])
def test_from_range_per_channel_is_each_channel_by_itself(scheme, dtype):
    low, high = np.array([-1.0, 0.0, -5.0, 0.0]), np.array([2.0, 0.0, -1.0, 1e-40])
    params = QuantizationParams.from_range(low, high, dtype, scheme | PER_CHANNEL, axis=1)
    assert params.axis == 1
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        one = QuantizationParams.from_range(a, b, dtype, scheme)
        assert (params.scale[i], params.zero_point[i]) == (one.scale, one.zero_point)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((2, 1), {}, ValueError, "low must not exceed high"),
        (([0, 2], [1, 1]), {"scheme": PER_CHANNEL, "axis": 0}, ValueError, "must not exceed"),
        ((np.nan, 1), {}, ValueError, "must be finite"),
        ((0, np.nan), {}, ValueError, "must be finite"),
        ((-np.inf, 1), {}, ValueError, "must be finite"),
        ((0, 1e45), {}, ValueError, "scale must be positive, finite"),
        (([0], [1]), {}, ValueError, "must be numbers"),
        ((0, 1), {"scheme": PER_CHANNEL, "axis": 0}, ValueError, "1-D"),
        (([0, 0], [1]), {"scheme": PER_CHANNEL, "axis": 0}, ValueError, "1-D"),
        (([0], [1]), {"scheme": PER_CHANNEL}, ValueError, "needs an axis"),
        (([0], [1]), {"axis": 0}, ValueError, "needs an axis"),
        (([0], [1]), {"scheme": PER_CHANNEL, "axis": -1}, ValueError, "axis must be at least 0"),
        ((0, 1), {"scheme": "symmetric"}, TypeError, "scheme must be a QuantizationScheme"),
        ((0, 1), {"dtype": "int32"}, TypeError, "dtype must be int8 or uint8"),
    ],
)
def test_from_range_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        QuantizationParams.from_range(*arguments, **options)
