"""The tutorial does what it says: its blocks run in order, in one folder, as a reader runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial-onnx.md"
MODEL = ROOT / "tests" / "data" / "onnx" / "fashion_mobilenet.onnx"
#: A block that runs, and the line before it, which may say that it does not.
BLOCK = re.compile(r"^([^\n]*)\n```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytest.importorskip("onnx")
if not PAGE.exists():
    pytest.skip("the page that this file reads is not here", allow_module_level=True)


def blocks():
    """Return (language, code) of the blocks that run."""
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return [(kind, code) for before, kind, code in found if before != "<!-- not run -->"]


def shell(code):
    """Run shell commands, with the Python and the qcy that are tested here."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e"], input='qcy() { python -m qcy "$@"; }\n' + code, text=True,
        capture_output=True, check=False, timeout=600,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, f"{code}{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell here")
def test_the_tutorial(tmp_path, monkeypatch):
    shutil.copy(MODEL, tmp_path / "fashion.onnx")
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, code in blocks():
        if kind == "sh":
            shell(code)
        else:
            exec(compile(code, str(PAGE), "exec"), names)
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"fashion.qcy", "fashion-8bit.onnx", "answers.npz"}
    assert names["report"].float_accuracy > 0.91


def test_blocks_that_are_not_run_are_few():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("<!-- not run -->") == 2
    assert text.count("```") == 2 * (len(blocks()) + 2)
