"""Quantized files as 8-bit models: operators between DequantizeLinear and QuantizeLinear in 8 bits.

What moves codes, or clamps them at 0, does to codes what it does to reals. What lies between reals
that are codes and a QuantizeLinear becomes its 8-bit twin, with the file's own codes for weights.
Everything else stays in float, with conversions where kinds meet; and where a file does with codes
what qcy cannot follow, all of it does, by the operators themselves.
"""

import numpy as np

from qcy import _version
from qcy.nn.graph import Node
from qcy.nn.layers import (
    Constant, ConstantQuantized, IdentityQuantized, Operator, Quantize, QuantizedLayer, ReLU, ReLU6,
    TableQuantized,
)
from qcy.nn.layers.base import activation_clamp
from qcy.nn.onnx.coded import FROM, INTO, coded, params_of, tidy
from qcy.nn.onnx.convert import Builder
from qcy.nn.onnx.products import PRODUCTS
from qcy.nn.onnx.simplify import compute
from qcy.nn.onnx.twins import MOVING, all_codes, exact_table, moved, rounded
from qcy.nn.operators import OPERATORS
from qcy.nn.quantized_model import QuantizedModel
from qcy.nn.selection import codes_in

#: Operators to which the codes of a tensor are as good as its numbers.
OF_ORDER = ("ArgMax", "ArgMin", "Shape", "Size")


def to_quantized_model(graph):
    """Return the 8-bit model of a quantized graph in its newest form.

    Returns
    -------
    QuantizedModel or None
        None if nothing becomes 8 bits, or the graph does with codes what only its operators can.
        Then what it does to constants alone is done.
    """
    tidy(graph)
    builder = CodeBuilder(graph)
    if all(builder.convert(node) for node in graph.nodes) and any(
        isinstance(node.layer, QuantizedLayer) for node in builder.nodes
    ):
        return builder.model()
    for node in graph.nodes:
        if node.op == FROM and all(name in graph.constants for name in node.inputs if name):
            inputs = [graph.constants[name] if name else None for name in node.inputs]
            graph.constants[node.outputs[0]] = compute(graph, node, inputs)[0]
    graph.nodes = [node for node in graph.nodes if node.outputs[0] not in graph.constants]
    return None


