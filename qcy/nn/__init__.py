"""Neural networks: layers, models, and the way from float to 8 bits.

    layers/             every layer in float and in 8 bits
    model.py            Model, Sequential: graphs of named layers, float32
    quantized_model.py  QuantizedModel: the same graph in integers
    observer.py         what range do the numbers have? streaming, mergeable
    calibration.py      Calibrator: data through a model, observers beside it
    fusion.py           fewer layers, same numbers
    quantize.py         quantize_model: the way from one to the other
    compare.py          compare_quantized_model: what it cost and what it gained
    storage.py          models in files
    context.py          stopping a run
    progress.py         bars and lines
"""

from qcy.nn.calibration import Calibrator
from qcy.nn.compare import compare_quantized_model
from qcy.nn.context import Cancelled, Context
from qcy.nn.layers import *  # noqa: F403
from qcy.nn.layers import __all__ as _layers
from qcy.nn.model import Model, Sequential
from qcy.nn.observer import (
    EntropyObserver, MinMaxObserver, MovingAverageObserver, MSEObserver, PercentileObserver,
)
from qcy.nn.quantize import quantize_model
from qcy.nn.quantized_model import QuantizedModel

__all__ = [
    *_layers, "Calibrator", "Cancelled", "Context", "EntropyObserver", "MSEObserver",
    "MinMaxObserver", "Model", "MovingAverageObserver", "PercentileObserver", "QuantizedModel",
    "Sequential", "compare_quantized_model", "quantize_model",
]
