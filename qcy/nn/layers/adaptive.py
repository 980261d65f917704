"""A layer that takes float and quantized tensors alike."""

from qcy.nn.context import split_context
from qcy.nn.layers.base import Layer, QuantizedLayer, to_codes
from qcy.tensor.generic import Tensor
from qcy.tensor.quantized import QuantizedTensor


class AdaptiveLayer:
    """Give each tensor to the float or the 8-bit twin; the output is of the input's kind.

    Parameters
    ----------
    float_layer : Layer
    quantized_layer : QuantizedLayer
    use_quantized : bool, default True
        Which twin does the arithmetic; the other kind of tensor is converted at the edge.

    Examples
    --------
    >>> relu, params = qcy.nn.ReLU(), qcy.QuantizationParams(0.5, 10)
    >>> layer = AdaptiveLayer(relu, relu.quantized(params), use_quantized=False)
    >>> layer(np.array([-1.25, 1.25]))
    array([0.  , 1.25], dtype=float32)
    >>> layer(qcy.quantize(np.array([-1.25, 1.25]), params)).dequantize().data
    array([0., 1.], dtype=float32)
    """

    def __init__(self, float_layer, quantized_layer, use_quantized=True):
        if isinstance(float_layer, QuantizedLayer) or not isinstance(float_layer, Layer):
            raise TypeError(f"float_layer must be a float Layer, got {float_layer!r}")
        if not isinstance(quantized_layer, QuantizedLayer):
            raise TypeError(f"quantized_layer must be a QuantizedLayer, got {quantized_layer!r}")
        self.float_layer, self.quantized_layer = float_layer, quantized_layer
        self.use_quantized = bool(use_quantized)

    def forward(self, *inputs, ctx=None):
        """Compute the layer; QuantizedTensors in give a QuantizedTensor out.

        Parameters
        ----------
        *inputs : QuantizedTensor, Tensor or array
            All of one kind.
        ctx : Context, optional
            By name, or last.

        Returns
        -------
        QuantizedTensor, Tensor or ndarray
        """
        inputs, ctx = split_context(inputs, ctx)
        kinds = {isinstance(x, QuantizedTensor) for x in inputs}
        if len(kinds) > 1:
            raise TypeError("inputs must all be QuantizedTensors, or none")
        if kinds == {True}:
            if self.use_quantized:
                return self.quantized_layer.quantized_forward(*inputs, ctx=ctx)
            reals = self.float_layer.forward(*(x.dequantize() for x in inputs), ctx=ctx)
            params = self.quantized_layer.out_params
            return QuantizedTensor(Tensor(to_codes(reals.data, params)), params)
        layer = self.quantized_layer if self.use_quantized else self.float_layer
        return layer.forward(*inputs, ctx=ctx)

    __call__ = forward

    def __repr__(self):
        return (
            f"AdaptiveLayer({self.float_layer!r}, {self.quantized_layer!r}, "
            f"use_quantized={self.use_quantized})"
        )
