"""QuantizedTensor as a value: what it holds, how it converts, moves, compares and refuses."""

import copy
import pickle

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizationScheme, QuantizedTensor, Tensor

SYMMETRIC = QuantizationScheme.SYMMETRIC
PER_CHANNEL = QuantizationScheme.PER_CHANNEL


def random_params(rng, dtype, n_channels=None, axis=None):
    """Return params with any zero point, per channel if `axis` is given."""
    scale = 10.0 ** rng.uniform(-3, 2, n_channels)
    return QuantizationParams(
        scale, oracles.random_zero_point(rng, dtype, n_channels), dtype, axis
    )


def channels(params, ndim):
    """Return scale and zero point as they broadcast against `ndim` axes."""
    shape = params.channel_shape(ndim)
    return np.reshape(params.scale, shape), np.reshape(params.zero_point, shape)


def per_channel(rng, shape, axis, dtype=np.uint8):
    """Return a random tensor with a scale for each channel."""
    codes = oracles.random_codes(rng, shape, dtype)
    return QuantizedTensor(codes, random_params(rng, dtype, shape[axis], axis))


# -------------------------------------------------------------------------- making, and reading


@pytest.mark.parametrize("dtype", oracles.Q8)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3), (2, 3, 4, 5)])
def test_holds_codes_and_params(shape, dtype):
    codes = oracles.random_codes(np.random.default_rng(1), shape, dtype)
    params = QuantizationParams(0.5, 3, dtype)
    for given_codes in (codes, Tensor(codes), codes.tolist() if codes.size else codes):
        if isinstance(given_codes, (list, int)):
            given_codes = Tensor(given_codes, dtype)
        x = QuantizedTensor(given_codes, params)
        assert isinstance(x.codes, Tensor)
        assert_array_equal(x.codes.data, codes)
        assert x.params is params
        assert x.get_params() is params
        assert (x.scale, x.zero_point, x.axis) == (0.5, 3, None)
        assert (x.shape, x.size, x.ndim) == (shape, codes.size, codes.ndim)
        assert x.dtype == dtype
        assert x.validate() is None


def test_shares_c_ordered_codes():
    codes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    x = QuantizedTensor(codes, QuantizationParams(0.5))
    assert np.shares_memory(x.codes.data, codes)
    turned = QuantizedTensor(codes.T, QuantizationParams(0.5))
    assert_array_equal(turned.codes.data, codes.T)


@pytest.mark.parametrize(
    ("codes", "params", "error", "message"),
    [
        (np.zeros(3, np.uint8), 0.5, TypeError, "params must be QuantizationParams"),
        (np.zeros(3, np.uint8), QuantizationParams(1, 0, "int8"), TypeError, "codes are uint8"),
        (np.zeros(3, np.int8), QuantizationParams(1), TypeError, "codes are int8"),
        (np.zeros(3, np.int16), QuantizationParams(1), TypeError, "codes are int16"),
        (np.zeros(3), QuantizationParams(1), TypeError, "codes are float64"),
        (np.zeros((2, 3), np.uint8), QuantizationParams([1, 1], [0, 0], axis=1), ValueError,
         "axis 1 has 3 channels, params have 2 scales"),
        (np.zeros(2, np.uint8), QuantizationParams([1, 1], [0, 0], axis=1), ValueError,
         "axis 1 must be below 1"),
    ],
)
def test_refuses_codes_and_params_that_do_not_fit(codes, params, error, message):
    with pytest.raises(error, match=message):
        QuantizedTensor(codes, params)


def test_is_immutable_but_for_the_codes():
    x = QuantizedTensor(np.zeros(3, np.uint8), QuantizationParams(0.5))
    for name in ("codes", "params", "scale", "zero_point", "anything"):
        with pytest.raises(AttributeError):
            setattr(x, name, None)
    x.codes.data[0] = 7
    assert x.dequantize().data[0] == 3.5


