"""Layers that are about codes themselves: into codes, and operators of ONNX on them."""

import numpy as np

from qcy import _validate, primitive
from qcy.nn.layers.base import QuantizedLayer, check_params, to_reals
from qcy.nn.layers.operator import Operator

#: Operators of codes that no other layer covers.
ON_CODES = (
    "QLinearMatMul", "com.microsoft:QLinearAveragePool", "com.microsoft:QLinearGlobalAveragePool",
    "com.microsoft:QLinearSoftmax",
)


class Quantize(QuantizedLayer):
    """Reals in, codes out, equation (4): where a file says so, and no layer does it on the way.

    Parameters
    ----------
    out_params : QuantizationParams

    Examples
    --------
    >>> Quantize(qcy.QuantizationParams(0.5, 10))([0.2, 0.3])     # and the reals of those codes
    array([0. , 0.5], dtype=float32)
    """

    SETTINGS = ("out_params",)
    IS_POINTWISE = True
    TAKES_REALS = True

    def __init__(self, out_params):
        check_params("out_params", out_params)
        self.in_params, self.out_params = (out_params,), out_params

    def forward_codes(self, x, out=None):
        """Quantize a plain array of float32."""
        if x.dtype != np.float32:
            raise TypeError(f"x must be float32, got {x.dtype}")
        params = self.out_params
        codes = primitive.quantize_q8(
            x, params.scale, params.zero_point, dtype=params.dtype, out=out
        )
        if params.narrow_range:
            return primitive.clamp_q8(codes, params.qmin, params.qmax, out=out)
        return codes

    def _forward(self, x):
        return to_reals(self.forward_codes(x), self.out_params)


class QLinearOperator(QuantizedLayer):
    """An operator of ONNX that takes codes and gives codes, as `qcy.nn.operators` has it.

    Parameters
    ----------
    in_params, out_params : QuantizationParams
    op : str
    attributes : mapping, or tuple of (name, value), optional
        As in ONNX.

    Examples
    --------
    >>> steps = qcy.QuantizationParams(1.0)
    >>> QLinearOperator([steps, steps], steps, "QLinearMatMul")([[2.0, 3.0]], [[10.0], [1.0]])
    array([[23.]], dtype=float32)
    """

    SETTINGS = ("in_params", "out_params", "op", "attributes")
    N_INPUTS = None
    IS_RECORDED = False

    def __init__(self, in_params, out_params, op, attributes=()):
        super().__init__(in_params, out_params)
        self.op = _validate.choice("op", op, ON_CODES)
        self._operator = Operator(op, attributes)
        self.attributes = self._operator.attributes

    def forward_codes(self, *inputs, out=None):
        """Compute the operator on plain arrays of codes."""
        arguments = []
        for x, params in zip(inputs, self.in_params, strict=True):
            arguments += [x, *_scale_and_zero(params)]
        arguments += _scale_and_zero(self.out_params)
        return self._operator.compute(*arguments)[0]


def _scale_and_zero(params):
    return np.array(params.scale), np.array(params.zero_point, params.dtype)
