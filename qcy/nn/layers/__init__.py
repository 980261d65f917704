"""Layers, in float and in 8 bits; both twins of a layer stand in one file.

    base.py         Layer, QuantizedLayer
    weights.py      quantizing weights and biases
    dense.py conv.py norm.py activations.py pooling.py shape.py merge.py attention.py
    embedding.py
    products.py     products of two inputs, means
    operator.py     operators of ONNX, constants
    codes.py        reals into codes, operators of ONNX on codes
    recurrent.py    LSTM, GRU, RNN
    weight_only.py  int8 weights, float32 arithmetic
    adaptive.py     one door for both kinds of tensor
"""

from qcy.nn.layers.activations import (
    GELU, GELUQuantized, ReLU, ReLU6, ReLU6Quantized, ReLUQuantized, Sigmoid, SigmoidQuantized,
    Softmax, SoftmaxQuantized, TableQuantized, Tanh, TanhQuantized,
)
from qcy.nn.layers.adaptive import AdaptiveLayer
from qcy.nn.layers.attention import Attention, AttentionQuantized
from qcy.nn.layers.base import Layer, QuantizedLayer
from qcy.nn.layers.chain import Chain
from qcy.nn.layers.codes import QLinearOperator, Quantize
from qcy.nn.layers.conv import Conv2D, Conv2DQuantized, ConvTranspose2D, ConvTranspose2DQuantized
from qcy.nn.layers.dense import Dense, DenseDynamic, DenseQuantized
from qcy.nn.layers.embedding import Embedding, EmbeddingQuantized
from qcy.nn.layers.merge import (
    Add, AddQuantized, Concat, ConcatQuantized, Maximum, MaximumQuantized, Mul, MulQuantized, Sub,
    SubQuantized,
)
from qcy.nn.layers.norm import BatchNorm, BatchNormQuantized, LayerNorm, LayerNormQuantized
from qcy.nn.layers.operator import Constant, ConstantQuantized, Operator, OperatorQuantized
from qcy.nn.layers.pooling import (
    AvgPool2D, AvgPool2DQuantized, GlobalAvgPool2D, GlobalAvgPool2DQuantized, MaxPool2D,
    MaxPool2DQuantized,
)
from qcy.nn.layers.products import (
    MatMul, MatMulQuantized, Mean, MeanQuantized, PReLU, PReLUQuantized,
)
from qcy.nn.layers.recurrent import Recurrent, RecurrentDynamic
from qcy.nn.layers.shape import (
    Dropout, DropoutQuantized, Flatten, FlattenQuantized, Identity, IdentityQuantized, Reshape,
    ReshapeQuantized,
)
from qcy.nn.layers.weight_only import Conv2DWeightOnly, DenseWeightOnly

__all__ = [
    "GELU", "AdaptiveLayer", "Add", "AddQuantized", "Attention", "AttentionQuantized", "AvgPool2D",
    "AvgPool2DQuantized", "BatchNorm", "BatchNormQuantized", "Chain", "Concat", "ConcatQuantized",
    "Constant", "ConstantQuantized", "Conv2D", "Conv2DQuantized", "Conv2DWeightOnly",
    "ConvTranspose2D", "ConvTranspose2DQuantized", "Dense", "DenseDynamic", "DenseQuantized",
    "DenseWeightOnly", "Dropout", "DropoutQuantized", "Embedding", "EmbeddingQuantized", "Flatten",
    "FlattenQuantized", "GELUQuantized", "GlobalAvgPool2D", "GlobalAvgPool2DQuantized", "Identity",
    "IdentityQuantized", "Layer", "LayerNorm", "LayerNormQuantized", "MatMul", "MatMulQuantized",
    "MaxPool2D", "MaxPool2DQuantized", "Maximum", "MaximumQuantized", "Mean", "MeanQuantized",
    "Mul", "MulQuantized", "Operator", "OperatorQuantized", "PReLU", "PReLUQuantized",
    "QLinearOperator", "Quantize", "QuantizedLayer", "ReLU", "ReLU6", "ReLU6Quantized",
    "ReLUQuantized", "Recurrent", "RecurrentDynamic", "Reshape", "ReshapeQuantized", "Sigmoid",
    "SigmoidQuantized", "Softmax", "SoftmaxQuantized", "Sub", "SubQuantized", "TableQuantized",
    "Tanh", "TanhQuantized",
]
