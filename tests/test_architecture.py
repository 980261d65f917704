"""The floors of the house: who may import whom, and what every source file must be like."""

import ast
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOT = REPOSITORY / "qcy"
if not (ROOT / "_simd").exists():
    pytest.skip("the sources that this file reads are not here", allow_module_level=True)
#: From the ground up: each imports from its own floor and those below.
FLOORS = [
    r"_dtypes|_rounding|_simd|_pool|_cpu|_threads|_validate|_arrays|_version|_table|_timing|_memoryview|_step|_product|_program|_recorder",
    r"_kernels",
    r"primitive|_info",
    r"tensor",
    r"nn\.(layers|operators|layouts|parts|graph|model|quantized_model|context|storage|fusion|program|profile)",
    r"nn\.(observer|histogram|calibration)",
    r"nn\.(quantize|selection|configs|compare|report|_svg|progress|onnx|samples)|cli|commands|demo|dataset|_images|inspection|bench(_\w+)?|__main__|data",
]
#: Who may touch the kernels, besides themselves.
NEAR_KERNELS = ("primitive", "_program", "tensor", "_info", "_threads")
#: What else than NumPy may be imported, and by whom.
GUESTS = {"tqdm": "nn.progress", "onnx": "nn.onnx", "PIL": "_images"}
#: About 400: a file that passes it is split by family.
MAX_LINES = 450

SOURCES = sorted(
    path for pattern in ("*.py", "*.pyx", "*.pxi", "*.pxd") for path in ROOT.rglob(pattern)
)
#: Packages' fronts: names from everywhere, and nothing else.
FRONTS = {"", "nn"}
EVERYTHING = [
    *SOURCES, *sorted(ROOT.rglob("*.h")), *sorted(ROOT.rglob("*.pyi")),
    *(path for folder in ("tests", "docs", "asv_benchmarks") if (REPOSITORY / folder).exists()
      for path in sorted((REPOSITORY / folder).rglob("*.py"))),
    *REPOSITORY.glob("setup.py"),
]


def named(paths):
    return [pytest.param(path, id=str(path.relative_to(REPOSITORY))) for path in paths]


def module_of(path):
    """Return a source's module below qcy: "" for qcy itself, "nn" for its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module):
    """Return the floor of a module, or the roof for packages that import everything."""
    if module in FRONTS:
        return len(FLOORS) - 1
    found = [i for i, floor_ in enumerate(FLOORS) if re.fullmatch(rf"({floor_})(\..*)?", module)]
    assert len(found) == 1, f"{module} stands on no floor, or on several: {found}"
    return found[0]


def is_module(dotted):
    """Whether a dotted name below qcy is a module and not what one holds."""
    path = ROOT.joinpath(*dotted.split("."))
    return (path / "__init__.py").exists() or any(
        path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxi", ".pxd", ".h")
    )


def python_imports(path):
    """Yield (module, names or None) of every import, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module, [alias.name for alias in node.names]


def cython_imports(path):
    """Yield (module, names or None) of every import and cimport of a .pyx or .pxd."""
    text = path.read_text(encoding="utf-8")
    for module, names in re.findall(
        r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)", text, re.M
    ):
        yield module, re.findall(r"\w+", re.sub(r"\bas \w+|#[^\n]*", "", names))
    for module in re.findall(r"^[ \t]*c?import[ \t]+([\w.]+)", text, re.M):
        yield module, None
    for header in re.findall(r'^cdef extern from "(\w+)\.h"', text, re.M):
        local = "_simd" if (ROOT / "_simd" / f"{header}.h").exists() else header
        yield f"qcy.{local}", None


def imports(path):
    return python_imports(path) if path.suffix == ".py" else cython_imports(path)


def imported_modules(path):
    """Yield what a source imports from qcy, as modules below it."""
    for module, names in imports(path):
        top, _, below = module.partition(".")
        if top != "qcy":
            continue
        for name in names or [""]:
            inner = f"{below}.{name}".strip(".")
            yield inner if name and is_module(inner) else below


# ------------------------------------------------------------------------------------- floors


@pytest.mark.parametrize("path", named(p for p in SOURCES if module_of(p) not in FRONTS))
def test_imports_point_down(path):
    module = module_of(path)
    for imported in imported_modules(path):
        assert floor(imported) <= floor(module), (
            f"{module}, floor {floor(module)}, imports qcy.{imported}, floor {floor(imported)}"
        )
        if floor(imported) == 1:
            assert module.split(".")[0] in ("_kernels", *NEAR_KERNELS), (
                f"{module} reaches past primitive to qcy.{imported}"
            )


