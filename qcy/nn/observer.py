"""Observers: what range do the numbers have that flow by?

Each is a small state that grows with bins and channels, never with samples; all but the moving
average can be merged, exactly and in any order, so that calibration can be spread over machines.

    MinMaxObserver          nothing is clipped; the widest steps
    MovingAverageObserver   what a typical batch reaches; depends on the order of batches
    PercentileObserver      a given share of the values fits
    EntropyObserver         the shape of the distribution changes least
    MSEObserver             the squared error is least; the best start if in doubt
"""

import copy
from abc import ABC, abstractmethod

import numpy as np

from qcy import _validate
from qcy.nn.histogram import Histogram, entropy_range, mse_range, percentile_range
from qcy.tensor.quantization import QuantizationParams, QuantizationScheme


class Observer(ABC):
    """What all observers share: checks, the exact extremes, merging.

    Parameters
    ----------
    axis : int, optional
        Channel axis, counted from the front: each channel gets a range of its own.
        None: one range for all.
    """

    #: Names of constructor arguments, which are also attributes.
    SETTINGS = ("axis",)
    #: Whether a histogram of each channel is kept, and not the extremes alone.
    KEEPS_HISTOGRAM = False

    def __init__(self, *, axis=None):
        self.axis = None if axis is None else _validate.axis("axis", axis)
        self.low = self.high = None         # (C,) float64, C = 1 without axis
        self.histograms = []

    def observe(self, x):
        """Take note of an array, which is not kept.

        Parameters
        ----------
        x : array_like of real numbers, any shape
            Rounded to float32. An empty array contributes nothing. The shape may change from
            call to call, but not the number of channels.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        ValueError
            If `x` holds NaN, an infinity or a number beyond float32, lacks the channel axis, or
            has another number of channels than before. Then nothing of `x` counts.
        """
        x = _validate.real_array("x", x)
        if not x.size:
            return
        if self.axis is None:
            rows = x.reshape(1, -1)
        elif x.ndim <= self.axis:
            raise ValueError(f"x must have an axis {self.axis}, got shape {x.shape}")
        else:
            rows = np.moveaxis(x, self.axis, 0).reshape(x.shape[self.axis], -1)
        if self.low is not None and len(self.low) != len(rows):
            raise ValueError(f"x must have {len(self.low)} channels as before, got {len(rows)}")
        low, high = rows.min(axis=1), rows.max(axis=1)
        if np.isnan(low).any():
            raise ValueError("x must hold no NaN")
        if np.isinf(low).any() or np.isinf(high).any():
            raise ValueError("x must be finite, it holds an infinity or a number beyond float32")
        # + 0.0: -0.0 becomes 0.0, else it would matter which of them came first.
        self._update(rows, low.astype(np.float64) + 0.0, high.astype(np.float64) + 0.0)

    def range(self, *, symmetric=False):
        """Return the range that 8-bit codes should cover.

        Parameters
        ----------
        symmetric : bool, default False
            Whether the codes will be symmetric around 0: then another range can be best.

        Returns
        -------
        low, high : float, or (C,) float64 arrays if there is an `axis`
            Within the smallest and the largest value seen.

        Raises
        ------
        ValueError
            If no data was observed.
        """
        if self.low is None:
            raise ValueError("no data was observed: call observe() with a non-empty array first")
        low, high = self._ranges(symmetric)
        if self.axis is None:
            return float(low[0]), float(high[0])
        return np.array(low, np.float64), np.array(high, np.float64)

    def params(self, dtype="uint8", scheme=None):
        """Return the quantization parameters for what was observed.

        Parameters
        ----------
        dtype : {"uint8", "int8"}, default "uint8"
        scheme : QuantizationScheme, optional
            Default: asymmetric, and per channel if there is an `axis`.

        Returns
        -------
        QuantizationParams

        Raises
        ------
        ValueError
            If no data was observed, or `scheme` does not fit `axis`.
        """
        if scheme is None:
            per_tensor = self.axis is None
            scheme = QuantizationScheme["PER_TENSOR" if per_tensor else "PER_CHANNEL"]
        _validate.scheme_and_axis(scheme, self.axis)
        low, high = self.range(symmetric=scheme.is_symmetric)
        return QuantizationParams.from_range(low, high, dtype=dtype, scheme=scheme, axis=self.axis)

    def merge(self, other):
        """Return a new observer that has seen what both have; exact, in any order.

        Raises
        ------
        TypeError
            If `other` is of another class.
        ValueError
            If it has other settings or another number of channels.
        """
        if type(other) is not type(self):
            raise TypeError(
                f"other must be of class {type(self).__name__}, got {type(other).__name__}"
            )
        if self.settings != other.settings:
            raise ValueError(f"observers must have the same settings, got {self} and {other}")
        if self.low is None or other.low is None:
            return copy.deepcopy(other if self.low is None else self)
        if len(self.low) != len(other.low):
            raise ValueError(
                "observers must have the same number of channels, "
                f"got {len(self.low)} and {len(other.low)}"
            )
        result = type(self)(**self.settings)
        result.low = np.minimum(self.low, other.low)
        result.high = np.maximum(self.high, other.high)
        result.histograms = [
            a.merge(b) for a, b in zip(self.histograms, other.histograms, strict=True)
        ]
        return result

    @property
    def settings(self):
        """The constructor's arguments, by name."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    @property
    def histogram(self):
        """The Histogram of all that was observed, for a picture; None if none is kept."""
        if not self.KEEPS_HISTOGRAM:
            return None
        result = Histogram()
        for histogram in self.histograms:
            result = result.merge(histogram)
        return result

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}({settings})"

    def _update(self, rows, low, high):
        """Take note of channels, (C, n), and the extremes of each."""
        if self.low is None:
            self.low, self.high = low, high
            self.histograms = [Histogram() for _ in rows] if self.KEEPS_HISTOGRAM else []
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        if self.KEEPS_HISTOGRAM:
            for histogram, row in zip(self.histograms, rows, strict=True):
                histogram.observe(row)

    @abstractmethod
    def _ranges(self, symmetric):
        """Return the (C,) lows and the (C,) highs."""


def _each(rule, histograms, *args):
    """Apply a rule to each histogram; return the lows and the highs."""
    return np.array([rule(histogram, *args) for histogram in histograms]).T


class MinMaxObserver(Observer):
    """From the smallest value to the largest: nothing is clipped, one outlier spoils it.

    Parameters
    ----------
    axis : int, optional
        Channel axis; None: one range for all.

    Examples
    --------
    >>> observer = MinMaxObserver()
    >>> observer.observe([-64.0, 0.1])
    >>> observer.observe([[63.5]])
    >>> observer.params()
    QuantizationParams(scale=0.5, zero_point=128, dtype=uint8)
    """

    def _ranges(self, symmetric):
        return self.low, self.high


class MovingAverageObserver(Observer):
    """The exponential moving average of each batch's smallest and largest value [1]_.

    It depends on the order of batches, so it cannot be merged.

    Parameters
    ----------
    momentum : float, default 0.9
        How much of the old average stays with each batch, from 0 to below 1: the average is
        ``momentum * average + (1 - momentum) * batch``, and begins as the first batch.
    axis : int, optional
        Channel axis; None: one range for all.

    Raises
    ------
    TypeError
        If `momentum` is not a real number.
    ValueError
        If `momentum` is out of range.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
       Integer-Arithmetic-Only Inference", CVPR 2018, section 3.1. https://arxiv.org/abs/1712.05877

    Examples
    --------
    >>> observer = MovingAverageObserver(momentum=0.5)
    >>> observer.observe([0.0, 1.0])
    >>> observer.observe([0.0, 3.0])
    >>> observer.range()
    (0.0, 2.0)
    """

    SETTINGS = ("momentum", "axis")

    def __init__(self, *, momentum=0.9, axis=None):
        self.momentum = _validate.real("momentum", momentum)
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        super().__init__(axis=axis)
        self.average_low = self.average_high = None

    def merge(self, other):
        """Refuse: the average depends on the order of batches.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            "MovingAverageObserver cannot be merged, it depends on the order of batches"
        )

    def _update(self, rows, low, high):
        if self.low is None:
            self.average_low, self.average_high = low, high
        # Sums of rounded products keep low <= high: each step is monotone.
        old, new = self.momentum, 1.0 - self.momentum
        self.average_low = old * self.average_low + new * low
        self.average_high = old * self.average_high + new * high
        super()._update(rows, low, high)

    def _ranges(self, symmetric):
        return self.average_low, self.average_high


