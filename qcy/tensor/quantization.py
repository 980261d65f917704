"""Quantization parameters: how 8-bit codes stand for real numbers.

Everywhere in qcy, ``real = scale * (code - zero_point)``, equation (1) of docs/quantization.md.
"""

from dataclasses import dataclass
from enum import Flag, auto

import numpy as np

from qcy import _validate

#: The smallest scale: the smallest normal float32. Denormals are slow, and lost on some machines.
MIN_SCALE = float(np.finfo(np.float32).tiny)


class QuantizationScheme(Flag):
    """How parameters are chosen from a range of reals.

    The four values answer two questions, so they combine: ``SYMMETRIC | PER_CHANNEL``. A question
    left open is answered by ``ASYMMETRIC`` and ``PER_TENSOR``; two answers to one are an error.

    Examples
    --------
    >>> scheme = QuantizationScheme.SYMMETRIC | QuantizationScheme.PER_CHANNEL
    >>> scheme.is_symmetric, scheme.is_per_channel
    (True, True)
    >>> QuantizationScheme.PER_TENSOR.is_symmetric
    False
    """

    SYMMETRIC = auto()
    ASYMMETRIC = auto()
    PER_CHANNEL = auto()
    PER_TENSOR = auto()

    @property
    def is_symmetric(self):
        """Whether the zero point is the middle code."""
        self.check()
        return QuantizationScheme.SYMMETRIC in self

    @property
    def is_per_channel(self):
        """Whether each channel of one axis has its own scale."""
        self.check()
        return QuantizationScheme.PER_CHANNEL in self

    def check(self):
        """Raise ValueError if the scheme answers one question twice."""
        for pair in (
            QuantizationScheme.SYMMETRIC | QuantizationScheme.ASYMMETRIC,
            QuantizationScheme.PER_CHANNEL | QuantizationScheme.PER_TENSOR,
        ):
            if pair in self:
                raise ValueError(f"scheme must not be both halves of {pair}, got {self}")


def check_scheme(name, scheme):
    """Return `scheme` with both questions answered, or say that it is none, or contradicts itself.

    Schemes that mean the same are then equal.
    """
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(f"{name} must be a QuantizationScheme, got {scheme!r}")
    kinds = QuantizationScheme
    return (kinds.SYMMETRIC if scheme.is_symmetric else kinds.ASYMMETRIC) | (
        kinds.PER_CHANNEL if scheme.is_per_channel else kinds.PER_TENSOR
    )


#: What `quantize`, calibration and parameters from a range use unless told otherwise.
DEFAULT_SCHEME = QuantizationScheme.ASYMMETRIC | QuantizationScheme.PER_TENSOR


