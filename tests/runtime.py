"""onnxruntime on models that qcy writes, for several tests to use."""

import numpy as np
import onnx
import onnxruntime

import qcy

FORMS = ("qdq", "qoperator")
SCHEME = qcy.QuantizationScheme
#: How models are quantized here: uint8 and int8, any range and one around 0.
WAYS = {
    "uint8": {}, "int8": {"dtype": "int8"}, "uint8 symmetric": {"scheme": SCHEME.SYMMETRIC},
    "int8 symmetric": {"scheme": SCHEME.SYMMETRIC, "dtype": "int8"},
    "weights with zero points": {"weight_scheme": SCHEME.ASYMMETRIC | SCHEME.PER_CHANNEL},
    "weights of one scale": {"weight_scheme": SCHEME.SYMMETRIC | SCHEME.PER_TENSOR},
}
#: Shapes of inputs that the layers of a model of the zoo do not tell.
SHAPES = {"transformer": {"vectors": ("batch", 5, 12), "tokens": ("batch", "length")}}


def session(proto, optimized=True, int8=False):
    """Return a session; without `int8`, onnxruntime makes uint8 of int8 where it can, on x86."""
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
