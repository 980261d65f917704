"""Layers with several inputs, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.activations import image_axis
from qcy.nn.layers.base import (
    ACTIVATIONS, Layer, QuantizedLayer, activate, activation_clamp, check_params, frozen,
)
from qcy.tensor.tables import requantize_table


class _Pair(Layer):
    """A function of two inputs, element by element, that broadcasts as NumPy does."""

    SETTINGS = ("activation",)
    N_INPUTS = 2
    IS_POINTWISE = True
    _FUNCTION = None

    def __init__(self, *, activation=None):
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)

    def _forward(self, a, b):
        _check_broadcast(a, b)
        return activate(self._FUNCTION(a, b), self.activation)

    def quantized(self, in_params, out_params):
        """Return the 8-bit twin."""
        return _TWINS[type(self)](in_params, out_params, activation=self.activation)


class _PairQuantized(QuantizedLayer):
    """The twin of a function of two inputs."""

    SETTINGS = ("in_params", "out_params", "activation")
    N_INPUTS = 2
    IS_POINTWISE = True

    def __init__(self, in_params, out_params, *, activation=None):
        super().__init__(in_params, out_params)
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self._clamp = activation_clamp(activation, out_params)
        scales = np.array([params.scale for params in self.in_params])
        with np.errstate(over="ignore", under="ignore"):
            multipliers = self._multipliers(scales)
        _validate.multipliers(
            multipliers, ("input scale", scales), ("output scale", out_params.scale), place="input"
        )

    def _multipliers(self, scales):
        """Return what equation (15) multiplies with."""
        return scales / self.out_params.scale

    def _settings(self):
        """Return the arguments of the primitive."""
        left, right = self.in_params
        return {
            "a_scale": left.scale, "b_scale": right.scale, "out_scale": self.out_params.scale,
            "a_zero_point": left.zero_point, "b_zero_point": right.zero_point,
            "out_zero_point": self.out_params.zero_point, "out_dtype": self.out_params.dtype,
            "clamp": self._clamp,
        }


class Add(_Pair):
    """The sum of two inputs, which broadcast as NumPy's do.

    Parameters
    ----------
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Examples
    --------
    >>> Add()([1.0, 2.0], [10.0, 20.0])
    array([11., 22.], dtype=float32)
    """

    _FUNCTION = staticmethod(np.add)


class AddQuantized(_PairQuantized):
    """8-bit `Add`: two float32 products, their sum, one rounding, equation (15)."""

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_broadcast(a, b)
        return primitive.add_q8(a, b, **self._settings(), out=out)


class Sub(_Pair):
    """The difference of two inputs, which broadcast as NumPy's do.

    Parameters
    ----------
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Examples
    --------
    >>> Sub()([1.0, 2.0], [10.0, 20.0])
    array([ -9., -18.], dtype=float32)
    """

    _FUNCTION = staticmethod(np.subtract)


class SubQuantized(_PairQuantized):
    """8-bit `Sub`: the sum with the second input's codes turned around, equation (15)."""

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_broadcast(a, b)
        # The codes of -b: ``qmin + qmax - code``, all bits turned.
        negative = primitive.lookup_q8(b, _turned(b.dtype))
        settings = self._settings()
        settings["b_zero_point"] = sum(_validate.code_range(b.dtype)) - settings["b_zero_point"]
        return primitive.add_q8(a, negative, **settings, out=out)


def _turned(dtype):
    """Return the table from codes to those of the opposite number."""
    low, high = _validate.code_range(dtype)
    return np.arange(high, low - 1, -1).astype(dtype)


class Mul(_Pair):
    """The product of two inputs, which broadcast as NumPy's do.

    Parameters
    ----------
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Examples
    --------
    >>> Mul()([1.0, 2.0], [10.0, 20.0])
    array([10., 40.], dtype=float32)
    """

    _FUNCTION = staticmethod(np.multiply)


