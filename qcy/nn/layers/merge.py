"""Layers with several inputs, in float and in 8 bits."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.activations import image_axis
from qcy.nn.layers.base import (
    ACTIVATIONS, Layer, QuantizedLayer, activate, activation_clamp, check_params, frozen,
)
from qcy.tensor.tables import requantize_table


class Add(Layer):
    """The sum of two inputs.

    Parameters
    ----------
    activation : {None, "relu", "relu6"}
        Fused into the layer.

    Examples
    --------
    >>> Add()([1.0, 2.0], [10.0, 20.0])
    array([11., 22.], dtype=float32)
    """

    SETTINGS = ("activation",)
    N_INPUTS = 2

    def __init__(self, *, activation=None):
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)

    def _forward(self, a, b):
        if a.shape != b.shape:
            raise ValueError(f"inputs must have one shape, got {a.shape} and {b.shape}")
        return activate(a + b, self.activation)

    def quantized(self, in_params, out_params):
        """Return an `AddQuantized`."""
        return AddQuantized(in_params, out_params, activation=self.activation)


class AddQuantized(QuantizedLayer):
    """8-bit `Add`: two float32 products, their sum, one rounding, equation (15)."""

    SETTINGS = ("in_params", "out_params", "activation")
    N_INPUTS = 2

    def __init__(self, in_params, out_params, *, activation=None):
        super().__init__(in_params, out_params)
        self.activation = _validate.choice("activation", activation, ACTIVATIONS)
        self._clamp = activation_clamp(activation, out_params)
        scales = np.array([params.scale for params in self.in_params])
        with np.errstate(over="ignore", under="ignore"):
            multipliers = scales / out_params.scale
        _validate.multipliers(
            multipliers, ("input scale", scales), ("output scale", out_params.scale), place="input"
        )

    def forward_codes(self, a, b, out=None):
        """Compute the layer on plain arrays of codes."""
        if a.shape != b.shape:
            raise ValueError(f"inputs must have one shape, got {a.shape} and {b.shape}")
        left, right = self.in_params
        return primitive.add_q8(
            a, b, a_scale=left.scale, b_scale=right.scale, out_scale=self.out_params.scale,
            a_zero_point=left.zero_point, b_zero_point=right.zero_point,
            out_zero_point=self.out_params.zero_point, out_dtype=self.out_params.dtype,
            clamp=self._clamp, out=out,
        )


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
