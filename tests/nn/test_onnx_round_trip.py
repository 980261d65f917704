"""8-bit models written as ONNX and read again: the same codes, in 8 bits again."""

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from qcy import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx_graphs import is_in_8_bits, kinds  # noqa: E402
from runtime import FORMS, SHAPES, WAYS  # noqa: E402

from qcy.nn import storage  # noqa: E402
from qcy.nn.onnx import load, to_onnx  # noqa: E402


def round_trip(name, way, form):
    """Return a model of the zoo in 8 bits, the one read from its file, and inputs for both."""
    model = models.quantized(name, **WAYS[way])[1]
    batch = models.as_tuple(models.batches(models.build(name)[1], 1)[0])
    shapes = {
        key: ("batch", *np.shape(x)[1:]) for key, x in zip(model.inputs, batch, strict=True)
    } | SHAPES.get(name, {})
    again = load(to_onnx(model, form, input_shapes=shapes))
    return model, again, batch


def as_taken(model, batch):
    """Return inputs of the types that a model takes."""
    return [
        x.astype(model.input_types[name].dtype)
        for name, x in zip(model.inputs, batch, strict=True)
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", models.ZOO)
def test_models_of_the_zoo(name, way, form):
    model, again, batch = round_trip(name, way, form)
    assert isinstance(again, nn.QuantizedModel)
    given = as_taken(again, batch)
    got = models.as_tuple(again(*given))
    wanted = models.as_tuple(model(*batch))
    if name == "transformer":           # a file has its attention on numbers
        assert set(again.float_nodes) <= {
            "attend/MatMul_2", "attend/Transpose_4", "attend", "vectors/Clip"
        }
        for a, b, output in zip(got, wanted, model.outputs, strict=True):
            assert np.abs(a - b).max() <= 8 * model.params[output].scale
        return
    for a, b in zip(got, wanted, strict=True):
        assert_array_equal(a, b, strict=True)
    # What is in a narrow range is brought into it before it is quantized.
    assert is_in_8_bits(again) or all(n.endswith("/Clip") for n in again.float_nodes)
    for a, b in zip(models.as_tuple(storage.from_bytes(again.to_bytes())(*given)), got,
                    strict=True):
        assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["residual", "depthwise", "transposed"])
def test_layers_are_those_that_were_written(name, form):
    model, again, batch = round_trip(name, "uint8", form)
    as_tables = {"SigmoidQuantized": "TableQuantized"}      # as QOperator has functions
    written, read = ([as_tables.get(k, k) for k in kinds(m)] for m in (model, again))
    assert written == read
    is_program = model._compiled(list(batch), False) is not None
    assert (again._compiled(list(batch), False) is not None) == is_program