class MulQuantized(_PairQuantized):
    """8-bit `Mul`: an exact integer product, one rounding, equation (9)."""

    def _multipliers(self, scales):
        return scales[:1] * scales[1:] / self.out_params.scale

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_broadcast(a, b)
        return primitive.mul_q8(a, b, **self._settings(), out=out)


class Maximum(_Pair):
    """The larger of two inputs, which broadcast as NumPy's do.

    Parameters
    ----------
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Examples
    --------
    >>> Maximum()([1.0, 20.0], [10.0, 2.0])
    array([10., 20.], dtype=float32)
    """

    _FUNCTION = staticmethod(np.maximum)


class MaximumQuantized(_PairQuantized):
    """8-bit `Maximum`: both inputs by tables to the output's parameters, equation (19)."""

    IS_RECORDED = False

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        _check_broadcast(a, b)
        a, b = (
            x if params == self.out_params
            else primitive.lookup_q8(x, requantize_table(params, self.out_params))
            for x, params in zip((a, b), self.in_params, strict=True)
        )
        return np.clip(np.maximum(a, b), *self._clamp, out=out)


_TWINS = {Add: AddQuantized, Sub: SubQuantized, Mul: MulQuantized, Maximum: MaximumQuantized}


def _check_broadcast(a, b):
    if a.shape != b.shape:
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ValueError(
                f"inputs must have shapes that broadcast, got {a.shape} and {b.shape}"
            ) from None


class Concat(Layer):
    """Inputs side by side.

    Parameters
    ----------
    axis : int, default 1
        Counted in NCHW order for images, whatever the layout.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of images.

    Examples
    --------
    >>> Concat()(np.zeros((1, 2)), np.ones((1, 1)))
    array([[0., 0., 1.]], dtype=float32)
    """

    SETTINGS = ("axis", "layout")
    N_INPUTS = None

    def __init__(self, axis=1, *, layout="NCHW"):
        self.axis = _validate.integer("axis", axis, -4, 3)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def _forward(self, *inputs):
        return np.concatenate(inputs, image_axis(self.axis, inputs[0].ndim, self.layout))

    def quantized(self, in_params, out_params):
        """Return a `ConcatQuantized`, which requantizes inputs whose parameters differ."""
        in_params = tuple(in_params) if isinstance(in_params, (tuple, list)) else (in_params,)
        for params in in_params:
            check_params("in_params", params)
        check_params("out_params", out_params)
        tables = np.stack([requantize_table(params, out_params) for params in in_params])
        return ConcatQuantized(tables, in_params, out_params, **self.settings())


class ConcatQuantized(QuantizedLayer):
    """8-bit `Concat`: inputs by tables to the output's parameters, equation (21).

    Parameters
    ----------
    tables : (n_inputs, 256) array of the output's dtype
        Saved with a model and never built again.
    in_params : sequence of QuantizationParams
    out_params : QuantizationParams
    axis, layout
        As for `Concat`.
    """

    SETTINGS = ("in_params", "out_params", *Concat.SETTINGS)
    ARRAYS = ("tables",)
    N_INPUTS = None

    def __init__(self, tables, in_params, out_params, *, axis=1, layout="NCHW"):
        super().__init__(in_params, out_params)
        self.tables = frozen(_validate.q8_array("tables", tables, 2))
        if self.tables.shape != (len(self.in_params), 256):
            raise ValueError(
                f"tables must have shape {(len(self.in_params), 256)}, got {self.tables.shape}"
            )
        self.axis = _validate.integer("axis", axis, -4, 3)
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def forward_codes(self, *inputs, out=None):
        """Compute the layer on plain arrays of codes."""
        parts = [
            x if params == self.out_params else primitive.lookup_q8(x, table)
            for x, params, table in zip(inputs, self.in_params, self.tables, strict=True)
        ]
        axis = image_axis(self.axis, parts[0].ndim, self.layout)
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts, axis, out=out)
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        start = 0
        for part in parts:
            out = primitive.beside_q8(part, shape, axis, start, out=out)
            start += part.shape[axis]
        return out