# ------------------------------------------------------------------------ quantize, dequantize


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES, axis=st.sampled_from([None, 0, 1, 2]))
def test_quantize_and_dequantize_are_equations_4_and_5(seed, dtype, axis):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 6, 3))
    params = random_params(rng, dtype, None if axis is None else shape[axis], axis)
    scale, zero = channels(params, 3)
    x = (scale * rng.uniform(-300, 300, shape)).astype(np.float32)
    ties = scale * (rng.integers(-200, 200, shape) + np.float32(0.5))
    x = np.where(rng.random(shape) < 0.5, x, ties.astype(np.float32))
    y = qcy.quantize(x, params)
    assert y.params is params
    assert_array_equal(y.codes.data, oracles.quantize(x, scale, zero, dtype))
    reals = y.dequantize()
    assert isinstance(reals, Tensor)
    assert_array_equal(reals.data, oracles.dequantize(y.codes.data, scale, zero))


@pytest.mark.parametrize("scheme", [QuantizationScheme.ASYMMETRIC, SYMMETRIC])
@pytest.mark.parametrize("axis", [None, 0, -1])
@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_quantize_chooses_params_that_lose_half_a_step(scheme, axis, seed, dtype):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(4, 5)) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)
    if axis is not None:
        scheme = scheme | PER_CHANNEL
    y = qcy.quantize(x, scheme=scheme, dtype=dtype, axis=axis)
    over = None if axis is None else (1 - axis % 2,)
    assert y.params == QuantizationParams.from_range(
        x.min(axis=over), x.max(axis=over), dtype, scheme, None if axis is None else axis % 2
    )
    scale, _ = channels(y.params, 2)
    # Half a step, and another half at the ends, whence the zero point was rounded away.
    assert (np.abs(y.dequantize().data - x) <= 1.0001 * scale).all()


def test_quantize_takes_all_kinds_of_reals():
    params = QuantizationParams(0.5, 100)
    for kind in (np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64):
        x = np.array([[1, 2], [3, 100]], kind)
        for given_x in (x, Tensor(x) if kind is not np.float16 else x, x[:, ::-1][:, ::-1]):
            assert_array_equal(
                qcy.quantize(given_x, params).codes.data, [[102, 104], [106, 255]]
            )
    assert_array_equal(qcy.quantize([[1.0, -1.0]], params).codes.data, [[102, 98]])
    assert_array_equal(qcy.quantize(7, params).codes.data, 114)


def test_quantize_saturates_infinities_and_the_narrow_range():
    x = np.array([-np.inf, -1e38, 1e38, np.inf])
    assert_array_equal(qcy.quantize(x, QuantizationParams(1, 9)).codes.data, [0, 0, 255, 255])
    wide = QuantizationParams(1, 0, "int8")
    narrow = QuantizationParams(1, 0, "int8", narrow_range=True)
    assert_array_equal(qcy.quantize(x, wide).codes.data, [-128, -128, 127, 127])
    assert_array_equal(qcy.quantize(x, narrow).codes.data, [-127, -127, 127, 127])


def test_quantize_writes_into_out():
    out = np.zeros(3, np.int8)
    y = qcy.quantize([1.0, 2.0, -1.0], QuantizationParams(1, 0, "int8"), out=out)
    assert np.shares_memory(y.codes.data, out)
    assert_array_equal(out, [1, 2, -1])


