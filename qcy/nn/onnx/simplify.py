"""Less to run, the same numbers: constants computed, shapes known beforehand, dead ends gone."""

import numpy as np

from qcy.nn.onnx.inference import infer_again
from qcy.nn.onnx.reader import DTYPES
from qcy.nn.onnx.shapes import use_known_shapes
from qcy.nn.operators import OPERATORS

#: Elements up to which a computed constant may be larger than all that it was computed from.
MOST_GROWN = 2**20
#: Rounds in which shapes are inferred with what became known in the one before.
MOST_ROUNDS = 6


def simplify(graph):
    """Simplify a graph in place.

    What depends on constants alone is computed, what passes its input on is taken out, shapes that
    are known replace the nodes that would compute them, and what nobody needs goes.
    """
    remove_dead(graph)
    for _ in range(MOST_ROUNDS):        # each may tell the next more
        left = _computed_shapes(graph)
        use_known_shapes(graph)
        _fold(graph)
        remove_dead(graph)
        if _computed_shapes(graph) in (0, left):
            break
        infer_again(graph, DTYPES)
    _pass_on(graph)
    remove_dead(graph)


def remove_dead(graph):
    """Take out nodes and constants that no output depends on."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(filter(None, node.outputs)):
            kept.append(node)
            node.outputs = [name if name in needed else "" for name in node.outputs]
            needed.update(node.inputs)
    graph.nodes = kept[::-1]
    graph.constants = {name: x for name, x in graph.constants.items() if name in needed}


def _computed_shapes(graph):
    """Return how many nodes ask for shapes, or take one that a run computes."""
    return sum(
        node.op == "Shape" or (node.op == "Reshape" and node.inputs[1] not in graph.constants)
        for node in graph.nodes
    )


def _is_known(shape):
    return shape is not None and all(isinstance(n, int) for n in shape)


def _fold(graph):
    """Compute what depends on constants alone."""
    left = []
    for node in graph.nodes:
        results = _computed(graph, node)
        if results is None:
            left.append(node)
            continue
        graph.constants.update(zip(node.outputs, results, strict=False))
    graph.nodes = left


def _computed(graph, node):
    """Return the outputs of a node whose inputs are all constants, or None."""
    if node.op not in OPERATORS or not node.inputs:
        return None
    if node.op in ("DequantizeLinear", "QuantizeLinear"):       # they say what is in 8 bits
        return None
    if not all(name in graph.constants for name in node.inputs if name):
        return None
    inputs = [graph.constants[name] if name else None for name in node.inputs]
    results = compute(graph, node, inputs)
    read = sum(x.size for x in inputs if x is not None)
    grown = sum(y.size for y in results)
    if grown > max(MOST_GROWN, read) and node.op != "ConstantOfShape":      # weights, in tests
        return None
    return results


def compute(graph, node, inputs):
    """Return a node's outputs for arrays, or say which node refuses them."""
    definition = OPERATORS[node.op]
    attributes = dict(node.attributes)
    if definition.counts_outputs:
        attributes["n_outputs"] = len(node.outputs)
    try:
        results = definition.function(*inputs, **attributes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{graph.path}: node {node.name!r} ({node.op}): {error}") from error
    return [np.asarray(y) for y in (results if isinstance(results, tuple) else (results,))]


def _pass_on(graph):
    """Take out nodes that pass their input on."""
    instead = {}
    left = []
    for node in graph.nodes:
        node.inputs = [instead.get(name, name) for name in node.inputs]
        if _does_nothing(graph, node) and not (
            node.outputs[0] in graph.outputs
            and (node.inputs[0] in graph.inputs or node.inputs[0] in graph.outputs
                 or node.inputs[0] in graph.constants)
        ):
            instead[node.outputs[0]] = node.inputs[0]
        else:
            left.append(node)
    graph.nodes = left
    graph.outputs = [instead.get(name, name) for name in graph.outputs]


#: The number that changes nothing, as the second of two inputs, or either.
_NEUTRAL = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0}


def _is_neutral(graph, node):
    """Whether arithmetic with a number leaves everything as it is, and moves it to the front."""
    value = graph.constants.get(node.inputs[1])
    if value is None and node.op in ("Mul", "Add") and node.inputs[0] in graph.constants:
        value = graph.constants[node.inputs[0]]
        node.inputs.reverse()
    # One number of no more axes than what it meets: it does not broadcast that to another shape.
    if value is None or value.size != 1 or value.reshape(()) != _NEUTRAL[node.op]:
        return False
    shape = graph.shape(node.inputs[0])
    return value.ndim == 0 or (shape is not None and value.ndim <= len(shape))


def _does_nothing(graph, node):
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        return len(node.inputs) < 3 and not any(node.outputs[1:])
    if node.op == "Cast":
        kind = graph.types.get(node.inputs[0])
        made = graph.types.get(node.outputs[0])
        return kind is not None and made is not None and kind.dtype == made.dtype
    if node.op == "Pad":
        pads = graph.constants.get(node.inputs[1])
        return pads is not None and not pads.any()
    if node.op in _NEUTRAL:
        return _is_neutral(graph, node)
    if node.op == "Reshape":
        shapes = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
        return shapes[0] == shapes[1] and _is_known(shapes[0])
    return False
