"""Types and shapes of the tensors in a file, as far as the onnx package can tell them."""

import onnx
from onnx import TensorProto, TypeProto, helper

#: Bytes beyond which a tensor's values are not shown to shape inference.
MOST_SHOWN = 2**16
#: The first operator set whose operators below take codes.
TAKE_CODES = 13


def infer(model, path):
    """Return what is known of tensors that nodes make, as ValueInfoProtos.

    Raises
    ------
    ValueError
        If the model contradicts itself.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    large = [t for t in shown.graph.initializer if _n_bytes(t) > MOST_SHOWN]
    for tensor in large:            # its type is enough
        if all(value.name != tensor.name for value in shown.graph.input):
            shown.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        shown.graph.initializer.remove(tensor)
    _stand_in(shown)
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
        [MOST_SHOWN + 1] if tensor.data_location == TensorProto.EXTERNAL else [0]
    ))


#: Operators of codes that the onnx package does not know, one of its own whose output has the same
#: type and shape, and which inputs that takes.
_STAND_INS = {
    "QLinearAdd": ("Max", slice(0, 4, 3)), "QLinearMul": ("Max", slice(0, 4, 3)),
    "QLinearSigmoid": ("Identity", slice(1)), "QLinearLeakyRelu": ("Identity", slice(1)),
    "QLinearSoftmax": ("Identity", slice(1)), "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QLinearAveragePool": ("MaxPool", slice(1)),
}
_KEPT = ("axis", "auto_pad", "ceil_mode", "kernel_shape", "pads", "strides")


def _stand_in(model):
    """Put operators that inference knows in the places of some that it does not, in place."""
    version = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1)
    for node in model.graph.node:
        if node.op_type == "MeanVarianceNormalization" and not node.attribute:
            # Inference takes it apart, and forgets a default.
            node.attribute.append(helper.make_attribute("axes", (0, 2, 3)))
        is_stood_in = node.domain == "com.microsoft" and node.op_type in _STAND_INS
        if not is_stood_in or version < TAKE_CODES or _is_last(node):
            continue
        op, taken = _STAND_INS[node.op_type]
        inputs = list(node.input)[taken]
        kept = [a for a in node.attribute if a.name in _KEPT and op in ("Concat", "MaxPool")]
        node.op_type, node.domain = op, ""
        del node.input[:], node.attribute[:]
        node.input.extend(inputs)
        node.attribute.extend(kept)


def _is_last(node):
    """Whether a node takes images channels last."""
    return any(a.name == "channels_last" and a.i for a in node.attribute)
