"""Build qcy: every ``.pyx`` once, and the kernels once per instruction set.

Nothing is ever run to find out what a compiler or a machine can do: probes are compiled and
linked only, so that cross-compiling works. What CPU there is, is asked at import.
"""

import os
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

DEBUG = os.environ.get("QCY_DEBUG") == "1"
SANITIZE = os.environ.get("QCY_SANITIZE") == "1"

# One place for directives, so that no .pyx needs a header of its own.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}
# Nobody looks at a kernel from Python: plain C functions will do, without signatures.
KERNEL_DIRECTIVES = DIRECTIVES | {"binding": False, "embedsignature": False}

#: Cython's memoryview machinery, built once instead of into every module.
SHARED = "qcy._memoryview"
MODULES = [
    "qcy._cpu", "qcy._threads", "qcy._step", "qcy._product", "qcy._program", "qcy.tensor.generic",
]
# Those of them that run with every call.
FAST_MODULES = {"qcy._threads", "qcy._step"}
KERNELS = "qcy._kernels.q8"
# Kernels that name no instruction, and the variants that they are built for: _kernels/__init__.py
# knows which of these builds serves the other variants.
PLAIN = "qcy._kernels.plain"
PLAIN_VARIANTS = ("portable", "avx2")

# Flags by compiler family. -ffp-contract=off keeps FMA from making one variant round
# differently from another; -ffast-math would do worse and is never used. Each is probed.
FLAGS = {
    "unix": ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
             "-fvisibility=hidden",
             # C code that is stripped has no use for tables of how to unwind it.
             *([] if DEBUG else ["-fno-asynchronous-unwind-tables"])],
    "msvc": ["/O2", "/fp:precise"],
}
# 32-bit x86 computes in x87 registers unless told otherwise, and those round differently.
NO_X87 = ["-msse2", "-mfpmath=sse"]
# By what a module holds. Kernels of codes start on a cache line each, so that how fast one is does
# not depend on the sizes of those before it. Plain kernels gain next to nothing from -O3, which
# takes a third more room. What does not even run with every call is built small.
FLAGS_OF = {
    "q8": ["-falign-functions=64"],
    "plain": ["-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic"],
    "call": [],
    "small": ["-Os"],
}
# Without symbols, and without the padding to pages that keeps code and constants apart.
LINK = [["-Wl,-s"], ["-Wl,-z,noseparate-code"]]
# Cython asks for every helper to be inlined everywhere; compilers know better where that pays.
NO_INLINE = ("CYTHON_INLINE", "")
# Every access and every operation is looked at while it runs, the first wrong one ends the process.
# Comes after FLAGS and replaces -O3 and -g0 there. See .ci/sanitize.
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
              "-fno-omit-frame-pointer", "-g", "-O1"]
# Compile flags and link flags to try, in order. The second is Apple Clang with libomp.
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni",
          "-mprefer-vector-width=512"]
# Variant: (an expression that its probe must compile, flags of GCC and Clang, flags of MSVC).
# Of several lists of flags the first that compiles counts: zig cc has names of its own.
# The define QCY_ISA_<VARIANT> tells the headers which instructions to use.
VARIANTS = {
    "portable": ("0", [[]], []),
    "baseline": ("QCY_BASELINE", [[]], []),       # SSE2 on x86, NEON on AArch64
    "avx2": ("_mm256_setzero_si256()", [AVX2], ["/arch:AVX2"]),
    "avxvnni": (
        "_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), _mm256_setzero_si256(),"
        " _mm256_setzero_si256())",
        [[*AVX2, "-mavxvnni"]], ["/arch:AVX2"],
    ),
    "avx512vbmi": (
        "_mm512_permutex2var_epi8(_mm512_setzero_si512(), _mm512_setzero_si512(),"
        " _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_setzero_si512(),"
        " _mm512_setzero_si512()))",
        [[*AVX2, *AVX512, "-mavx512vbmi"]], ["/arch:AVX512"],
    ),
    "avx512vnni": (
        "_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_setzero_si512(),"
        " _mm512_setzero_si512())",
        [[*AVX2, *AVX512]], ["/arch:AVX512"],
    ),
    "dotprod": (
        "vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(0), vdupq_n_s8(0))",
        [["-march=armv8.2-a+dotprod"], ["-mcpu=generic+v8_2a+dotprod"]], [],
    ),
    "i8mm": (
        "vusdotq_s32(vdupq_n_s32(0), vdupq_n_u8(0), vdupq_n_s8(0))",
        [["-march=armv8.2-a+dotprod+i8mm"], ["-mcpu=generic+v8_2a+dotprod+i8mm"]], [],
    ),
}
PROBE = """
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include <immintrin.h>
#define QCY_BASELINE _mm_setzero_si128()
#elif defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#define QCY_BASELINE vdupq_n_s32(0)
#endif
void probe(void) {{ {expression}; }}
"""


