"""8-bit twins that give the codes of the float layer's numbers, whatever the parameters.

What rounds once, in float and in 8 bits, gives the same codes but where a number lies in the middle
of two. Layers that quantize weights of their own are not among them.
"""

import numpy as np

from qcy.nn.layers import (
    GELU, Add, AvgPool2D, Concat, ConcatQuantized, Dropout, Flatten, GlobalAvgPool2D, Identity,
    LayerNorm, Maximum, MaxPool2D, Mean, Mul, Operator, PReLU, ReLU6, Reshape, Sigmoid, Softmax,
    Sub, TableQuantized, Tanh,
)
from qcy.nn.layers.base import to_codes, to_reals

#: Layers that give numbers of their input, in other places.
MOVING = (Dropout, Flatten, Identity, MaxPool2D, Reshape)
#: Functions of one number that are rounded once: float32 gives the same on every machine.
EXACT = (
    "Abs", "Add", "Ceil", "Clip", "Div", "Floor", "HardSigmoid", "HardSwish", "LeakyRelu", "Max",
    "Min", "Mul", "Neg", "Reciprocal", "Relu", "Round", "Shrink", "Sign", "Sqrt", "Sub",
    "ThresholdedRelu",
)
#: Layers whose twins round the same number as they do, once.
ROUNDED = (
    Add, AvgPool2D, GELU, GlobalAvgPool2D, LayerNorm, Maximum, Mean, Mul, PReLU, Sigmoid, Softmax,
    Sub, Tanh,
)


def moved(layer, in_params, moving):
    """Return the twin of a layer that moves codes, or refuse."""
    if type(layer) is Operator and layer.KEEPS_PARAMS:
        if layer.op == "Resize" and layer.attribute("mode", "nearest") != "nearest":
            raise ValueError("Resize must not make numbers between those of its input")
        if layer.op == "Pad" and not _fills_exactly(layer, in_params[0]):
            raise ValueError("Pad must fill up with the number of a code")
        return layer.quantized(in_params, None)
    if type(layer) in moving:
        return layer.quantized(in_params[0])
    raise TypeError(f"{layer!r} has no twin that gives the same codes")


def _fills_exactly(layer, params):
    value = np.float32({i: v for i, *_, v in layer.constants}.get(2, (0,))).reshape(())
    return layer.attribute("mode", "constant") != "constant" or (
        to_reals(to_codes(value, params), params) == value
    )


def rounded(layer, in_params, out_params, activation):
    """Return the twin of a layer that gives codes of `out_params`, or moves them, or refuse."""
    is_function = type(layer) is ReLU6 or (type(layer) is Operator and layer.IS_POINTWISE)
    if is_function and getattr(layer, "op", "Clip") in EXACT:
        table = exact_table(layer, in_params[0], out_params)
        return TableQuantized(table, in_params[0], out_params)
    if is_function:
        return layer.quantized(in_params[0], out_params)
    if type(layer) is Concat:
        tables = np.stack([exact_table(None, params, out_params) for params in in_params])
        return ConcatQuantized(tables, in_params, out_params, **layer.settings())
    if type(layer) in ROUNDED:
        if "activation" in layer.SETTINGS:
            layer = layer.replace(activation=activation)
        return layer.quantized(in_params if len(in_params) > 1 else in_params[0], out_params)
    return moved(layer, in_params, MOVING)


def exact_table(layer, in_params, out_params):
    """Return the table of a function of one number, computed in float32 as ONNX does: by itself.

    Without a layer it is that of the identity.
    """
    reals = to_reals(all_codes(in_params), in_params)
    if layer is not None:
        reals = np.ascontiguousarray(layer._forward(reals), np.float32).reshape(-1)
    return to_codes(reals, out_params)


def all_codes(params):
    """Return every code of a dtype, in order."""
    first = np.iinfo(params.dtype).min
    return np.arange(first, first + 256).astype(params.dtype)
