"""Small ONNX graphs of codes, and onnxruntime to run them: what tests of quantized files share.

Weights stay in [-64, 63] where the CPU has no VNNI: onnxruntime's own kernels saturate pairs there.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from oracles import code_range, random_codes, random_zero_point

from qcy import _cpu, nn
from qcy.nn.onnx import load

HAS_VNNI = _cpu.supports("avx512vnni") or _cpu.supports("avxvnni")
MICROSOFT = "com.microsoft"


def weights(rng, shape, dtype):
    """Return codes that onnxruntime multiplies exactly on this CPU."""
    if HAS_VNNI and rng.random() < 0.5:
        return random_codes(rng, shape, dtype)
    low, high = (-64, 64) if dtype == np.int8 else (64, 192)
    return rng.integers(low, high, shape, dtype)


class Graph:
    """Collects the nodes of a graph; its tensors are names.

    Parameters
    ----------
    rng : Generator
    dtype : dtype
        Of activations.
    opset : int
    """

    def __init__(self, rng, dtype=np.uint8, opset=18):
        self.rng, self.dtype, self.opset = rng, np.dtype(dtype), opset
        self.nodes, self.constants, self.inputs = [], {}, {}
        self.params = {}                # of codes: (scale, zero point)
        self.dtypes = {}                # of outputs that are neither codes nor float32
        self.n = 0

    def name(self, kind):
        self.n += 1
        return f"{kind}{self.n}"

    def constant(self, array):
        """Return a constant."""
        name = self.name("constant")
        self.constants[name] = np.asarray(array)
        return name

    def input(self, array):
        """Return an input, and what a run gives it."""
        name = self.name("input")
        self.inputs[name] = np.asarray(array)
        return name

    def op(self, op, *inputs, n_outputs=1, **attributes):
        """Add a node; return its output, or its outputs."""
        domain, _, op = op.rpartition(":")
        outputs = [self.name(op.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(
            op, list(inputs), outputs, name=self.name("node"), domain=domain, **attributes
        ))
        return outputs[0] if n_outputs == 1 else outputs

    def any_params(self, scale=None, dtype=None):
        """Return a scale and a zero point."""
        dtype = np.dtype(dtype or self.dtype)
        scale = self.rng.uniform(0.005, 0.05) if scale is None else scale
        if self.rng.random() < 0.3:     # ties
            scale = 2.0 ** np.rint(np.log2(scale))
        return np.float32(scale), dtype.type(random_zero_point(self.rng, dtype))

    def stated(self, params):
        """Return constants for a scale and a zero point."""
        return [self.constant(part) for part in params]

    def codes(self, *shape, params=None):
        """Return an input of codes."""
        name = self.input(random_codes(self.rng, shape, self.dtype))
        self.params[name] = self.any_params() if params is None else params
        return name

    def dq(self, codes):
        """Return the reals of codes."""
        return self.op("DequantizeLinear", codes, *self.stated(self.params[codes]))

    def q(self, reals, params):
        """Return reals as codes."""
        name = self.op("QuantizeLinear", reals, *self.stated(params))
        self.params[name] = params
        return name

    def dq_constant(self, codes, scale, zero_point, **attributes):
        """Return the reals of constant codes."""
        parts = [self.constant(x) for x in (codes, np.float32(scale), zero_point)]
        return self.op("DequantizeLinear", *parts, **attributes)

    def weight(self, shape, axis, dtype=np.int8, per_channel=True):
        """Return the scale, per channel or not, and the reals of a constant weight."""
        n = shape[axis] if per_channel else None
        scale = np.float32(self.rng.uniform(0.002, 0.02, n))
        zero_point = np.zeros(np.shape(scale), dtype) if dtype == np.int8 else (
            np.uint8(self.rng.integers(100, 150, n))
        )
        more = {"axis": axis} if per_channel else {}
        codes = weights(self.rng, shape, np.dtype(dtype).type)
        return scale, self.dq_constant(codes, scale, zero_point, **more)

    def bias(self, n, x, scale):
        """Return a constant bias in units of the sums."""
        units = np.broadcast_to(np.float32(self.params[x][0]) * scale, (n,)).astype(np.float32)
        codes = self.rng.integers(-3000, 3000, n).astype(np.int32)
        return self.dq_constant(codes, units, np.zeros(n, np.int32), axis=0)

    def model(self, *outputs):
        """Return the graph as a model."""
        kind = helper.np_dtype_to_tensor_dtype
        graph = helper.make_graph(
            self.nodes, "graph",
            [helper.make_tensor_value_info(n, kind(x.dtype), x.shape)
             for n, x in self.inputs.items()],
            [helper.make_tensor_value_info(n, kind(self.dtype_of(n)), None) for n in outputs],
            [onnx.numpy_helper.from_array(x, name) for name, x in self.constants.items()],
        )
        domains = [("", self.opset), (MICROSOFT, 1)]
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid(*d) for d in domains], ir_version=9
        )

    def dtype_of(self, name):
        """Return the dtype of a tensor."""
        codes = self.params[name][1].dtype if name in self.params else np.float32
        return np.dtype(self.dtypes.get(name, codes))

    def run(self, *outputs, optimize=False):
        """Run the graph by onnxruntime; return its outputs."""
        return run(self.model(*outputs), self.inputs, optimize)

    def quantized(self, reals):
        """Return reals as codes whose range is about that of the reals."""
        [values] = self.run(reals)
        low, high = min(0, values.min(initial=0)), max(0, values.max(initial=0))
        low_code, high_code = code_range(self.dtype.type)
        scale = max(1e-3, high - low) / 255 * self.rng.choice([0.5, 0.9, 1, 1.1, 3])
        zero = np.clip(np.rint(low_code - low / scale), low_code, high_code)
        return self.q(reals, (np.float32(scale), self.dtype.type(zero)))


def run(model, inputs, optimize=False):
    """Run a model by onnxruntime, its graph optimizations off or as they are by default."""
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def by_qcy(graph, *outputs):
    """Load a graph's model; return it, and what it gives as a tuple."""
    model = load(graph.model(*outputs))
    results = model(*graph.inputs.values())
    return model, results if isinstance(results, tuple) else (results,)


def kinds(model):
    """Return the layers of a model: their kinds, operators by their names."""
    return [
        getattr(node.layer, "op", type(node.layer).__name__) for node in model.nodes
    ]


def is_in_8_bits(model):
    """Whether all layers of a model are in 8 bits."""
    return isinstance(model, nn.QuantizedModel) and not model.float_nodes


def assert_rounded(graph, codes, reals, params):
    """Check codes against onnxruntime's reals: each is the next one, but for float's rounding."""
    [wanted] = graph.run(reals)
    scale, zero = params
    steps = wanted.astype(np.float64) / np.float64(scale) + int(zero)
    low, high = code_range(type(zero))
    error = np.abs(np.clip(steps, low, high) - codes)
    assert codes.shape == wanted.shape
    assert codes.dtype == zero.dtype
    assert error.max(initial=0) <= 0.5 + 2.0**-7, f"off by {error.max()} steps"
