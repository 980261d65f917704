"""The types of a graph's tensors, by the onnx package's own inference."""

import onnx

from qcy.nn.graph import TensorType

#: Elements up to which inference is shown what is in a constant.
MOST_SHOWN = 64


def types_in(proto, dtypes):
    """Return the types that a graph's protocol buffer tells, by tensor.

    `dtypes` are NumPy's, by the number of ONNX's type.
    """
    found = {}
    for value in (*proto.value_info, *proto.output):
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type" and kind.elem_type in dtypes:
            found[value.name] = TensorType(dtypes[kind.elem_type], shape_of(kind))
    return found


def shape_of(kind):
    """Return a tensor type's shape: numbers, names and None; or None."""
    if not kind.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.HasField("dim_value") else (size.dim_param or None)
        for size in kind.shape.dim
    )


def infer_again(graph, dtypes):
    """Infer the types of a graph in its newest form, with what has become known of it."""
    inputs = [_value(name, kind) for name, kind in graph.inputs.items()]
    constants = []
    for name, x in graph.constants.items():
        if x.size <= MOST_SHOWN:
            constants.append(onnx.numpy_helper.from_array(x, name))
        else:
            inputs.append(_value(name, TensorType(x.dtype, x.shape)))
    nodes = [
        onnx.helper.make_node(
            node.op.rpartition(":")[2], node.inputs, node.outputs,
            domain=node.op.rpartition(":")[0], **_attributes(node),
        )
        for node in graph.nodes
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in graph.outputs]
    proto = onnx.helper.make_graph(nodes, "graph", inputs, outputs, constants)
    opsets = [onnx.helper.make_opsetid("", min(23, onnx.defs.onnx_opset_version()))] + [
        onnx.helper.make_opsetid(domain, version)
        for domain, version in graph.opsets.items() if domain
    ]
    model = onnx.helper.make_model(proto, opset_imports=opsets)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return                          # what is known stays
    graph.types = {**graph.types, **types_in(model.graph, dtypes), **graph.inputs}


def _value(name, kind):
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(kind.dtype), kind.shape
    )


def _attributes(node):
    """Return a node's attributes as the onnx package takes them."""
    return {
        name: onnx.numpy_helper.from_array(value) if hasattr(value, "dtype") else value
        for name, value in node.attributes.items()
        if value is not None and not (isinstance(value, tuple) and not value)
    }
