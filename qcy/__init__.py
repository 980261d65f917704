"""qcy: neural networks in 8 bits on any CPU.

    qcy.Tensor, qcy.QuantizedTensor   values, and values in 8 bits
    qcy.quantize                      from one to the other
    qcy.primitive                     the kernels, on NumPy arrays
    qcy.nn                            layers, calibration, quantized models
    qcy.load, qcy.info, qcy.threads

The house has floors; each imports only from its own and those below (tests/test_architecture.py):

    6  nn.quantize  nn.compare  cli      whole models
    5  nn.observer  nn.calibration       statistics
    4  nn.layers    nn.model             layers
    3  tensor                            values with meaning
    2  primitive                         checked arrays
    1  _kernels                          trusted loops, one build per instruction set
    0  _dtypes _rounding _simd _cpu _threads _validate
"""

try:
    from qcy import _cpu
except ImportError as error:
    from pathlib import Path

    raise ImportError(
        f"qcy's compiled modules are not in {Path(__file__).parent}: this is a source folder. Run "
        "from another folder, or build here with: pip install -e ."
    ) from error
from qcy import primitive
from qcy._info import info
from qcy._threads import threads
from qcy._version import VERSION as __version__
from qcy.tensor.generic import FloatTensor, Tensor
from qcy.tensor.quantization import QuantizationParams, QuantizationScheme
from qcy.tensor.quantized import QuantizedTensor, quantize

del _cpu

__all__ = [
    "FloatTensor", "QuantizationParams", "QuantizationScheme", "QuantizedTensor", "Tensor",
    "__version__", "info", "load", "nn", "primitive", "quantize", "threads",
]


def load(path):
    """Read a model that was saved with ``model.save(path)``, or an ONNX file.

    A file that starts as qcy's own do, or whose name ends in ``.qcy``, is read as one, others as
    ONNX: for those the onnx package must be installed, ``pip install 'qcy[onnx]'``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    nn.Model or nn.QuantizedModel

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a model, was damaged or cut short, a newer qcy wrote it, or it has operators
        that qcy does not know.
    ImportError
        If the onnx package is missing.
    """
    from os import fspath

    from qcy.nn import storage

    with open(path, "rb") as file:
        start = file.read(len(storage.MAGIC))
    name = fspath(path)
    if start == storage.MAGIC or name.endswith(".qcy"):
        return storage.load(path)
    try:
        from qcy.nn import onnx

        return onnx.load(path)
    except (ImportError, ValueError) as error:
        if name.endswith(".onnx"):
            raise
        raise ValueError(f"{name} is not a qcy model; as an ONNX file: {error}") from error


def __getattr__(name):
    # qcy.nn is imported when it is first asked for: who needs only kernels starts sooner.
    if name == "nn":
        from importlib import import_module

        return import_module("qcy.nn")
    raise AttributeError(f"module 'qcy' has no attribute {name!r}")
