"""The types of a graph's tensors, by the onnx package's own inference."""

import onnx
from onnx import TensorProto, TypeProto

from qcy.nn.graph import TensorType

#: Elements up to which inference is shown what is in a constant.
MOST_SHOWN = 64
#: Bytes beyond which a file's tensor is not shown to inference.
MOST_BYTES = 2**16


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
    # Some write -1 for a length that only a run tells.
    return tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value >= 0
        else (size.dim_param or None)
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
    _stand_in(model)
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


def infer(model, path):
    """Return what is known of tensors that nodes make, as ValueInfoProtos.

    Raises
    ------
    ValueError
        If the model contradicts itself.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    large = [t for t in shown.graph.initializer if _n_bytes(t) > MOST_BYTES]
    for tensor in large:            # its type is enough
        if all(value.name != tensor.name for value in shown.graph.input):
            shown.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        shown.graph.initializer.remove(tensor)
    for node in shown.graph.node:       # which inference takes apart, and forgets a default
        if node.op_type == "MeanVarianceNormalization" and not node.attribute:
            node.attribute.append(onnx.helper.make_attribute("axes", (0, 2, 3)))
    try:
        shown = onnx.shape_inference.infer_shapes(
            shown, check_type=True, strict_mode=True, data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(f"{path} contradicts itself: {error}") from error
    return [
        value for value in (*shown.graph.value_info, *shown.graph.output)
        if value.type.WhichOneof("value") and value.type.tensor_type != TypeProto.Tensor()
    ]


def _n_bytes(tensor):
    return max(len(tensor.raw_data), 4 * len(tensor.float_data), *(
        [MOST_BYTES + 1] if tensor.data_location == TensorProto.EXTERNAL else [0]
    ))


#: Operators of codes that the onnx package does not know, ones of its own whose outputs have the
#: same shapes, and which inputs those take.
_STAND_INS = {
    "QLinearAdd": ("Max", slice(0, 4, 3)), "QLinearMul": ("Max", slice(0, 4, 3)),
    "QLinearSigmoid": ("Identity", slice(1)), "QLinearLeakyRelu": ("Identity", slice(1)),
    "QLinearSoftmax": ("Identity", slice(1)), "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QLinearAveragePool": ("AveragePool", slice(1)), "QGemm": ("Gemm", slice(0, 4, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", slice(1)),
}


def _stand_in(model):
    """Put operators that inference knows in the places of some that it does not, in place."""
    for node in model.graph.node:
        is_last = any(a.name == "channels_last" and a.i for a in node.attribute)
        if node.domain != "com.microsoft" or node.op_type not in _STAND_INS or is_last:
            continue
        node.op_type, taken = _STAND_INS[node.op_type]
        node.domain = ""
        inputs = list(node.input)[taken]
        del node.input[:]
        node.input.extend(inputs)