@pytest.mark.parametrize("path", named(SOURCES))
def test_imports_are_of_the_standard_library_and_numpy(path):
    module = module_of(path)
    for imported, _ in imports(path):
        top = imported.partition(".")[0]
        if top in GUESTS:
            assert module == GUESTS[top] or module.startswith(f"{GUESTS[top]}."), (
                f"{module} imports {imported}; only {GUESTS[top]} may"
            )
            continue
        known = {"numpy", "qcy", "cython", "libc", "cpython"} | sys.stdlib_module_names
        assert top in known, f"{module} imports {imported}"


def test_the_ground_floor_is_below_everything():
    assert floor("_kernels.q8") == 1
    assert floor("primitive.conv") == 2
    assert floor("tensor.quantized") == 3
    assert floor("nn.layers.dense") == 4
    assert floor("nn.calibration") == 5
    assert floor("nn.quantize") == floor("cli") == floor("") == 6


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", "from qcy import _kernels, _validate\n", {"_kernels", "_validate"}),
        ("a.py", "def f():\n    from qcy.nn import storage\n", {"nn.storage"}),
        ("a.py", "import qcy\n", {""}),
        ("a.py", "from qcy import QuantizedTensor\n", {""}),
        ("a.py", "from qcy.nn.layers import Dense\n", {"nn.layers"}),
        ("a.pyx", "from qcy._threads cimport parallel_for\n", {"_threads"}),
        ("a.pyx", "from qcy.nn import (\n    model,\n    storage as s,\n)\n",
         {"nn.model", "nn.storage"}),
        ("a.pxd", 'cdef extern from "cpu.h":\n    pass\n', {"_simd"}),
    ],
)
def test_imports_are_seen(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    assert set(imported_modules(path)) == expected


# -------------------------------------------------------------------------------------- sources


def opening(path):
    """Return the sentence that a file begins with: of its docstring, or its first comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    docstring = re.match(r'\s*"""(.*?)"""', text, re.S)
    if docstring:
        return docstring.group(1).strip().split("\n\n")[0]
    comment = re.match(r"/\*(.*?)\*/", text, re.S)
    if comment:
        lines = [line.strip().lstrip("*").strip() for line in comment.group(1).splitlines()]
        return "\n".join(lines).strip().split("\n\n")[0]
    lines = []
    for line in text.splitlines():
        if not line.startswith(("#", "//")):
            break
        lines.append(line.lstrip("#/ "))
    return " ".join(lines)


@pytest.mark.parametrize("path", named(p for p in EVERYTHING if p.stat().st_size))
def test_files_begin_with_a_sentence(path):
    sentence = opening(path)
    assert len(sentence.split()) >= 3, f"{path.name} begins with {sentence!r}"
    assert re.search(r"[.:?]", sentence), f"{path.name} begins with {sentence!r}"


@pytest.mark.parametrize("path", named(EVERYTHING))
def test_files_are_short(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{path.name} has {n_lines} lines: split it by family"


INTRINSIC = re.compile(
    r"\b_mm\d*_\w+|\b__m(128|256|512)\w*|\bv\w+q?_[suf](8|16|32|64)\b|\b[u]?int\d+x\d+_t\b"
    r"|\b(immintrin|arm_neon)\.h"
)


@pytest.mark.parametrize("path", named([*SOURCES, *sorted(ROOT.rglob("*.h"))]))
def test_intrinsics_are_in_one_place(path):
    found = INTRINSIC.search(path.read_text(encoding="utf-8"))
    if path.name in ("operations_x86.h", "operations_avx512.h", "operations_arm.h"):
        assert found
    else:
        assert not found, f"{path.name} uses {found[0]}; intrinsics belong in _simd/operations_*.h"


@pytest.mark.parametrize("module", ["q8", "plain"])
def test_families_of_kernels_share_no_name(module):
    """They are included into one module, where of two functions the later would win."""
    text = (ROOT / "_kernels" / f"{module}.pyx").read_text(encoding="utf-8")
    names = [
        name for family in re.findall(r'^include "(\w+\.pxi)"$', text, re.M)
        for name in re.findall(
            r"^(?:def |cdef [\w *]*?)(\w+)\(",
            (ROOT / "_kernels" / family).read_text(encoding="utf-8"), re.M,
        )
    ]
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", named(p for p in SOURCES if p.suffix not in (".py",)))
def test_one_module_speaks_of_threads(path):
    code = re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(encoding="utf-8"), flags=re.S)
    if path.name != "_threads.pyx":
        assert not re.search(r"\bprange\b|\bcython\.parallel\b|\bomp_\w+", code)


@pytest.mark.parametrize("path", named(SOURCES))
def test_comments_hold_no_machine_paths(path):
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp)/\w", path.read_text(encoding="utf-8"))
