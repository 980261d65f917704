"""A graph of ONNX operators in the making: nodes, constants, and the type of every tensor.

Nodes are written in the newest form of their operator, and the file is of the oldest operator set
in which all of them have it.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qcy import _version

#: The operator set of a file that needs no newer one, and the newest that the package knows.
USUAL, NEWEST = 17, onnx.defs.onnx_opset_version()
#: Operators of onnxruntime beside those of ONNX.
CONTRIB = "com.microsoft"
#: Elements up to which a constant's values are shown to shape inference.
_MOST_SHOWN = 1024
#: The operator set from which on a form means what it means today, where no signature tells.
_SINCE = {
    ("GroupNormalization", None, None): 21, ("Pad", "mode", "wrap"): 19,
    ("Resize", "coordinate_transformation_mode", "half_pixel_symmetric"): 19,
    ("ScatterElements", "reduction", "max"): 18, ("ScatterElements", "reduction", "min"): 18,
    ("ScatterND", "reduction", "max"): 18, ("ScatterND", "reduction", "min"): 18,
}


class Building:
    """Collects nodes and constants.

    Attributes
    ----------
    at : str
        Layer that is being written: its name begins the names of what is added.
    opset : int
        The operator set that the nodes need.
    """

    def __init__(self, reserved):
        self.at = ""
        self.opset = USUAL
        self.inputs, self.nodes = [], []
        self._constants, self._shared, self._types = {}, {}, {}
        self._domains = set()
        self._tensor_names, self._node_names = set(reserved), set()

    # ------------------------------------------------------------------------------- what there is

    def shape(self, name):
        """Return a tensor's shape, of numbers, names and None; or None if it has no known rank."""
        return _shape(self._types.get(name))

    def rank(self, name):
        """Return the number of a tensor's axes, or None if it is not known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def known_rank(self, name):
        """Return the number of a tensor's axes, which must be known."""
        rank = self.rank(name)
        if rank is None:
            raise ValueError("the number of axes must be known; input_shapes can tell")
        return rank

    def dtype(self, name):
        """Return a tensor's dtype, or None if it is not known."""
        kind = self._types[name].tensor_type.elem_type if name in self._types else 0
        return helper.tensor_dtype_to_np_dtype(kind) if kind else None

    # ------------------------------------------------------------------------------- what is added

    def input(self, name, dtype, shape):
        """Add an input of the graph."""
        self._types[name] = _type(dtype, shape)
        self.inputs.append(name)

    def constant(self, array, name=None):
        """Add a constant, and return its name; single numbers of one value are one."""
        array = np.asarray(array)
        key = (array.dtype, array.shape, array.tobytes()) if array.size < 2 else None
        if key in self._shared:
            return self._shared[key]
        name = _free(f"{self.at}/{name}" if name else self.at, self._tensor_names)
        if key is not None:
            self._shared[key] = name
        self._constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        self._types[name] = _type(array.dtype, array.shape)
        return name

    def node(self, op, inputs, *, n_outputs=1, result=None, **attributes):
        """Add a node.

        Parameters
        ----------
        op : str
            Name of the operator, with its domain before a colon if it is not ONNX's own.
        inputs : sequence of str
            Tensors; "" is one that is left out.
        n_outputs : int
        result : (dtype, shape), optional
            Type of the output, where no inference finds it.
        **attributes

        Returns
        -------
        str, or tuple of str for several outputs
        """
        domain, _, op_type = op.rpartition(":")
        inputs = list(inputs)
        while inputs and not inputs[-1]:
            inputs.pop()
        stem = f"{self.at}/{op_type}"
        outputs = [_free(stem, self._tensor_names) for _ in range(n_outputs)]
        proto = onnx.NodeProto(
            op_type=op_type, domain=domain, name=_free(stem, self._node_names), input=inputs,
            output=outputs,
        )
        if domain:
            self._domains.add(domain)
            proto.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        else:
            schema = self._schema(op_type, attributes, inputs)
            proto.attribute.extend(
                _attribute(k, v, schema.attributes[k].type) for k, v in attributes.items()
            )
            self._types.update(self._types_after(schema, proto))
        if result is not None:
            self._types[outputs[0]] = _type(*result)
        self.nodes.append(proto)
        return outputs[0] if n_outputs == 1 else tuple(outputs)

    def inferred_shape(self, op, inputs, **attributes):
        """Return the shape that an operator of float32 would make of these inputs, or None."""
        proto = helper.make_node(op, inputs, ["y"], **attributes)
        floats = {name: _type(np.float32, self.shape(name)) for name in inputs}
        found = _inferred(onnx.defs.get_schema(op, self.opset), proto, floats, {})
        return _shape(found.get("y"))

    def _types_after(self, schema, proto):
        """Return the types of a node's outputs, as far as they follow from its inputs'."""
        names = [name for name in proto.input if name]
        if any(name not in self._types for name in names):
            return {}
        shown = {
            name: self._constants[name] for name in names
            if name in self._constants and np.prod(self.shape(name)) <= _MOST_SHOWN
        }
        return _inferred(schema, proto, {name: self._types[name] for name in names}, shown)

    def _schema(self, op, attributes, inputs):
        """Return the oldest form of an operator that fits, and note its operator set."""
        least = max(
            since for (name, key, value), since in [((op, None, None), USUAL), *_SINCE.items()]
            if name == op and (key is None or attributes.get(key) == value)
        )
        for version in range(least, NEWEST + 1):
            try:
                schema = onnx.defs.get_schema(op, version, "")
            except onnx.defs.SchemaError:
                continue
            if self._fits(schema, attributes, inputs):
                self.opset = max(self.opset, version)
                return schema
        raise ValueError(
            f"no operator set up to {NEWEST} has {op} of {[str(self.dtype(n)) for n in inputs]} "
            f"with the attributes {sorted(attributes)}"
        )

    def _fits(self, schema, attributes, inputs):
        if schema.deprecated or not set(attributes) <= set(schema.attributes):
            return False
        if not schema.min_input <= len(inputs) <= schema.max_input:
            return False
        formals = schema.inputs
        return all(
            _type_name(self.dtype(name)) in formals[min(i, len(formals) - 1)].types
            for i, name in enumerate(inputs) if name in self._types
        )

    # ---------------------------------------------------------------------------------- the outcome

    def proto(self, outputs, names):
        """Return the model: `outputs` are tensors, `names` what they are called in the file."""
        made = {name for node in self.nodes for name in node.output}
        final = {}
        for i, (tensor, name) in enumerate(zip(outputs, names, strict=True)):
            if name in names[:i]:
                raise ValueError(f"output_names must differ, got {name!r} twice")
            if name in self.inputs and name != tensor:
                raise ValueError(f"output_names must not be those of inputs, got {name!r}")
            if name in self.inputs:
                continue
            if tensor not in made or tensor in final:
                tensor = self.node("Identity", [tensor])
            final[tensor] = name
        for node in self.nodes:
            for side in (node.input, node.output):
                side[:] = [final.get(name, name) for name in side]
        types = {final.get(name, name): kind for name, kind in self._types.items()}
        for name in names:
            if _shape(types.get(name)) is None:
                raise ValueError(
                    f"the number of axes of output {name!r} must be known; input_shapes can tell"
                )
        graph = helper.make_graph(
            self.nodes, "qcy", [_info(name, types) for name in self.inputs],
            [_info(name, types) for name in names], list(self._constants.values()),
            value_info=[
                _info(name, types) for node in self.nodes for name in node.output
                if name in types and name not in names
            ],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version = helper.find_min_ir_version_for(opsets)
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self._domains)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version, producer_name="qcy",
            producer_version=_version.VERSION,
        )

    def call(self, tensor, name=None):
        """Name a node after the layer, and its output too, if that is free and nobody takes it yet.

        Returns
        -------
        str
            What the output is called now.
        """
        name = self.at if name is None else name
        node = next((n for n in reversed(self.nodes) if tensor in n.output), None)
        if node is None:
            return tensor
        if self.at not in self._node_names:
            self._node_names.add(self.at)
            node.name = self.at
        if name in self._tensor_names:
            return tensor
        self._tensor_names.add(name)
        node.output[list(node.output).index(tensor)] = name
        if tensor in self._types:
            self._types[name] = self._types.pop(tensor)
        return name


