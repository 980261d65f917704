"""What every layer is, in float and in 8 bits.

A layer is immutable: its arrays are its own, and attributes are set once. Its settings and its
arrays are named once, in `SETTINGS` and `ARRAYS`, which are also the names of its constructor's
arguments and of its attributes: showing, copying and saving need nothing else.
"""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.context import split_context
from qcy.tensor.generic import Tensor
from qcy.tensor.quantization import QuantizationParams
from qcy.tensor.quantized import QuantizedTensor


class Layer:
    """A function of float32 arrays; its 8-bit twin comes from `quantized`.

    Subclasses write ``_forward(*arrays)``, and ``quantized``.
    """

    #: Names of constructor arguments that are plain values.
    SETTINGS = ()
    #: Names of constructor arguments that are arrays (or None).
    ARRAYS = ()
    #: Number of inputs; None: any number, at least one.
    N_INPUTS = 1
    #: Number of outputs.
    n_outputs = 1
    #: Whether each element of the output comes from those of the inputs in its place.
    IS_POINTWISE = False
    #: Whether the output's codes mean what the input's mean: the twin keeps its parameters.
    KEEPS_PARAMS = False
    #: Whether the inputs are numbers that no layer, in float or in 8 bits, takes as codes: indices.
    TAKES_REALS = False

    def __setattr__(self, name, value):
        if name in self.__dict__:
            raise AttributeError(
                f"a layer does not change, {name} is set already: make another, as by "
                f"replace({name}=...)"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name):
        raise AttributeError(f"a layer does not change, {name} cannot be deleted")

    def forward(self, *inputs, ctx=None):
        """Compute the layer in float32.

        Parameters
        ----------
        *inputs : Tensor or array
        ctx : Context, optional
            May cancel the call before it starts. By name, or last.

        Returns
        -------
        Tensor or ndarray, float32
            Of the kind of the first input.
        """
        inputs, ctx = split_context(inputs, ctx)
        if ctx is not None:
            ctx.check()
        self._check_count(inputs)
        # NumPy makes numbers of arrays without axes.
        result = np.asarray(self._forward(*(_validate.real_array("x", x) for x in inputs)))
        return Tensor(result) if inputs and isinstance(inputs[0], Tensor) else result

    __call__ = forward

    def quantized(self, in_params, out_params):
        """Return the 8-bit twin of this layer.

        Parameters
        ----------
        in_params : QuantizationParams, or a sequence of them for several inputs
        out_params : QuantizationParams or None
            None where the layer decides itself: see `fixed_params` and `KEEPS_PARAMS`.

        Returns
        -------
        QuantizedLayer
        """
        raise TypeError(f"{type(self).__name__} has no 8-bit twin; keep it in float")

    def fixed_params(self, dtype):
        """Return the output parameters that calibration cannot change, or None."""
        return None

    @property
    def order(self):
        """How images must come: "NCHW", "NHWC", as "outside" the model, or in "any" order."""
        if "layout" in self.SETTINGS:
            return self.layout
        return "any" if self.IS_POINTWISE else "outside"

    def with_layout(self, layout):
        """Return the same layer for images in another layout, "NCHW" or "NHWC"."""
        return self.replace(layout=layout) if "layout" in self.SETTINGS else self

    def replace(self, **changes):
        """Return a copy with some constructor arguments changed."""
        parts = {name: getattr(self, name) for name in (*self.SETTINGS, *self.ARRAYS)}
        return type(self)(**(parts | changes))

    def settings(self):
        """Return the plain constructor arguments by name."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def arrays(self):
        """Return the arrays among the constructor arguments by name, those that are not None."""
        found = {name: getattr(self, name) for name in self.ARRAYS}
        return {name: np.asarray(value) for name, value in found.items() if value is not None}

    def _check_count(self, inputs):
        if len(inputs) != self.N_INPUTS if self.N_INPUTS is not None else not inputs:
            wanted = "at least 1" if self.N_INPUTS is None else self.N_INPUTS
            raise TypeError(f"{type(self).__name__} takes {wanted} input(s), got {len(inputs)}")

    def __reduce__(self):
        parts = {name: getattr(self, name) for name in (*self.SETTINGS, *self.ARRAYS)}
        return _rebuild, (type(self), parts)

    def __repr__(self):
        shapes = [f"{name}={'x'.join(map(str, a.shape))}" for name, a in self.arrays().items()]
        values = [f"{name}={value!r}" for name, value in self.settings().items()]
        return f"{type(self).__name__}({', '.join(shapes + values)})"


class QuantizedLayer(Layer):
    """A function of 8-bit codes.

    Subclasses write ``forward_codes(*codes, out=None)`` on plain arrays of codes.

    Attributes
    ----------
    in_params : tuple of QuantizationParams
        One for each input.
    out_params : QuantizationParams
    """

    SETTINGS = ("in_params", "out_params")
    #: Whether `forward_codes` is made of bindable primitives, which a program can hold.
    IS_RECORDED = True

    def __init__(self, in_params, out_params):
        several = isinstance(in_params, (tuple, list))
        self.in_params = tuple(in_params) if several else (in_params,)
        self.out_params = out_params
        for params in self.in_params:
            check_params("in_params", params)
        check_params("out_params", out_params)
        if not self.in_params or self.N_INPUTS not in (None, len(self.in_params)):
            raise ValueError(
                f"in_params must be {self.N_INPUTS or 'at least 1'}, got {len(self.in_params)}"
            )

    def _check_count(self, inputs):
        if len(inputs) != len(self.in_params):
            raise TypeError(
                f"{type(self).__name__} takes {len(self.in_params)} input(s), got {len(inputs)}"
            )

    def quantized_forward(self, *inputs, ctx=None):
        """Compute the layer on codes.

        Parameters
        ----------
        *inputs : QuantizedTensor
            Requantized first if their parameters are not `in_params`.
        ctx : Context, optional
            May cancel the call before it starts. By name, or last.

        Returns
        -------
        QuantizedTensor
            With `out_params`.
        """
        inputs, ctx = split_context(inputs, ctx)
        if ctx is not None:
            ctx.check()
        self._check_count(inputs)
        codes = []
        for x, params in zip(inputs, self.in_params, strict=True):
            if not isinstance(x, QuantizedTensor):
                raise TypeError(f"quantized_forward takes QuantizedTensors, got {type(x).__name__}")
            codes.append(x.dequantize().data if self.TAKES_REALS else codes_in(x, params))
        return QuantizedTensor(self.forward_codes(*codes), self.out_params)

    def forward_codes(self, *codes, out=None):
        """Compute the layer on plain arrays of codes with `in_params`."""
        raise NotImplementedError

    def _forward(self, *inputs):
        """Convert at the edges: reals in, reals out."""
        codes = [
            x if self.TAKES_REALS else to_codes(x, params)
            for x, params in zip(inputs, self.in_params, strict=True)
        ]
        return to_reals(self.forward_codes(*codes), self.out_params)


def frozen(array):
    """Return a read-only copy of an array: what its giver does to it later is not the layer's."""
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array.view()         # a view cannot be made writable again


