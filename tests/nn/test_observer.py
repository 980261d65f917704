"""Observers: exact, independent of order, honest about what they see, and small."""

import copy
import pickle
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from qcy.nn.observer import (
    EntropyObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
)
from qcy.tensor.quantization import QuantizationParams
from qcy.tensor.quantization import QuantizationScheme as Scheme

HISTOGRAMS = [PercentileObserver, EntropyObserver, MSEObserver]
MERGEABLE = [MinMaxObserver, *HISTOGRAMS]
ALL = [*MERGEABLE, MovingAverageObserver]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = st.lists(st.one_of(FLOATS, st.floats(-8, 8, width=32)), max_size=40)


class ArrayLike:
    """An object that is no array, but can be made one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def observed(cls, *batches, **settings):
    observer = cls(**settings)
    for batch in batches:
        observer.observe(np.asarray(batch, np.float32))
    return observer


def state(observer):
    """Every byte of what an observer keeps."""
    kept = vars(observer) | {"histograms": [vars(h) for h in observer.histograms]}

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return (value.dtype, value.shape, value.tobytes()) if hasattr(value, "tobytes") else value

    return plain(kept)


# ------------------------------------------------------------------------- order and merging


@pytest.mark.parametrize("cls", MERGEABLE)
@given(values=VALUES, data=st.data())
def test_order_and_partition_do_not_matter(cls, values, data):
    at_once = observed(cls, values)
    shuffled = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    bounds = [0, *cuts, len(values)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    assert state(observed(cls, *parts)) == state(at_once)
    merged = cls()
    for part in data.draw(st.permutations(parts)):
        merged = merged.merge(observed(cls, part))
    assert state(merged) == state(at_once)


@pytest.mark.parametrize("cls", MERGEABLE)
@given(data=st.data())
def test_merge_is_associative_and_commutative_by_channel(cls, data):
    rows = st.lists(st.lists(FLOATS, min_size=3, max_size=3), max_size=8)
    x, y, z = (
        observed(cls, np.array(data.draw(rows), np.float32).reshape(-1, 3), axis=1)
        for _ in range(3)
    )
    before = state(x), state(y), state(z)
    assert state(x.merge(y).merge(z)) == state(x.merge(y.merge(z)))
    assert state(x.merge(y)) == state(y.merge(x))
    assert (state(x), state(y), state(z)) == before


@pytest.mark.parametrize("cls", MERGEABLE)
def test_merged_observers_share_nothing(cls):
    some, nothing = observed(cls, [1.0, 2.0]), cls()
    for merged in (some.merge(nothing), nothing.merge(some), some.merge(some)):
        before = state(some)
        merged.observe([100.0])
        assert state(some) == before
    assert nothing.low is None


def test_merge_rejects():
    with pytest.raises(TypeError, match="must be of class MSEObserver, got EntropyObserver"):
        MSEObserver().merge(EntropyObserver())
    with pytest.raises(ValueError, match=r"same settings, got PercentileObserver\(percentile=90"):
        PercentileObserver(percentile=90).merge(PercentileObserver())
    with pytest.raises(ValueError, match="same settings"):
        MinMaxObserver(axis=0).merge(MinMaxObserver())
    two, three = (observed(MinMaxObserver, np.ones(n), axis=0) for n in (2, 3))
    with pytest.raises(ValueError, match="number of channels, got 2 and 3"):
        two.merge(three)
    with pytest.raises(TypeError, match="depends on the order of batches"):
        MovingAverageObserver().merge(MovingAverageObserver())


# ---------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize("cls", ALL)
def test_any_shape_kind_and_layout(cls):
    values = np.arange(-12, 12, dtype=np.float32) / 4
    expected = state(observed(cls, values))
    for same in (
        values.reshape(2, 3, 4), values.astype(np.float64), values.astype(np.float16),
        values.astype(">f4"), values.tolist(), ArrayLike(values), np.repeat(values, 2)[::2],
        np.asfortranarray(values.reshape(4, 6)),
    ):
        observer = cls()
        observer.observe(same)
        assert state(observer) == expected
    read_only = values.copy()
    read_only.flags.writeable = False
    cls().observe(read_only)
    observer = cls()
    observer.observe(np.int8([3]))
    observer.observe(np.float32(-1))        # a scalar
    assert observer.low[0] == -1


@pytest.mark.parametrize("cls", ALL)
def test_float64_is_rounded_to_float32_first(cls):
    assert state(observed(cls, [0.1])) == state(observed(cls, [np.float64(np.float32(0.1))]))
    observer = cls()
    observer.observe(np.array([0.1, 1e-300]))
    assert (observer.low[0], observer.high[0]) == (0.0, np.float64(np.float32(0.1)))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("settings", [{}, {"axis": 0}])
def test_nan_and_infinity_are_refused_and_nothing_counts(cls, bad, settings):
    observer = observed(cls, [1.0, 2.0, 3.0], **settings)
    before = state(observer)
    message = "x must hold no NaN" if np.isnan(bad) else "x must be finite"
    with pytest.raises(ValueError, match=message):
        observer.observe(np.array([50.0, bad, -50.0]))
    assert state(observer) == before


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("settings", [{}, {"axis": 1}])
def test_empty_arrays_contribute_nothing(cls, settings):
    observer = cls(**settings)
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 5)):
        observer.observe(np.zeros(shape))
    with pytest.raises(ValueError, match="no data was observed"):
        observer.range()
    with pytest.raises(ValueError, match="no data was observed"):
        observer.params()
    observer.observe(np.ones((2, 3)))
    before = state(observer)
    observer.observe(np.zeros((0, 7)))
    assert state(observer) == before


def test_rejects():
    with pytest.raises(TypeError, match="x must hold real numbers"):
        MinMaxObserver().observe(np.array([1j]))
    with pytest.raises(ValueError, match=r"x must have an axis 1, got shape \(3,\)"):
        MinMaxObserver(axis=1).observe(np.ones(3))
    with pytest.raises(ValueError, match="x must have 3 channels as before, got 2"):
        observed(MSEObserver, np.ones(3), np.ones(2), axis=0)
    with pytest.raises(TypeError, match="axis must be an int"):
        MinMaxObserver(axis=1.5)
    for percentile in (0, -1, 100.1, np.nan):
        with pytest.raises(ValueError, match=r"percentile must be in \(0, 100\]"):
            PercentileObserver(percentile=percentile)
    for momentum in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
            MovingAverageObserver(momentum=momentum)
    for wrong in ("a", None, True, [0.5], 1j):
        with pytest.raises(TypeError, match="momentum must be a real number"):
            MovingAverageObserver(momentum=wrong)
        with pytest.raises(TypeError, match="percentile must be a real number"):
            PercentileObserver(percentile=wrong)
    for number in (np.float32(0.5), np.array(0.5), 0.5):
        assert MovingAverageObserver(momentum=number).momentum == 0.5
    with pytest.raises(TypeError):
        Observer()


# --------------------------------------------------------------------------- what comes out


def test_min_max():
    observer = observed(MinMaxObserver, [1.0, -2.0], [[5.0]], [0.0])
    assert observer.range() == (-2.0, 5.0)
    assert all(type(bound) is float for bound in observer.range())
    assert observer.histogram is None


def test_minus_zero_is_zero():
    for values in ([-0.0, 0.0], [0.0, -0.0], [-0.0]):
        assert [np.signbit(v) for v in observed(MinMaxObserver, values).range()] == [False, False]


@given(
    batches=st.lists(st.lists(FLOATS, min_size=1, max_size=5), min_size=1, max_size=6),
    momentum=st.floats(0, 1, exclude_max=True),
)
def test_moving_average(batches, momentum):
    observer = observed(MovingAverageObserver, *batches, momentum=momentum)
    low, high = min(batches[0]), max(batches[0])
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * min(batch)
        high = momentum * high + (1 - momentum) * max(batch)
    scale = max(abs(v) for batch in batches for v in batch)
    assert_allclose(observer.range(), (low, high), rtol=1e-12, atol=1e-12 * scale)
    assert observer.range()[0] <= observer.range()[1]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_are_observed_apart(cls, axis):
    rng = np.random.default_rng(0)
    batches = [rng.laplace(size=(3, 3, 400)) * [[[1.0]], [[30.0]], [[0.01]]] for _ in range(2)]
    batches = [np.moveaxis(batch, 0, axis).astype(np.float32) for batch in batches]
    observer = observed(cls, *batches, axis=axis)
    low, high = observer.range()
    assert low.shape == high.shape == (3,)
    for channel in range(3):
        alone = observed(cls, *(batch.take(channel, axis) for batch in batches))
        assert (low[channel], high[channel]) == alone.range()
    params = observer.params(scheme=Scheme.PER_CHANNEL)
    assert params == QuantizationParams.from_range(low, high, scheme=Scheme.PER_CHANNEL, axis=axis)
    low[:] = np.nan                         # a copy
    assert np.isfinite(observer.range()).all()


@pytest.mark.parametrize("cls", HISTOGRAMS)
def test_histogram_is_that_of_all_channels(cls):
    x = np.random.default_rng(1).laplace(size=(50, 4)).astype(np.float32) * [1, 10, 100, 0.1]
    whole, by_channel = observed(cls, x).histogram, observed(cls, x, axis=1).histogram
    assert whole.bin_width == by_channel.bin_width
    assert whole.first_edge == by_channel.first_edge
    assert_array_equal(whole.counts, by_channel.counts)
    assert whole.total == 200


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("scheme", [Scheme.SYMMETRIC, Scheme.ASYMMETRIC])
def test_params_are_those_of_the_range(cls, dtype, scheme):
    observer = observed(cls, np.random.default_rng(2).laplace(size=5000) + 0.5)
    low, high = observer.range(symmetric=scheme.is_symmetric)
    expected = QuantizationParams.from_range(low, high, dtype=dtype, scheme=scheme)
    assert observer.params(dtype=dtype, scheme=scheme) == expected
    if scheme == Scheme.ASYMMETRIC:
        assert observer.params(dtype) == expected


def test_entropy_gives_symmetric_codes_half_the_levels_on_either_side():
    values = np.abs(np.random.default_rng(8).laplace(size=50_000))
    both_sides = observed(EntropyObserver, np.append(values, -values))
    one_side = observed(EntropyObserver, values)
    symmetric, asymmetric = one_side.range(symmetric=True), one_side.range()
    assert_allclose(symmetric[1], both_sides.range()[1], rtol=0.1)
    assert symmetric != asymmetric
    assert one_side.params(scheme=Scheme.SYMMETRIC).high == pytest.approx(symmetric[1])


def test_params_reject():
    with pytest.raises(ValueError, match="PER_CHANNEL needs an axis"):
        observed(MinMaxObserver, [1.0]).params(scheme=Scheme.PER_CHANNEL)
    with pytest.raises(ValueError, match="PER_CHANNEL needs an axis"):
        observed(MinMaxObserver, [1.0], axis=0).params(scheme=Scheme.SYMMETRIC)
    with pytest.raises(TypeError, match="scheme must be a QuantizationScheme"):
        observed(MinMaxObserver, [1.0]).params(scheme="symmetric")


@pytest.mark.parametrize("cls", ALL)
@given(
    values=st.one_of(
        st.lists(FLOATS, min_size=1, max_size=9), st.lists(st.floats(3, 4, width=32), min_size=1)
    ),
    scheme=st.sampled_from([Scheme.SYMMETRIC, Scheme.ASYMMETRIC]),
    dtype=st.sampled_from(["uint8", "int8"]),
)
def test_any_data_makes_valid_params(cls, values, scheme, dtype):
    observer = observed(cls, values)
    low, high = observer.range(symmetric=scheme.is_symmetric)
    assert min(values) <= low <= high <= max(values)
    assert np.isfinite(observer.params(dtype, scheme).scale)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [3.0] * 5, [-7.0] * 5, [1e-45], [-1e-42, 1e-45], [1e-30], [-1e30]]
)
def test_constants_and_extremes_make_valid_params(cls, symmetric, values):
    values = np.float32(values)
    observer = observed(cls, values)
    assert_allclose(
        observer.range(symmetric=symmetric), (values.min(), values.max()), rtol=0.01, atol=2e-45
    )
    scheme = Scheme.SYMMETRIC if symmetric else Scheme.ASYMMETRIC
    params = observer.params(scheme=scheme)
    assert params.scale >= np.finfo(np.float32).tiny
    assert (params.scale == 1) == (not values.any())


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("exponent", [-135, -100, -1, 100, 118])
def test_ranges_scale_with_the_data(cls, exponent):
    """Bins are powers of two, so a factor that is one changes nothing else."""
    values = np.random.default_rng(3).laplace(size=4000) * 30
    values = np.rint(values * 8).astype(np.float32) / 8
    low, high = observed(cls, values).range()
    scaled = observed(cls, np.ldexp(values, exponent)).range()
    assert scaled == (low * 2.0**exponent, high * 2.0**exponent)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("sign", [1, -1])
def test_data_on_one_side_of_zero_keeps_its_near_bound(cls, sign):
    values = sign * (np.random.default_rng(4).exponential(size=50_000) + 0.25).astype(np.float32)
    low, high = observed(cls, values).range()
    assert values.min() <= low <= high <= values.max()
    assert (low if sign > 0 else high) == (values.min() if sign > 0 else values.max())


def mean_squared_error(values, params):
    codes = np.clip(np.rint(values / params.scale) + params.zero_point, params.qmin, params.qmax)
    return float(((params.scale * (codes - params.zero_point) - values) ** 2).mean())


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("scheme", [Scheme.SYMMETRIC, Scheme.ASYMMETRIC])
def test_clipping_pays_off_on_heavy_tails(one_sided, scheme):
    values = np.random.default_rng(5).laplace(size=500_000)
    values = np.abs(values) if one_sided else values
    error = {
        cls: mean_squared_error(values, observed(cls, values).params(scheme=scheme)) for cls in ALL
    }
    best = error[MSEObserver]
    assert best < 0.85 * error[MinMaxObserver]
    assert error[EntropyObserver] < error[MinMaxObserver]
    assert best <= 1.001 * min(error.values())
    percentile = observed(PercentileObserver, values, percentile=99.999).params(scheme=scheme)
    assert best <= mean_squared_error(values, percentile) < error[MinMaxObserver]


# ------------------------------------------------------------------------------------ state


@pytest.mark.parametrize("cls", ALL)
def test_pickle_copy_and_repr(cls):
    observer = observed(cls, [[1.0, -5.0], [0.5, 2.0]], axis=1)
    for twin in (pickle.loads(pickle.dumps(observer)), copy.deepcopy(observer)):
        assert state(twin) == state(observer)
        assert_array_equal(twin.range(), observer.range())
    assert repr(observer).startswith(cls.__name__ + "(")
    text = "PercentileObserver(percentile=99.0, axis=None)"
    assert repr(PercentileObserver(percentile=99)) == text


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("settings", [{}, {"axis": 0}])
def test_memory_does_not_grow_with_batches(cls, settings):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((4, 50_000)).astype(np.float32)
    observer = observed(cls, x, **settings)
    size = len(pickle.dumps(observer))
    tracemalloc.start()
    try:
        for i in range(200):
            x *= np.float32(1.01)           # the range grows, the observer does not
            observer.observe(x)
            if i == 20:
                early = tracemalloc.get_traced_memory()[1]
        late = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert late <= early + 300_000          # a batch is 800 kB
    assert late < 3_000_000
    assert len(pickle.dumps(observer)) < 2 * size + 4 * 8 * 4096 + 2000
    if observer.histogram is not None:
        assert observer.histogram.total == 201 * x.size


def test_the_array_is_not_kept():
    for cls in ALL:
        x = np.ones(10, np.float32)
        observer = observed(cls, x)
        x[:] = 1000
        assert observer.range() == (1.0, 1.0)


# -------------------------------------------------------------------------------- regressions


def test_percentile_masquerading_as_kl():
    """Defect 6: "KL" calibration that was a percentile and kept every sample.

    A percentile clips the same share whatever the shape of the data, since it sees ranks only.
    """
    values = np.random.default_rng(7).exponential(size=300_000).astype(np.float32)

    def clipped(cls, x):
        return int((x > observed(cls, x).range()[1]).sum())

    shapes = [values, np.sqrt(values), values**1.5, np.float32(values > 0.5) + values / 100]
    by_rank = [clipped(PercentileObserver, x) for x in shapes]
    by_shape = [clipped(EntropyObserver, x) for x in shapes]
    assert max(by_rank) < 1.5 * min(by_rank)
    assert max(by_shape) > 10 * (min(by_shape) + 1)
    uniform = np.linspace(0, 1, 300_000, dtype=np.float32)
    assert observed(EntropyObserver, uniform).range() == (0.0, 1.0)
    assert len(pickle.dumps(observed(EntropyObserver, values))) < 40_000
