"""Histograms that depend on the values alone, never on their order or on how they were split.

The bin width is a power of two and edges are multiples of it, so widening adds neighbouring bins
and loses nothing. What is the best range for 8-bit codes is answered here too, from the counts.
"""

import math
from functools import partial

import numpy as np

N_BINS = 4096
#: The finest bin is the distance between float32 denormals: 2**FINEST.
FINEST = -149
#: Values that are counted at a time; keeps the temporaries in the cache.
CHUNK = 16384

STEPS = 255         # between the lowest and the highest code, asymmetric
HALF_STEPS = 127    # between zero and the highest code, symmetric
LEVELS = 256        # that the divergence quantizes a histogram to
ROUNDS = 3          # at most, of the search for the least error; one is within 1 % of it
#: A count for what has none, so that logarithms are finite (smoothing, as in MXNet).
SMOOTH = 1e-4


class Histogram:
    """Counts of float32 values in at most `n_bins` bins, which cover all of them and 0.

    Bin ``i`` counts the values in ``[first_edge + i * bin_width, first_edge + (i+1) * bin_width)``.
    The width is the smallest power of two, from 2**-149 up, with which `n_bins` bins are enough;
    there are just as many bins as cover the values and 0. So the histogram is a function of the
    set of values, and merging is exact, associative and commutative.

    Parameters
    ----------
    n_bins : int, default 4096
        The largest number of bins, at least 2.

    Attributes
    ----------
    counts : (n,) int64 array
    low, high : float
        The exact smallest and largest value; inf and -inf before there is any.
    exponent : int
        The bin width is ``2.0**exponent``.
    first : int
        The first edge is ``first * bin_width``.

    Examples
    --------
    >>> histogram = Histogram(n_bins=4)
    >>> histogram.observe(np.array([0.0, 1.0, 1.5, 3.0], np.float32))
    >>> histogram.counts.tolist(), histogram.first_edge, histogram.bin_width
    ([1, 2, 0, 1], 0.0, 1.0)
    >>> histogram.observe(np.array([-1.0], np.float32))
    >>> histogram.counts.tolist(), histogram.first_edge, histogram.bin_width
    ([1, 3, 1], -2.0, 2.0)
    """

    def __init__(self, n_bins=N_BINS):
        if n_bins < 2:
            raise ValueError(f"n_bins must be at least 2, got {n_bins}")
        self.n_bins = n_bins
        self.low, self.high = math.inf, -math.inf
        self.exponent, self.first = FINEST, 0
        self.counts = np.zeros(1, np.int64)

    @property
    def bin_width(self):
        """The width of every bin, a power of two."""
        return 2.0**self.exponent

    @property
    def first_edge(self):
        """Where the first bin begins."""
        return self.first * self.bin_width

    @property
    def edges(self):
        """The edges of all bins, one more than there are bins."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.bin_width

    @property
    def total(self):
        """How many values were counted."""
        return int(self.counts.sum())

    def observe(self, values):
        """Count an array of finite float32 values, which is not kept."""
        values = np.ravel(values)
        if not values.size:
            return
        self._cover(float(values.min()) + 0.0, float(values.max()) + 0.0)   # + 0.0: no -0.0
        per_width = 1.0 / self.bin_width
        for start in range(0, values.size, CHUNK):
            # In float64 the product is exact: no denormal is flushed, no bin missed by rounding.
            index = np.multiply(values[start : start + CHUNK], per_width, dtype=np.float64)
            np.floor(index, out=index)
            index -= self.first
            self.counts += np.bincount(index.astype(np.intp), minlength=len(self.counts))

    def merge(self, other):
        """Return a new histogram of the values of both.

        Raises
        ------
        ValueError
            If the two have different `n_bins`.
        """
        if self.n_bins != other.n_bins:
            raise ValueError(f"n_bins must be equal, got {self.n_bins} and {other.n_bins}")
        result = Histogram(self.n_bins)
        result._cover(min(self.low, other.low), max(self.high, other.high))
        result._add(self.counts, self.first, self.exponent)
        result._add(other.counts, other.first, other.exponent)
        return result

    def order_statistic(self, k):
        """Return about the k-th smallest value, k from 0: less than a bin width off."""
        cumulative = np.cumsum(self.counts)
        if k <= 0 or k >= cumulative[-1] - 1:
            return self.low if k <= 0 else self.high
        i = int(np.searchsorted(cumulative, k, side="right"))
        n_in_bin = int(self.counts[i])
        place = (k - (int(cumulative[i]) - n_in_bin) + 0.5) / n_in_bin
        return min(max((self.first + i + place) * self.bin_width, self.low), self.high)

    def quantile(self, fraction):
        """Return `numpy.quantile` of the values, to less than a bin width."""
        rank = fraction * (self.total - 1)
        k = math.floor(rank)
        below, above = self.order_statistic(k), self.order_statistic(k + 1)
        return below + (rank - k) * (above - below)

    def _cover(self, low, high):
        """Widen to cover `low` and `high`: the same bins whatever came first."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        # Every float32 is a multiple of 2**FINEST: Python's integers make this exact.
        bottom = int(math.ldexp(min(self.low, 0.0), -FINEST))
        top = int(math.ldexp(max(self.high, 0.0), -FINEST))
        shift = max(0, (top - bottom).bit_length() - self.n_bins.bit_length())
        while (top >> shift) - (bottom >> shift) >= self.n_bins:
            shift += 1
        first, size = bottom >> shift, (top >> shift) - (bottom >> shift) + 1
        if (shift + FINEST, first, size) != (self.exponent, self.first, len(self.counts)):
            old = self.counts, self.first, self.exponent
            self.counts = np.zeros(size, np.int64)
            self.first, self.exponent = first, shift + FINEST
            self._add(*old)

    def _add(self, counts, first, exponent):
        """Add the counts of narrower bins that lie within these."""
        index = first + np.arange(len(counts), dtype=np.int64)
        index >>= min(self.exponent - exponent, 63)
        np.add.at(self.counts, index - self.first, counts)


