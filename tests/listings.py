"""Instructions as objdump or a compiler prints them: hot loops, and what goes to the stack there.

A hot loop is the innermost one around a multiply-add of codes.
"""

import re

LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{\w+\} )?(\S+)\s*(.*)$")
LABEL = re.compile(r"^([\w.]+):")
LOCAL = re.compile(r"\.L\w+")
WRITTEN = re.compile(r"^\t([a-z][\w.]*)\t*(.*)$")
MULTIPLY_ADD = re.compile(r"v?pdpbusd|v?pmaddwd|[us]{1,2}dot|s[um]lal2?|smull2?")
JUMP = re.compile(r"(?:j[a-z]+|b\.\w+|b|cbn?z|tbn?z)$")
TARGET = re.compile(r"\b([0-9a-f]+) <")
VECTOR = re.compile(r"%[xyz]mm\d|\b[qvd]\d+\b")
STACK = re.compile(r"\(%[re]sp|\[sp")
FRAME = re.compile(r"\(%rbp\)|\[x29[,\]]")
WRITES_FRAME = re.compile(r"(?:%rbp$|^x29,)")


def instructions(listing):
    """Return (address, mnemonic, operands) of what objdump printed."""
    matches = (LINE.match(line.split("#")[0]) for line in listing.splitlines())
    return [(int(m[1], 16), m[2], m[3].strip()) for m in matches if m]


def functions(assembly):
    """Return {name: instructions} of what a compiler wrote; an address is a running number."""
    found, labels, code, address = {}, {}, [], 0
    for line in assembly.splitlines():
        line = line.split("//")[0].rstrip()
        if label := LABEL.match(line):
            labels[label[1]] = address
            if not label[1].startswith("."):
                code = found[label[1]] = []
        elif written := WRITTEN.match(line):
            code.append((address, written[1], written[2]))
            address += 1

    def as_objdump_would(label):
        return f"{labels[label[0]]:x} <{label[0]}>" if label[0] in labels else label[0]

    return {
        name: [(address, mnemonic, LOCAL.sub(as_objdump_would, operands))
               for address, mnemonic, operands in code]
        for name, code in found.items() if code
    }


def hot_loops(code):
    """Return the innermost loops that multiply bytes, each as a list of instructions."""
    where = {address: i for i, (address, _, _) in enumerate(code)}
    loops = []
    for last, (address, name, operands) in enumerate(code):
        target = TARGET.search(operands) if JUMP.match(name) else None
        first = where.get(int(target[1], 16), last + 1) if target else last + 1
        if first <= last and any(MULTIPLY_ADD.match(code[i][1]) for i in range(first, last)):
            assert address >= code[first][0]
            loops.append((first, last))
    return [
        code[first : last + 1]
        for first, last in loops
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops)
    ]


def spills(loop):
    """Return the instructions that move a vector between a register and the stack."""
    frame_moves = any(WRITES_FRAME.search(operands) for _, _, operands in loop)
    return [
        f"{name} {operands}" for _, name, operands in loop
        if VECTOR.search(operands)
        and (STACK.search(operands) or (FRAME.search(operands) and not frame_moves))
    ]
