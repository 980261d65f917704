"""What a file says of codes: constants that are codes, and the parameters of tensors.

`tidy` brings quantized files into one form, by steps that change no number: weights that are
quantized as the model runs become codes, equal conversions become one, and what moves constant
codes is done beforehand.
"""

from dataclasses import dataclass

import numpy as np

from qcy.nn.onnx.reader import OnnxNode
from qcy.nn.onnx.simplify import compute
from qcy.nn.operators import OPERATORS
from qcy.tensor.quantization import QuantizationParams

#: What turns reals into codes, and codes into reals.
INTO, FROM = "QuantizeLinear", "DequantizeLinear"
_CODES = (np.dtype(np.uint8), np.dtype(np.int8))


@dataclass(frozen=True)
class Coded:
    """A constant in codes.

    Attributes
    ----------
    codes : array, int8, uint8 or another integer
    scale, zero_point : array
        0-d, one per index of `axis`, or one for each code.
    axis : int or None
    node : OnnxNode
        That turns it into reals.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None
    node: OnnxNode

    def per_channel(self, axis, groups=1):
        """Return scale and zero point: one, or one for each output channel.

        Output channels are the indices of `axis`, in each of the groups that axis 0 has if `axis`
        is another.
        """
        if self.codes.dtype not in _CODES:
            raise ValueError(f"weights must be int8 or uint8, got {self.codes.dtype}")
        parts = self.scale, self.zero_point.astype(np.int32)
        if self.axis is None:
            return parts
        return tuple(self._by_channel(part, axis, groups) for part in parts)

    def _by_channel(self, part, axis, groups):
        """Return one number for each output channel, if that is what the codes have."""
        if part.ndim == 1 and self.axis % self.codes.ndim == axis:
            return np.tile(part, groups)
        part = np.broadcast_to(self._beside(part), self.codes.shape)
        split = part.reshape(groups, part.shape[0] // groups, *part.shape[1:])
        channels = np.moveaxis(split, axis + 1, 1)
        n = groups * channels.shape[1]
        channels = channels.reshape(n, self.codes.size // max(1, n))
        if (channels != channels[:, :1]).any():
            raise ValueError(f"scales must be per index of axis {axis}, got axis {self.axis}")
        return np.ascontiguousarray(channels[:, 0])

    def _beside(self, part):
        """Return scales or zero points in a shape that broadcasts against the codes."""
        if part.ndim != 1:
            return part
        axis = self.axis % self.codes.ndim
        return part.reshape([-1 if i == axis else 1 for i in range(self.codes.ndim)])

    def moved(self, move):
        """Return codes, scales and zero points, one for each code, after what moves all alike."""
        parts = [
            np.ascontiguousarray(np.broadcast_to(self._beside(part), self.codes.shape))
            for part in (self.scale, self.zero_point)
        ]
        return [move(part) for part in (self.codes, *parts)]

    @property
    def params(self):
        """What the codes mean, if one scale says it: QuantizationParams."""
        if self.axis is not None:
            raise ValueError(f"scale must be one number, got shape {self.scale.shape}")
        return QuantizationParams(self.scale, int(self.zero_point), self.codes.dtype)

    def reals(self, graph):
        """Return the reals that the codes stand for."""
        names = [name for name in self.node.inputs[1:] if name]
        return compute(graph, self.node, [self.codes, *(graph.constants[n] for n in names)])[0]


def coded(graph, node):
    """Return the constant that a node turns into reals as codes, or None if it is not so simple."""
    found = [graph.constants.get(name) for name in node.inputs if name]
    if any(x is None for x in found) or len(found) < 2:
        return None
    codes, scale = found[:2]
    zero_point = found[2] if len(found) > 2 else np.zeros(scale.shape, codes.dtype)
    if scale.dtype != np.float32 or scale.shape != zero_point.shape:
        return None
    is_block = node.attributes.get("block_size", 0) > 0
    if scale.shape != codes.shape if is_block else scale.ndim > 1:
        return None
    if scale.size == 1:
        return Coded(codes, scale.reshape(()), zero_point.reshape(()), None, node)
    return Coded(codes, scale, zero_point, node.attributes.get("axis", 1), node)


def stated(graph, scale, zero_point, dtype=None):
    """Return the parameters that two inputs of a node state, or None if they are no constants.

    Parameters
    ----------
    graph : OnnxGraph
    scale, zero_point : str
        Names; "" for a zero point that is left out.
    dtype : dtype, optional
        Of the codes, where no zero point tells it. Default: uint8.
    """
    scale, zero = graph.constants.get(scale), graph.constants.get(zero_point)
    if scale is None or scale.size != 1 or scale.dtype != np.float32 or (zero_point and (
        zero is None or zero.size != 1
    )):
        return None
    zero = np.zeros((), dtype or np.uint8) if zero is None else zero
    if zero.dtype not in _CODES:
        return None
    try:
        return QuantizationParams(scale.reshape(())[()], int(zero.reshape(())), zero.dtype)
    except ValueError:          # a scale that is no normal number
        return None


def params_of(graph, node):
    """Return the parameters of what a node turns into codes or takes as codes, or None."""
    attributes = node.attributes
    if attributes.get("block_size", 0) or attributes.get("precision", 0) not in (0, 1):
        return None
    scale, zero_point = [*node.inputs[1:], ""][:2]
    if node.op == FROM:
        if attributes.get("output_dtype", 0) not in (0, 1):
            return None
        kind = graph.types.get(node.inputs[0])
        return stated(graph, scale, zero_point, None if kind is None else kind.dtype)
    # By their numbers in ONNX.
    dtype = {0: None, 2: np.uint8, 3: np.int8}.get(attributes.get("output_dtype", 0), np.int32)
    return None if dtype is np.int32 else stated(graph, scale, zero_point, dtype)


def tidy(graph):
    """Bring a quantized graph into one form, in place."""
    for node in graph.nodes:
        if node.op in (f"com.microsoft:{INTO}", f"com.microsoft:{FROM}"):
            node.op = node.op.partition(":")[2]
    _merge(graph)
    left = []
    for node in graph.nodes:
        if node.op == INTO and all(name in graph.constants for name in node.inputs if name):
            inputs = [graph.constants[name] if name else None for name in node.inputs]
            graph.constants[node.outputs[0]] = compute(graph, node, inputs)[0]
        else:
            left.append(node)
    graph.nodes = left
    _move_constants(graph)


def _merge(graph):
    """Make one of conversions that are equal."""
    first, instead, left = {}, {}, []
    for node in graph.nodes:
        node.inputs = [instead.get(name, name) for name in node.inputs]
        if node.op in (INTO, FROM):
            key = (node.op, *(_value(graph, name) for name in node.inputs),
                   *sorted(node.attributes.items()))
            if key in first:
                instead[node.outputs[0]] = first[key].outputs[0]
                continue
            first[key] = node
        left.append(node)
    graph.nodes = left
    graph.outputs = [instead.get(name, name) for name in graph.outputs]


def _value(graph, name):
    """Return what makes an input equal to another: its name, or a small constant's value."""
    x = graph.constants.get(name)
    return name if x is None or x.size > 1 else (x.dtype.str, x.shape, x.tobytes())