def test_quantize_empty():
    y = qcy.quantize(np.zeros((0, 3)), QuantizationParams(0.5))
    assert y.shape == (0, 3)
    assert y.dequantize().shape == (0, 3)
    with pytest.raises(ValueError, match="x must not be empty if params are to be chosen"):
        qcy.quantize(np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        ([1.0, np.nan], {}, ValueError, "NaN, got 1"),
        ([1.0, np.nan, np.nan], {"params": QuantizationParams(1)}, ValueError, "NaN, got 2"),
        ([1.0, np.inf], {}, ValueError, "finite"),
        ([1e300, 0.0], {}, ValueError, "finite"),
        ([1j], {}, TypeError, "real numbers"),
        (["a"], {}, TypeError, "real numbers"),
        ([True], {}, TypeError, "real numbers"),
        ([1.0], {"params": 0.5}, TypeError, "params must be QuantizationParams"),
        ([1.0], {"dtype": "int16"}, TypeError, "dtype must be int8 or uint8"),
        ([1.0], {"scheme": "x"}, TypeError, "scheme must be a QuantizationScheme"),
        ([1.0], {"scheme": PER_CHANNEL}, ValueError, "needs an axis"),
        ([1.0], {"axis": 0}, ValueError, "needs an axis"),
        ([1.0], {"scheme": PER_CHANNEL, "axis": 1}, ValueError, "axis must be in"),
        ([1.0], {"scheme": PER_CHANNEL, "axis": "x"}, TypeError, "axis must be an int"),
        ([1.0], {"params": QuantizationParams([1, 1], [0, 0], axis=0)}, ValueError, "channel"),
        ([1.0], {"out": np.zeros(2, np.uint8)}, ValueError, "out must be"),
        ([1.0], {"out": np.zeros(1, np.int8)}, ValueError, "out must be"),
        ([1.0], {"out": [0]}, TypeError, "out must be"),
    ],
)
def test_quantize_refuses(x, options, error, message):
    with pytest.raises(error, match=message):
        qcy.quantize(x, **options)


@pytest.mark.parametrize(
    ("params", "good", "bad"),
    [
        (QuantizationParams(0.5, 0, "int8"), {"dtype": "int8"}, {"dtype": "uint8"}),
        (QuantizationParams(0.5, 0), {"dtype": np.uint8}, {"dtype": np.int8}),
        (QuantizationParams([1, 1], [0, 0], axis=1), {"axis": 1}, {"axis": 0}),
        (QuantizationParams([1, 1], [0, 0], axis=1), {"axis": -1}, {"axis": -2}),
        (QuantizationParams(0.5, 0), {"axis": None}, {"axis": 0}),
        (QuantizationParams(0.5, 128), {"scheme": SYMMETRIC}, {"scheme": PER_CHANNEL}),
        (QuantizationParams(0.5, 0, "int8"), {"scheme": SYMMETRIC},
         {"scheme": SYMMETRIC | PER_CHANNEL}),
        (QuantizationParams([1, 1], [9, 0], axis=1), {"scheme": PER_CHANNEL},
         {"scheme": SYMMETRIC | PER_CHANNEL}),
        (QuantizationParams([1, 1], [128, 128], axis=1), {"scheme": SYMMETRIC | PER_CHANNEL},
         {"scheme": SYMMETRIC}),
        (QuantizationParams(0.5, 9), {"scheme": QuantizationScheme.ASYMMETRIC},
         {"scheme": SYMMETRIC}),
    ],
)
def test_quantize_refuses_what_contradicts_params(params, good, bad):
    x = np.ones((3, 2))
    assert qcy.quantize(x, params, **good) == qcy.quantize(x, params)
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be that of params"):
        qcy.quantize(x, params, **bad)


# ----------------------------------------------------------------------------------- requantize


def identity_table(source, target):
    """Equation (19): what each code of `source` becomes, in float64."""
    codes = np.arange(source.qmin, source.qmax + 1)
    reals = np.float64(source.scale) * (codes - source.zero_point)
    steps = np.rint(reals / np.float64(target.scale))
    return oracles.saturate(steps, target.zero_point, target.dtype)


@given(seed=oracles.SEEDS, dtype=oracles.DTYPES)
def test_requantize_is_equation_19(seed, dtype):
    rng = np.random.default_rng(seed)
    source, target = random_params(rng, dtype), random_params(rng, dtype)
    codes = oracles.random_codes(rng, (3, 7), dtype)
    y = QuantizedTensor(codes, source).requantize(target.scale, target.zero_point)
    assert y.params == target
    expected = identity_table(source, target)[codes.astype(int) - source.qmin]
    assert_array_equal(y.codes.data, expected)