@dataclass(frozen=True, eq=False)
class QuantizationParams:
    """Scale and zero point, for a whole tensor or for each channel of one axis.

    Parameters
    ----------
    scale : float or (C,) array_like
        Size of one code step in real units; rounded to float32, positive, finite, at least the
        smallest normal float32.
    zero_point : int or (C,) array_like of int
        The code that stands for 0.0; between `qmin` and `qmax`.
    dtype : {"uint8", "int8"}, default "uint8"
        What codes are stored in.
    axis : int, optional
        Channel axis, counted from the front. None: one scale for the whole tensor.
    narrow_range : bool, default False
        Whether int8 codes stop at -127, as symmetric weights do, so that they negate.

    Attributes
    ----------
    scale : float32 or (C,) float32 array, read-only
    zero_point : int or (C,) int32 array, read-only
    qmin, qmax : int
        The smallest and the largest code.

    Raises
    ------
    TypeError
        If `dtype` is not int8 or uint8, or a zero point or `axis` is not an int.
    ValueError
        If a scale or zero point is out of its range, or shapes do not fit `axis`.

    Examples
    --------
    >>> QuantizationParams(0.5, 10)
    QuantizationParams(scale=0.5, zero_point=10, dtype=uint8)
    """

    scale: np.float32 | np.ndarray
    zero_point: int | np.ndarray = 0
    dtype: np.dtype = "uint8"
    axis: int | None = None
    narrow_range: bool = False

    __array_ufunc__ = None

    def __post_init__(self):
        dtype = _validate.q8_dtype("dtype", self.dtype)
        if self.narrow_range and dtype != np.int8:
            raise ValueError(f"narrow_range is for int8 codes, got dtype {dtype}")
        object.__setattr__(self, "dtype", dtype)
        ndim = 0 if self.axis is None else 1
        scale = _validate.scale("scale", self.scale, ndim)
        zero_point = _validate.zero_point(
            "zero_point", self.zero_point, self.qmin, self.qmax, ndim
        )
        if ndim == 0:
            scale, zero_point = np.float32(scale), int(zero_point)
        else:
            _validate.axis("axis", self.axis)
            if scale.shape != zero_point.shape:
                raise ValueError(
                    f"scale and zero_point must have one length, got {scale.size} and "
                    f"{zero_point.size}"
                )
            scale, zero_point = scale.copy(), zero_point.copy()
            scale.flags.writeable = zero_point.flags.writeable = False
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    @property
    def qmin(self):
        """The smallest code."""
        return int(np.iinfo(self.dtype).min) + bool(self.narrow_range)

    @property
    def qmax(self):
        """The largest code."""
        return int(np.iinfo(self.dtype).max)

    @property
    def low(self):
        """The smallest real that a code stands for (float64, or an array of them)."""
        return np.float64(self.scale) * (self.qmin - np.float64(self.zero_point))

    @property
    def high(self):
        """The largest real that a code stands for (float64, or an array of them)."""
        return np.float64(self.scale) * (self.qmax - np.float64(self.zero_point))

    @classmethod
    def from_range(cls, low, high, dtype="uint8", scheme=DEFAULT_SCHEME, axis=None):
        """Return the parameters that cover the reals from `low` to `high`, and 0.0 exactly.

        Equations (2), asymmetric, and (3), symmetric; in float64, the scale rounded to float32
        before the zero point is computed from it.

        Parameters
        ----------
        low, high : float or (C,) array_like
            The range; arrays for `PER_CHANNEL`.
        dtype : {"uint8", "int8"}, default "uint8"
        scheme : QuantizationScheme, default ``ASYMMETRIC | PER_TENSOR``
        axis : int, optional
            Channel axis; needed for `PER_CHANNEL`, and only then.

        Raises
        ------
        ValueError
            If ``low > high``, a bound or the scale is not finite, or `scheme` and `axis` disagree.

        Examples
        --------
        >>> QuantizationParams.from_range(-1.0, 1.55)
        QuantizationParams(scale=0.01, zero_point=100, dtype=uint8)
        """
        dtype = _validate.q8_dtype("dtype", dtype)
        _validate.scheme_and_axis(scheme, axis)
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if low.shape != high.shape or low.ndim != (0 if axis is None else 1):
            raise ValueError(
                f"low and high must be {'numbers' if axis is None else '1-D, one per channel'}, "
                f"got shapes {low.shape} and {high.shape}"
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"low and high must be finite, got {low} and {high}")
        if (low > high).any():
            raise ValueError(f"low must not exceed high, got {low} and {high}")
        info = np.iinfo(dtype)
        if scheme.is_symmetric:
            scale = _rounded_scale(np.maximum(np.abs(low), np.abs(high)) / 127)
            zero_point = np.full(scale.shape, 0 if dtype == np.int8 else 128)
        else:
            low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
            scale = _rounded_scale((high - low) / (info.max - info.min))
            zero_point = np.clip(np.rint(info.min - low / scale), info.min, info.max)
        return cls(
            scale, zero_point.astype(np.int32), dtype, axis,
            narrow_range=scheme.is_symmetric and dtype == np.int8,
        )

    def channel_shape(self, ndim):
        """Return the shape that makes per-channel arrays broadcast against `ndim` axes."""
        if self.axis is None:
            return ()
        return tuple(-1 if i == self.axis else 1 for i in range(ndim))

    def __eq__(self, other):
        if not isinstance(other, QuantizationParams):
            return NotImplemented
        return self is other or (
            (self.dtype, self.axis, self.narrow_range)
            == (other.dtype, other.axis, other.narrow_range)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self):
        return hash((
            self.dtype, self.axis, self.narrow_range,
            np.asarray(self.scale).tobytes(), np.asarray(self.zero_point).tobytes(),
        ))

    def __reduce__(self):       # through the checks, and read-only again
        return QuantizationParams, (
            self.scale, self.zero_point, self.dtype, self.axis, self.narrow_range
        )

    def __repr__(self):
        axis = "" if self.axis is None else f", axis={self.axis}"
        narrow = ", narrow_range=True" if self.narrow_range else ""
        return (
            f"QuantizationParams(scale={self.scale!s}, zero_point={self.zero_point}, "
            f"dtype={self.dtype}{axis}{narrow})"
        )


def _rounded_scale(scale):
    """Round scales to float32; 0 becomes 1, and what is below the smallest normal becomes it."""
    with np.errstate(over="ignore"):        # an infinite scale is refused with a message, later
        rounded = np.asarray(scale, np.float64).astype(np.float32)
    rounded = np.maximum(rounded, np.float32(MIN_SCALE))
    return np.where(np.asarray(scale) == 0, np.float32(1), rounded).astype(np.float64)
