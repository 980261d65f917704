"""qcy for a harness that times several 8-bit runtimes on the same graphs, side by side.

The harness hands over graphs of a few kinds of nodes, weights and ranges, and asks for a function
to time. Everything here is public API: primitives that are bound, and models that are quantized and
bound, as a user would.
"""

import numpy as np
from graph import NotAvailable, make_inputs, qparams_u8, quant, qweight

#: Batches that models are calibrated on.
N_CALIBRATION = 4


def nhwc(x):
    """Return images channels last, anything else as it is."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


def nchw(x):
    """Return images channels first, anything else as it is."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


class Adapter:
    """The harness's contract: see its adapters/qcy.py."""

    def __init__(self, threads, scratch):
        import qcy
        from qcy import nn, primitive

        self.qcy, self.nn, self.primitive = qcy, nn, primitive
        self.threads = threads

    def info(self):
        """Return what is being timed."""
        return {key: str(value) for key, value in self.qcy.info().items()}

    def variants(self, case, prec):
        """Return the ways to run a case."""
        return ["qcy"] if prec == "int8" else []

    def prepare(self, case, graph, prec, variant):
        """Return a function to time, and one that gives its last result in float32, NCHW."""
        if case.family == "model":
            return self._model(graph)
        node = graph.nodes[0]
        kind = node.op if node.op in ("quantize", "dequantize", "dyn_dense") else "codes"
        return getattr(self, f"_{kind}")(graph, node)

    # ------------------------------------------------------------------------------ single calls

    def _codes(self, graph, node):
        """Codes in, codes out."""
        inputs = make_inputs(graph)
        source = [qparams_u8(*graph.ranges[name]) for name in node.ins]
        x = [
            nhwc(quant(inputs[name], *params))
            for name, params in zip(node.ins, source, strict=True)
        ]
        scale, zero = qparams_u8(*graph.ranges[node.out])
        if node.op in ("relu", "maxpool"):
            scale, zero = source[0]
        call = getattr(self, f"_call_{node.op}")(node, x, source, scale, zero)
        return call, lambda: (nchw(call.out).astype(np.float32) - zero) * np.float32(scale)

    def _bias(self, node, x_scale, w_scale):
        return np.rint(node.b / (np.float64(x_scale) * w_scale)).astype(np.int32)

    def _call_dense(self, node, x, source, scale, zero):
        (x_scale, x_zero), = source
        weight, w_scale = qweight(node.w)
        packed = self.primitive.pack_q8(
            np.ascontiguousarray(weight.T), b_scale=w_scale, bias=self._bias(node, x_scale, w_scale)
        )
        return self.primitive.gemm_nn_q8.bind(
            x[0], packed, a_scale=x_scale, a_zero_point=x_zero, out_scale=scale,
            out_zero_point=zero, n_threads=self.threads,
        )

    def _call_conv(self, node, x, source, scale, zero):
        (x_scale, x_zero), = source
        weight, w_scale = qweight(node.w)
        packed = self.primitive.pack_conv_q8(
            weight, w_scale=w_scale, bias=self._bias(node, x_scale, w_scale),
            groups=node.a["groups"],
        )
        low = zero if node.a["act"] else 0
        return self.primitive.conv2d_q8.bind(
            x[0], packed, x_scale=x_scale, x_zero_point=x_zero, out_scale=scale,
            out_zero_point=zero, stride=node.a["s"], padding=node.a["p"], clamp=(low, 255),
            layout="NHWC", n_threads=self.threads,
        )

    def _pair(self, function, x, source, scale, zero):
        (a_scale, a_zero), (b_scale, b_zero) = source
        return function.bind(
            *x, a_scale=a_scale, b_scale=b_scale, out_scale=scale, a_zero_point=a_zero,
            b_zero_point=b_zero, out_zero_point=zero, n_threads=self.threads,
        )

    def _call_add(self, node, x, source, scale, zero):
        return self._pair(self.primitive.add_q8, x, source, scale, zero)

    def _call_mul(self, node, x, source, scale, zero):
        return self._pair(self.primitive.mul_q8, x, source, scale, zero)

    def _call_relu(self, node, x, source, scale, zero):
        return self.primitive.clamp_q8.bind(x[0], zero, 255, n_threads=self.threads)

    def _table(self, layer, x, source, scale, zero):
        params = self.qcy.QuantizationParams
        twin = layer.quantized(params(*source[0]), params(scale, zero))
        return self.primitive.lookup_q8.bind(x[0], twin.table, n_threads=self.threads)

    def _call_sigmoid(self, node, x, source, scale, zero):
        return self._table(self.nn.Sigmoid(), x, source, scale, zero)

    def _call_tanh(self, node, x, source, scale, zero):
        return self._table(self.nn.Tanh(), x, source, scale, zero)

    def _call_maxpool(self, node, x, source, scale, zero):
        return self.primitive.max_pool2d_q8.bind(
            x[0], node.a["k"], stride=node.a["s"], padding=node.a["p"], layout="NHWC",
            n_threads=self.threads,
        )

    def _call_gap(self, node, x, source, scale, zero):
        (x_scale, x_zero), = source
        return self.primitive.avg_pool2d_q8.bind(
            x[0], x[0].shape[1:3], x_scale=x_scale, x_zero_point=x_zero, out_scale=scale,
            out_zero_point=zero, layout="NHWC", n_threads=self.threads,
        )

    def _quantize(self, graph, node):
        scale, zero = qparams_u8(*graph.ranges[node.ins[0]])
        call = self.primitive.quantize_q8.bind(
            make_inputs(graph)[node.ins[0]], scale, zero, n_threads=self.threads
        )
        return call, lambda: (call.out.astype(np.float32) - zero) * np.float32(scale)

    def _dequantize(self, graph, node):
        scale, zero = qparams_u8(*graph.ranges[node.ins[0]])
        codes = quant(make_inputs(graph)[node.ins[0]], scale, zero)
        call = self.primitive.dequantize_q8.bind(codes, scale, zero, n_threads=self.threads)
        return call, lambda: call.out

    def _dyn_dense(self, graph, node):
        weight, w_scale = qweight(node.w)
        packed = self.primitive.pack_q8(np.ascontiguousarray(weight.T), b_scale=w_scale)
        call = self.primitive.gemm_dynamic_q8.bind(
            make_inputs(graph)[node.ins[0]], packed, bias=node.b, n_threads=self.threads
        )
        return call, lambda: call.out

    # ------------------------------------------------------------------------------ whole models

    def _model(self, graph):
        """Float in, float out, through a model that qcy calibrates and quantizes."""
        nodes = []
        for node in graph.nodes:
            nodes += self._layers(node)
        model = self.nn.Model(nodes, inputs=tuple(graph.inputs), outputs=graph.outputs[0])
        data = [nhwc(make_inputs(graph, seed)[graph.inputs[0]]) for seed in range(N_CALIBRATION)]
        quantized = self.nn.quantize_model(model, data, progress=False)
        call = quantized.bind(nhwc(make_inputs(graph)[graph.inputs[0]]), n_threads=self.threads)
        return call, lambda: nchw(call.out)

    def _layers(self, node):
        """Return the layers of one node of the graph: (name, layer, inputs)."""
        nn, act = self.nn, node.a.get("act")
        image = {"layout": "NHWC"}
        if node.op == "dense":
            layer = nn.Dense(np.ascontiguousarray(node.w.T), node.b)
        elif node.op == "conv":
            layer = nn.Conv2D(
                node.w, node.b, stride=node.a["s"], padding=node.a["p"], groups=node.a["groups"],
                **image,
            )
        elif node.op == "add":
            layer = nn.Add()
        elif node.op == "maxpool":
            layer = nn.MaxPool2D(node.a["k"], node.a["s"], node.a["p"], **image)
        elif node.op == "gap":
            layer = nn.GlobalAvgPool2D(**image)
        elif node.op == "flatten":
            layer = nn.Flatten(**image)
        elif node.op == "layernorm":
            layer = nn.LayerNorm(node.w, node.b)
        elif node.op == "attention":
            layer = nn.Attention(node.a["heads"])
        elif node.op == "gelu":
            layer = nn.GELU()
        else:
            raise NotAvailable(f"no layer for {node.op}")
        if act is None:
            return [(node.out, layer, tuple(node.ins))]
        inner = f"{node.out}_before_{act}"
        activation = {"relu": nn.ReLU, "relu6": nn.ReLU6}[act]()
        return [(inner, layer, tuple(node.ins)), (node.out, activation, (inner,))]
