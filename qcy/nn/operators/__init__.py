"""Operators of ONNX on plain arrays: what a graph from elsewhere is made of.

Semantics are those of the newest operator set that qcy knows; the importer brings older graphs
into that form. Layers (`qcy.nn.layers`) are what can run in 8 bits; what no layer covers runs here,
in float32, int64 or bool, by NumPy.

    registry.py       the table of operators
    elementwise.py    numbers by themselves: arithmetic, activations, comparisons, casts
    reduce.py         sums, extremes, softmax, sorting along axes
    shape.py          moving numbers: reshape, slice, pad, concatenate; shapes as numbers
    gather.py         picking and placing by index: gather, scatter, one-hot, diagonals
    resize.py         images in another size, pixels from channels and back
    pooling.py        windows over images, pooling
    products.py       products, convolution
    norm.py           normalization
    recurrent.py      LSTM, GRU, RNN
    code_products.py  products of codes
    codes.py          quantized operators
"""

from qcy.nn.operators import (
    code_products, codes, elementwise, gather, norm, pooling, products, recurrent, reduce, resize,
    shape,
)
from qcy.nn.operators.registry import OPERATORS, Definition, operator

__all__ = [
    "OPERATORS", "Definition", "code_products", "codes", "elementwise", "gather", "norm",
    "operator", "pooling", "products", "recurrent", "reduce", "resize", "shape",
]
