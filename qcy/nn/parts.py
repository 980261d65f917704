"""A model that is partly in float, as programs and single layers.

Layers in 8 bits run as programs, as many in each as can be brought together; others one by one.
"""

import numpy as np

from qcy.nn.layers import OperatorQuantized, QuantizedLayer


def is_recorded(node):
    """Whether a layer can be a step of a program."""
    if isinstance(node.layer, OperatorQuantized) and len(node.inputs) > 1:
        return False                    # what comes besides codes is known when it runs
    if not node.inputs:
        return False                    # a constant, which a program takes as an input
    return isinstance(node.layer, QuantizedLayer) and node.layer.IS_RECORDED


def scheduled(model):
    """Return lists of nodes, in an order in which they can run: each is of one kind.

    What can run as a program comes first whenever something is ready, so that few lists do.
    """
    made = set(model.inputs)
    left = list(model.nodes)
    groups, wanted = [], True
    while left:
        group = []
        waiting = []
        for node in left:
            if is_recorded(node) == wanted and made.issuperset(node.inputs):
                group.append(node)
                made.update(node.outputs)
            else:
                waiting.append(node)
        left = waiting
        if group:
            groups.append((wanted, group))
        wanted = not wanted
    return groups


class Parts:
    """The parts of a model.

    Attributes
    ----------
    parts : list of (part, names)
        A `QuantizedModel` of 8-bit layers, or a node; and the tensors that nobody needs after it.
    """

    def __init__(self, model):
        parts = []
        for is_program, nodes in scheduled(model):
            parts += [_part(model, nodes)] if is_program and len(nodes) > 1 else nodes
        last = {}
        for i, part in enumerate(parts):
            for name in (*part.inputs, *part.outputs):
                last[name] = i
        dead = [[] for _ in parts]
        for name, i in last.items():
            if name not in model.outputs:
                dead[i].append(name)
        self.parts = list(zip(parts, dead, strict=True))


def _part(model, nodes):
    """Return a model of some of the nodes: from what they take to what others take of theirs."""
    made = {name for node in nodes for name in node.outputs}
    inputs = dict.fromkeys(name for node in nodes for name in node.inputs if name not in made)
    inside = {node.name for node in nodes}
    wanted = {*model.outputs} | {
        name for node in model.nodes if node.name not in inside for name in node.inputs
    }
    outputs = [name for name in dict.fromkeys(n for node in nodes for n in node.outputs)
               if name in wanted]
    return type(model)(
        nodes, outputs, tuple(inputs), params=model.params, layout=model.layout
    )


def run_part(run, part):
    """Run a part as a program, and enter what it makes into a run of the whole; or say False.

    Parameters
    ----------
    run : QuantizedRun
    part : QuantizedModel
    """
    arrays = [
        run.numbers(name) if name in part.real_inputs else run.as_it_is(name)
        for name in part.inputs
    ]
    arrays = [np.ascontiguousarray(x).reshape(x.shape) for x in arrays]
    compiled = part._compiled(arrays, True)
    if compiled is None:
        return False
    for name, out in zip(part.outputs, compiled.run(arrays), strict=True):
        run.enter(name, out)
    return True
