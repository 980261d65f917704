"""The page of operators is what the code says."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("onnx")
SCRIPT = Path(__file__).parents[2] / "docs" / "onnx_operators.py"
if not SCRIPT.exists():
    pytest.skip("the page that this file reads is not here", allow_module_level=True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("onnx_operators", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script):
    """As far as the version of the onnx package says nothing; `python docs/onnx_operators.py`."""
    page = script.PAGE.read_text(encoding="utf-8")
    assert page.partition(script.BORDER)[0] == script.from_code()
    assert script.BORDER in page


@pytest.mark.parametrize(("op", "wanted"), [
    ("Conv", "product: Conv2D"), ("MaxPool", "layer: MaxPool2D"), ("Erf", "table"),
    ("Transpose", "moves"), ("Pow", "table with a number"), ("QLinearConv", "codes"),
    ("QuantizeLinear", "conversion"), ("LSTM", "rows: Recurrent"), ("TopK", ""),
    ("Max", "layer: Maximum; table with a number"), ("MatMul", "product: Dense; layer: MatMul"),
])
def test_what_operators_are_in_8_bits(script, op, wanted):
    assert script.in_8_bits(op) == wanted
