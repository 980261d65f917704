"""Choose, once, the fastest build of the kernels that this machine can run.

``q8.pyx`` is compiled once per variant, as ``q8_avx2``, ``q8_portable`` and so on; ``plain.pyx``,
which names no instruction, for some of them only. A build that the CPU lacks the instructions for
is never imported, because even its module initialization may use them. ``QCY_VARIANT`` forces a
choice.
"""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from qcy import _cpu

#: Every variant that can exist, fastest first.
VARIANTS = (
    "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "baseline", "portable",
)


#: Which build of the plain kernels goes with a variant; all others take the portable one. AVX-512
#: would make some loops over integers of a Tensor faster, which is not worth two more builds.
PLAIN = dict.fromkeys(("avx512vbmi", "avx512vnni", "avxvnni", "avx2"), "avx2")


class Kernels:
    """One variant's compiled modules: ``q8``, the kernels of codes, and ``plain``, all others."""

    def __init__(self, variant):
        self.variant = variant
        self.q8 = import_module(f"qcy._kernels.q8_{variant}")
        self.plain = import_module(f"qcy._kernels.plain_{PLAIN.get(variant, 'portable')}")

    def __repr__(self):
        return f"Kernels({self.variant!r})"


def usable_variants():
    """Return the variants that were built and that this CPU runs, fastest first."""
    return [
        variant
        for variant in VARIANTS
        if _cpu.supports(variant) and find_spec(f"qcy._kernels.q8_{variant}")
    ]


@cache
def load(variant):
    """Import one variant of the kernels.

    Raises
    ------
    ImportError
        If `variant` was not built or this CPU cannot run it.
    """
    if variant not in usable_variants():
        raise ImportError(
            f"kernel variant {variant!r} is not usable here; choose from {usable_variants()}"
        )
    return Kernels(variant)


#: The variant in use.
active = load(os.environ.get("QCY_VARIANT") or usable_variants()[0])
