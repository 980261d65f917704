"""Products of two inputs, and means along axes, in float and in 8 bits."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import Layer, QuantizedLayer, activation_clamp, check_params
from qcy.nn.layers.weights import float_array


class MatMul(Layer):
    """Matrix product of two inputs, as ``numpy.matmul``; with constant weights it is `Dense`.

    Examples
    --------
    >>> MatMul()([[1.0, 2.0]], [[3.0], [4.0]])
    array([[11.]], dtype=float32)
    """

    N_INPUTS = 2

    def _forward(self, a, b):
        return np.matmul(a, b)

    def quantized(self, in_params, out_params):
        """Return a `MatMulQuantized`."""
        return MatMulQuantized(in_params, out_params)


class MatMulQuantized(QuantizedLayer):
    """8-bit `MatMul`: exact int32 sums, one rounding, equation (9)."""

    N_INPUTS = 2
    IS_RECORDED = False

    def __init__(self, in_params, out_params):
        super().__init__(in_params, out_params)
        scales = np.array([params.scale for params in self.in_params])
        with np.errstate(over="ignore", under="ignore"):
            multiplier = scales[:1] * scales[1:] / out_params.scale
        _validate.multipliers(
            multiplier, ("input scales", scales), ("output scale", out_params.scale)
        )
        self._clamp = activation_clamp(None, out_params)

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        if a.ndim < 2 or b.ndim < 2:
            raise ValueError(
                f"inputs must have at least 2 dimensions, got shapes {a.shape} and {b.shape}"
            )
        left, right = self.in_params
        return primitive.gemm_batched_q8(
            a, b, a_scale=left.scale, b_scale=right.scale, out_scale=self.out_params.scale,
            a_zero_point=left.zero_point, b_zero_point=right.zero_point,
            out_zero_point=self.out_params.zero_point, out_dtype=self.out_params.dtype,
            clamp=self._clamp, out=out,
        )


class Mean(Layer):
    """The mean along axes.

    Parameters
    ----------
    axes : sequence of int
    keepdims : bool, default False
        Whether the axes stay, with length 1.

    Examples
    --------
    >>> Mean([-1])([[1.0, 2.0], [3.0, 4.0]])
    array([1.5, 3.5], dtype=float32)
    """

    SETTINGS = ("axes", "keepdims")

    def __init__(self, axes, keepdims=False):
        self.axes = tuple(_validate.integer("axes", axis, -64, 63) for axis in axes)
        self.keepdims = bool(keepdims)

    def _forward(self, x):
        return x.mean(axis=self.axes, keepdims=self.keepdims)

    def quantized(self, in_params, out_params):
        """Return a `MeanQuantized`."""
        return MeanQuantized(in_params, out_params, **self.settings())


class MeanQuantized(QuantizedLayer):
    """8-bit `Mean`: exact sums, one rounding, equation (16).

    Parameters
    ----------
    in_params, out_params : QuantizationParams
    axes, keepdims
        As for `Mean`.
    """

    SETTINGS = ("in_params", "out_params", *Mean.SETTINGS)
    IS_RECORDED = False

    def __init__(self, in_params, out_params, axes, keepdims=False):
        super().__init__(in_params, out_params)
        plain = Mean(axes, keepdims)
        self.axes, self.keepdims = plain.axes, plain.keepdims
        self._clamp = activation_clamp(None, out_params)

    def forward_codes(self, x, out=None):
        """Compute the layer on a plain array of codes."""
        n = math.prod(x.shape[axis] for axis in self.axes)
        if not 0 < n <= 2**23:
            raise ValueError(f"the mean must be of 1 to 2**23 numbers, got {n}")
        params = self.in_params[0]
        sums = x.sum(axis=self.axes, keepdims=self.keepdims, dtype=np.int32)
        sums = np.asarray(sums, np.int32) - np.int32(n * params.zero_point)
        return primitive.requantize_q8(
            sums, float(np.float32(params.scale / self.out_params.scale) / np.float32(n)),
            zero_point=self.out_params.zero_point, dtype=self.out_params.dtype, clamp=self._clamp,
            out=out,
        )


class PReLU(Layer):
    """``x`` where it is positive, ``slope * x`` elsewhere; a slope for each channel of axis 1.

    Parameters
    ----------
    slope : (C,) array

    References
    ----------
    .. [1] K. He et al., "Delving Deep into Rectifiers", ICCV 2015.

    Examples
    --------
    >>> PReLU([0.5, 0.0])([[-2.0, -2.0]])
    array([[-1., -0.]], dtype=float32)
    """

    SETTINGS = ("layout",)
    ARRAYS = ("slope",)

    def __init__(self, slope, *, layout="NCHW"):
        self.slope = float_array("slope", slope, 1)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, x):
        return np.where(x < 0, x * self._beside(x), x)

    def _beside(self, x):
        """Return the slopes in a shape that broadcasts against `x`."""
        axis = 3 if x.ndim == 4 and self.layout == "NHWC" else 1
        if x.ndim < 2 or x.shape[axis] != self.slope.size:
            raise ValueError(
                f"x must have {self.slope.size} channels in axis {axis}, got shape {x.shape}"
            )
        return self.slope.reshape([-1 if i == axis else 1 for i in range(x.ndim)])

    def quantized(self, in_params, out_params):
        """Return a `PReLUQuantized`."""
        for name, params in (("in_params", in_params), ("out_params", out_params)):
            check_params(name, params)
        return PReLUQuantized(self.slope, in_params, out_params, layout=self.layout)


class PReLUQuantized(QuantizedLayer):
    """8-bit `PReLU`: one product in float32 by the channel's or the plain ratio, one rounding.

    Parameters
    ----------
    slope : (C,) array, float32
    in_params, out_params : QuantizationParams
    layout
        As for `PReLU`.
    """

    SETTINGS = ("in_params", "out_params", "layout")
    ARRAYS = ("slope",)
    IS_RECORDED = False

    def __init__(self, slope, in_params, out_params, *, layout="NCHW"):
        super().__init__(in_params, out_params)
        self._plain = PReLU(slope, layout=layout)
        self.slope, self.layout = self._plain.slope, self._plain.layout

    def forward_codes(self, x, out=None):
        """Compute the layer on a plain array of codes."""
        params, target = self.in_params[0], self.out_params
        steps = x.astype(np.float32) - np.float32(params.zero_point)
        ratio = np.float32(params.scale / target.scale)
        y = np.where(steps < 0, steps * (ratio * self._plain._beside(x)), steps * ratio)
        y = np.rint(y) + np.float32(target.zero_point)
        codes = np.clip(y, target.qmin, target.qmax).astype(target.dtype)
        if out is None:
            return codes
        out[...] = codes
        return out
