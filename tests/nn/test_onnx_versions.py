"""Files of old operator sets: what changed since is brought into the newest form, or refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

from qcy.nn.onnx import load  # noqa: E402


def model(opset, node, shapes, out_type=TensorProto.FLOAT, in_type=TensorProto.FLOAT):
    """Return a model of one node whose inputs have these shapes."""
    make = helper.make_tensor_value_info
    inputs = [make(name, in_type, shape) for name, shape in zip(node.input, shapes, strict=True)]
    graph = helper.make_graph([node], "old", inputs, [make(node.output[0], out_type, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


def numbers(*shape):
    return np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(("axis", "aligned"), [(1, (3, 1)), (0, (2, 1, 1)), (2, (4,)), (-1, (4,))])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_axes_of_the_second_input_are_aligned(op, axis, aligned):
    node = helper.make_node(op, ["a", "b"], ["y"], broadcast=1, axis=axis)
    a, b = numbers(2, 3, 4), numbers(max(aligned))
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op]
    y = load(model(6, node, [a.shape, b.shape]))(a, b)
    np.testing.assert_array_equal(y, function(a, b.reshape(aligned)))


def test_a_slope_for_each_channel():
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    x, slope = -numbers(2, 3, 4, 5), numbers(3)
    y = load(model(6, node, [x.shape, slope.shape]))(x, slope)
    np.testing.assert_array_equal(y, x * slope[:, None, None])


def test_images_scaled_by_attributes():
    node = helper.make_node("Upsample", ["x"], ["y"], height_scale=2.0, width_scale=3.0)
    x = numbers(1, 2, 3, 4)
    y = load(model(6, node, [x.shape]))(x)
    np.testing.assert_array_equal(y, x.repeat(2, axis=2).repeat(3, axis=3))


@pytest.mark.parametrize("opset", [7, 13, 18])
@pytest.mark.parametrize("taken", ["a", "b"])
def test_equal_parts_of_which_one_is_taken(opset, taken):
    make = helper.make_tensor_value_info
    more = {"num_outputs": 2} if opset >= 18 else {}
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, **more),
        helper.make_node("Neg", [taken], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "parts", [make("x", TensorProto.FLOAT, [2, 4])],
        [make("y", TensorProto.FLOAT, [2, 2])],
    )
    x, start = numbers(2, 4), "ab".index(taken) * 2
    opsets = [helper.make_opsetid("", opset)]
    y = load(helper.make_model(graph, opset_imports=opsets))(x)
    np.testing.assert_array_equal(y, -x[:, start : start + 2])


def test_operators_that_never_changed_are_read_of_any_set():
    node = helper.make_node("Not", ["x"], ["y"])
    old = model(1, node, [(2,)], TensorProto.BOOL, TensorProto.BOOL)
    np.testing.assert_array_equal(load(old)(np.array([True, False])), [False, True])


@pytest.mark.parametrize(("node", "version"), [
    (helper.make_node("Sqrt", ["x"], ["y"]), 5),        # another one since 6
    (helper.make_node("Sinh", ["x"], ["y"]), 5),        # not there yet
])
def test_operators_that_changed_are_refused(node, version):
    with pytest.raises(ValueError, match=f"operator set {version}, older than 6"):
        load(model(version, node, [(2,)]))


def test_shapes_must_be_known_to_be_aligned():
    node = helper.make_node("Add", ["a", "b"], ["y"], broadcast=1, axis=1)
    with pytest.raises(ValueError, match="has an axis to align"):
        load(model(6, node, [None, (3,)]))


def test_a_type_that_only_comes_out_is_refused_by_name():
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    with pytest.raises(ValueError, match=r"tensor 'y' must be .* it is BFLOAT16"):
        load(model(13, node, [(2,)], TensorProto.BFLOAT16))