def wanted_variants():
    """Return the variants to try: those that QCY_VARIANTS names, or all."""
    names = os.environ.get("QCY_VARIANTS", "").split() or list(VARIANTS)
    unknown = sorted(set(names) - set(VARIANTS))
    if unknown:
        raise SystemExit(f"QCY_VARIANTS names {unknown}, which are none of {sorted(VARIANTS)}")
    return names


def extensions():
    """List every extension that any machine may build, of the variants that are wanted."""
    options = {
        "shared_utility_qualified_name": SHARED,
        "quiet": True,
    }
    found = cythonize(
        [Extension(SHARED, []), *(Extension(m, [f"{m.replace('.', '/')}.pyx"]) for m in MODULES)],
        compiler_directives=DIRECTIVES, build_dir="build/cython/once", **options,
    )
    for ext in found:
        ext.variant = None
        ext.kind = "call" if ext.name in FAST_MODULES else "small"
    # One .pyx may stand in one Extension of a cythonize call, hence one call a variant.
    wanted = wanted_variants()
    for variant in [v for v in VARIANTS if v in wanted or v in PLAIN_VARIANTS]:
        modules = [*([KERNELS] if variant in wanted else []),
                   *([PLAIN] if variant in PLAIN_VARIANTS else [])]
        kernels = cythonize(
            [Extension(f"{m}_{variant}", [f"{m.replace('.', '/')}.pyx"]) for m in modules],
            compiler_directives=KERNEL_DIRECTIVES, build_dir=f"build/cython/{variant}", **options,
        )
        for ext in kernels:
            ext.variant = variant
            ext.kind = "plain" if ext.name.startswith(PLAIN) else "q8"
        found += kernels
    return found


class BuildExt(build_ext):
    """Ask the compiler what it accepts, then build only that."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        family = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        compile_flags, flags_of = FLAGS[family], {}
        if family == "unix":
            compile_flags, *more = (
                [flag for flag in flags if self.compiles("", ["-Werror", flag])]
                for flags in (FLAGS[family], *FLAGS_OF.values())
            )
            flags_of = dict(zip(FLAGS_OF, more, strict=True))
        link_flags = []
        if family == "unix":
            if self.compiles("#ifndef __i386__\n#error\n#endif\n"):
                compile_flags += NO_X87
            if SANITIZE:
                compile_flags += SANITIZERS
                link_flags += SANITIZERS[:1]
            for flags in LINK if not (DEBUG or SANITIZE) else []:
                link_flags += flags if self.compiles("", [], flags) else []
        openmp_compile, openmp_link = self.openmp_flags(family)
        refused = set()
        for variant, (expression, unix, msvc) in VARIANTS.items():
            if all(ext.variant != variant for ext in self.extensions):
                continue
            program = PROBE.format(expression=expression)
            choices = unix if family == "unix" else [msvc]
            flags = next((flags for flags in choices if self.compiles(program, flags)), None)
            if flags is None:
                refused.add(variant)
                continue
            for ext in self.extensions:
                if ext.variant == variant:
                    ext.extra_compile_args += flags
                    ext.define_macros.append((f"QCY_ISA_{variant.upper()}", None))
        print(f"qcy: kernel variants that this compiler cannot build: {sorted(refused) or 'none'}")
        self.extensions = [ext for ext in self.extensions if ext.variant not in refused]
        for ext in self.extensions:
            ext.include_dirs += ["qcy", "qcy/_simd"]
            ext.extra_compile_args = [
                *compile_flags, *([] if SANITIZE else flags_of.get(ext.kind, [])),
                *ext.extra_compile_args,
            ]
            ext.define_macros.append(NO_INLINE)
            ext.extra_link_args += link_flags
            if ext.name == "qcy._threads":      # the only speaker of OpenMP
                ext.extra_compile_args += openmp_compile
                ext.extra_link_args += openmp_link
        super().build_extensions()

    def openmp_flags(self, family):
        """Return compile and link flags for OpenMP, both empty where it is missing."""
        program = "#include <omp.h>\nint probe(void) { return omp_get_max_threads() < 1; }"
        for flags in OPENMP[family] if os.environ.get("QCY_NO_OPENMP") != "1" else []:
            if self.compiles(program, *flags):
                return flags
        print("qcy: building without OpenMP; loops will run on one thread")
        return [], []

    def compiles(self, program, compile_flags=(), link_flags=()):
        """Return whether `program` compiles and links. It is never run: see cross builds."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program + "\nint main(void) { return 0; }\n")
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=list(compile_flags)
                )
                self.compiler.link_executable(
                    objects, str(Path(folder, "probe")), extra_postargs=list(link_flags)
                )
            except (CompileError, LinkError):
                return False
        return True


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
