"""Activation layers, in float and in 8 bits."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, QuantizedLayer, activation_clamp, check_params, frozen
from qcy.tensor.tables import gelu, sigmoid, sigmoid_params, table, tanh_params


class ReLU(Layer):
    """``max(x, 0)``.

    Examples
    --------
    >>> ReLU()([-1.0, 2.0])
    array([0., 2.], dtype=float32)
    """

    KEEPS_PARAMS = True
    IS_POINTWISE = True

    def _forward(self, x):
        return np.maximum(x, 0)

    def quantized(self, in_params, out_params=None):
        """Return a `ReLUQuantized`; its output keeps the input's parameters."""
        return ReLUQuantized(in_params, out_params or in_params)


class ReLU6(Layer):
    """``min(max(x, 0), 6)``.

    Examples
    --------
    >>> ReLU6()([-1.0, 2.0, 9.0])
    array([0., 2., 6.], dtype=float32)
    """

    KEEPS_PARAMS = True
    IS_POINTWISE = True

    def _forward(self, x):
        return np.clip(x, 0, 6)

    def quantized(self, in_params, out_params=None):
        """Return a `ReLU6Quantized`; its output keeps the input's parameters."""
        return ReLU6Quantized(in_params, out_params or in_params)


class ReLUQuantized(QuantizedLayer):
    """8-bit `ReLU`: codes clamped, parameters unchanged, equation (14)."""

    KEEPS_PARAMS = True
    IS_POINTWISE = True
    _ACTIVATION = "relu"

    def __init__(self, in_params, out_params):
        super().__init__(in_params, out_params)
        if self.in_params[0] != out_params:
            raise ValueError(
                f"out_params must be the input's, {self.in_params[0]}, got {out_params}"
            )
        self._clamp = activation_clamp(self._ACTIVATION, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return primitive.clamp_q8(x, *self._clamp, out=out)


class ReLU6Quantized(ReLUQuantized):
    """8-bit `ReLU6`: codes clamped, parameters unchanged, equation (14)."""

    _ACTIVATION = "relu6"


class TableQuantized(QuantizedLayer):
    """A function of one input as a table of 256 entries, equation (17).

    Parameters
    ----------
    table : (256,) array of the output's dtype
        Saved with a model and never built again, so that every machine has the same.
    in_params, out_params : QuantizationParams
    """

    ARRAYS = ("table",)
    IS_POINTWISE = True

    def __init__(self, table, in_params, out_params):
        super().__init__(in_params, out_params)
        self.table = frozen(_validate.q8_array("table", table, 1))
        if self.table.size != 256 or self.table.dtype != out_params.dtype:
            raise ValueError(
                f"table must have 256 entries of {out_params.dtype}, got {self.table.dtype} of "
                f"shape {self.table.shape}"
            )

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        return primitive.lookup_q8(x, self.table, out=out)


class SigmoidQuantized(TableQuantized):
    """8-bit `Sigmoid`."""


class TanhQuantized(TableQuantized):
    """8-bit `Tanh`."""


class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> Sigmoid()([0.0])
    array([0.5], dtype=float32)
    """

    IS_POINTWISE = True

    def _forward(self, x):
        power = np.exp(-np.abs(x))
        return np.where(x >= 0, np.float32(1), power) / (1 + power)

    def fixed_params(self, dtype):
        """Return scale 1/256 and the smallest code as zero point."""
        return sigmoid_params(dtype)

    def quantized(self, in_params, out_params=None):
        """Return a `SigmoidQuantized`."""
        out_params = _fixed(self, in_params, out_params)
        return SigmoidQuantized(table(sigmoid, in_params, out_params), in_params, out_params)


class Tanh(Layer):
    """``tanh(x)``.

    Examples
    --------
    >>> Tanh()([0.0])
    array([0.], dtype=float32)
    """

    IS_POINTWISE = True

    def _forward(self, x):
        return np.tanh(x)

    def fixed_params(self, dtype):
        """Return scale 1/128 and the middle code as zero point."""
        return tanh_params(dtype)

    def quantized(self, in_params, out_params=None):
        """Return a `TanhQuantized`."""
        out_params = _fixed(self, in_params, out_params)
        return TanhQuantized(table(math.tanh, in_params, out_params), in_params, out_params)


class GELU(Layer):
    """``x * P(a normal number is below x)``, which is ``0.5 * x * (1 + erf(x / sqrt(2)))``.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415, section 2.

    Examples
    --------
    >>> GELU()([-1.0, 0.0, 1.0]).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """

    IS_POINTWISE = True

    def _forward(self, x):
        # Far below, where float32 is at -0, it stays there: -infinity has no product with 0.
        x = np.maximum(x.astype(np.float64), -40)
        return (x * _normal_below(x)).astype(np.float32)

    def quantized(self, in_params, out_params):
        """Return a `GELUQuantized`."""
        for name, params in (("in_params", in_params), ("out_params", out_params)):
            check_params(name, params)
        return GELUQuantized(table(gelu, in_params, out_params), in_params, out_params)


class GELUQuantized(TableQuantized):
    """8-bit `GELU`."""


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` over one axis.

    Parameters
    ----------
    axis : int, default -1
        Counted in NCHW order for images, whatever the layout.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of images.

    Examples
    --------
    >>> Softmax()([[1.0, 1.0]])
    array([[0.5, 0.5]], dtype=float32)
    """

    SETTINGS = ("axis", "layout")

    def __init__(self, axis=-1, *, layout="NCHW"):
        self.axis = _validate.integer("axis", axis, -4, 3)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        axis = image_axis(self.axis, x.ndim, self.layout)
        # Rows side by side, so that either layout sums in the same order.
        rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        with np.errstate(invalid="ignore"):     # nothing but -infinity has no softmax: NaN
            power = np.exp(rows - rows.max(axis=-1, keepdims=True, initial=-np.inf))
        power /= power.sum(axis=-1, keepdims=True)
        return np.ascontiguousarray(np.moveaxis(power, -1, axis))

    def fixed_params(self, dtype):
        """Return scale 1/256 and the smallest code as zero point."""
        return sigmoid_params(dtype)

    def quantized(self, in_params, out_params=None):
        """Return a `SoftmaxQuantized`, which saves its table of exponentials."""
        out_params = _fixed(self, in_params, out_params)
        table = primitive.softmax_table(in_params.scale)
        return SoftmaxQuantized(table, in_params, out_params, **self.settings())


class SoftmaxQuantized(QuantizedLayer):
    """8-bit `Softmax`, in integers from the first to the last, equation (18).

    Parameters
    ----------
    table : (256,) array, int32
        Exponentials by distance from the largest code.
    in_params, out_params : QuantizationParams
        The output's must be ``(1/256, qmin)``.
    axis, layout
        As for `Softmax`.
    """

    SETTINGS = ("in_params", "out_params", "axis", "layout")
    ARRAYS = ("table",)

    def __init__(self, table, in_params, out_params, *, axis=-1, layout="NCHW"):
        super().__init__(in_params, out_params)
        if out_params != sigmoid_params(out_params.dtype):
            raise ValueError(f"out_params must be (1/256, qmin), got {out_params}")
        self.table = frozen(_validate.int32_array("table", table, (256,)))
        self.axis = _validate.integer("axis", axis, -4, 3)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        axis = image_axis(self.axis, x.ndim, self.layout)
        if axis == x.ndim - 1:
            return primitive.softmax_q8(x, self.table, out_dtype=self.out_params.dtype, out=out)
        rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        y = primitive.softmax_q8(rows, self.table, out_dtype=self.out_params.dtype)
        return np.ascontiguousarray(np.moveaxis(y, -1, axis))


def _fixed(layer, in_params, out_params):
    """Return a layer's output parameters: those given, or its own; checked with the input's."""
    check_params("in_params", in_params)
    if out_params is None:
        return layer.fixed_params(in_params.dtype)
    check_params("out_params", out_params)
    return out_params


def image_axis(axis, ndim, layout):
    """Return where an axis, counted in NCHW order, lies in an array of `layout`."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis must be in [{-ndim}, {ndim - 1}], got {axis}")
    axis %= ndim
    return (0, 3, 1, 2)[axis] if ndim == 4 and layout == "NHWC" else axis


def _normal_below(x):
    """Return the normal distribution's integral up to x, off by 1.2e-7 of it at most.

    W. H. Press et al., "Numerical Recipes in C", 2nd edition, section 6.2: erfc by Chebyshev.
    """
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + z / 2)
    series = (
        -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
        1.48851587, -0.82215223, 0.17087277,
    )
    tail = t * np.exp(np.polynomial.polynomial.polyval(t, series) - z * z) / 2
    return np.where(x >= 0, 1 - tail, tail)
