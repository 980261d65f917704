"""ONNX's own tests of operators and of whole models, for all operators that qcy has.

Outputs are compared as ONNX's runner compares them: shapes and types are the same, numbers close.
Types that qcy does not have are refused by name, before anything runs.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from qcy.nn.operators import OPERATORS

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402

from qcy.nn.onnx.backend import QcyBackend  # noqa: E402

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
#: What tensors can be in qcy.
TYPES = {
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE,
    TensorProto.UINT32, TensorProto.UINT64,
}
#: What else is refused, by the names of the tests, and what is said.
REFUSED = {
    "batchnorm_.*_training_mode": "BatchNormalization is for inference",
    "training_dropout_(?!zero_ratio).*|training_dropout": "Dropout must not be in training mode",
    "constant": "test_constant has no input",
}
#: Operators that are something else once a file is read.
READ_AWAY = {"Constant", "Upsample", "Scatter"}
#: What is added to a test's tolerance for float16: two steps of its mantissa.
HALF = 2.0**-9


def name_of(node):
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def missing(model):
    """Return the operators of a model that qcy does not have."""
    return {name_of(node) for node in model.graph.node} - set(OPERATORS) - READ_AWAY


def foreign(model):
    """Return the names of what a model's inputs and outputs are, and qcy does not have."""
    found = []
    for value in (*model.graph.input, *model.graph.output):
        kind, number = value.type.WhichOneof("value"), value.type.tensor_type.elem_type
        if kind != "tensor_type":
            found.append(kind)
        elif number not in TYPES:
            found.append(TensorProto.DataType.Name(number))
    return found


def refused(case):
    """Return what is said of a test that is refused for another reason, or None."""
    name = case.name.removeprefix("test_")
    return next((said for wanted, said in REFUSED.items() if re.fullmatch(wanted, name)), None)


def named(cases):
    return [pytest.param(case, id=case.name.removeprefix("test_")) for case in cases]


def node_cases():
    """Return the tests of single operators, in an order that does not change."""
    with warnings.catch_warnings():     # of NumPy, while the tests' data are computed
        warnings.simplefilter("ignore")
        return sorted(load_model_tests(kind="node"), key=lambda case: case.name)


def stored_cases():
    """Return the tests of models that lie in files."""
    kinds = "pytorch-converted", "pytorch-operator", "simple"
    cases = [case for kind in kinds for case in load_model_tests(kind=kind)]
    for case in cases:
        case.model = onnx.load(Path(case.model_dir, "model.onnx"))
    return sorted(cases, key=lambda case: case.name)


NODES, STORED = node_cases(), stored_cases()
KNOWN = [case for case in NODES if not missing(case.model)]


def run(case, data):
    """Run a test's model on its data sets, and compare."""
    prepared = QcyBackend.prepare(case.model)
    for inputs, wanted in data:
        arrays = [
            [numpy_helper.to_array(x) if isinstance(x, TensorProto) else x for x in side]
            for side in (inputs, wanted)
        ]
        is_half = any(x.dtype == np.float16 for x in arrays[1])
        Runner.assert_similar_outputs(
            arrays[1], prepared.run(arrays[0]), case.rtol + HALF * is_half, case.atol
        )


@pytest.mark.parametrize(
    "case", named(c for c in KNOWN if not foreign(c.model) and not refused(c))
)
def test_node(case):
    run(case, case.data_sets)


@pytest.mark.parametrize("case", named(c for c in KNOWN if foreign(c.model)))
def test_types_are_refused_by_name(case):
    with pytest.raises(ValueError, match="|".join(foreign(case.model))):
        QcyBackend.prepare(case.model)
    assert not QcyBackend.is_compatible(case.model)


@pytest.mark.parametrize("case", named(c for c in KNOWN if refused(c)))
def test_what_is_not_inference_is_refused(case):
    with pytest.raises(ValueError, match=refused(case)):
        run(case, case.data_sets)


@pytest.mark.parametrize("case", named(c for c in (*NODES, *STORED) if missing(c.model)))
def test_operators_are_refused_by_name(case):
    said = [*missing(case.model), *foreign(case.model)]
    with pytest.raises(ValueError, match="|".join(map(re.escape, said))):
        QcyBackend.prepare(case.model)


@pytest.mark.parametrize("case", named(c for c in STORED if not missing(c.model)))
def test_stored_model(case):
    def arrays(folder, kind):
        n = len(list(folder.glob(f"{kind}_*.pb")))
        return [onnx.load_tensor(folder / f"{kind}_{i}.pb") for i in range(n)]

    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    assert folders
    run(case, [(arrays(folder, "input"), arrays(folder, "output")) for folder in folders])


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem.removeprefix("light_"))
    for path in sorted((DATA / "light").glob("*.onnx"))
])
def test_light_model(path):
    """Whole networks, their weights all the same number."""
    model = onnx.load(path)
    prepared = QcyBackend.prepare(model)
    inputs = [
        Runner.generate_dummy_data(value) for value in model.graph.input
        if value.name in prepared.model.inputs
    ]
    wanted = numpy_helper.to_array(onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb")))
    Runner.assert_similar_outputs([wanted], prepared.run(inputs), rtol=1e-3, atol=1e-7)


def test_all_kinds_of_tests_are_there():
    assert len(KNOWN) > 1000
    assert len(STORED) > 100
    assert len(list((DATA / "light").glob("*.onnx"))) == 9


# ------------------------------------------------------------------------------- the backend itself


def split_model():
    node = helper.make_node("Split", ["x"], ["left", "right"], axis=1, num_outputs=2)
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "halves", [make("x", TensorProto.FLOAT, ["n", 4])],
        [make(name, TensorProto.FLOAT, ["n", 2]) for name in ("left", "right")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_outputs_have_names_and_places():
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for inputs in ([x], {"x": x}, x):
        outputs = QcyBackend.run_model(split_model(), inputs)
        np.testing.assert_array_equal(outputs[0], x[:, :2])
        np.testing.assert_array_equal(outputs["right"], x[:, 2:])
        assert outputs.left is outputs[0]


def test_a_node_by_itself():
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    x = np.arange(4, dtype=np.float16)
    [y] = QcyBackend.run_node(node, [x, np.float16(2)])
    np.testing.assert_array_equal(y, np.minimum(x, 2), strict=True)


def test_a_node_of_an_older_operator_set():
    node = helper.make_node("Squeeze", ["x"], ["y"], axes=[0])
    [y] = QcyBackend.run_node(node, [np.zeros((1, 3), np.int64)], opset_version=11)
    np.testing.assert_array_equal(y, np.zeros(3, np.int64), strict=True)


def test_nodes_may_be_called_as_inputs_are():
    model = split_model()
    model.graph.node[0].name = "x"
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(QcyBackend.run_model(model, [x])[0], x[:, :2])


def test_inputs_that_are_missing_are_named():
    with pytest.raises(ValueError, match="inputs must have 'x', got \\['z'\\]"):
        QcyBackend.run_model(split_model(), {"z": np.zeros((1, 4), np.float32)})


def test_devices():
    assert QcyBackend.supports_device("CPU")
    assert QcyBackend.supports_device("CPU:0")
    assert not QcyBackend.supports_device("CUDA")
    assert QcyBackend.is_compatible(split_model())
    assert not QcyBackend.is_compatible(split_model(), "CUDA:1")
    with pytest.raises(ValueError, match="device must be 'CPU', got 'CUDA'"):
        QcyBackend.prepare(split_model(), "CUDA")
