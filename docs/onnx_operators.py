"""Writes the page of ONNX operators: what qcy does with each, and ONNX's own tests of it.

    python docs/onnx_operators.py

The first table comes from the code; the second depends on the version of the onnx package.
"""

import re
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from qcy.nn import layers
from qcy.nn.layers.operator import BINARY
from qcy.nn.onnx import layers as translators
from qcy.nn.onnx.backend import QcyBackend
from qcy.nn.onnx.layers import PAIRS, TRANSLATE
from qcy.nn.onnx.qlinear import QLINEAR
from qcy.nn.operators import OPERATORS
from qcy.nn.selection import PRODUCTS, has_twin

PAGE = Path(__file__).with_name("onnx-operators.md")
#: What stands between the part of the page that comes from the code and the rest.
BORDER = "## ONNX's own tests"
#: What is added to a test's tolerance for float16: two steps of its mantissa.
HALF = 2.0**-9
HEAD = """# ONNX operators

What `docs/onnx_operators.py` finds in the code. `qcy.load` reads files of these {n} operators; a
file with others is refused, with their names. All of them run in float: as the layer that is named,
or as the operator itself, by NumPy. What they are in 8 bits:

- **product**: exact sums of codes with constant weights, one rounding.
- **layer**: a layer of its own in 8 bits; which one depends on the operator's attributes, and on
  what is constant.
- **table**: a function of one number, as 256 entries; "with a number" where one of two inputs is
  constant.
- **moves**: codes move as numbers do.
- **codes**: an operator of quantized files, with the file's own codes and scales.
- **conversion**: between numbers and codes. A layer beside it does it on the way where that gives
  the same codes.
- **rows**: 8-bit weights, and inputs that are quantized row by row as they come.

Where nothing is said the operator stays in float, with conversions around it.

"""


def layers_of(op):
    """Return the layers that an operator may become: those that its translator names."""
    found, left, seen = set(), [TRANSLATE.get(op)], set()
    while left:
        function = left.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        for name in function.__code__.co_names:
            value = getattr(translators, name, None)
            if isinstance(value, type) and issubclass(value, layers.Layer):
                found.add(value)
            elif callable(value) and getattr(value, "__module__", "") == translators.__name__:
                left.append(value)
    return (found | {PAIRS[op]} if op in PAIRS else found) - {layers.Operator}


def in_8_bits(op):
    """Return what an operator is in 8 bits, as text."""
    if op.rpartition(":")[2] in ("QuantizeLinear", "DequantizeLinear"):
        return "conversion"
    found = layers_of(op)
    products = sorted(kind.__name__ for kind in found if kind in PRODUCTS)
    others = sorted(
        kind.__name__ for kind in found
        if kind not in PRODUCTS and kind.quantized is not layers.Layer.quantized
    )
    by_rows = sorted(
        kind.__name__ for kind in found
        if kind.quantized is layers.Layer.quantized and hasattr(kind, "dynamic")
    )
    parts = [f"{what}: {', '.join(names)}" for what, names in (
        ("product", products), ("layer", others), ("rows", by_rows)
    ) if names]
    if OPERATORS[op].kind == "table":
        parts.append("table")
    elif op in BINARY:
        parts.append("table with a number")
    elif has_twin(layers.Operator(op)):
        parts.append("moves")
    if op in QLINEAR and ("QLinear" in op or "QGemm" in op):
        parts.append("codes")
    return "; ".join(parts)


def table(head, rows):
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def from_code():
    """Return the part of the page that comes from the code."""
    rows = []
    for op in sorted(OPERATORS, key=lambda name: (":" in name, name)):
        kinds = ", ".join(sorted(kind.__name__ for kind in layers_of(op))) or "operator"
        rows.append([op, kinds, in_8_bits(op)])
    return HEAD.format(n=len(OPERATORS)) + table(["operator", "in float", "in 8 bits"], rows) + "\n"


def outcome(case):
    """Run a test; return "" if it passes, or why it is refused."""
    try:
        prepared = QcyBackend.prepare(case.model)
        for data in case.data_sets:
            inputs, wanted = (
                [onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x
                 for x in part] for part in data
            )
            is_half = any(x.dtype == np.float16 for x in wanted)
            Runner.assert_similar_outputs(
                wanted, prepared.run(inputs), case.rtol + HALF * is_half, case.atol
            )
    except ValueError as error:
        kind = re.search(r"it is (\w+)$", str(error))
        if kind:
            return kind[1].lower()
        return "training" if re.search("training|inference", str(error)) else "no input"
    return ""


def from_tests():
    """Return the part of the page that depends on the onnx package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    passed, refused, several = Counter(), defaultdict(Counter), Counter()
    for case in cases:
        ops = {
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
            for node in case.model.graph.node
        }
        if not ops <= {*OPERATORS, "Constant"}:
            continue
        why = outcome(case)
        if len(ops) > 1 or "Constant" in ops:
            several["refused" if why else "passed"] += 1
            continue
        [op] = ops
        if why:
            refused[op][why] += 1
        else:
            passed[op] += 1
    rows = []
    for op in sorted({*passed, *refused}):
        why = ", ".join(sorted(refused[op]))
        rows.append([op, passed[op], sum(refused[op].values()) or "", why])
    domain = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    gone = {"Constant", "Upsample", "Scatter"}         # which a file may have all the same
    missing = ", ".join(sorted(domain - set(OPERATORS) - gone))
    n_refused = sum(sum(counts.values()) for counts in refused.values())
    text = (
        f"With onnx {onnx.__version__}, operator sets up to {onnx.defs.onnx_opset_version()}; "
        "`tests/nn/test_onnx_backend.py` runs them all.\n"
        f"{sum(passed.values())} tests of one operator pass, {n_refused} are refused by name: of "
        "types that qcy does not have,\nor of training. Of graphs of these operators, into which "
        f"ONNX takes functions apart,\n{several['passed']} pass, {several['refused']} are refused."
    )
    rows = table(["operator", "passed", "refused", "of what"], rows)
    return f"{BORDER}\n\n{text}\n\n{rows}\nNot there: {missing}.\n"


def main():
    """Write the page."""
    PAGE.write_text(from_code() + from_tests(), encoding="utf-8")


if __name__ == "__main__":
    main()
