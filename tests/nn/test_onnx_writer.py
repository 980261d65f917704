"""Models as ONNX files: onnxruntime gives the codes that qcy gives, or the next ones, as is said.

Where the CPU has no VNNI, onnxruntime's own u8 * s8 kernels saturate pairs: see test_onnxruntime.
"""


import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import SEEDS

import qcy
from qcy import _cpu, nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from qcy.nn.onnx import load, to_onnx  # noqa: E402

FORMS = ("qdq", "qoperator")
SCHEME = qcy.QuantizationScheme
#: How models are quantized here: uint8 and int8, any range and one around 0.
WAYS = {
    "uint8": {}, "int8": {"dtype": "int8"}, "uint8 symmetric": {"scheme": SCHEME.SYMMETRIC},
    "int8 symmetric": {"scheme": SCHEME.SYMMETRIC, "dtype": "int8"},
    "weights with zero points": {"weight_scheme": SCHEME.ASYMMETRIC | SCHEME.PER_CHANNEL},
    "weights of one scale": {"weight_scheme": SCHEME.SYMMETRIC | SCHEME.PER_TENSOR},
}
#: Shapes of inputs that the layers of a model do not tell.
SHAPES = {"transformer": {"vectors": ("batch", 5, 12), "tokens": ("batch", "length")}}
HAS_VNNI = _cpu.supports("avx512vnni") or _cpu.supports("avxvnni")
needs_vnni = pytest.mark.skipif(not HAS_VNNI, reason="onnxruntime's kernels saturate pairs here")


def session(proto, optimized=True, int8=True):
    """Return a session; `int8` keeps onnxruntime from making uint8 of int8, where it can."""
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", str(int(int8)))
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(proto, inputs, optimized=True, **options):
    """Run a model on arrays, in the order of its inputs and as their types want it."""
    ready = session(proto, optimized, **options)
    given_inputs = {
        entry.name: np.asarray(x).astype(onnx.helper.tensor_dtype_to_np_dtype(
            next(i for i in proto.graph.input if i.name == entry.name).type.tensor_type.elem_type
        ))
        for entry, x in zip(ready.get_inputs(), inputs, strict=True)
    }
    return ready.run(None, given_inputs)


def steps_apart(got, want, params):
    """Return by how many codes arrays of numbers differ."""
    return np.rint(np.abs(got - want) / params.scale)


def operators_of(proto):
    return {node.op_type for node in proto.graph.node}


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
    ("LRN", {"size": 3}, {}), ("Where", {}, {}), ("ConstantOfShape", {"value": (2.0,)}, {}),
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