def check_params(name, params):
    """Check the parameters of an activation: given, and per tensor."""
    if not isinstance(params, QuantizationParams):
        raise TypeError(f"{name} must be QuantizationParams, got {params!r}")
    if params.axis is not None:
        raise ValueError(f"{name} must have one scale, activations are per tensor")


def _rebuild(cls, parts):
    return cls(**parts)


def to_codes(reals, params):
    """Quantize a plain array."""
    codes = primitive.quantize_q8(
        reals, params.scale, params.zero_point, axis=params.axis, dtype=params.dtype
    )
    return np.maximum(codes, params.qmin, out=codes) if params.narrow_range else codes


def to_reals(codes, params):
    """Dequantize a plain array."""
    return primitive.dequantize_q8(codes, params.scale, params.zero_point)


def codes_in(x, params):
    """Return the codes of a QuantizedTensor, requantized if its parameters are others."""
    if x.params == params:
        return x.codes.data
    if x.dtype != params.dtype:
        return to_codes(x.dequantize().data, params)
    codes = x.requantize(params.scale, params.zero_point).codes.data
    return np.maximum(codes, params.qmin, out=codes) if params.narrow_range else codes


def activation_clamp(activation, params):
    """Return the (low, high) codes of a fused activation: None, "relu" or "relu6"."""
    low, high = params.qmin, params.qmax
    if activation is not None:
        low = max(low, params.zero_point)
    if activation == "relu6":
        high = min(high, int(np.rint(6.0 / np.float64(params.scale))) + params.zero_point)
    return low, high


ACTIVATIONS = (None, "relu", "relu6")


def activate(x, activation):
    """Apply a fused activation to a float array, in place."""
    x = np.asarray(x)
    if activation is not None:
        np.maximum(x, 0, out=x)
    if activation == "relu6":
        np.minimum(x, 6, out=x)
    return x
