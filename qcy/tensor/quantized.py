"""The quantized tensor: codes, and the parameters that give them meaning."""

import operator

import numpy as np

from qcy import _validate, primitive
from qcy.tensor import activations, conv, elementwise, linalg, pooling
from qcy.tensor.generic import Tensor
from qcy.tensor.quantization import DEFAULT_SCHEME, QuantizationParams, check_scheme
from qcy.tensor.tables import requantize_table


class QuantizedTensor:
    """8-bit codes with their quantization parameters.

    Has a `Tensor` of codes rather than being one: adding codes is not adding the numbers they
    stand for. Immutable but for the codes themselves, which `codes.data` may change.

    Parameters
    ----------
    codes : Tensor or array, int8 or uint8
        Shared, not copied, if C-ordered.
    params : QuantizationParams
        Of the same dtype; its axis, if any, must have as many scales as `codes` has channels.

    Raises
    ------
    TypeError, ValueError
        If codes and parameters do not fit.

    Examples
    --------
    >>> x = QuantizedTensor(np.array([8, 10, 12], np.uint8), QuantizationParams(0.5, 10))
    >>> x.dequantize().data
    array([-1.,  0.,  1.], dtype=float32)
    """

    __slots__ = ("_codes", "_params")
    __array_ufunc__ = None

    def __init__(self, codes, params):
        self._codes = codes if isinstance(codes, Tensor) else Tensor(codes)
        self._params = params
        self.validate()

    @property
    def codes(self):
        """The codes: a Tensor of int8 or uint8."""
        return self._codes

    @property
    def params(self):
        """The QuantizationParams."""
        return self._params

    @property
    def scale(self):
        """Real size of one code step: float32, or one per channel."""
        return self._params.scale

    @property
    def zero_point(self):
        """The code of 0.0: int, or one per channel."""
        return self._params.zero_point

    @property
    def axis(self):
        """The channel axis, or None."""
        return self._params.axis

    @property
    def shape(self):
        """Lengths of the axes."""
        return self._codes.shape

    @property
    def size(self):
        """Number of elements."""
        return self._codes.size

    @property
    def ndim(self):
        """Number of axes."""
        return self._codes.ndim

    @property
    def dtype(self):
        """Of the codes: int8 or uint8."""
        return self._codes.dtype

    def get_params(self):
        """Return the QuantizationParams."""
        return self._params

    def validate(self):
        """Raise TypeError or ValueError if codes and parameters do not fit."""
        params = self._params
        if not isinstance(params, QuantizationParams):
            raise TypeError(f"params must be QuantizationParams, got {params!r}")
        if self.dtype != params.dtype:
            raise TypeError(f"codes are {self.dtype}, params say {params.dtype}")
        if params.axis is not None:
            if params.axis >= self.ndim:
                raise ValueError(f"axis {params.axis} must be below {self.ndim} dimensions")
            if self.shape[params.axis] != params.scale.size:
                raise ValueError(
                    f"axis {params.axis} has {self.shape[params.axis]} channels, params have "
                    f"{params.scale.size} scales"
                )

    # ------------------------------------------------------------------ between codes and reals

    def dequantize(self):
        """Return the reals that the codes stand for, a float32 Tensor, equation (5)."""
        return Tensor(primitive.dequantize_q8(
            self._codes.data, self.scale, self.zero_point, axis=self.axis
        ))

    def requantize(self, scale, zero_point):
        """Return the same numbers in codes of another scale and zero point, equation (19).

        Parameters
        ----------
        scale : float
        zero_point : int

        Returns
        -------
        QuantizedTensor
            Per tensor, of the same dtype.
        """
        out = QuantizationParams(scale, zero_point, self.dtype)
        data = self._codes.data
        if self.axis is None:
            table = requantize_table(self._params, out)
            return QuantizedTensor(primitive.lookup_q8(data, table), out)
        channels = np.moveaxis(data, self.axis, 0)
        codes = np.empty(channels.shape, self.dtype)
        for channel, part in enumerate(channels):
            own = QuantizationParams(self.scale[channel], self.zero_point[channel], self.dtype)
            codes[channel] = primitive.lookup_q8(part, requantize_table(own, out))
        return QuantizedTensor(np.ascontiguousarray(np.moveaxis(codes, 0, self.axis)), out)

    # -------------------------------------------------------------------------------- arithmetic

    add = elementwise.add
    mul = elementwise.mul
    scale_by = elementwise.scale_by
    matmul = linalg.matmul
    conv2d = conv.conv2d
    relu = activations.relu
    sigmoid = activations.sigmoid
    tanh = activations.tanh
    max_pool2d = pooling.max_pool2d
    avg_pool2d = pooling.avg_pool2d

    def __add__(self, other):
        return self.add(other) if isinstance(other, QuantizedTensor) else NotImplemented

    def __mul__(self, other):
        if isinstance(other, QuantizedTensor):
            return self.mul(other)
        return self.scale_by(other) if np.isscalar(other) else NotImplemented

    def __rmul__(self, other):
        return self.scale_by(other) if np.isscalar(other) else NotImplemented

    def __matmul__(self, other):
        return self.matmul(other) if isinstance(other, QuantizedTensor) else NotImplemented

    # ------------------------------------------------------------------------------------- shape

    def reshape(self, *shape):
        """Return the codes in another shape; a channel axis moves along.

        Raises
        ------
        ValueError
            If the size differs, or the channel axis would be split or merged.
        """
        data = self._codes.data.reshape(*shape)
        if self.axis is None:
            return QuantizedTensor(data, self._params)
        outer = int(np.prod(self.shape[: self.axis]))
        length = self.shape[self.axis]
        # Beside other axes of length 1 several would do: best where it is.
        for axis in (self.axis, *range(data.ndim)):
            if data.shape[axis : axis + 1] == (length,) and np.prod(data.shape[:axis]) == outer:
                return QuantizedTensor(data, self._moved(axis))
        raise ValueError(
            f"reshape from {self.shape} to {data.shape} splits or merges channel axis {self.axis}"
        )

    def transpose(self, *axes):
        """Return the codes with axes permuted, reversed by default; a channel axis moves along."""
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
            axes = tuple(axes[0] or ())
        data = self._codes.data.transpose(*axes)
        data = np.asarray(data, order="C")
        if self.axis is None:
            return QuantizedTensor(data, self._params)
        order = [a % self.ndim for a in axes] if axes else list(range(self.ndim))[::-1]
        return QuantizedTensor(data, self._moved(order.index(self.axis)))

    def __getitem__(self, index):
        """Return a part, by integers and slices; a channel axis moves along."""
        index = index if isinstance(index, tuple) else (index,)
        try:
            if any(isinstance(i, bool) for i in index):     # to NumPy a mask, and no index
                raise TypeError
            index = tuple(i if isinstance(i, slice) else operator.index(i) for i in index)
        except TypeError:
            raise TypeError(f"index must be integers and slices, got {index!r}") from None
        if len(index) > self.ndim:
            raise IndexError(f"{self.ndim} indices at most, got {len(index)}")
        data = np.asarray(self._codes.data[index], order="C")
        if self.axis is None:
            return QuantizedTensor(data, self._params)
        part = index[self.axis] if self.axis < len(index) else slice(None)
        scale, zero_point = self.scale[part], self.zero_point[part]
        if isinstance(part, slice):
            axis = sum(isinstance(i, slice) for i in index[: self.axis]) + max(
                0, self.axis - len(index)
            )
            params = QuantizationParams(
                scale, zero_point, self.dtype, axis, self._params.narrow_range
            )
        else:
            params = QuantizationParams(
                scale, int(zero_point), self.dtype, None, self._params.narrow_range
            )
        return QuantizedTensor(data, params)

    def _moved(self, axis):
        params = self._params
        return QuantizationParams(
            params.scale, params.zero_point, params.dtype, axis, params.narrow_range
        )

    # --------------------------------------------------------------------------------- protocols

    def __array__(self, dtype=None, copy=None):
        raise TypeError("ambiguous: use .codes for the integers or .dequantize() for the reals")

    def __eq__(self, other):
        if not isinstance(other, QuantizedTensor):
            return NotImplemented
        return self._params == other._params and self._codes == other._codes

    __hash__ = None

    def __reduce__(self):
        return QuantizedTensor, (self._codes, self._params)

    def __repr__(self):
        return f"QuantizedTensor(shape={self.shape}, {self._params!r})"