class PercentileObserver(Observer):
    """The range that holds a given share of the values; the rest is clipped [1]_.

    Data on both sides of 0 loses half of the rest at either end; data on one side keeps its
    bound next to 0 and loses all of the rest at the other. The range always reaches to the value
    nearest to 0 that was seen, or to 0. Percentiles are those of `numpy.percentile`, to less than
    a bin width of the histogram, which is at most 1/2047 of what the data and 0 span.

    Parameters
    ----------
    percentile : float, default 99.99
        The share, in percent, above 0 and up to 100.
    axis : int, optional
        Channel axis; None: one range for all.

    Raises
    ------
    TypeError
        If `percentile` is not a real number.
    ValueError
        If `percentile` is out of range.

    References
    ----------
    .. [1] H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and
       Empirical Evaluation", 2020. https://arxiv.org/abs/2004.09602

    Examples
    --------
    >>> observer = PercentileObserver(percentile=99)
    >>> observer.observe(np.linspace(0, 1, 1001))
    >>> round(observer.range()[1], 2)
    0.99
    """

    SETTINGS = ("percentile", "axis")
    KEEPS_HISTOGRAM = True

    def __init__(self, *, percentile=99.99, axis=None):
        self.percentile = _validate.real("percentile", percentile)
        if not 0.0 < self.percentile <= 100.0:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")
        super().__init__(axis=axis)

    def _ranges(self, symmetric):
        return _each(percentile_range, self.histograms, self.percentile)


