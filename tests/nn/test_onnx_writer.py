"""Models as ONNX files: what they hold, what onnxruntime makes of them, how they are saved.

Codes are compared in test_onnx_codes.
"""

import os
import subprocess
import sys

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import SEEDS

import qcy
from qcy import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from runtime import FORMS, SHAPES, WAYS, operators_of, run, steps_apart  # noqa: E402

from qcy.nn.onnx import load, to_onnx  # noqa: E402


# ------------------------------------------------------------------------------------------ float


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", models.ZOO)
def test_float_models(name, layout):
    model, shapes = models.build(name, layout)
    inputs = models.as_tuple(models.batches(shapes, 1, layout=layout)[0])
    proto = to_onnx(model, input_shapes=SHAPES.get(name))
    want = models.as_tuple(model(*inputs))
    for optimized in (True, False):
        for a, b in zip(run(proto, inputs, optimized), want, strict=True):
            assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    again = load(proto)
    assert again.inputs == model.inputs
    assert again.output_names == model.outputs
    taken = [
        x.astype(again.input_types[n].dtype) for n, x in zip(again.inputs, inputs, strict=True)
    ]
    for a, b in zip(models.as_tuple(again(*taken)), want, strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    if layout == "NCHW" and name != "transformer":
        assert [n.name for n in again.nodes] == [
            n.name for n in model.nodes if not isinstance(n.layer, (nn.Identity, nn.Dropout))
        ]


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
@pytest.mark.parametrize("name", ["softmax", "pooling", "transformer", "gated"])
def test_models_with_weights_in_8_bits(name, mode):
    model, shapes = models.build(name)
    model = nn.quantize_model(model, mode=mode)
    inputs = models.as_tuple(models.batches(shapes, 1)[0])
    proto = to_onnx(model, input_shapes=SHAPES.get(name))
    for optimized in (True, False):
        for a, b in zip(run(proto, inputs, optimized), models.as_tuple(model(*inputs)),
                        strict=True):
            assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert any(t.data_type == onnx.TensorProto.INT8 for t in proto.graph.initializer)
    assert "MatMulInteger" in operators_of(proto) or mode == "weight_only"


@given(seed=SEEDS, k=st.integers(1, 300), n=st.integers(1, 9))
def test_dense_dynamic_is_the_same_bits(seed, k, n):
    rng = np.random.default_rng(seed)
    layer = nn.Dense(rng.normal(size=(k, n)), rng.normal(size=n)).dynamic()
    x = (rng.normal(size=(4, k)) * 10.0 ** rng.integers(-3, 4, (4, 1))).astype(np.float32)
    x[rng.integers(0, 4)] = 0
    proto = to_onnx(nn.Sequential(layer))
    assert_array_equal(run(proto, [x], optimized=False)[0], layer(x))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(op):
    rng = np.random.default_rng(0)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    w, r = rng.normal(size=(2, gates * 5, 3)), rng.normal(size=(2, gates * 5, 5))
    b = rng.normal(size=(2, 2 * gates * 5))
    layer = nn.Recurrent(
        op, w, r, b, attributes={"hidden_size": 5, "direction": "bidirectional"}, absent=(4, 6),
        n_outputs=2,
    )
    model = nn.Model(
        [("cell", layer, ("x", "h"))], outputs=("cell:0", "cell:1"), inputs=("x", "h"),
        output_names=("all", "last"),
    )
    x = rng.normal(size=(7, 2, 3)).astype(np.float32), rng.normal(size=(2, 2, 5)).astype(np.float32)
    proto = to_onnx(model, input_shapes={"x": ("time", "batch", 3), "h": (2, "batch", 5)})
    for a, b in zip(run(proto, x), model(*x), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-5)


#: Operators, their attributes, and inputs after the first, which is (2, 3, 4, 4) of float32.
OPERATORS = [
    ("Transpose", {"perm": (0, 2, 3, 1)}, {}), ("Softplus", {}, {}), ("Mish", {}, {}),
    ("Swish", {"alpha": 0.5}, {}), ("HardSwish", {}, {}), ("LeakyRelu", {"alpha": 1}, {}),
    ("Mul", {}, {1: np.float32(3)}), ("Pow", {}, {1: np.float32(2)}),
    ("ReduceMean", {"keepdims": 0}, {1: [1, 2]}), ("ReduceMax", {}, {1: [-1]}),
    ("Slice", {}, {1: [1], 2: [3], 3: [2]}), ("Trilu", {}, {}), ("Unsqueeze", {}, {1: [0]}),
    ("Pad", {}, {1: [0, 0, 1, 1, 0, 0, 1, 1], 2: np.float32(1)}),
    ("Pad", {"mode": "reflect"}, {1: [0, 0, 1, 1, 0, 0, 1, 1]}), ("Softmax", {"axis": 1}, {}),
    ("Softmax", {"axis": 1, "flattened": 1}, {}), ("Cast", {"to": 6}, {}), ("Shape", {}, {}),
    ("Gather", {"axis": 1}, {1: [0, 2]}), ("DepthToSpace", {"blocksize": 1}, {}),
    ("Resize", {"mode": "nearest"}, {2: np.float32([1, 1, 2, 2])}), ("ArgMax", {"axis": 1}, {}),
    ("LRN", {"size": 3}, {}), ("Where", {}, {}), ("ConstantOfShape", {"value": (2,)}, {}),
    ("com.microsoft:QuickGelu", {}, {}), ("AveragePool", {"kernel_shape": (3, 2)}, {}),
]


@pytest.mark.parametrize(("op", "attributes", "constants"), OPERATORS)
def test_operators(op, attributes, constants):
    constants = {place: np.asarray(value) for place, value in constants.items()}
    absent = (1,) if op == "Resize" else ()
    layer = nn.Operator(op, attributes, constants=constants, absent=absent)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    inputs, kinds = [x], {"x": nn.TensorType("float32", ("n", 3, 4, 4))}
    if op == "Where":
        inputs = [x > 0, x, -x]
        kinds = {"x": nn.TensorType("bool", x.shape), **dict.fromkeys("yz", kinds["x"])}
    elif op == "ConstantOfShape":
        inputs, kinds = [np.array([2, 3])], {"x": nn.TensorType("int64", (2,))}
    model = nn.Model([("op", layer, tuple(kinds))], inputs=tuple(kinds), input_types=kinds)
    proto = to_onnx(model)
    want = model(*inputs)
    for optimized in (True, False):
        got = run(proto, inputs, optimized)[0]
        assert got.dtype == want.dtype
        assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert_allclose(load(proto)(*inputs), want, rtol=1e-6, atol=1e-6)


def test_an_operator_set_is_as_old_as_can_be():
    def opset(*layers):
        return to_onnx(nn.Sequential(*layers), input_shapes=("n", 8)).opset_import[0].version

    assert opset(nn.ReLU()) == opset(nn.LayerNorm(np.ones(8), np.zeros(8))) == 17
    assert opset(nn.Operator("Swish")) == 17
    assert opset(nn.Operator("ReduceMean", constants={1: np.array([1])})) == 18
    assert opset(nn.Operator("Pad", {"mode": "wrap"}, constants={1: np.array([0, 1, 0, 1])})) == 19
    assert opset(nn.ReLU(), nn.GELU()) == 20


# ------------------------------------------------------------------------------------ whole models


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", models.ZOO)
def test_8_bit_models(name, form, way):
    layout = "NHWC" if way == "int8" else "NCHW"
    _, quantized = models.quantized(name, layout, **WAYS[way])
    inputs = models.as_tuple(models.batches(models.build(name)[1], 1, layout=layout)[0])
    proto = to_onnx(quantized, form, input_shapes=SHAPES.get(name))
    want = models.as_tuple(quantized(*inputs))
    for optimized in (True, False):
        got = run(proto, inputs, optimized)
        for a, b, output in zip(got, want, quantized.outputs, strict=True):
            steps = steps_apart(a, b, quantized.params[output])
            assert steps.max() <= 8         # of nodes that are a step apart, added up
            assert name in ("pooling", "transformer") or np.mean(steps > 0) < 0.02


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", models.ZOO)
def test_models_that_are_partly_float(name, form):
    model, _ = models.build(name)
    skip = [node.name for node in model.nodes[1::3]]
    quantized = models.quantized(name, skip=skip)[1]
    assert quantized.float_nodes
    inputs = models.as_tuple(models.batches(models.build(name)[1], 1)[0])
    proto = to_onnx(quantized, form, input_shapes=SHAPES.get(name))
    for a, b in zip(run(proto, inputs), models.as_tuple(quantized(*inputs)), strict=True):
        assert_allclose(a, b, atol=0.05 * np.abs(b).max())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("form", ["float", *FORMS])
def test_fewer_axes_broadcast_as_outside(form, layout):
    rng = np.random.default_rng(0)
    model = nn.Model([
        ("conv", models.conv(rng, 2, 3, layout=layout), "input"),
        ("shift", nn.Constant(np.float32([1, 2, 3] if layout == "NHWC" else 5 * [1])), ()),
        ("sum", nn.Add(), ("conv", "shift")),
        ("out", models.conv(rng, 3, 2, 1, layout=layout), "sum"),
    ])
    x = models.to_layout(rng.normal(size=(8, 2, 7, 7)).astype(np.float32), layout)
    if form != "float":
        want = model(x)
        model = nn.quantize_model(model, x, progress=False)
        assert not model.float_nodes
        assert_allclose(model(x), want, atol=0.1)
    got = run(to_onnx(model, None if form == "float" else form), [x])[0]
    assert_allclose(got, model(x), atol=1e-5)


# --------------------------------------------------------------------------- inputs and outputs


def test_inputs_and_outputs_keep_their_names_and_types():
    rng = np.random.default_rng(0)
    model = nn.Model(
        [("conv", models.conv(rng, 1, 2), "photo"), ("relu", nn.ReLU(), "conv"),
         ("place", nn.Embedding(rng.normal(size=(5, 3))), "number")],
        outputs=("relu", "place", "relu", "conv", "photo"), inputs=("photo", "number"),
        output_names=("a", "b", "conv", "relu", "copy"),
        input_types={"photo": nn.TensorType("float32", ("n", 1, 6, None)),
                     "number": nn.TensorType("int32", ("n",))},
    )
    x = rng.normal(size=(2, 1, 6, 7)).astype(np.float32), np.int32([4, 0])
    quantized = nn.quantize_model(model, [x], progress=False)
    for made, form in ((model, None), (quantized, "qdq"), (quantized, "qoperator")):
        proto = to_onnx(made, form)
        graph = proto.graph
        assert [entry.name for entry in graph.input] == ["photo", "number"]
        assert [entry.name for entry in graph.output] == ["a", "b", "conv", "relu", "copy"]
        again = load(proto) if form is None else None
        assert again is None or again.input_types == model.input_types
        for a, b in zip(run(proto, x), made(*x), strict=True):
            assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_again_is_what_was_made(form):
    model = models.quantized("residual")[1]
    first, second = (to_onnx(model, form).SerializeToString() for _ in range(2))
    assert first == second
    proto = onnx.load_model_from_string(first)
    assert (proto.producer_name, proto.producer_version) == ("qcy", qcy.__version__)
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)
    assert {node.name for node in model.nodes} <= {node.name for node in proto.graph.node}


