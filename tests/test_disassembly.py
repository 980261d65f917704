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
from importlib.util import find_spec

import assembly_arm
import pytest
from listings import functions, hot_loops, instructions, spills

OBJDUMP = shutil.which("objdump")
INTERLEAVE = re.compile(r"v?punpck[lh]wd")

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


WRITTEN_FOR_ARM = """
qcy_tile_1x1:                           // @qcy_tile_1x1
\t.cfi_startproc
\tb.eq\t.LBB0_3
.LBB0_2:                                // =>This Inner Loop Header: Depth=1
\tld1r\t{ v5.4s }, [x8], #4
\tsmull\tv6.8h, v5.8b, v2.8b
\tsmull2\tv7.8h, v5.16b, v2.16b
\tb.lt\t.LBB0_2
.LBB0_3:
\tfcvtns\tv0.4s, v0.4s
\tret
"""


def test_the_reader_of_assembly_sees_what_is_wrong():
    def faults(written):
        return assembly_arm.faults("baseline", 1, 1, functions(written)["qcy_tile_1x1"])

    good = WRITTEN_FOR_ARM
    assert faults(good) == []
    assert faults(good.replace(", #4", "\n\tldr\tq1, [sp, #16]")) == [
        "a loop spills: ldr q1, [sp, #16]"
    ]
    assert faults(good.replace("smull2", "smlal2")) == [
        "a loop multiplies by {'smull': 1, 'smlal2': 1}"
    ]
    assert faults(good.replace("b.lt", "b.lt\t.LBB0_3\n\tnop")) == ["no loop multiplies"]
    assert faults(good.replace("fcvtns", "fcvtzs")) == ["no fcvtns", "rounds by fcvtzs"]
    assert faults(good.replace("ret", "fmla\tv0.4s, v1.4s, v2.4s")) == ["rounds by fmla"]


@pytest.mark.skipif(find_spec("ziglang") is None, reason="ziglang is missing")
@pytest.mark.skipif(not assembly_arm.HEADERS.exists(), reason="the headers are not here")
@pytest.mark.parametrize("variant", assembly_arm.VARIANTS)
def test_tiles_for_aarch64(variant):
    tiles = assembly_arm.tiles(variant)
    assert len(tiles) > 10
    assert {
        shape: found for shape, code in tiles.items()
        if (found := assembly_arm.faults(variant, *shape, code))
    } == {}