class CodeBuilder(Builder):
    """Collects the layers of a model that has codes.

    Attributes
    ----------
    params : dict of str to QuantizationParams
        Of the model's tensors that are codes.
    codes, reals : set of str
        Tensors of the graph that are codes; and those that are the reals they stand for.
    constants : dict of str to Coded
        The graph's reals that are constant codes.
    why : dict of str to str
        Why layers are in float, by their names.
    """

    def __init__(self, graph):
        super().__init__(graph)
        self.params, self.constants = {}, {}
        self.codes, self.reals = set(), set()
        self.in_float = False           # whether constants are wanted as reals
        self.why = {}
        self.done = set()               # of nodes, by their `id`, whose work others do
        self._takers = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._takers.setdefault(name, []).append(node)
            if node.op == FROM and all(name in graph.constants for name in node.inputs if name):
                self._take_constant(node)
        for name, kind in graph.inputs.items():
            params = self.stated_by_takers(name)
            if params is not None and params.dtype == kind.dtype:
                self.codes.add(name)
                self.params[name] = params

    def _take_constant(self, node):
        """Take in reals that are constant: as codes, if they are that simple."""
        found = coded(self.graph, node)
        if found is not None:
            self.constants[node.outputs[0]] = found
        else:
            inputs = [self.graph.constants.get(name) for name in node.inputs]
            self.graph.constants[node.outputs[0]] = compute(self.graph, node, inputs)[0]
        self.done.add(id(node))

    def stated_by_takers(self, name):
        """Return what those who take an input say of its codes, or None if they say nothing.

        That all say the same is found out later.
        """
        from qcy.nn.onnx.qlinear import stated_of

        for node in self._takers.get(name, []):
            if node.op == FROM:
                params = params_of(self.graph, node)
            elif node.op in ("Clip", "Concat") or (_moves(node) and node.inputs[0] == name):
                params = self.stated_by_takers(node.outputs[0])
            else:
                params = stated_of(self, node, name)
            if params is not None:
                return params
        return None

    # ------------------------------------------------------------------------------ what is asked

    def constant(self, name, dtype=None):
        """Return a constant input; of one in codes the reals, if they are wanted."""
        if self.in_float and name in self.constants and name not in self.graph.constants:
            self.graph.constants[name] = self.constants[name].reals(self.graph)
        if not self.in_float and name in self.constants:
            return None
        return super().constant(name, dtype)

    def tensor(self, name):
        """Return what a tensor of the graph is called in the model."""
        if name not in self.constants or self.in_float:
            return super().tensor(name)
        name_in_codes = f"{name}/codes"
        if name_in_codes not in self._tensors:
            constant = self.constants[name]
            self._tensors[name_in_codes] = self.constant_codes(
                name, constant.codes, constant.params
            )
        return self._tensors[name_in_codes]

    def is_float(self, name):
        """Whether a tensor is float32, or codes of it."""
        is_coded = name in self.codes or name in self.reals or name in self.constants
        return is_coded or super().is_float(name)

    def params_of(self, name):
        """Return the parameters of a tensor of the graph that is codes, or reals of codes."""
        return self.params[self.tensor(name)]

    def only_taker(self, name, *ops):
        """Return the only node that takes a tensor, if it is one of these operators."""
        takers = self._takers.get(name, [])
        if len(takers) != 1 or name in self.graph.outputs or takers[0].op not in ops:
            return None
        return takers[0]

    # ------------------------------------------------------------------------------ what is added

    def constant_codes(self, name, codes, params):
        """Add constant codes; return what they are called in the model."""
        made = self.insert(name, ConstantQuantized(codes, params), ())
        self.params[made] = params
        return made

    def add_codes(self, node, layer, inputs, before=None, after=None):
        """Add the 8-bit layer of a node, and one or none that comes before it, and after.

        Parameters
        ----------
        node : OnnxNode
        layer, before, after : QuantizedLayer
        inputs : sequence of str
            By their names in the model.

        Returns
        -------
        bool
            True.
        """
        if before is not None:
            inputs = [self.insert(f"{node.name}/in", before, inputs)]
            self.params[inputs[0]] = before.out_params
        made = Node(node.name, layer, inputs, node.covers)
        self.nodes.append(made)
        tensor = made.name
        self.params[tensor] = layer.out_params
        if after is not None:
            tensor = self.insert(f"{node.name}/out", after, [tensor])
            self.params[tensor] = after.out_params
        self._tensors[node.outputs[0]] = tensor
        return True

    def layer_of(self, node):
        """Return the layer that a node would become in float, or None if it would be several."""
        nodes, tensors = list(self.nodes), dict(self._tensors)
        self.add_node(node)
        made = self.nodes[len(nodes):]
        self.nodes, self._tensors = nodes, tensors
        return made[0].layer if len(made) == 1 else None

    def same(self, name, other, kind):
        """Let a tensor of the graph be another one of the model; `kind` is `codes` or `reals`."""
        self._tensors[name] = self.tensor(other)
        kind.add(name)
        return True

    # ------------------------------------------------------------------------------ node by node

    def convert(self, node):
        """Add what does the work of a node; return False if that cannot be.

        Then it takes codes for what they are not.
        """
        from qcy.nn.onnx.qlinear import QLINEAR, rows

        if id(node) in self.done:
            return True
        if node.op == INTO and params_of(self.graph, node) is not None:
            return self._into_codes(node)
        if node.op == FROM:
            return self._into_reals(node)
        if node.op == "Gather" and self._attempt(lambda: rows(self, node)):
            return True
        if any(name in self.codes for name in node.inputs):
            if node.op in QLINEAR:
                return self._attempt(lambda: QLINEAR[node.op](self, node))
            return self._on_codes(node)
        if any(name in self.reals or name in self.constants for name in node.inputs):
            moves = _moves(node) or node.op in ("Dropout", "Relu")
            if moves and self._attempt(
                lambda: self.moved(node, (*MOVING, ReLU)), self.reals, node
            ):
                return True
            if self._attempt(lambda: self._rounded(node)):
                return True
        return self._plain(node)

    def _plain(self, node):
        """Add a node in float."""
        self.in_float = True
        self.add_node(node)
        self.in_float = False
        self.why[node.name] = "the file has it in float"
        return True

    def _into_codes(self, node):
        """Convert a QuantizeLinear that no layer before it has done."""
        name, params = node.inputs[0], params_of(self.graph, node)
        if not self.is_float(name):
            return self._plain(node)
        self.codes.add(node.outputs[0])
        if name not in self.reals:
            return self.add_codes(node, Quantize(params), [self.tensor(name)])
        source = self.params_of(name)
        if source == params:
            return self.same(node.outputs[0], name, self.codes)
        table = TableQuantized(exact_table(None, source, params), source, params)
        return self.add_codes(node, table, [self.tensor(name)])

    def _into_reals(self, node):
        """Convert a DequantizeLinear."""
        name = node.inputs[0]
        if name not in self.codes:
            return self._plain(node)
        return params_of(self.graph, node) == self.params_of(name) and (
            self.same(node.outputs[0], name, self.reals)
        )

    def _on_codes(self, node):
        """Convert an operator that takes codes themselves."""
        if node.op in OF_ORDER:
            return self._plain(node)
        if any(name in self.codes for name in node.inputs[1:]):
            return False
        return self._attempt(lambda: self.moved(node, MOVING), self.codes, node)

    # ------------------------------------------------------------------------------- operators

    def _attempt(self, function, kind=None, node=None):
        """Call what adds layers; if it cannot, what it added is taken back, and it is False.

        If it could, the node's outputs are of a kind.
        """
        nodes, tensors, params = list(self.nodes), dict(self._tensors), dict(self.params)
        try:
            if function():
                if kind is not None:
                    kind.update(filter(None, node.outputs))
                return True
        except (KeyError, TypeError, ValueError):
            pass
        self.nodes, self._tensors, self.params = nodes, tensors, params
        return False

    def moved(self, node, moving):
        """Do to codes what a node does to their reals, if it only moves them."""
        return self._twins(node, lambda layer, params: moved(layer, params, moving))

    def _twins(self, node, twin):
        """Add the layers of a node, each as its twin."""
        n_before = len(self.nodes)
        self.add_node(node)
        made, self.nodes = self.nodes[n_before:], self.nodes[:n_before]
        for one in made:
            if type(one.layer) is Constant and one.layer.value.dtype != np.float32:
                self.nodes.append(one)      # numbers: indices, a shape
                continue
            if not isinstance(one.layer, QuantizedLayer):
                layer = one.layer.with_layout("NHWC")
                found = twin(layer, [self.params[name] for name in codes_in(one)])
                one = Node(one.name, found, one.inputs, one.covers)
            self.nodes.append(one)
            for name in one.outputs:
                self.params[name] = one.layer.out_params
        return True

    def _rounded(self, node):
        """Compute a node in 8 bits, if it takes codes and is quantized at once."""
        chain = self._chain(node)
        if chain is None:
            return False
        bias, activation, last = chain
        params = params_of(self.graph, last)
        fused, function = self._activation(activation, params)
        covers = [name for n in (node, bias, activation) if n is not None for name in n.covers]
        if node.op in PRODUCTS:
            is_active = PRODUCTS[node.op](self, node, params, fused, bias)
        else:
            self._twins(node, lambda layer, given: rounded(layer, given, params, fused))
            is_active = hasattr(self.nodes[-1].layer, "activation")
        if fused and not is_active:
            function = ReLU() if fused == "relu" else ReLU6()
        tensor = self.tensor(node.outputs[0])
        if self.params[tensor] != params:
            raise ValueError(f"{node.op} must give codes of {params}, got {self.params[tensor]}")
        self.nodes = [
            Node(n.name, n.layer, n.inputs, covers) if n.name == node.name else n
            for n in self.nodes
        ]
        if function is not None:
            table = TableQuantized(exact_table(function, params, params), params, params)
            tensor = self.insert(f"{node.name}/clipped", table, [tensor])
            self.params[tensor] = params
        self._tensors[last.outputs[0]] = tensor
        self.codes.add(last.outputs[0])
        self.done.update(id(n) for n in (bias, activation, last) if n is not None)
        return True

    def _chain(self, node):
        """Return who adds a bias to a node's output, who clips it and who quantizes it, or None."""
        if any(node.outputs[1:]):
            return None
        bias = self.only_taker(node.outputs[0], "Add") if node.op == "MatMul" else None
        if bias is not None and not any(
            name in self.graph.constants or name in self.constants for name in bias.inputs
        ):
            bias = None
        activation = self.only_taker((bias or node).outputs[0], "Relu", "Clip")
        last = self.only_taker((activation or bias or node).outputs[0], INTO)
        if last is None or params_of(self.graph, last) is None:
            return None
        return bias, activation, last

    def _activation(self, node, params):
        """Return what a node does to codes: a fused activation's name, and a layer that does it."""
        if node is None:
            return None, None
        if node.op == "Relu":
            return "relu", None
        limits = [self.constant(name, np.float32) if name else None for name in node.inputs[1:]]
        if any(limit is None for limit, name in zip(limits, node.inputs[1:], strict=True) if name):
            raise ValueError("limits must be constants")
        layer = Operator("Clip", constants={
            i: limit for i, limit in enumerate(limits, 1) if limit is not None
        }, absent=[i for i, name in enumerate(node.inputs) if not name])
        table = exact_table(layer, params, params)
        for name in (None, "relu", "relu6"):
            clamped = np.clip(all_codes(params), *activation_clamp(name, params))
            if np.array_equal(clamped, table):
                return name, None
        return None, layer

    # --------------------------------------------------------------------------------- the model

    def model(self):
        """Return the model."""
        self.in_float = True
        outputs, coded_outputs = [], []
        for name in self.graph.outputs:
            tensor = self.tensor(name)
            if name in self.codes:
                params = self.params[tensor]
                if any(self.tensor(other) == tensor for other in self.graph.outputs
                       if other not in self.codes) or tensor in coded_outputs:
                    tensor = self.insert(
                        f"{tensor}/codes", IdentityQuantized(params, params), [tensor]
                    )
                    self.params[tensor] = params
                coded_outputs.append(tensor)
            outputs.append(tensor)
        self._quantize_at_the_door(outputs)
        return QuantizedModel(
            self.nodes, outputs, list(self.graph.inputs), params=self.params,
            coded_outputs=coded_outputs, input_types=self.graph.inputs,
            output_names=self.graph.output_names, manifest={
                "source": "ONNX", "opsets": self.graph.opsets, "float": self.why,
                "versions": {"qcy": _version.VERSION, "numpy": np.__version__},
            },
        )

    def _quantize_at_the_door(self, outputs):
        """Take out layers that quantize an input for 8-bit layers alone: the model does it."""
        takers = {}
        for node in self.nodes:
            for name in node.inputs:
                takers.setdefault(name, []).append(node)
        instead = {}
        for node in self.nodes:
            if type(node.layer) is Quantize and node.inputs[0] in self.graph.inputs and (
                len(takers[node.inputs[0]]) == 1 and node.name not in outputs
                and node.inputs[0] not in outputs and takers.get(node.name)
                and all(isinstance(t.layer, QuantizedLayer) for t in takers[node.name])
            ):
                instead[node.name] = node.inputs[0]
                self.params[node.inputs[0]] = node.layer.out_params
        self.nodes = [
            Node(n.name, n.layer, [instead.get(name, name) for name in n.inputs], n.covers)
            for n in self.nodes if n.name not in instead
        ]


def _moves(node):
    """Whether what an operator gives may be numbers of its first input, in other places."""
    return node.op in ("MaxPool", "Resize") or (
        node.op in OPERATORS and OPERATORS[node.op].kind == "moves"
    )