def test_an_input_that_is_an_output_keeps_its_name():
    model = nn.Model([("relu", nn.ReLU(), "input")], outputs=("input", "relu"))
    x = np.float32([[-1, 2]])
    got = run(to_onnx(model, input_shapes=("n", 2)), [x])
    assert_array_equal(got[0], x)
    assert_array_equal(got[1], [[0, 2]])


@pytest.mark.parametrize(("layers", "shape"), [
    ([models.conv(np.random.default_rng(0), 4, 2, groups=2)], ("batch", 4, "height", "width")),
    ([nn.ReLU(), nn.MaxPool2D(2, layout="NHWC")], ("batch", "height", "width", None)),
    ([nn.Dropout(), nn.Dense(np.ones((3, 2)))], ("batch", 3)),
    ([nn.Softmax(), nn.ConvTranspose2D(np.ones((3, 2, 1, 1)))], ("batch", 3, "height", "width")),
])
def test_layers_tell_what_an_input_is(layers, shape):
    entry = to_onnx(nn.Sequential(*layers)).graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value or None for size in entry] == list(shape)


# ----------------------------------------------------------------------------------------- saving


def small():
    """Return a float model and its 8-bit one."""
    model = nn.Sequential(models.dense(np.random.default_rng(0), 4, 3), nn.ReLU())
    data = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
    return model, nn.quantize_model(model, data, progress=False)


