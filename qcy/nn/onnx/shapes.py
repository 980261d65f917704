"""Shapes that a graph computes, as far as they are known before it runs.

Exporters write the arithmetic of shapes as nodes. Here it is done on lists of numbers and of names
of lengths that only a run tells: what comes out as numbers is a constant, and what a reshape still
has open is copied from its input, or is what is left.
"""

import numpy as np

#: Elements up to which a tensor of integers is taken for a shape.
LONGEST = 64


def use_known_shapes(graph):
    """Replace what is known of the shapes that a graph computes, in place."""
    values = _Values(graph)
    for node in graph.nodes:
        value = values.of_node(node)
        if value is None:
            continue
        values.known[node.outputs[0]] = value
        if all(isinstance(n, int) for n in _flat(value)):
            kind = graph.types.get(node.outputs[0])
            dtype = np.int64 if kind is None else kind.dtype
            graph.constants[node.outputs[0]] = np.array(value, dtype)
    graph.nodes = [n for n in graph.nodes if not all(o in graph.constants for o in n.outputs)]
    for node in graph.nodes:
        if node.op == "Reshape" and node.inputs[1] not in graph.constants:
            target = values.target(node)
            if target is not None:
                name = f"{node.name}/shape"
                graph.constants[name] = np.array(target, np.int64)
                node.inputs[1] = name


def _flat(value):
    return value if isinstance(value, list) else [value]


class _Values:
    """Integers, and names of lengths, in tensors without axes (numbers) or with one (lists)."""

    def __init__(self, graph):
        self.graph = graph
        self.known = {}

    def of(self, name):
        """Return what is in a tensor, or None."""
        if name in self.known:
            return self.known[name]
        x = self.graph.constants.get(name)
        if x is None or x.dtype.kind not in "iu" or x.ndim > 1 or x.size > LONGEST:
            return None
        return x.tolist()

    def of_node(self, node):
        """Return what is in the output of a node, or None if nothing is known of it."""
        rule = getattr(self, f"_{node.op.lower()}", None)
        if rule is None or (node.outputs[0] in self.graph.constants):
            return None
        return rule(node)

    def _shape(self, node):
        shape = self.graph.shape(node.inputs[0])
        if shape is None:
            return None
        shape = [f"{node.inputs[0]}[{i}]" if n is None else n for i, n in enumerate(shape)]
        start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
        return shape[start:end]

    def _size(self, node):
        shape = self.graph.shape(node.inputs[0])
        if shape is None or not all(isinstance(n, int) for n in shape):
            return None
        return int(np.prod(shape, dtype=np.int64))

    def _gather(self, node):
        data, index = self.of(node.inputs[0]), self.of(node.inputs[1])
        if not isinstance(data, list) or index is None or node.attributes.get("axis", 0) not in (
            0, -1
        ):
            return None
        if any(not isinstance(i, int) or not -len(data) <= i < len(data) for i in _flat(index)):
            return None
        return [data[i] for i in index] if isinstance(index, list) else data[index]

    def _slice(self, node):
        data, *parts = (self.of(name) if name else None for name in node.inputs)
        start, end, axes, steps = (*parts, *[None] * (4 - len(parts)))
        if not isinstance(data, list) or axes not in (None, [0], [-1]):
            return None
        if any(not isinstance(x, list) or not isinstance(x[0], int) for x in (start, end)):
            return None
        return data[slice(start[0], end[0], 1 if steps is None else steps[0])]

    def _concat(self, node):
        parts = [self.of(name) for name in node.inputs]
        if not all(isinstance(part, list) for part in parts):
            return None
        return [n for part in parts for n in part]

    def _unsqueeze(self, node):
        value = self.of(node.inputs[0])
        return None if value is None or isinstance(value, list) else [value]

    def _squeeze(self, node):
        value = self.of(node.inputs[0])
        return value[0] if isinstance(value, list) and len(value) == 1 else None

    def _cast(self, node):
        return self.of(node.inputs[0]) if node.attributes.get("to") in (6, 7) else None

    def _identity(self, node):
        return self.of(node.inputs[0])

    def _pairs(self, node, function):
        """Return a function of two numbers, element by element; None if a name is in the way."""
        a, b = self.of(node.inputs[0]), self.of(node.inputs[1])
        if a is None or b is None:
            return None
        numbers = [n for value in (a, b) for n in _flat(value)]
        if not all(isinstance(n, int) for n in numbers):
            return None
        result = function(np.array(a, np.int64), np.array(b, np.int64))
        return None if result is None or result.ndim > 1 else result.tolist()

    def _add(self, node):
        return self._pairs(node, np.add)

    def _sub(self, node):
        return self._pairs(node, np.subtract)

    def _mul(self, node):
        return self._pairs(node, np.multiply)

    def _div(self, node):
        def divide(a, b):
            positive = (a >= 0).all() and (b > 0).all()
            return a // b if positive else None

        return self._pairs(node, divide)

    def target(self, node):
        """Return the shape of a reshape with at most one length that is left, or None."""
        source, value = self.graph.shape(node.inputs[0]), self.of(node.inputs[1])
        shape = self.graph.shape(node.outputs[0])
        if not isinstance(value, list):
            value = None if shape is None else list(shape)
        if value is None or node.attributes.get("allowzero", 0):
            return None
        result = []
        for i, n in enumerate(value):
            if isinstance(n, int):
                result.append(n)
            elif n is not None and source is not None and i < len(source) and source[i] == n:
                result.append(0)                    # as long as before
            else:
                result.append(-1)
        if result.count(-1) > 1 and shape is not None and len(shape) == len(result):
            # What is left may be known by now.
            result = [s if n == -1 and isinstance(s, int) else n
                      for n, s in zip(result, shape, strict=True)]
        is_zero = source is not None and 0 in source
        return None if result.count(-1) > 1 or is_zero else result
