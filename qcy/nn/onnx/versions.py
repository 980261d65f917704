"""Older forms of operators brought into the newest: attributes into inputs, other defaults."""

import numpy as np

from qcy.nn.onnx.reader import OnnxNode

_REDUCTIONS = (
    "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)
#: Operators of two inputs that could align them before operator set 7.
_BINARY = (
    "Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less",
)


def modernize(graph):
    """Bring all nodes of a graph into the form of the newest operator set, in place."""
    for node in list(graph.nodes):
        change = _CHANGES.get(node.op)
        if change is not None:
            change(graph, node, graph.opset)
    # Constants are no operators.
    graph.nodes = [node for node in graph.nodes if not _is_constant(graph, node)]


def _is_constant(graph, node):
    """Whether a node is a constant, which then is one of the graph."""
    if node.op != "Constant":
        return False
    kinds = {
        "value": None, "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }
    for name, dtype in kinds.items():
        if name in node.attributes:
            graph.constants[node.outputs[0]] = np.asarray(node.attributes[name], dtype)
            return True
    raise ValueError(
        f"{graph.path}: node {node.name!r} must be a constant of numbers, it has "
        f"{sorted(node.attributes)}"
    )


def _to_input(graph, node, attribute, place, dtype=np.int64):
    """Make an attribute an input."""
    if attribute not in node.attributes:
        return
    while len(node.inputs) <= place:
        node.inputs.append("")
    name = f"{node.name}/{attribute}"
    graph.constants[name] = np.array(node.attributes.pop(attribute), dtype)
    node.inputs[place] = name


def _drop(*names):
    """Return a change that takes out attributes that never said anything at inference."""
    def change(graph, node, opset):
        for name in names:
            node.attributes.pop(name, None)
    return change


def _aligned(graph, node, place, n_after):
    """Give an input `n_after` more axes at its end."""
    name = f"{node.name}/aligned"
    axes = f"{name}/axes"
    graph.constants[axes] = np.arange(-n_after, 0)
    i = next(i for i, other in enumerate(graph.nodes) if other is node)
    graph.nodes.insert(i, OnnxNode("Unsqueeze", name, [node.inputs[place], axes], [name]))
    node.inputs[place] = name


def _binary(graph, node, opset):
    """Before operator set 7 the axes of the second input could be aligned with any."""
    node.attributes.pop("broadcast", None)
    axis = node.attributes.pop("axis", None)
    if opset >= 7 or axis is None:
        return
    left, right = (graph.shape(name) for name in node.inputs)
    if left is None or right is None:
        raise ValueError(
            f"{graph.path}: node {node.name!r} ({node.op}) has an axis to align, but the shapes of "
            "its inputs are not known"
        )
    n_after = len(left) - axis % len(left) - len(right)
    if n_after > 0:
        _aligned(graph, node, 1, n_after)


def _prelu(graph, node, opset):
    """Before operator set 7 there was one slope, or one for each channel."""
    x, slope = (graph.shape(name) for name in node.inputs)
    if opset < 7 and x is not None and slope is not None and len(slope) == 1 and len(x) > 2:
        _aligned(graph, node, 1, len(x) - 2)


def _axes(since):
    def change(graph, node, opset):
        if opset < since:
            _to_input(graph, node, "axes", 1)
    return change


def _softmax(graph, node, opset):
    if opset < 13:
        node.attributes = {"axis": node.attributes.get("axis", 1), "flattened": 1}


def _slice(graph, node, opset):
    if opset < 10:
        for place, name in enumerate(("starts", "ends", "axes"), 1):
            _to_input(graph, node, name, place)


def _clip(graph, node, opset):
    if opset < 11:
        _to_input(graph, node, "min", 1, np.float32)
        _to_input(graph, node, "max", 2, np.float32)


def _pad(graph, node, opset):
    if opset < 11:
        _to_input(graph, node, "pads", 1)
        _to_input(graph, node, "value", 2, np.float32)
    node.inputs += [""] * (3 - len(node.inputs))        # what is filled up with is left out


def _upsample(graph, node, opset):
    if opset < 7:
        height, width = (node.attributes.pop(f"{side}_scale") for side in ("height", "width"))
        node.attributes["scales"] = (1.0, 1.0, height, width)
    _to_input(graph, node, "scales", 1, np.float32)
    node.op = "Resize"
    _old_resize(graph, node)


def _resize(graph, node, opset):
    if opset < 11:
        _old_resize(graph, node)


def _old_resize(graph, node):
    """Resize by scales alone, without an offset."""
    scales = graph.constants.get(node.inputs[1])
    shrinks = scales is not None and (scales < 1).any()
    node.inputs = [node.inputs[0], "", node.inputs[1]]
    node.attributes.update(
        coordinate_transformation_mode="asymmetric", nearest_mode="ceil" if shrinks else "floor"
    )


def _split(graph, node, opset):
    if opset < 13:
        _to_input(graph, node, "split", 1)
    if opset < 18 and not any(node.inputs[1:]):
        node.attributes["num_outputs"] = len(node.outputs)


def _top_k(graph, node, opset):
    if opset < 10:
        node.attributes["k"] = (node.attributes["k"],)
        _to_input(graph, node, "k", 1)


def _batch_norm(graph, node, opset):
    node.attributes.pop("is_test", None)
    if not node.attributes.pop("spatial", 1):
        raise ValueError(f"{graph.path}: node {node.name!r} normalizes each place by itself")
    if opset < 14:                      # what training makes besides
        node.outputs = node.outputs[:1]


def _scatter(graph, node, opset):
    node.op = "ScatterElements"


_CHANGES = {
    "Softmax": _softmax, "LogSoftmax": _softmax, "Hardmax": _softmax, "Squeeze": _axes(13),
    "Unsqueeze": _axes(13), "ReduceSum": _axes(13), **dict.fromkeys(_REDUCTIONS, _axes(18)),
    "Slice": _slice, "Clip": _clip, "Pad": _pad, "Upsample": _upsample, "Resize": _resize,
    "Split": _split, "TopK": _top_k, "BatchNormalization": _batch_norm, "Scatter": _scatter,
    "Dropout": _drop("ratio", "seed", "is_test"), "Gemm": _drop("broadcast"), "PRelu": _prelu,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _drop("output_sequence")),
    **dict.fromkeys(_BINARY, _binary),
}
