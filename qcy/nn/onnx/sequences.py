"""Sequences as images of one row: the axis that a layer takes away and the next adds again, goes.

A squeeze moves behind functions that work element by element, until it meets what undoes it.
"""

from qcy.nn.graph import Node
from qcy.nn.layers import Operator


def joined(nodes, outputs):
    """Return nodes that do the same with fewer squeezes.

    Parameters
    ----------
    nodes : sequence of Node
    outputs : collection of str
        Tensors that must keep their shapes.
    """
    chain = _Nodes(nodes, outputs)
    for name in [node.name for node in nodes if _is(node, "Squeeze")]:
        if name not in outputs:
            while chain.sink(name):
                pass
    return list(chain.nodes.values())


class _Nodes:
    """Nodes by name, in their order."""

    def __init__(self, nodes, outputs):
        self.nodes = {node.name: node for node in nodes}
        self.outputs = outputs

    def takers(self, name):
        return [node for node in self.nodes.values() if name in node.inputs]

    def rename(self, old, new):
        """Let all who take one tensor take another."""
        for node in self.takers(old):
            inputs = [new if name == old else name for name in node.inputs]
            self.nodes[node.name] = Node(node.name, node.layer, inputs, node.covers)

    def sink(self, name):
        """Take a squeeze a step down; return whether it may go further."""
        squeeze = self.nodes[name]
        for taker in self.takers(name):
            if _is(taker, "Unsqueeze") and taker.name not in self.outputs and (
                taker.layer.constants == squeeze.layer.constants
            ):
                del self.nodes[taker.name]
                self.rename(taker.name, squeeze.inputs[0])
        takers = self.takers(name)
        if not takers:
            del self.nodes[name]
            return False
        after = takers[0]
        if len(takers) > 1 or len(after.inputs) > 1 or not after.layer.IS_POINTWISE or (
            after.name in self.outputs
        ):
            return False
        # after(squeeze(x)) becomes squeeze(after(x)), each in the place of the other.
        self.rename(after.name, name)
        first = Node(after.name, after.layer, squeeze.inputs, after.covers)
        then = Node(name, squeeze.layer, [after.name], squeeze.covers)
        swapped = {name: first, after.name: then}
        self.nodes = {
            node.name: node
            for node in (swapped.get(key, old) for key, old in self.nodes.items())
        }
        return True


def _is(node, op):
    return type(node.layer) is Operator and node.layer.op == op
