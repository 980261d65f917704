"""ONNX files in and out; the only place that imports the onnx package.

    reader.py     a file as a plain graph, nothing in it trusted
    versions.py   older forms of operators into the newest
    simplify.py   constants computed, shapes known beforehand, dead ends gone
    patterns.py   functions that exporters write in pieces, put together again
    layers.py     which layer an operator becomes
    convert.py    a graph as a model
    backend.py    what the onnx package calls to run a model
"""

from qcy.nn.onnx.convert import load

__all__ = ["load"]
