"""ONNX files as plain graphs: parsed, checked, and nothing in them trusted.

Loading never runs code from a file, never leaves the file's folder, and never allocates more than
the file's size justifies.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import onnx
from onnx import TensorProto

from qcy.nn.graph import TensorType
from qcy.nn.onnx.inference import infer, shape_of

#: The oldest operator set that qcy's operators are brought up from.
OLDEST = 6
#: Domains of operators that qcy knows some of; the default one has two names.
DEFAULT_DOMAINS = ("", "ai.onnx")
#: Subgraphs that run or do not run as the data says.
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
#: NumPy's types by the number of ONNX's; others are refused by name.
DTYPES = {
    TensorProto.FLOAT: np.float32, TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8,
    TensorProto.UINT16: np.uint16, TensorProto.INT16: np.int16, TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64, TensorProto.BOOL: np.bool_, TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64, TensorProto.UINT32: np.uint32, TensorProto.UINT64: np.uint64,
}


@dataclass
class OnnxNode:
    """One operator of a graph.

    Attributes
    ----------
    op : str
        Name; of another domain than ONNX's own as ``"domain:name"``.
    name : str
        Never empty, and no other node's.
    inputs, outputs : list of str
        Tensors; "" is one that is left out.
    attributes : dict
        Numbers, text, tuples of them, and arrays.
    covers : list of str
        Names of the nodes in the file that this one does the work of.
    """

    op: str
    name: str
    inputs: list
    outputs: list
    attributes: dict = field(default_factory=dict)
    covers: list = field(default_factory=list)


@dataclass
class OnnxGraph:
    """A graph of operators as a file has it, its constants as arrays.

    Attributes
    ----------
    path : str
        Of the file, for messages.
    nodes : list of OnnxNode
        In an order in which they can run.
    inputs : dict of str to TensorType
    outputs : list of str
    output_names : list of str
        What the outputs are called outside, whatever becomes of `outputs`.
    constants : dict of str to ndarray
    types : dict of str to TensorType
        Of all tensors, as far as shape inference can tell.
    opsets : dict of str to int
    """

    path: str
    nodes: list
    inputs: dict
    outputs: list
    output_names: list
    constants: dict
    types: dict
    opsets: dict

    @property
    def opset(self):
        """Version of the default domain."""
        return self.opsets.get("", 1)

    def shape(self, name):
        """Return the shape of a tensor as far as it is known, or None."""
        if name in self.constants:
            return self.constants[name].shape
        return self.types[name].shape if name in self.types else None


def read(source, check=None):
    """Return the graph in an ONNX file.

    Parameters
    ----------
    source : str, path-like, bytes or onnx.ModelProto
        Bytes and protocol buffers have no folder: external data is refused.
    check : callable, optional
        Called with the nodes and the path, before anything is inferred.

    Raises
    ------
    OSError
        If the file, or a file with its data, cannot be read.
    ValueError
        If it is no ONNX model, was cut short, names operators, types or an operator set that qcy
        does not know, or contradicts itself; the message says where.
    """
    model, path = _parse(source)
    opsets = _opsets(model, path)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    folder = Path(path).parent if isinstance(source, (str, os.PathLike)) else None
    return _Reader(model, path, folder, opsets).graph(check)


def _parse(source):
    if isinstance(source, onnx.ModelProto):
        return source, source.graph.name or "the model"
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, path = bytes(source), "the data"
    else:
        path = os.fspath(source)
        data = Path(source).read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:          # of protobuf, which is not ours to import
        if type(error).__name__ != "DecodeError":
            raise
        raise ValueError(f"{path} is not an ONNX file, or was cut short: {error}") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ValueError(f"{path} is not an ONNX file: it holds no graph")
    return model, path


def _opsets(model, path):
    """Return the versions of operator sets by domain, checked."""
    opsets = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in DEFAULT_DOMAINS else entry.domain
        opsets[domain] = entry.version
    version = opsets.setdefault("", 1)
    known = onnx.defs.onnx_opset_version()
    if version > known:
        raise ValueError(
            f"{path} is of operator set {version}; the onnx package {onnx.__version__} knows up to "
            f"{known}: a newer one may read it"
        )
    if version < OLDEST and not all(_is_as_at_oldest(n, version) for n in model.graph.node):
        raise ValueError(
            f"{path} is of operator set {version}, older than {OLDEST}: bring it up to date with "
            "onnx.version_converter"
        )
    return opsets


def _is_as_at_oldest(node, version):
    """Whether an operator was at `version` what it is at the oldest version that qcy reads."""
    if node.domain not in DEFAULT_DOMAINS:
        return True
    try:
        found = [onnx.defs.get_schema(node.op_type, v, "") for v in (version, OLDEST)]
    except onnx.defs.SchemaError:       # it was not there
        return False
    return found[0].since_version == found[1].since_version


class _Reader:
    """Takes one model apart."""

    def __init__(self, model, path, folder, opsets):
        self.model, self.path, self.folder, self.opsets = model, path, folder, opsets
        self.names = {value.name for value in model.graph.input}    # which nodes must not have

    def graph(self, check):
        """Return the graph."""
        proto = self.model.graph
        constants = {}
        for tensor in proto.initializer:
            constants[tensor.name] = self.array(tensor, f"initializer {tensor.name!r}")
        if proto.sparse_initializer:
            raise ValueError(f"{self.path} has sparse initializers, which qcy does not read")
        inputs = {
            value.name: self.type(value) for value in proto.input if value.name not in constants
        }
        nodes = [self.node(node, i) for i, node in enumerate(proto.node)]
        if check is not None:
            check(nodes, self.path)
        outputs = [value.name for value in proto.output]
        graph = OnnxGraph(
            self.path, self.in_order(nodes, [*inputs, *constants]), inputs, outputs, [*outputs],
            constants, {}, self.opsets,
        )
        self.check_outputs(graph)
        graph.types = {**self.inferred(), **inputs}
        return graph

    def type(self, value, what="input"):
        """Return what a tensor is, or say that it is none of numbers."""
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in DTYPES:
            raise ValueError(
                f"{self.path}: {what} {value.name!r} must be a tensor of numbers or bool, it is "
                f"{_type_name(value.type)}"
            )
        return TensorType(DTYPES[kind.elem_type], shape_of(kind))

    def node(self, proto, i):
        """Return a node with its attributes as plain values."""
        is_default = proto.domain in DEFAULT_DOMAINS
        op = proto.op_type if is_default else f"{proto.domain}:{proto.op_type}"
        name = proto.name or f"{proto.op_type}_{i}"
        while name in self.names:
            name += "_"
        self.names.add(name)
        attributes = {a.name: self.attribute(a, name) for a in proto.attribute}
        return OnnxNode(op, name, list(proto.input), list(proto.output), attributes, [name])

    def attribute(self, proto, node):
        """Return an attribute's value."""
        if proto.type == onnx.AttributeProto.TENSOR:
            return self.array(proto.t, f"node {node!r}")
        if proto.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            return None                 # of control flow, which is refused by name
        if proto.ref_attr_name:
            raise ValueError(f"{self.path}: node {node!r} refers to an attribute outside functions")
        value = onnx.helper.get_attribute_value(proto)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if proto.type in (
            onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS
        ):
            return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value)
        return value

    def array(self, tensor, where):
        """Return a tensor of the file as an array, if the file holds what it claims."""
        where = f"{self.path}: {where}"
        if tensor.data_type not in DTYPES:
            raise ValueError(f"{where} is of type {_element_name(tensor.data_type)}, which qcy "
                             "does not read")
        dtype = np.dtype(DTYPES[tensor.data_type])
        if any(size < 0 for size in tensor.dims):
            raise ValueError(f"{where} has the shape {tuple(tensor.dims)}, which cannot be")
        n = 1
        for size in tensor.dims:        # Python's integers, which do not overflow
            n *= size
        if tensor.data_location == TensorProto.EXTERNAL:
            data = self.external(tensor, n * dtype.itemsize, where)
        elif tensor.HasField("raw_data"):
            data = tensor.raw_data
            if len(data) != n * dtype.itemsize:
                raise ValueError(
                    f"{where} claims {n} numbers of {dtype} in {tuple(tensor.dims)}, and has "
                    f"{len(data)} bytes"
                )
        else:
            return self.listed(tensor, n, dtype, where)
        stored = np.frombuffer(data, dtype.newbyteorder("<"), n)
        if dtype == np.bool_:
            return (stored.view(np.uint8) != 0).reshape(tuple(tensor.dims))
        return stored.astype(dtype).reshape(tuple(tensor.dims))

    def listed(self, tensor, n, dtype, where):
        """Return a tensor whose numbers stand in a list."""
        name = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        found = len(getattr(tensor, name))
        if found != n:
            raise ValueError(
                f"{where} claims {n} numbers in {tuple(tensor.dims)}, and has {found}"
            )
        return np.array(onnx.numpy_helper.to_array(tensor), dtype)

    def external(self, tensor, n_bytes, where):
        """Return the bytes of a tensor that lie in a file beside the model."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise ValueError(f"{where} is in the file {location!r}, but the model has no folder")
        folder = self.folder.resolve()
        path = (folder / location).resolve()
        if not location or not path.is_relative_to(folder):
            raise ValueError(
                f"{where} is in {location!r}, outside the folder of the model: refused"
            )
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", n_bytes))
        except ValueError as error:
            raise ValueError(f"{where} has an offset or a length that is no number") from error
        if not path.is_file():
            raise FileNotFoundError(f"{where} is in the file {location!r}, which is not there")
        size = path.stat().st_size
        if length != n_bytes or offset < 0 or offset + length > size:
            raise ValueError(
                f"{where} needs {n_bytes} bytes from {offset} of {location!r}, which has {size} "
                f"(the model says {length})"
            )
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def in_order(self, nodes, known):
        """Return the nodes such that each comes after those that make its inputs."""
        known = {"", *known}
        makers = {}
        for node in nodes:
            for name in filter(None, node.outputs):
                if name in makers or name in known:
                    raise ValueError(
                        f"{self.path}: node {node.name!r} makes {name!r}, which is made twice"
                    )
                makers[name] = node
        for node in nodes:
            for name in node.inputs:
                if name not in known and name not in makers:
                    raise ValueError(
                        f"{self.path}: node {node.name!r} takes {name!r}, which nothing makes"
                    )
        ordered, left = [], nodes
        while left:
            later = []
            for node in left:
                if all(name in known for name in node.inputs):
                    ordered.append(node)
                    known.update(node.outputs)
                else:
                    later.append(node)
            if len(later) == len(left):
                raise ValueError(
                    f"{self.path}: the nodes {sorted(n.name for n in later)[:5]} wait for each "
                    "other, the graph has a cycle"
                )
            left = later
        return ordered

    def check_outputs(self, graph):
        """Check that there are outputs, and that something makes them."""
        made = {*graph.inputs, *graph.constants, *(n for node in graph.nodes for n in node.outputs)}
        if not graph.outputs:
            raise ValueError(f"{self.path}: the graph has no output")
        for name in graph.outputs:
            if name not in made:
                raise ValueError(f"{self.path}: nothing makes the output {name!r}")

    def inferred(self):
        """Return the types of all tensors that can be known beforehand."""
        return {value.name: self.type(value, "tensor") for value in infer(self.model, self.path)}


def _element_name(number):
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else number


def _type_name(kind):
    which = kind.WhichOneof("value")
    return _element_name(kind.tensor_type.elem_type) if which == "tensor_type" else which