class _Default(str):
    """A default that is told from the same word given by a caller."""

    __slots__ = ()


_DTYPE = _Default("uint8")


def quantize(x, params=None, *, scheme=DEFAULT_SCHEME, dtype=_DTYPE, axis=None, out=None):
    """Quantize reals, with parameters that are given or chosen from the smallest and largest.

    Parameters
    ----------
    x : Tensor or array, real
    params : QuantizationParams, optional
        Default: `QuantizationParams.from_range` of the data.
    scheme : QuantizationScheme, default ``ASYMMETRIC | PER_TENSOR``
        How parameters are chosen. Together with `params`, it may be left out or must fit them,
        like `dtype` and `axis`.
    dtype : {"uint8", "int8"}, default "uint8"
    axis : int, optional
        Channel axis for `PER_CHANNEL`.
    out : array of the codes' dtype, shaped as `x`, optional
        Where to write the codes.

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit or contradicts `params`, or `x` holds a NaN; also if it holds
        an infinity, or has no elements, and no `params` are given.

    Examples
    --------
    >>> quantize(np.array([-1.0, 0.0, 1.55]))
    QuantizedTensor(shape=(3,), QuantizationParams(scale=0.01, zero_point=100, dtype=uint8))
    """
    data = np.asarray(x)
    if params is None:
        params = _params_of(data, scheme, dtype, axis)
    elif not isinstance(params, QuantizationParams):
        raise TypeError(f"params must be QuantizationParams, got {params!r}")
    else:
        _check_agreement(params, data.ndim, scheme, dtype, axis)
    codes = primitive.quantize_q8(
        data, params.scale, params.zero_point, axis=params.axis, dtype=params.dtype, out=out
    )
    if params.narrow_range and codes.size and codes.min() < params.qmin:
        np.maximum(codes, params.qmin, out=codes)
    return QuantizedTensor(codes, params)


