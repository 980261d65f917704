"""8-bit models written as ONNX and read again: the same codes, in 8 bits again."""

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from qcy import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx_graphs import MICROSOFT, Graph, by_qcy, is_in_8_bits, kinds, run  # noqa: E402
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


def codes_in_and_out(g):
    x = g.codes(3, 6)
    return [g.quantized(g.op("MatMul", g.dq(x), g.weight((6, 4), 1)[1]))]


def reals_quantized_inside(g):
    x = g.input(g.rng.normal(size=(3, 6)).astype(np.float32))
    y = g.quantized(g.op("Relu", g.dq(g.q(x, g.any_params(0.02)))))
    return [g.dq(y), g.op("Abs", x), y]


def operator_on_codes(op, shape, **attributes):
    def make(g):
        x = g.codes(*shape)
        inputs = [x] if op != "QLinearMatMul" else [x, g.codes(2, 5, 7)]
        inputs = [part for name in inputs for part in (name, *g.stated(g.params[name]))]
        params = g.any_params(0.05)
        name = op if op == "QLinearMatMul" else f"{MICROSOFT}:{op}"
        y = g.op(name, *inputs, *g.stated(params), **attributes)
        g.params[y] = params
        return [y, g.dq(y)]
    make.__name__ = f"{op}{len(shape)}"
    return make


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("make", [
    codes_in_and_out, reals_quantized_inside,
    operator_on_codes("QLinearGlobalAveragePool", (2, 3, 5, 4), channels_last=1),
    operator_on_codes("QLinearAveragePool", (2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
    operator_on_codes("QLinearSoftmax", (3, 8), axis=-1, opset=13),
    operator_on_codes("QLinearMatMul", (5,)),
], ids=lambda make: make.__name__)
def test_what_files_alone_have(make, dtype, form):
    g = Graph(np.random.default_rng(4), dtype)
    model, results = by_qcy(g, *make(g))
    written = to_onnx(model, form)
    onnx.checker.check_model(written, full_check=True)
    given = dict(zip(model.inputs, g.inputs.values(), strict=True))
    for result, wanted in zip(run(written, given), results, strict=True):
        assert_array_equal(result, wanted, strict=True)
    again = load(written)
    assert again.coded_outputs
    for result, wanted in zip(models.as_tuple(again(*given.values())), results, strict=True):
        assert_array_equal(result, wanted, strict=True)