@given(seed=oracles.SEEDS, axis=st.integers(0, 2))
def test_requantize_per_channel_gives_one_scale(seed, axis):
    rng = np.random.default_rng(seed)
    x = per_channel(rng, (2, 3, 4), axis, np.int8)
    y = x.requantize(0.25, -3)
    assert y.params == QuantizationParams(0.25, -3, "int8")
    for i, part in enumerate(np.moveaxis(x.codes.data, axis, 0)):
        one = QuantizationParams(x.scale[i], x.zero_point[i], "int8")
        expected = identity_table(one, y.params)[part.astype(int) + 128]
        assert_array_equal(np.moveaxis(y.codes.data, axis, 0)[i], expected)


def test_requantize_to_the_same_params_changes_nothing():
    x = QuantizedTensor(np.arange(256).astype(np.uint8), QuantizationParams(0.3, 77))
    assert x.requantize(x.scale, x.zero_point) == x
    for scale, zero in ((0, 1), (np.nan, 1), (1, 256), (1, -1)):
        with pytest.raises(ValueError, match="must be"):
            x.requantize(scale, zero)


# ------------------------------------------------------------------ reshape, transpose, slices


def check_reals_move(y, reals):
    """Check that `y` stands for the same numbers, moved."""
    y.validate()
    assert y.shape == np.shape(reals)
    assert_array_equal(y.dequantize().data, reals)


def test_reshape_per_tensor():
    x = QuantizedTensor(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), QuantizationParams(2, 9))
    for shape in ((6, 4), (24,), (-1, 2), (2, 3, 4), (1, 24, 1)):
        check_reals_move(x.reshape(*shape), x.dequantize().data.reshape(shape))
        assert x.reshape(shape) == x.reshape(*shape)
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(5, 5)


@pytest.mark.parametrize(
    ("shape", "axis", "new_shape", "new_axis"),
    [
        ((1, 1), 0, (1, 1), 0), ((1, 1), 1, (1, 1), 1), ((1, 1, 2), 1, (1, 1, 2, 1), 1),
        ((2, 1, 1), 2, (2, 1, 1), 2), ((1, 1), 1, (1,), 0), ((1, 3), 1, (3,), 0),
        ((2, 3, 4), 1, (2, 3, 2, 2), 1),
        ((2, 3, 4), 1, (2, 3, 4, 1), 1),
        ((2, 3, 4), 1, (1, 2, 3, 4), 2),
        ((2, 3, 4), 2, (6, 4), 1),
        ((2, 3, 4), 2, (6, -1), 1),
        ((2, 3, 4), 0, (2, 12), 0),
        ((6, 4), 1, (2, 3, 4), 2),
        ((5, 3, 3), 1, (5, 3, 3), 1),
        ((5, 3, 3), 2, (5, 3, 3), 2),
        ((5, 3, 3), 2, (15, 3), 1),
        ((0, 3), 1, (0, 3), 1),
    ],
)
def test_reshape_moves_the_channel_axis(shape, axis, new_shape, new_axis):
    x = per_channel(np.random.default_rng(0), shape, axis)
    y = x.reshape(*new_shape)
    assert y.axis == new_axis
    check_reals_move(y, x.dequantize().data.reshape(new_shape))


@pytest.mark.parametrize(
    ("shape", "axis", "new_shape"),
    [
        ((2, 3, 4), 1, (24,)), ((2, 3, 4), 1, (6, 4)), ((2, 3, 4), 1, (2, 12)),
        ((2, 6, 4), 1, (2, 2, 3, 4)), ((2, 3, 4), 1, (3, 2, 4)), ((4, 3), 0, (3, 4)),
        ((3, 2, 3), 0, (2, 3, 3)), ((2, 3, 3), 1, (2, 9)),
    ],
)
def test_reshape_refuses_to_split_or_merge_channels(shape, axis, new_shape):
    x = per_channel(np.random.default_rng(0), shape, axis)
    with pytest.raises(ValueError, match=f"splits or merges channel axis {axis}"):
        x.reshape(*new_shape)