def _params_of(data, scheme, dtype, axis):
    """Return the parameters that cover `data`."""
    if data.dtype.kind not in "fiu":
        raise TypeError(f"x must hold real numbers, got {data.dtype}")
    if not data.size:
        raise ValueError(f"x must not be empty if params are to be chosen, got shape {data.shape}")
    axis = None if axis is None else _from_front(axis, data.ndim)
    over = None if axis is None else tuple(i for i in range(data.ndim) if i != axis)
    with np.errstate(over="ignore"):        # an infinite bound is refused with a message, below
        low = np.asarray(data.min(axis=over), np.float32)
        high = np.asarray(data.max(axis=over), np.float32)
    if np.isnan(low).any():
        raise ValueError(f"x must not hold NaN, got {np.isnan(data).sum()} of them")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("x must be finite if params are to be chosen, it holds an infinity")
    return QuantizationParams.from_range(low, high, dtype, scheme, axis)


def _from_front(axis, ndim):
    """Return an axis that may count from the back as one that counts from the front."""
    return _validate.integer("axis", axis, -ndim, ndim - 1) % ndim


def _check_agreement(params, ndim, scheme, dtype, axis):
    """Check that nothing that was asked for, beside parameters, contradicts them."""
    scheme = check_scheme("scheme", scheme)
    if not isinstance(dtype, _Default) and _validate.q8_dtype("dtype", dtype) != params.dtype:
        raise ValueError(f"dtype must be that of params, {params.dtype}, got {dtype}")
    if axis is not None and _from_front(axis, ndim) != params.axis:
        raise ValueError(f"axis must be that of params, {params.axis}, got {axis}")
    if scheme == DEFAULT_SCHEME:           # given or not, it asks for nothing
        return
    middle = 0 if params.dtype == np.int8 else 128
    if scheme.is_per_channel != (params.axis is not None) or (
        scheme.is_symmetric and np.any(params.zero_point != middle)
    ):
        raise ValueError(f"scheme must be that of params, {params}, got {scheme}")