class EntropyObserver(Observer):
    """The range with which 8-bit codes distort the distribution least, by divergence [1]_.

    For every threshold T that is a bin edge, let P be the histogram between -T and T, with the
    counts outside added to its edge bins; let Q be that histogram, without them, summed into 256
    levels, each spread evenly over its bins that are not empty. The T of the smallest
    ``KL(P || Q)`` wins; the range is [-T, T] within what was seen. There are at least as many
    bins as levels, so no less than 1/16 of the range is left. `qcy.nn.histogram.entropy_range`
    tells what this fixes that [1]_ leaves open.

    It looks at shapes, not at distances: where few values or very dense ones decide, as after
    a leaky ReLU, it clips more than `MSEObserver` would.

    Parameters
    ----------
    axis : int, optional
        Channel axis; None: one range for all.

    References
    ----------
    .. [1] S. Migacz, "8-bit Inference with TensorRT", GTC 2017, S7310.

    Examples
    --------
    >>> observer = EntropyObserver()
    >>> observer.observe(np.random.default_rng(0).laplace(size=100_000))
    >>> low, high = observer.range()
    >>> bool(observer.low[0] < low < -6 and 6 < high < observer.high[0])
    True
    """

    KEEPS_HISTOGRAM = True

    def _ranges(self, symmetric):
        return _each(entropy_range, self.histograms, symmetric)


class MSEObserver(Observer):
    """The range with which 8-bit codes have the least expected squared error [1]_ [2]_.

    The error is that of the very codes that equations (2) and (3) give for a range, rounding and
    clipping alike, integrated over the histogram as if each bin were filled evenly. The bounds
    are searched in turn until neither moves, each on a geometric grid and then on two finer ones.

    Parameters
    ----------
    axis : int, optional
        Channel axis; None: one range for all.

    References
    ----------
    .. [1] R. Banner, Y. Nahshan, D. Soudry, "Post training 4-bit quantization of convolutional
       networks for rapid-deployment", NeurIPS 2019. https://arxiv.org/abs/1810.05723
    .. [2] M. Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1.
       https://arxiv.org/abs/2106.08295

    Examples
    --------
    >>> observer = MSEObserver()
    >>> observer.observe(np.random.default_rng(0).laplace(size=100_000))
    >>> low, high = observer.range()
    >>> bool(observer.low[0] < low < -6 and 6 < high < observer.high[0])
    True
    """

    KEEPS_HISTOGRAM = True

    def _ranges(self, symmetric):
        return _each(mse_range, self.histograms, symmetric)
