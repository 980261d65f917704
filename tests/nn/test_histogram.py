"""Histograms are functions of the values alone; ranges read off them agree with slow oracles."""

import math
import pickle
import struct
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from qcy.nn.histogram import (
    LEVELS,
    SMOOTH,
    Histogram,
    _divergence,
    _SquaredError,
    entropy_range,
    mse_range,
    percentile_range,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR = st.floats(-8, 8, width=32)
VALUES = st.one_of(st.lists(FLOATS, max_size=30), st.lists(NEAR, max_size=60))
N_BINS = st.sampled_from([2, 3, 7, 64, 4096])
DENORMAL, LARGEST = 2.0**-149, float(np.finfo(np.float32).max)


def histogram_of(*parts, n_bins=4096):
    result = Histogram(n_bins)
    for part in parts:
        result.observe(np.array(part, np.float32))
    return result


def state(histogram):
    """Every byte that a histogram consists of."""
    bounds = struct.pack("<2d", histogram.low, histogram.high)
    return bounds, histogram.exponent, histogram.first, histogram.counts.tobytes()


def oracle(values, n_bins):
    """Exponent, first bin and counts, by the definition, in exact fractions."""
    values = [Fraction(float(v)) for v in values]
    low, high = min([0, *values]), max([0, *values])
    for exponent in range(-149, 129):
        width = Fraction(2) ** exponent
        first, last = math.floor(low / width), math.floor(high / width)
        if last - first + 1 <= n_bins:
            break
    counts = [0] * (last - first + 1)
    for value in values:
        counts[math.floor(value / width) - first] += 1
    return exponent, first, counts


# ------------------------------------------------------------------------------------ counting


@given(values=VALUES, n_bins=N_BINS)
@example(values=[-DENORMAL, LARGEST], n_bins=4096)      # -1e-45 is below 0, in a huge bin too
@example(values=[-DENORMAL, 1e30, -LARGEST], n_bins=2)
@example(values=[4095 * DENORMAL], n_bins=4096)
@example(values=[4096 * DENORMAL], n_bins=4096)
@example(values=[-1.0, 4095.0 / 4096], n_bins=4096)
def test_bins_are_those_of_the_definition(values, n_bins):
    histogram = histogram_of(values, n_bins=n_bins)
    exponent, first, counts = oracle(np.array(values, np.float32), n_bins)
    assert (histogram.exponent, histogram.first) == (exponent, first)
    assert histogram.counts.tolist() == counts
    assert histogram.counts.dtype == np.int64


@given(values=VALUES, n_bins=N_BINS, data=st.data())
def test_order_and_partition_do_not_matter(values, n_bins, data):
    at_once = histogram_of(values, n_bins=n_bins)
    shuffled = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    bounds = [0, *cuts, len(values)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    assert state(histogram_of(*parts, n_bins=n_bins)) == state(at_once)
    merged = Histogram(n_bins)
    for part in data.draw(st.permutations(parts)):
        merged = merged.merge(histogram_of(part, n_bins=n_bins))
    assert state(merged) == state(at_once)


@given(a=VALUES, b=VALUES, c=VALUES, n_bins=N_BINS)
def test_merge_is_associative_and_commutative(a, b, c, n_bins):
    x, y, z = (histogram_of(v, n_bins=n_bins) for v in (a, b, c))
    before = [state(h) for h in (x, y, z)]
    assert state(x.merge(y).merge(z)) == state(x.merge(y.merge(z)))
    assert state(x.merge(y)) == state(y.merge(x)) == state(histogram_of(a, b, n_bins=n_bins))
    assert [state(h) for h in (x, y, z)] == before


def test_growth_through_every_doubling():
    values = [s * 2.0**e for e in range(-149, 128) for s in (1, -1)]
    growing = Histogram()
    widths = set()
    for value in values:
        growing.observe(np.float32([value]))
        widths.add(growing.bin_width)
    assert len(widths) > 250
    assert growing.total == len(values)
    assert state(growing) == state(histogram_of(values)) == state(histogram_of(values[::-1]))


def test_more_values_than_a_chunk():
    values = np.random.default_rng(0).standard_normal(100_001).astype(np.float32)
    histogram = histogram_of(values)
    assert_array_equal(histogram.counts, np.histogram(values, histogram.edges)[0])
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert histogram.first_edge == histogram.edges[0] <= values.min()
    assert histogram.bin_width == histogram.edges[1] - histogram.edges[0]


def test_counts_beyond_what_float64_can_hold():
    histogram = histogram_of([1.0])
    histogram.counts *= 2**53 + 1
    merged = histogram.merge(histogram_of([1.0, 3000.0]))
    assert merged.total == 2**53 + 3


@pytest.mark.parametrize("n_bins", [2, 4096])
def test_zeros_have_one_bin_and_no_sign(n_bins):
    positive, negative = histogram_of([0.0], n_bins=n_bins), histogram_of([-0.0], n_bins=n_bins)
    assert positive.counts.tolist() == [1]
    assert (positive.first_edge, positive.bin_width) == (0.0, DENORMAL)
    assert state(positive) == state(negative)
    assert state(positive.merge(negative)) == state(histogram_of([0.0, -0.0], n_bins=n_bins))


@pytest.mark.parametrize("value", [1e-30, 3.0, 1e30, LARGEST, DENORMAL, -1e-30, -3.0, -1e30])
def test_a_constant_and_zero_are_covered(value):
    histogram = histogram_of([value] * 5)
    assert histogram.low == histogram.high == np.float32(value)
    assert histogram.first_edge <= min(value, 0.0)
    assert histogram.edges[-1] > max(value, 0.0)
    assert histogram.counts[0 if value < 0 else -1] == 5 == histogram.total


def test_nothing_observed_is_neutral():
    some = histogram_of([1.0, -2.0])
    assert state(some.merge(Histogram())) == state(Histogram().merge(some)) == state(some)
    assert Histogram().total == 0


def test_pickle():
    histogram = histogram_of([1.0, 2.0, -3.0])
    assert state(pickle.loads(pickle.dumps(histogram))) == state(histogram)


def test_rejects():
    with pytest.raises(ValueError, match="n_bins must be at least 2, got 1"):
        Histogram(1)
    with pytest.raises(ValueError, match="n_bins must be equal, got 8 and 16"):
        Histogram(8).merge(Histogram(16))


# ---------------------------------------------------------------------------------- percentile


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    fraction=st.floats(0, 1),
)
def test_quantile_is_numpys_to_a_bin(values, fraction):
    histogram = histogram_of(values)
    expected = np.quantile(np.array(values, np.float32).astype(np.float64), fraction)
    slack = 1e-9 * (histogram.high - histogram.low)
    assert abs(histogram.quantile(fraction) - expected) <= histogram.bin_width + slack
    assert histogram.low <= histogram.quantile(fraction) <= histogram.high


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9, 99.99, 100])
def test_percentile_range(percentile):
    rng = np.random.default_rng(1)
    rest = 100 - percentile
    signed = rng.standard_normal(50_000).astype(np.float32)
    for values, tails in (
        (signed, (rest / 2, 100 - rest / 2)), (np.abs(signed), (0, percentile)),
        (-np.abs(signed), (rest, 100)), (np.abs(signed) + 5, (0, percentile)),
    ):
        histogram = histogram_of(values)
        expected = np.percentile(values.astype(np.float64), tails)
        assert_allclose(percentile_range(histogram, percentile), expected,
                        rtol=0, atol=histogram.bin_width)
    assert percentile_range(histogram, 100) == (histogram.low, histogram.high)


