"""The sums of a tile stay in registers: no vector goes to the stack and back in the hot loops.

Compilers have turned this loop into one that spills every sum (a third of the speed, same bytes),
so it is looked at as it was built. A hot loop is the innermost one around a multiply-add of codes.
Those of depthwise convolution and pooling interleave codes first and are left out: 16 registers
are too few for them.
"""

import re
import shutil
import subprocess
import sys

import pytest

OBJDUMP = shutil.which("objdump")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{\w+\} )?(\S+)\s*(.*)$")
MULTIPLY_ADD = re.compile(r"v?pdpbusd|v?pmaddwd|[us]{1,2}dot|s[um]lal2?|smull2?")
JUMP = re.compile(r"(?:j[a-z]+|b\.\w+|b|cbn?z|tbn?z)$")
INTERLEAVE = re.compile(r"v?punpck[lh]wd")
TARGET = re.compile(r"\b([0-9a-f]+) <")
VECTOR = re.compile(r"%[xyz]mm\d|\b[qvd]\d+\b")
STACK = re.compile(r"\(%[re]sp|\[sp")
FRAME = re.compile(r"\(%rbp\)|\[x29[,\]]")
WRITES_FRAME = re.compile(r"(?:%rbp$|^x29,)")


def instructions(listing):
    """Return (address, mnemonic, operands) of what objdump printed."""
    matches = (LINE.match(line.split("#")[0]) for line in listing.splitlines())
    return [(int(m[1], 16), m[2], m[3].strip()) for m in matches if m]


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


SPILLING = """
  10:	vmovdqa64 0x40(%rsp),%zmm0
  18:	vmovdqu64 (%rdx),%zmm1
  20:	vpbroadcastd (%rbp,%rax,1),%zmm2
  28:	{vex} vpdpbusd %zmm1,%zmm2,%zmm0
  30:	vmovdqa64 %zmm0,0x40(%rsp)
  38:	add    $0x40,%rdx
  3c:	cmp    %rax,%rcx
  40:	jg     18 <tile+0x18>
  48:	mov    0x8(%rsp),%rax
  50:	jne    10 <tile+0x10>
"""


def test_the_reader_of_listings_sees_a_spill():
    [loop] = hot_loops(instructions(SPILLING))
    assert [address for address, _, _ in loop] == [0x18, 0x20, 0x28, 0x30, 0x38, 0x3C, 0x40]
    assert spills(loop) == ["vmovdqa64 %zmm0,0x40(%rsp)"]
    [loop] = hot_loops(instructions(SPILLING.replace("0x40(%rsp)", "-0x40(%rbp)")))
    assert spills(loop) == ["vmovdqa64 %zmm0,-0x40(%rbp)"]
    [loop] = hot_loops(instructions(SPILLING.replace("%zmm0,0x40(%rsp)", "%zmm0,0x40(%r8)")))
    assert spills(loop) == []


@pytest.mark.skipif(OBJDUMP is None, reason="objdump is missing")
def test_no_sum_is_spilled(kernels):
    listing = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", kernels.q8.__file__],
        capture_output=True, text=True, check=False,
    )
    if listing.returncode:
        pytest.skip(f"objdump cannot read this module: {listing.stderr.strip()}")
    loops = [
        loop for loop in hot_loops(instructions(listing.stdout))
        if not any(INTERLEAVE.match(name) for _, name, _ in loop)
    ]
    if not loops and (kernels.variant == "portable" or sys.platform != "linux"):
        pytest.skip(f"no multiply-add of codes was recognized in {kernels.variant}")
    assert loops
    assert [spills(loop) for loop in loops if spills(loop)] == []