def _clipped(histogram, low, high):
    """Extend a range to 0, then cut it to what was seen: data on one side keeps its near bound."""
    def seen(x):
        return min(max(x, histogram.low), histogram.high)

    return seen(min(low, 0.0)), seen(max(high, 0.0))


def percentile_range(histogram, percentile):
    """Return the range that holds `percentile` % of the values: see `PercentileObserver`."""
    tail = 1.0 - percentile / 100.0
    if histogram.low < 0.0 < histogram.high:
        tail /= 2
    return _clipped(histogram, histogram.quantile(tail), histogram.quantile(1.0 - tail))


def entropy_range(histogram, symmetric=False):
    """Return the range of least divergence: see `EntropyObserver`, and for the algorithm [1]_.

    What [1]_ leaves open: data on one side of 0 has all 256 levels on that side, data on both
    sides shares them; `symmetric` gives 128 to either side, as there. The bin at 0 is cut down to
    its neighbours, since 0 is exact in every range [2]_. A level without counts counts 1e-4 [3]_.
    Q is not normalized again after clipping: the divergence is ``sum(P log(P / Q) - P + Q)``
    [4]_, the same to first order in the clipped share; else it would be 0 where nearly all is
    clipped into one edge bin.

    References
    ----------
    .. [1] S. Migacz, "8-bit Inference with TensorRT", GTC 2017, S7310.
    .. [2] NVIDIA, pytorch-quantization, ``calib/histogram.py`` (there: by its right neighbour).
    .. [3] Apache MXNet, ``contrib/quantization.py``, on both P and Q; likewise onnxruntime.
    .. [4] I. Csiszár, "Why least squares and maximum entropy?", Annals of Statistics 19 (1991).
    """
    counts, first = histogram.counts.astype(np.float64), histogram.first
    zero = -first
    beside = counts[[i for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]]
    counts[zero] = min(counts[zero], beside.max(initial=0.0))
    end = first + len(counts)
    reach = max(-first, end)
    if symmetric:
        counts = np.pad(counts, (first + reach, reach - end))
        first, end = -reach, reach
    # The windows: bins from max(-t, first) to min(t, end), if there is a bin for each level.
    t = np.arange(1, reach + 1)
    start, stop = np.maximum(-t, first) - first, np.minimum(t, end) - first
    wide = stop - start >= LEVELS
    if not wide.any():
        return histogram.low, histogram.high
    t, start, stop = t[wide], start[wide], stop[wide]
    divergence = np.concatenate([
        _divergence(counts, start[i : i + 256], stop[i : i + 256]) for i in range(0, len(t), 256)
    ])
    threshold = float(t[divergence.argmin()]) * histogram.bin_width
    return _clipped(histogram, -threshold, threshold)