def _move_constants(graph):
    """Move codes that are constant beforehand, instead of the reals they stand for."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    for i, node in enumerate(graph.nodes):
        source = makers.get(node.inputs[0]) if node.inputs else None
        moves = node.op in OPERATORS and OPERATORS[node.op].kind == "moves"
        if source is None or source.op != FROM or not moves or (
            len(node.outputs) > 1 or node.op == "Pad"
        ):
            continue
        constant = coded(graph, source)
        if constant is None or not all(name in graph.constants for name in node.inputs[1:] if name):
            continue
        graph.nodes[i] = makers[node.outputs[0]] = _moved(graph, node, source, constant)


def _moved(graph, node, source, constant):
    """Return what makes reals of constant codes that are moved; adds its constants."""
    more = [graph.constants[name] if name else None for name in node.inputs[1:]]

    def move(x):
        return compute(graph, node, [x, *more])[0]

    inputs, attributes = [f"{node.name}/codes", *source.inputs[1:]], dict(source.attributes)
    if constant.axis is None:
        graph.constants[inputs[0]] = move(constant.codes)
    else:                           # each code keeps its own: a block of one
        inputs = [f"{node.name}/{part}" for part in ("codes", "scale", "zero_point")]
        graph.constants.update(zip(inputs, constant.moved(move), strict=True))
        attributes |= {"axis": 0, "block_size": 1}
    return OnnxNode(FROM, node.name, inputs, list(node.outputs), attributes, node.covers)