@pytest.mark.parametrize("axes", [(), (0, 1, 2), (2, 0, 1), (1, 2, 0), (-1, 0, 1), (0, -1, -2)])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_transpose_moves_the_channel_axis(axes, axis):
    rng = np.random.default_rng(0)
    if axis is None:
        x = QuantizedTensor(
            oracles.random_codes(rng, (2, 3, 4), np.uint8), QuantizationParams(0.5, 9)
        )
    else:
        x = per_channel(rng, (2, 3, 4), axis)
    y = x.transpose(*axes)
    check_reals_move(y, x.dequantize().data.transpose(*axes))
    assert y.codes.data.flags.c_contiguous
    if axes:
        assert x.transpose(axes) == x.transpose(list(axes)) == y
    else:
        assert x.transpose(None) == y
    assert y.transpose(*np.argsort([a % 3 for a in axes or (2, 1, 0)])) == x
    for bad in ((0, 1), (0, 0, 1), (0, 1, 3)):
        with pytest.raises(ValueError, match=r"axes|axis"):
            x.transpose(*bad)


INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(None, None, 2), slice(0, 0),
    (0, 0), (slice(None), 1), (slice(None), slice(1, 3)), (0, slice(1, 2), slice(None, None, -1)),
    (slice(None), slice(None), 2), (0, 0, 0), (np.int64(1), slice(None), -1), (),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_slices_move_the_channel_axis(index, axis):
    rng = np.random.default_rng(0)
    if axis is None:
        params = QuantizationParams(0.5, 9)
        x = QuantizedTensor(oracles.random_codes(rng, (2, 3, 4), np.uint8), params)
    else:
        x = per_channel(rng, (2, 3, 4), axis)
    check_reals_move(x[index], x.dequantize().data[index])


def test_slices_refuse_what_they_do_not_understand():
    x = per_channel(np.random.default_rng(0), (2, 3, 4), 1)
    for index in (2, (0, 3), (slice(None), -4)):
        with pytest.raises(IndexError, match="out of bounds"):
            x[index]
    with pytest.raises(IndexError, match="3 indices at most"):
        x[0, 0, 0, 0]
    for index in (
        None, ..., 1.0, "a", [0, 1], np.array([0, 1]), (0, np.ones(3, bool)), True, (0, False),
        np.True_,
    ):
        with pytest.raises(TypeError, match="integers and slices"):
            x[index]
        with pytest.raises(TypeError, match="integers and slices"):
            QuantizedTensor(x.codes, QuantizationParams(1.0))[index]


# ------------------------------------------------------------------------------------ protocols


def test_numpy_must_ask_for_codes_or_reals():
    x = QuantizedTensor(np.zeros(3, np.uint8), QuantizationParams(0.5))
    with pytest.raises(TypeError, match=r"\.codes .* \.dequantize\(\)"):
        np.asarray(x)
    with pytest.raises(TypeError):
        np.add(x, 1)
    with pytest.raises(TypeError):
        np.ones(3) * x


def test_equality_looks_at_codes_and_params():
    codes, params = np.arange(3, dtype=np.uint8), QuantizationParams(0.5, 1)
    x = QuantizedTensor(codes, params)
    assert x == QuantizedTensor(codes.copy(), QuantizationParams(0.5, 1))
    assert x != QuantizedTensor(codes + np.uint8(1), params)
    assert x != QuantizedTensor(codes, QuantizationParams(0.5, 2))
    assert x != QuantizedTensor(codes[:2], params)
    assert x != codes.tolist()
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


@pytest.mark.parametrize("axis", [None, 1])
def test_pickle_and_copies(axis):
    rng = np.random.default_rng(3)
    x = per_channel(rng, (2, 3), 1) if axis else qcy.quantize(rng.normal(size=(2, 3)))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(x, protocol)) == x
    deep = copy.deepcopy(x)
    assert deep == x == copy.copy(x)
    assert not np.shares_memory(deep.codes.data, x.codes.data)


def test_repr_tells_shape_and_params():
    x = QuantizedTensor(np.zeros((2, 3), np.uint8), QuantizationParams(0.5, 7))
    assert repr(x) == f"QuantizedTensor(shape=(2, 3), {x.params!r})"