def _divergence(counts, start, stop):
    """Return the divergence of `LEVELS` levels from the bins of each window.

    P holds the counts of a window, with what is outside added to its two edge bins. Q holds
    the sum of each level, spread over those of its bins that are not empty in P. Neither is
    expanded: all of it follows from running sums at the bounds of the levels.
    """
    def running(values):
        return np.concatenate([[0.0], np.cumsum(values)])

    def x_log_x(x):
        return x * np.log(np.maximum(x, 1.0))

    below, filled, own = running(counts), running(counts > 0), running(x_log_x(counts))
    bounds = start[:, None] + np.arange(LEVELS + 1) * (stop - start)[:, None] // LEVELS
    level = np.diff(below[bounds], axis=1)
    n_filled = np.diff(filled[bounds], axis=1)
    self_term = own[stop] - own[start]
    outside = np.stack([below[start], below[-1] - below[stop]], axis=1)
    for side, edge in ((0, start), (-1, stop - 1)):
        n_filled[:, side] += (counts[edge] == 0) & (outside[:, side] > 0)
        self_term += x_log_x(counts[edge] + outside[:, side]) - x_log_x(counts[edge])
    log_q = np.log(np.maximum(level / np.maximum(n_filled, 1), SMOOTH))
    cross_term = (level * log_q).sum(axis=1) + (outside * log_q[:, [0, -1]]).sum(axis=1)
    return (self_term - cross_term - outside.sum(axis=1)) / below[-1]


def mse_range(histogram, symmetric=False):
    """Return the range of least expected squared error: see `MSEObserver`."""
    low, high = histogram.low, histogram.high
    if low == high == 0.0:
        return low, high
    error = _SquaredError(histogram)
    bottom, top = (min(low, 0.0) / histogram.bin_width, max(high, 0.0) / histogram.bin_width)
    if symmetric:
        reach = max(-bottom, top)
        threshold = reach * histogram.bin_width * _search(
            lambda t: error(t * reach / HALF_STEPS, -HALF_STEPS, HALF_STEPS)
        )
        return _clipped(histogram, -threshold, threshold)

    def range_error(s, t):      # of the range from s * low to t * high, or of 0 to either
        scale = (t * top - s * bottom) / STEPS
        zero_point = round(-s * bottom / scale)
        return error(scale, -zero_point, STEPS - zero_point)

    s = t = 1.0
    for _ in range(ROUNDS):
        before = s, t
        if high > 0.0:
            t = _search(partial(range_error, s), t)
        if low < 0.0:
            s = _search(partial(range_error, t=t), s)
        if (s, t) == before:
            break
    return _clipped(histogram, s * low, t * high)


class _SquaredError:
    """The mean squared error of quantizing a histogram, as if bins were filled evenly.

    The squared distance to the nearest of the codes ``first .. last`` (a number in code steps) has
    the antiderivative ``code / 12 + (x - code)**3 / 3``, rounding and clipping alike. Summed by
    parts, only edges where the count changes matter. The unit is the bin width.
    """

    def __init__(self, histogram):
        change = -np.diff(histogram.counts, prepend=0, append=0)
        used = np.flatnonzero(change)
        self.edges = (used + histogram.first).astype(np.float64)
        self.change = change[used] / histogram.total

    def __call__(self, scale, first, last):
        x = self.edges / scale
        code = np.minimum(np.maximum(np.rint(x), first), last)
        x -= code
        return float(((code / 12 + x * x * x / 3) * self.change).sum()) * scale**3


def _search(error, start=1.0):
    """Return where in (0, 1] `error` is least: a geometric grid, then two finer ones."""
    best, least = start, error(start)
    ratio = 2.0**0.25
    grid = ratio ** -np.arange(45.0)
    for _ in range(3):
        for candidate in grid.tolist():
            if (value := error(candidate)) < least:
                best, least = candidate, value
        grid = np.minimum(best * ratio ** np.linspace(1, -1, 17), 1.0)
        ratio **= 1 / 8
    return best