def test_save(tmp_path):
    model, quantized = small()
    x = np.ones((2, 4), np.float32)
    for made, name, format in (
        (model, "a.onnx", None), (model, "a.onnx", "onnx"), (quantized, "b.onnx", None),
        (quantized, "c.onnx", "qdq"), (quantized, "d.onnx", "qoperator"), (quantized, "e", "qdq"),
    ):
        path = tmp_path / name
        made.save(path, format)
        proto = onnx.load(path)
        assert ("QGemm" in operators_of(proto)) == (format == "qoperator")
        assert_allclose(run(proto, [x])[0], made(x), atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx", "c.onnx", "d.onnx", "e"]
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()
    quantized.save(tmp_path / "f.qcy")
    quantized.save(str(tmp_path / "g"))
    assert qcy.load(tmp_path / "f.qcy").summary() == qcy.load(tmp_path / "g").summary()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    model, _ = small()
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")
    with pytest.raises(TypeError, match="layer 'odd': Odd has no ONNX form"):
        nn.Sequential(("odd", Odd())).save(path, input_shapes=(1,))
    assert path.read_bytes() == b"before"

    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        model.save(path)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.onnx"]


class Odd(nn.Layer):
    """A layer of somebody else."""


class OddQuantized(nn.QuantizedLayer):
    """The twin of a layer of somebody else."""


CELL = nn.Recurrent("RNN", [[[1.0]]], [[[1.0]]], attributes={"hidden_size": 1})
PARAMS = qcy.QuantizationParams(0.5, 3)
IMAGES = nn.Sequential(nn.Dense(np.ones((3, 2))), nn.MaxPool2D(2))


@pytest.mark.parametrize(("made", "name", "settings", "kind", "message"), [
    (small()[0], "m.qcy", {"format": "onnx"}, ValueError, "format 'onnx' does not fit the path"),
    (small()[0], "m.onnx", {"format": "qcy"}, ValueError, "format 'qcy' does not fit the path"),
    (small()[0], "m.onnx", {"format": "qdq"}, ValueError, "a float model has the format \"onnx\""),
    (small()[1], "m.onnx", {"format": "tflite"}, ValueError, "format must be one of 'qcy', 'onnx'"),
    (small()[1], "m.qcy", {"input_shapes": (1, 4)}, ValueError, "input_shapes is for ONNX"),
    (small()[1], "m.onnx", {"input_shapes": {"x": (1, 4)}}, ValueError, r"name inputs, \('input"),
    (small()[1], "m.onnx", {"input_shapes": (1, 4.0)}, ValueError, "numbers, names and None, got"),
    (small()[1], "m.onnx", {"input_shapes": 4}, ValueError, "shapes of numbers, names and None"),
    (small()[1], "m.onnx", {"input_shapes": (2, 5)}, ValueError, "'dense_1': Gemm does not take"),
    (nn.Sequential(nn.ReLU()), "m.onnx", {}, ValueError, "axes of input 'input': give input_sh"),
    (nn.Sequential(CELL.dynamic()), "m.onnx", {"input_shapes": (1, 1, 1)}, TypeError,
     "layer 'recurrentdynamic_1': RecurrentDynamic has no ONNX form"),
    (nn.Sequential(nn.Reshape((0, 2))), "m.onnx", {"input_shapes": (1, 0)}, ValueError,
     "layer 'reshape_1': ONNX has no form for a reshape to nothing"),
    (IMAGES, "m.onnx", {"input_shapes": (1, 3)}, ValueError, "MaxPool does not take"),
    (nn.Sequential(nn.Operator("Gelu", {"odd": 1})), "m.onnx", {"input_shapes": (1,)}, ValueError,
     r"layer 'operator_1': no operator set up to .* has Gelu of \['float32'\] with the attributes"),
    (nn.QuantizedModel(
        [("r", nn.ReLUQuantized(PARAMS, PARAMS), "a")], "r", "a",
        params={"a": PARAMS, "r": qcy.QuantizationParams(1.0)},
    ), "m.onnx", {"input_shapes": (1,)}, ValueError, "params of 'r' must be the layer's"),
    (nn.QuantizedModel(
        [("r", OddQuantized(PARAMS, PARAMS), "a")], "r", "a", params={"a": PARAMS, "r": PARAMS},
    ), "m.onnx", {"input_shapes": (1,)}, TypeError, "layer 'r': OddQuantized has no ONNX form"),
    (nn.Model([], outputs="b", inputs=("a", "b")), "m.onnx", {"input_shapes": (1,)}, ValueError,
     r"input_shapes must be by name for \('a', 'b'\)"),
    (nn.Model([("r", nn.ReLU(), "a")], outputs=("r", "r"), inputs="a"), "m.onnx",
     {"input_shapes": (1,)}, ValueError, "output_names must differ, got 'r' twice"),
    (nn.Model([("r", nn.ReLU(), "a")], inputs="a", output_names=["a"]), "m.onnx",
     {"input_shapes": (1,)}, ValueError, "output_names must not be those of inputs, got 'a'"),
])
def test_what_is_wrong_is_said(made, name, settings, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        made.save(tmp_path / name, **settings)
    assert not os.listdir(tmp_path)


def test_without_onnx_a_model_still_saves_as_qcy(tmp_path):
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        "from qcy import nn; model = nn.Sequential(nn.Dense([[1.0]]))\n"
        f"model.save({str(tmp_path / 'm.qcy')!r})\n"
        f"model.save({str(tmp_path / 'm.onnx')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: reading and writing ONNX files needs the onnx package" in done.stderr
    assert os.listdir(tmp_path) == ["m.qcy"]