def test_percentile_range_reaches_zero():
    mostly_positive = np.append(np.full(100_000, 3.0), [-1.0])
    low, high = percentile_range(histogram_of(mostly_positive), 99)
    assert (low, high) == (0.0, 3.0)


# ------------------------------------------------------------------------------------- entropy


def naive_divergence(counts, start, stop):
    """Build P and Q bin by bin, as the slides do."""
    p = counts[start:stop].astype(np.float64)
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    q = np.zeros_like(p)
    for level in range(LEVELS):
        a, b = level * len(p) // LEVELS, (level + 1) * len(p) // LEVELS
        filled = p[a:b] > 0
        if filled.any():
            share = counts[start + a : start + b].sum() / filled.sum()
            q[a:b][filled] = max(share, SMOOTH)
    used, inside = p > 0, counts[start:stop].sum()
    total = counts.sum()
    return (p[used] * np.log(p[used] / q[used])).sum() / total - (total - inside) / total


@pytest.mark.parametrize("filled", [1.0, 0.3, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_divergence_is_that_of_expanded_histograms(filled, seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.exponential(50, 900)) * (rng.random(900) < filled)
    counts[[0, -1]] += 1
    start = rng.integers(0, 300, 40)
    stop = 900 - rng.integers(0, 300, 40)
    start[0], stop[0] = 0, 900
    expected = [naive_divergence(counts, a, b) for a, b in zip(start, stop, strict=True)]
    assert_allclose(_divergence(counts.astype(np.float64), start, stop), expected,
                    rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", ["signed", "positive", "negative", "lopsided", "away"])
def test_entropy_range_is_the_best_of_all_windows(shape, symmetric):
    rng = np.random.default_rng(2)
    values = rng.laplace(size=20_000)
    values = {
        "signed": values, "positive": np.abs(values), "negative": -np.abs(values),
        "lopsided": np.where(values < 0, values / 20, values), "away": np.abs(values) + 3,
    }[shape]
    histogram = histogram_of(values, n_bins=1024)
    first, size = histogram.first, len(histogram.counts)
    counts = dict(zip(range(first, first + size), histogram.counts.astype(float), strict=True))
    counts[0] = min(counts[0], max(counts.get(-1, 0), counts.get(1, 0)))
    reach = max(-first, first + size)
    least, best = math.inf, None
    for t in range(1, reach + 1):
        a, b = (-t, t) if symmetric else (max(-t, first), min(t, first + size))
        lo, hi = (-reach, reach) if symmetric else (first, first + size)
        if b - a < LEVELS:
            continue
        window = np.array([counts.get(i, 0.0) for i in range(lo, hi)])
        divergence = naive_divergence(window, a - lo, b - lo)
        if divergence < least:
            least, best = divergence, t * histogram.bin_width
    expected = max(histogram.low, -best), min(histogram.high, best)
    assert entropy_range(histogram, symmetric) == expected


def test_entropy_of_a_spike_at_zero_is_that_of_the_rest():
    """Zeros of a ReLU are exact in any range, so they say nothing about where to clip."""
    values = np.abs(np.random.default_rng(3).standard_normal(100_000))
    spiked = np.append(values, np.zeros(300_000))
    assert_allclose(entropy_range(histogram_of(spiked)), entropy_range(histogram_of(values)),
                    rtol=0.02, atol=1e-4)


def test_entropy_leaves_a_bin_for_each_level():
    values = np.append(np.random.default_rng(3).standard_normal(100_000), [1000.0, -1000.0])
    histogram = histogram_of(values)
    threshold = LEVELS / 2 * histogram.bin_width
    assert entropy_range(histogram) == (-threshold, threshold)


def test_entropy_keeps_what_an_edge_would_swallow():
    """Without counts for what is clipped, all mass in one edge bin would have divergence 0."""
    away = np.random.default_rng(4).uniform(5, 6, 50_000)
    assert entropy_range(histogram_of(away))[1] > 5.9
    two_spikes = np.append(np.full(60_000, 1.0), np.full(40_000, 10.0))
    assert entropy_range(histogram_of(two_spikes)) == (1.0, 10.0)


# ----------------------------------------------------------------------------------------- mse


def quantization_error(values, low, high, symmetric=False):
    """The mean squared error of equations (1) to (4), in float64."""
    if symmetric:
        scale, zero, lo, hi = max(-low, high) / 127, 0, -127, 127
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        scale, lo, hi = (high - low) / 255, 0, 255
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(values / scale) + zero, lo, hi)
    return float(((scale * (codes - zero) - values) ** 2).mean())


RNG = np.random.default_rng(5)
NORMAL = RNG.standard_normal(20_000)
DATA = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0),
    "negative": -np.abs(NORMAL),
    "away from 0": NORMAL + 10,
    "heavy tails": RNG.standard_t(3, 20_000),
    "lopsided": RNG.lognormal(size=20_000) - 0.3,
    "leaky": np.where(NORMAL < 0, NORMAL / 100, NORMAL),
    "two outliers": np.append(NORMAL, [100.0, -60.0]),
    "outliers below": np.append(NORMAL, np.arange(-45, -5, 5)),
    "two humps": np.where(RNG.random(20_000) < 0.5, NORMAL - 10, NORMAL / 10 + 3),
    "mostly 0": np.where(RNG.random(20_000) < 0.95, 0, NORMAL),
    "few": NORMAL[:40],
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_mse_range_is_as_good_as_brute_force(name, symmetric):
    values = DATA[name].astype(np.float32).astype(np.float64)
    histogram = histogram_of(values)
    low, high = mse_range(histogram, symmetric)
    assert histogram.low <= low <= high <= histogram.high
    grid = 2.0 ** (-np.arange(20) / 4)
    lows = grid * histogram.low if histogram.low < 0 else [histogram.low]
    highs = grid * histogram.high if histogram.high > 0 else [histogram.high]
    best = min(quantization_error(values, a, b, symmetric) for a in lows for b in highs)
    assert quantization_error(values, low, high, symmetric) <= 1.01 * best


@pytest.mark.parametrize("name", DATA)
def test_mse_search_has_settled_at_the_least(name, monkeypatch):
    histogram = histogram_of(DATA[name])
    error, width = _SquaredError(histogram), histogram.bin_width

    def estimate(low, high):
        low, high = min(low, 0.0) / width, max(high, 0.0) / width
        scale = (high - low) / 255
        zero = round(-low / scale)
        return error(scale, -zero, 255 - zero)

    found = estimate(*mse_range(histogram))
    grid = 2.0 ** (-np.arange(56) / 8)
    lows = grid * histogram.low if histogram.low < 0 else [0.0]
    highs = grid * histogram.high if histogram.high > 0 else [0.0]
    assert found <= 1.001 * min(estimate(a, b) for a in lows for b in highs)
    monkeypatch.setattr("qcy.nn.histogram.ROUNDS", 20)
    assert found <= 1.001 * estimate(*mse_range(histogram))


@pytest.mark.parametrize(("scale", "first", "last"), [(1.7, -3, 4), (0.3, -10, 0), (40.0, -1, 1)])
def test_squared_error_is_the_integral_over_evenly_filled_bins(scale, first, last):
    histogram = histogram_of(RNG.integers(-50, 30, 300) + 0.5, n_bins=128)
    fine = (np.arange(4000) + 0.5) / 4000
    x = (histogram.first + np.arange(len(histogram.counts))[:, None] + fine) / scale
    squared = ((np.clip(np.rint(x), first, last) - x) * scale) ** 2
    expected = (squared.mean(axis=1) * histogram.counts).sum() / histogram.total
    assert_allclose(_SquaredError(histogram)(scale, first, last), expected, rtol=1e-5)


def test_mse_finds_the_lattice_that_data_lies_on():
    """Images are k / 255: only the full range keeps every one of their values."""
    pixels = np.random.default_rng(6).integers(0, 256, 10_000) / 255
    assert mse_range(histogram_of(pixels)) == (0.0, 1.0)


@pytest.mark.parametrize("rule", [entropy_range, mse_range])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("values", [[0.0], [-0.0, 0.0], [2.5], [-2.5], [1e-45], [-1e-45, 1e-45]])
def test_a_value_or_two_are_not_clipped(rule, symmetric, values):
    histogram = histogram_of(values)
    assert_allclose(
        rule(histogram, symmetric), (histogram.low, histogram.high),
        rtol=0, atol=histogram.bin_width / 2,
    )
