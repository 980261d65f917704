"""Compile the tile for AArch64, on any machine, and look at the instructions of its loops.

Each variant has to multiply with the instruction that it is there for, as often as the tile has
vectors of sums, without moving a vector to the stack; and its epilogue has to round half to even,
once. Uses `zig cc`, from the package ziglang.

Usage: python tests/assembly_arm.py
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from listings import functions, hot_loops, spills

HEADERS = Path(__file__).resolve().parent.parent / "qcy" / "_simd"
SOURCE = '#include "microkernel.h"\nconst qcy_tile_function *used[] = {qcy_tiles[0], qcy_tall};\n'
COMPILER = (
    sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-std=c99", "-O3",
    "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-fno-asynchronous-unwind-tables", f"-I{HEADERS}", "-S",
)
# Variant: (flags as in setup.py, the instruction of its products, how many make one `dot`).
VARIANTS = {
    "baseline": ([], r"smull2?", 2),
    "dotprod": (["-mcpu=generic+v8_2a+dotprod"], r"sdot", 1),
    "i8mm": (["-mcpu=generic+v8_2a+dotprod+i8mm"], r"usdot", 1),
}
PRODUCTS = re.compile(r"[us]{1,2}dot|[us]{1,2}mmla|[us]ml[as]l2?|[us]mull2?")
#: Reals become integers once, half to even, and nothing else rounds: no other conversion, no
#: product in fixed point, no multiply-add that would leave out a rounding.
ROUNDING = "fcvtns"
OTHER_ROUNDINGS = re.compile(
    r"fcvt[zampn][su]|sqr?dmul\w*|s?q?r?shrn2?|srshr|fml[as]|fmadd|frint\w"
)


def tiles(variant):
    """Return {(rows, vectors): instructions} of every tile of a variant."""
    flags = [*VARIANTS[variant][0], f"-DQCY_ISA_{variant.upper()}"]
    with tempfile.TemporaryDirectory() as folder:
        source, assembly = Path(folder, "tiles.c"), Path(folder, "tiles.s")
        source.write_text(SOURCE)
        subprocess.run(
            [*COMPILER, *flags, str(source), "-o", str(assembly)], capture_output=True, check=True
        )
        found = functions(assembly.read_text())
    return {
        (int(shape[1]), int(shape[2])): code
        for name, code in found.items() if (shape := re.fullmatch(r"qcy_tile_(\d+)x(\d+)", name))
    }


def faults(variant, rows, vectors, code):
    """Return what is wrong with one tile, in words."""
    _, product, products_per_dot = VARIANTS[variant]
    loops = hot_loops(code)
    found = [] if loops else ["no loop multiplies"]
    for loop in loops:
        names = Counter(name for _, name, _ in loop if PRODUCTS.fullmatch(name))
        n_dots = sum(n for name, n in names.items() if re.fullmatch(product, name))
        if n_dots == 0 or n_dots % (rows * vectors * products_per_dot) or n_dots != names.total():
            found.append(f"a loop multiplies by {dict(names)}")
        found += [f"a loop spills: {spill}" for spill in spills(loop)]
    names = {name for _, name, _ in code}
    if ROUNDING not in names:
        found.append(f"no {ROUNDING}")
    others = {name for name in names if OTHER_ROUNDINGS.fullmatch(name)} - {ROUNDING}
    return found + [f"rounds by {name}" for name in sorted(others)]


def main():
    """Print, for each variant, the loop of its main tile and what is wrong with any tile."""
    n_faults = 0
    print("variant   tiles  main   its loop")
    for variant in VARIANTS:
        found = tiles(variant)
        main_tile = max(shape for shape in found if shape[1] == 4)
        for shape, code in found.items():
            for fault in faults(variant, *shape, code):
                n_faults += 1
                print(f"{variant}, tile {shape[0]}x{shape[1]}: {fault}")
        for loop in hot_loops(found[main_tile]):
            names = Counter(name for _, name, _ in loop)
            counts = ", ".join(f"{n} {name}" for name, n in names.most_common())
            shape = "x".join(map(str, main_tile))
            print(f"{variant:<9} {len(found):>5}  {shape:<5}  {counts}")
    print(f"{n_faults} faults: wrong products, spills, other roundings than {ROUNDING}")
    return n_faults


if __name__ == "__main__":
    sys.exit(bool(main()))
