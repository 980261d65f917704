"""What the inputs of a model are, for files that must say it: given, or told by the layers."""

import numpy as np

from qcy.nn.graph import TensorType
from qcy.nn.layers import (
    AvgPool2D, AvgPool2DQuantized, BatchNorm, BatchNormQuantized, Concat, ConcatQuantized, Conv2D,
    Conv2DQuantized, Conv2DWeightOnly, ConvTranspose2D, ConvTranspose2DQuantized, Dense,
    DenseDynamic, DenseQuantized, DenseWeightOnly, GlobalAvgPool2D, GlobalAvgPool2DQuantized,
    MaxPool2D, MaxPool2DQuantized, PReLU, PReLUQuantized, Softmax, SoftmaxQuantized,
)
from qcy.nn.quantized_model import QuantizedModel

_CONV = (Conv2D, Conv2DWeightOnly, Conv2DQuantized)
_CONV_TRANSPOSE = (ConvTranspose2D, ConvTranspose2DQuantized)
_POOL = (
    AvgPool2D, AvgPool2DQuantized, GlobalAvgPool2D, GlobalAvgPool2DQuantized, MaxPool2D,
    MaxPool2DQuantized,
)
_DENSE = (Dense, DenseDynamic, DenseQuantized, DenseWeightOnly)
#: Layers whose output has as many axes as their input, beside those that work element by element.
_KEEP_RANK = (
    BatchNorm, BatchNormQuantized, Concat, ConcatQuantized, PReLU, PReLUQuantized, Softmax,
    SoftmaxQuantized,
)


def input_types(model, shapes=None):
    """Return what each input of a model is.

    Parameters
    ----------
    model : Model or QuantizedModel
    shapes : mapping of str to shape, or a shape, optional
        Of inputs that have none in the model.

    Returns
    -------
    dict of str to TensorType

    Raises
    ------
    ValueError
        If a shape is not needed or names no input, or nothing tells the number of axes.
    """
    shapes = _by_name(model, shapes)
    found = {}
    for name in model.inputs:
        kind = model.input_types.get(name)
        shape = shapes.get(name)
        if kind is not None and kind.shape is not None:
            if shape is not None and shape != kind.shape:
                raise ValueError(f"input {name!r} is {kind}, input_shapes has {shape}")
            found[name] = kind
            continue
        shape = _told(model, name) if shape is None else shape
        if shape is None:
            raise ValueError(
                f"nothing tells the number of axes of input {name!r}: give input_shapes, as in "
                f"input_shapes={{{name!r}: ('batch', 10)}}"
            )
        dtype = np.float32 if kind is None else kind.dtype
        takers = model.consumers(name)
        if kind is None and takers and all(node.layer.TAKES_REALS for node in takers):
            dtype = np.int64            # numbers of rows
        found[name] = TensorType(dtype, shape)
    return found


def _by_name(model, shapes):
    """Return shapes by input."""
    if shapes is None:
        return {}
    if not hasattr(shapes, "items"):
        if len(model.inputs) != 1:
            raise ValueError(f"input_shapes must be by name for {model.inputs}, got {shapes!r}")
        shapes = {model.inputs[0]: shapes}
    for name, shape in shapes.items():
        if name not in model.inputs:
            raise ValueError(f"input_shapes must name inputs, {model.inputs}, got {name!r}")
        fits = isinstance(shape, (tuple, list)) and all(
            size is None or isinstance(size, str) or (isinstance(size, int) and size >= 0)
            for size in shape
        )
        if not fits:
            raise ValueError(
                f"input_shapes must hold shapes of numbers, names and None, got {shape!r} for "
                f"{name!r}"
            )
    return {name: tuple(shape) for name, shape in shapes.items()}


def _told(model, name):
    """Return the shape that the layers tell which take a tensor, or None."""
    for node in model.consumers(name):
        layer, channels = node.layer, None
        if isinstance(layer, _DENSE):
            return ("batch", layer.weight.shape[0])
        if isinstance(layer, (*_CONV, *_CONV_TRANSPOSE, *_POOL)):
            if isinstance(layer, _CONV):
                channels = layer.weight.shape[1] * layer.groups
            elif isinstance(layer, _CONV_TRANSPOSE):
                channels = layer.weight.shape[0]
            is_8_bit = isinstance(model, QuantizedModel)
            is_last = (model.layout if is_8_bit else layer.layout) == "NHWC"
            return ("batch", "height", "width", channels) if is_last else (
                "batch", channels, "height", "width"
            )
        if len(node.inputs) == 1 and (layer.IS_POINTWISE or isinstance(layer, _KEEP_RANK)):
            shape = _told(model, node.outputs[0])
            if shape is not None:
                return shape
    return None
