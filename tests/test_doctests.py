"""The examples in docstrings are run, so that what is shown is what happens."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import qcy
from qcy import nn, primitive

#: What examples may use without importing it.
NAMESPACE = {"np": np, "qcy": qcy}
for module in (primitive, nn, qcy):
    NAMESPACE |= {name: getattr(module, name) for name in module.__all__}

FLAGS = doctest.NORMALIZE_WHITESPACE


def modules():
    """Return the names of all modules that people read: not the kernels, not private shims."""
    found = ["qcy"]
    for info in pkgutil.walk_packages(qcy.__path__, "qcy."):
        if "._kernels" not in info.name and info.name not in ("qcy.__main__", "qcy._memoryview"):
            found.append(info.name)
    return found


def examples(module):
    """Return the doctests of a module, compiled or not."""
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", modules())
def test_examples_of(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in examples(module):
        output = []
        # The namespace comes first, the module's own names win.
        test.globs = NAMESPACE | test.globs
        runner.run(test, out=output.append, clear_globs=False)
        assert not output, f"{test.name}\n{''.join(output)}"


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("qcy.tensor.quantization", 3), ("qcy.tensor.quantized", 2), ("qcy.tensor.generic", 2),
        ("qcy.primitive.gemm", 3), ("qcy.primitive.conv", 3), ("qcy.primitive.codes", 5),
        ("qcy.nn.layers.dense", 1), ("qcy.nn.model", 2), ("qcy.nn.quantize", 1),
        ("qcy.nn.calibration", 1), ("qcy.nn.observer", 3), ("qcy._threads", 1), ("qcy._info", 1),
    ],
)
def test_examples_are_found(name, least):
    assert len(examples(importlib.import_module(name))) >= least
