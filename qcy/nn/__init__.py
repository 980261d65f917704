"""Neural networks: layers, models, and the way from float to 8 bits.

    layers/             every layer in float and in 8 bits
    graph.py            Graph, Node: named layers and what flows between them
    model.py            Model, Sequential: float models
    operators/          operators of ONNX on plain arrays
    onnx/               ONNX files in and out
    quantized_model.py  QuantizedModel: the same graph in integers
    observer.py         what range do the numbers have? streaming, mergeable
    calibration.py      Calibrator: data through a model, observers beside it
    fusion.py           fewer layers, same numbers
    quantize.py         quantize_model: the way from one to the other
    compare.py          compare_quantized_model: what it cost and what it gained
    samples.py          samples as arrays by input, in batches
    storage.py          models in files
    context.py          stopping a run
    progress.py         bars and lines
"""

from importlib import import_module

from qcy.nn.context import Cancelled, Context
from qcy.nn.graph import Node, TensorType
from qcy.nn.layers import *  # noqa: F403
from qcy.nn.layers import __all__ as _layers
from qcy.nn.model import Model, Sequential
from qcy.nn.quantized_model import QuantizedModel

#: What is imported when it is first asked for, and where from: who only runs a model starts sooner.
_LATER = {
    "Calibrator": "calibration", "EntropyObserver": "observer", "LayerConfig": "configs",
    "MSEObserver": "observer", "MinMaxObserver": "observer", "MovingAverageObserver": "observer",
    "PercentileObserver": "observer", "compare_quantized_model": "compare",
    "quantize_model": "quantize",
}

__all__ = [
    *_layers, *_LATER, "Cancelled", "Context", "Model", "Node", "QuantizedModel", "Sequential",
    "TensorType",
]


def __getattr__(name):
    if name in _LATER:
        globals()[name] = getattr(import_module(f"qcy.nn.{_LATER[name]}"), name)
        return globals()[name]
    if name in (*_LATER.values(), "onnx", "operators", "storage"):
        return import_module(f"qcy.nn.{name}")
    raise AttributeError(f"module 'qcy.nn' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LATER})
