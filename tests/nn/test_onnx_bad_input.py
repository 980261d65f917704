"""ONNX files that are no models, contradict themselves or ask for what is not theirs."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import drawn as normal
from onnx_models import written as model

from qcy import nn
from qcy.nn.onnx import load

DENSE = "g (float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }"


def test_operators_that_are_missing_are_all_listed():
    proto = model(
        """g (float[N] x) => (float[N] y) {
            [first] a = Bernoulli(x)  [second] b = com.microsoft.Foo(a)  [third] y = Bernoulli(b)
        }"""
    )
    with pytest.raises(ValueError, match=re.escape(
        "g has operators that qcy does not know: Bernoulli: first, third; "
        "com.microsoft:Foo: second"
    )):
        load(proto)


def test_control_flow_is_refused_by_name():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    proto = model("g (bool c, float[N] x) => (float[N] y) { y = Identity(x) }")
    proto.graph.node[0].CopyFrom(
        helper.make_node("If", ["c"], ["y"], name="maybe", then_branch=branch, else_branch=branch)
    )
    with pytest.raises(ValueError, match=r"If \(control flow\): maybe"):
        load(proto)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.node[0].input.__setitem__(0, "z"), "takes 'z', which nothing makes"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "the graph has a cycle"),
        (lambda m: m.graph.output[0].__setattr__("name", "z"), "nothing makes the output 'z'"),
        (lambda m: m.graph.output.pop(), "the graph has no output"),
        (lambda m: m.opset_import[0].__setattr__("version", 999), "is of operator set 999"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -3), "which cannot be"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40),
         f"claims {2**42} numbers of float32"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2), "claims 8 numbers"),
        (lambda m: m.graph.initializer[0].__setattr__("data_type", TensorProto.STRING), "STRING"),
        (lambda m: m.graph.initializer[0].__setattr__("data_type", TensorProto.FLOAT8E4M3FN),
         "FLOAT8E4M3FN"),
        (lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.full((3, 4), np.nan, np.float32), "w")),
         r"node 'MatMul_0' \(MatMul\): weight must be finite, got nan"),
        (lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.ones((5, 4), np.float32), "w")), "contradicts itself"),
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.STRING),
         "input 'x' must be a tensor of numbers or bool, it is STRING"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "makes 'y', which is made twice"),
    ],
)
def test_files_that_contradict_themselves(change, message):
    proto = model(DENSE, w=normal(3, 4))
    change(proto)
    with pytest.raises(ValueError, match=message):
        load(proto)


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "m.onnx"
    data = model(DENSE, w=normal(3, 4)).SerializeToString()
    noise = np.random.default_rng(0).bytes(1000)
    for bad in (b"", b"hello", b"\x00" * 100, data[: len(data) // 2], noise):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"m\.onnx"):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")


def test_bytes_that_were_changed_are_refused_or_run():
    data = bytearray(model(DENSE, w=normal(3, 4)).SerializeToString())
    rng = np.random.default_rng(1)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        try:
            load(bytes(changed))
        except ValueError as error:
            assert str(error)       # noqa: PT017
        except (UnicodeDecodeError, OSError) as error:
            assert str(error)       # noqa: PT017


def external(tmp_path, location, data=None, **entries):
    """Return the path of a model whose weights lie in another file."""
    proto = model(DENSE, w=normal(3, 4))
    tensor = proto.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    if data is not None:
        (folder / "w.bin").write_bytes(data + raw)
    return folder / "m.onnx", np.frombuffer(raw, np.float32).reshape(3, 4)


def test_external_data(tmp_path):
    path, w = external(tmp_path, "w.bin", b"1234", offset=4, length=48)
    x = normal(2, 3)
    np.testing.assert_allclose(load(path)(x), x @ w, rtol=1e-5)


@pytest.mark.parametrize(
    ("location", "entries", "error", "message"),
    [
        ("../w.bin", {}, ValueError, "outside the folder of the model: refused"),
        ("/etc/hostname", {}, ValueError, "outside the folder of the model: refused"),
        ("", {}, ValueError, "outside the folder"),
        ("none.bin", {}, FileNotFoundError, "which is not there"),
        ("w.bin", {"offset": 8}, ValueError, "needs 48 bytes from 8 of 'w.bin', which has 48"),
        ("w.bin", {"offset": -1}, ValueError, "needs 48 bytes from -1"),
        ("w.bin", {"length": 12}, ValueError, r"\(the model says 12\)"),
        ("w.bin", {"offset": "a"}, ValueError, "no number"),
    ],
)
def test_external_data_that_is_refused(tmp_path, location, entries, error, message):
    (tmp_path / "w.bin").write_bytes(bytes(48))
    path, _ = external(tmp_path, location, b"", **entries)
    with pytest.raises(error, match=message):
        load(path)


def test_links_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    path, _ = external(tmp_path, "w.bin")
    try:
        (path.parent / "w.bin").symlink_to(tmp_path / "secret.bin")
    except OSError:
        pytest.skip("this system lets nobody make links")
    with pytest.raises(ValueError, match="outside the folder"):
        load(path)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((), TypeError, r"takes 1 input\(s\), got 0"),
        ((normal(2, 4),), ValueError, r"input 'x' must be float32\[N, 3\], got shape \(2, 4\)"),
        ((normal(3),), ValueError, r"input 'x' must be float32\[N, 3\], got shape \(3,\)"),
        ((np.array([["a", "b", "c"]]),), TypeError, r"input 'x' must be float32\[N, 3\], got <U1"),
        ((np.ones((1, 3), bool),), TypeError, "got bool"),
    ],
)
def test_inputs_that_do_not_fit(inputs, error, message):
    loaded = load(model(DENSE, w=normal(3, 4)))
    with pytest.raises(error, match=message):
        loaded(*inputs)


def test_integers_are_not_rounded():
    loaded = load(model(
        "g (int64[N] i) => (float[N, 4] y) { y = Gather(w, i) }", w=normal(5, 4)
    ))
    with pytest.raises(TypeError, match=r"input 'i' must be int64\[N\], got float64"):
        loaded(np.array([0.5]))


def test_a_constant_that_would_fill_the_memory():
    proto = model(
        "g (float[N] x) => (float[M] y) { z = ConstantOfShape(s)  y = Concat <axis = 0> (x, z) }",
        s=np.int64([2**40]),
    )
    with pytest.raises(ValueError, match=r"2\*\*31|at most"):
        load(proto)


def test_messages_name_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("qcy.nn.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(nn, "onnx", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'qcy\[onnx\]'"):
        import qcy.nn.onnx  # noqa: F401