def _inferred(schema, proto, types, constants):
    """Return the types of a node's outputs that follow from its inputs' types, by name."""
    try:
        return onnx.shape_inference.infer_node_outputs(schema, proto, types, constants)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        shapes = ", ".join(str(_shape(kind)) for kind in types.values())
        raise ValueError(f"{proto.op_type} does not take {shapes}: {error}") from error


def _free(wanted, taken):
    """Return a name that is not taken, and take it."""
    name, n = wanted, 1
    while name in taken:
        n += 1
        name = f"{wanted}_{n}"
    taken.add(name)
    return name


def _shape(kind):
    """Return the shape in a type: numbers, names and None; or None if it has none."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in kind.tensor_type.shape.dim
    )


def _type(dtype, shape):
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _type_name(dtype):
    """Return a dtype as ONNX's schemas have it."""
    names = {"float32": "float", "float64": "double"}
    return f"tensor({names.get(dtype.name, dtype.name)})"


def _info(name, types):
    info = onnx.ValueInfoProto(name=name)
    info.type.CopyFrom(types[name])
    return info


def _attribute(name, value, kind):
    """Return an attribute of the type that the operator gives it."""
    number = int(getattr(onnx.AttributeProto, kind.name))
    if kind.name == "TENSOR":
        value = np.asarray(value)
        narrow = {"f": np.float32, "i": np.int64}.get(value.dtype.kind, value.dtype)
        value = numpy_helper.from_array(value.astype(narrow))
    elif kind.name == "FLOAT":
        value = float(value)
    elif kind.name == "FLOATS":
        value = [float(x) for x in value]
    return helper.make_attribute(name, value, attr_type=number)
