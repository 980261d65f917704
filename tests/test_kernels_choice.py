"""One build of the kernels is chosen at import: the fastest that runs here, or QCY_VARIANT."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import qcy
from qcy import _cpu, _kernels

USABLE = _kernels.usable_variants()


def start(variant, script="from qcy import _kernels; print(_kernels.active.variant)"):
    """Run a script with QCY_VARIANT set (unset for None)."""
    environment = {name: value for name, value in os.environ.items() if name != "QCY_VARIANT"}
    if variant is not None:
        environment["QCY_VARIANT"] = variant
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )


@pytest.mark.parametrize("variant", USABLE)
def test_a_variant_can_be_forced(variant):
    result = start(variant, "import qcy; print(qcy._kernels.active, qcy.info()['variant'])")
    assert result.stdout.split() == [f"Kernels('{variant}')", variant], result.stderr


@pytest.mark.parametrize("variant", [None, ""])
def test_the_fastest_usable_variant_is_the_default(variant):
    assert start(variant).stdout.strip() == USABLE[0]


@pytest.mark.parametrize(
    "variant", ["fastest", "AVX2", *(v for v in _kernels.VARIANTS if v not in USABLE)]
)
def test_an_impossible_choice_lists_the_possible_ones(variant):
    result = start(variant)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert f"'{variant}' is not usable here" in message
    assert all(f"'{usable}'" in message for usable in USABLE)
    with pytest.raises(ImportError, match=re.escape(message.removeprefix("ImportError: "))):
        _kernels.load(variant)


def test_portable_is_always_usable_and_comes_last():
    assert USABLE[-1] == "portable"
    assert set(USABLE) <= set(_kernels.VARIANTS)
    assert sorted(USABLE, key=_kernels.VARIANTS.index) == USABLE


def test_variants_are_those_that_the_cpu_module_knows():
    for variant in _kernels.VARIANTS:
        assert isinstance(_cpu.supports(variant), bool)
    assert all(_cpu.supports(variant) for variant in USABLE)
    with pytest.raises(KeyError):
        _cpu.supports("fastest")


def test_what_the_system_says_of_the_cpu():
    """Our own cpuid must agree with the kernel's, where that can be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        pytest.skip("this system has no /proc/cpuinfo")
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("this system lists no x86 flags")
    assert _cpu.supports("avx2") == ({"avx2", "fma"} <= flags)
    needed = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
    assert _cpu.supports("avx512vnni") == (needed <= flags)
    assert _cpu.supports("avx512vbmi") == (needed | {"avx512vbmi"} <= flags)
    if "avx_vnni" in flags:         # older kernels have no name for it
        assert _cpu.supports("avxvnni")


def test_every_variant_has_every_module_built_for_it(kernels):
    modules = [field.name for field in fields(kernels) if field.name != "variant"]
    assert modules == [
        "tensor", "gemm", "conv", "depthwise", "columns", "quantize", "elementwise", "norm",
        "attention", "pool", "move",
    ]
    for module in modules:
        name = getattr(kernels, module).__name__
        assert name == f"qcy._kernels.{module}_{kernels.variant}"
    assert kernels.gemm.PANEL % kernels.gemm.LANES == 0


def test_only_the_chosen_variant_is_imported():
    script = """
import sys
import qcy
import qcy.nn
from qcy import _kernels
loaded = {name.rsplit("_", 1)[1] for name in sys.modules if name.startswith("qcy._kernels.")}
print(sorted(loaded), _kernels.active.variant)
"""
    for variant in USABLE:
        result = start(variant, script)
        assert result.stdout.strip() == f"['{variant}'] {variant}", result.stderr


def test_kernels_were_built_once_and_are_cached():
    assert _kernels.load(USABLE[0]) is _kernels.load(USABLE[0])
    assert qcy.info()["variants"] == USABLE
