"""The demo's network for onnxruntime: same graph, same weights, so that the two can be timed."""

import numpy as np

from qcy.nn import (
    Add, BatchNorm, Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, ReLU,
)


def onnx_bytes(model, sample_shape):
    """Return a float model of the demo's kinds of layers as an ONNX file's bytes."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []

    def weight(name, array):
        weights.append(numpy_helper.from_array(np.array(array), name))
        return name

    for node in model.nodes:
        layer, kind = node.layer, type(node.layer)
        inputs, attributes = list(node.inputs), {}
        arrays = [weight(f"{node.name}.{name}", a) for name, a in layer.arrays().items()]
        if kind is Conv2D:
            operator = "Conv"
            attributes = {"pads": layer.padding, "strides": layer.stride, "group": layer.groups}
        else:
            operator = {
                BatchNorm: "BatchNormalization", ReLU: "Relu", Add: "Add", MaxPool2D: "MaxPool",
                GlobalAvgPool2D: "GlobalAveragePool", Flatten: "Flatten", Dense: "Gemm",
            }[kind]
        if kind is MaxPool2D:
            attributes = {"kernel_shape": layer.kernel_size, "strides": layer.stride}
        nodes.append(helper.make_node(operator, inputs + arrays, [node.name], **attributes))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "model",
        [value(name, TensorProto.FLOAT, [None, *sample_shape]) for name in model.inputs],
        [value(name, TensorProto.FLOAT, None) for name in model.outputs], weights,
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return file.SerializeToString()


def onnxruntime_session(model, sample_shape, n_threads=1):
    """Return a function that runs the model in onnxruntime, with all its optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(
        onnx_bytes(model, sample_shape), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {model.inputs[0]: x})[0]
