"""ONNX files in and out; the only place that imports the onnx package.

    reader.py     a file as a plain graph, nothing in it trusted
    versions.py   older forms of operators into the newest
    inference.py  the types of tensors
    shapes.py     the arithmetic of shapes, done beforehand
    simplify.py   constants computed, dead ends gone
    patterns.py   functions that exporters write in pieces, put together again
    layers.py     which layer an operator becomes
    sequences.py  sequences as images of one row
    convert.py    a graph as a model
    coded.py      what a quantized file says of its codes
    qdq.py        a quantized graph as an 8-bit model: DequantizeLinear, operator, QuantizeLinear
    qlinear.py    QLinearConv and its kind
    products.py   products with the file's own codes for weights
    twins.py      layers in 8 bits that give the codes of the float layer's numbers
    backend.py    what the onnx package calls to run a model

    building.py   a graph in the making
    inputs.py     what the inputs are
    emit.py       layers as operators on numbers
    emit_codes.py 8-bit layers as operators on codes
    writer.py     a model as a file
"""

try:
    import onnx     # noqa: F401
except ImportError as error:
    raise ImportError(
        "reading and writing ONNX files needs the onnx package: pip install 'qcy[onnx]'"
    ) from error

from qcy.nn.onnx.convert import load
from qcy.nn.onnx.writer import save, to_onnx

__all__ = ["load", "save", "to_onnx"]
