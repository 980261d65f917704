"""Choose, once, the fastest build of the kernels that this machine can run.

Each ``.pyx`` of this folder is compiled once per variant: ``gemm.pyx`` becomes ``gemm_avx2``,
``gemm_portable`` and so on. A build that the CPU lacks the instructions for is never imported,
because even its module initialization may use them. ``QCY_VARIANT`` forces a choice.
"""

import os
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from qcy import _cpu

#: Every variant that can exist, fastest first.
VARIANTS = (
    "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "baseline", "portable",
)


@dataclass(frozen=True, repr=False)
class Kernels:
    """One variant's compiled modules."""

    variant: str
    tensor: ModuleType
    gemm: ModuleType
    conv: ModuleType
    depthwise: ModuleType
    columns: ModuleType
    quantize: ModuleType
    elementwise: ModuleType
    norm: ModuleType
    attention: ModuleType
    pool: ModuleType
    move: ModuleType

    def __repr__(self):
        return f"Kernels({self.variant!r})"


def usable_variants():
    """Return the variants that were built and that this CPU runs, fastest first."""
    return [
        variant
        for variant in VARIANTS
        if _cpu.supports(variant) and find_spec(f"qcy._kernels.gemm_{variant}")
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
    modules = {
        field.name: import_module(f"qcy._kernels.{field.name}_{variant}")
        for field in fields(Kernels)
        if field.name != "variant"
    }
    return Kernels(variant, **modules)


#: The variant in use.
active = load(os.environ.get("QCY_VARIANT") or usable_variants()[0])
