"""The report page holds the numbers, holds together, and needs nothing from outside."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from qcy.nn import _svg, report
from qcy.nn.compare import LayerReport, Report
from qcy.nn.histogram import Histogram
from qcy.nn.profile import LayerTime, Profile
from qcy.tensor.quantization import QuantizationParams

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<script>alert('x')</script>\"&\x00\x1b\ud800\u202e</title>"


class Page(HTMLParser):
    """A page taken apart: every element closed by its own end tag, or the test fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert "svg" in self.open, f"<{tag}/> closes itself only inside svg"
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def layer(name="conv1", sqnr_db=30.0, **changes):
    fields = {
        "kind": "Conv2DQuantized", "covers": (name,), "shape": (16, 28, 28), "bits": 8,
        "scale": 0.03125, "zero_point": 5, "dtype": "uint8", "qmin": 0, "qmax": 255,
        "cosine": 0.999823, "max_error": 0.1104,
    }
    return LayerReport(name=name, sqnr_db=sqnr_db, **fields | changes)


def result(confusion=((90, 3), (1, 106)), **changes):
    confusion = np.asarray(confusion)
    n_samples = int(confusion.sum()) or 200
    fields = {
        "n_samples": n_samples, "float_accuracy": 0.94, "quantized_accuracy": 0.935,
        "agreement": float(np.trace(confusion) / n_samples) if confusion.size else 0.98,
        "float_bytes": 320_961, "quantized_bytes": 82_224,
        "latency": {
            "1": {"float": 0.0015, "quantized": 0.001, "speedup": 1.5},
            "64": {"float": 0.25, "quantized": 0.5, "speedup": 0.5},
        },
        "layers": (layer(),), "confusion": tuple(tuple(map(int, row)) for row in confusion),
    }
    return Report(**fields | changes)


def seen(*values):
    histogram = Histogram()
    histogram.observe(np.array(values, np.float32))
    return histogram


def figure(report_, histogram, name="conv1"):
    """Return the one drawing of a histogram, as a tree, and the page's words."""
    page = report.body(report_, {name: histogram})
    (drawing,) = re.findall(r'<svg class="histogram".*?</svg>', page)
    return ElementTree.fromstring(drawing), Page(page).text


def test_the_page_holds_the_numbers(tmp_path):
    path = tmp_path / "report.html"
    about = {"version": "0.1.0", "variants": ["avx2", "portable"], "openmp": True}
    layers = (layer(covers=("conv1", "bn1", "relu1")),)
    report.write(result(layers=layers), path, {"conv1": seen(0, 1)}, ("bag", "coat"), about)
    text = Page(path.read_text(encoding="utf-8")).text
    for expected in (
        "94.00%", "93.50%", "\u22120.50 points: \u22121 sample", "98.00%", "4 of 200 samples",
        "320,961 bytes", "82,224 bytes", "3.90\u00d7 smaller", "1.50\u00d7 faster", "1.500 ms",
        "1.000 ms", "2.00\u00d7 slower", "250.0 ms", "64 samples at a time",
        "conv1 bn1, relu1 Conv2D 16\u00d728\u00d728 8 0.03125 5 30.0", "0.999823 0.1104",
        "bag coat 3 1.50%", "version 0.1.0", "variants avx2, portable", "openmp yes",
    ):
        assert expected in text


def test_the_page_tells_where_time_goes():
    rows = (
        LayerTime("(inputs)", "conversion", (), 1.25, 0.2, 0, 0),
        LayerTime(HOSTILE, "Conv2DQuantized", ("conv1",), 5.0, 0.8, 20_000_000, 100),
    )
    profile = Profile(rows, 1234.5, True, 1, 30)
    page = report.body(result(profile=profile))
    text = Page(page).text
    assert "Median times of 30 runs of the 8-bit model as a program, with 1 thread." in text
    assert "A whole run takes 1,234.5 microseconds." in text
    assert f"(inputs) conversion 1.2 20.0% (inputs): 20.0% {_svg.DASH}" in text
    assert "Conv2D 5.0 80.0%" in text
    assert "4,000.0" in text
    assert "<script" not in page
    assert "where time goes" not in report.body(result())
    by_hand = dataclasses.replace(profile, is_program=False, n_threads=2, layers=rows[:1])
    assert "layer by layer, with 2 threads" in Page(report.body(result(profile=by_hand))).text


def test_the_page_is_one_whole_html_document(tmp_path):
    path = tmp_path / "report.html"
    report.write(result(), str(path), {"conv1": seen(0, 1)})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    for tag in ("html", "head", "title", "style", "body", "h1"):
        assert len(re.findall(f"<{tag}[ >]", text.split("<svg")[0])) == 1
    assert ("charset", "utf-8") in page.attributes
    assert all(value in ("col", "row") for key, value in page.attributes if key == "scope")
    assert len(re.findall(r"<th\b", text)) == len(re.findall(r"<th scope=", text))


@pytest.mark.parametrize("kind", ["page", "fragment"])
def test_nothing_comes_from_outside(tmp_path, kind):
    path = tmp_path / "report.html"
    arguments = {"conv1": seen(0, 1)}, ("a", "b"), {"version": "1"}
    report.write(result(), path, *arguments)
    text = path.read_text() if kind == "page" else report.body(result(), *arguments)
    for word in ("http:", "https:", "src=", "@import", "url(", "<script", "<link", "javascript:"):
        assert word not in text
    names = {name for name, _ in Page(text).attributes}
    assert not names & {"src", "href", "xlink:href", "srcset", "data", "action"}
    assert not any(name.startswith("on") for name in names)


def test_a_fragment_keeps_its_style_to_itself():
    text = report.body(result())
    assert "<html" not in text
    assert "<body" not in text
    style = re.sub(r"@media[^{]*{", "", _svg.STYLE.strip())
    for selectors in re.findall(r"([^{}]+){[^{}]*}", style):
        for selector in selectors.strip().split(",\n"):
            assert ".qcy-report" in selector


def test_hostile_names_are_only_text(tmp_path):
    bad = layer(HOSTILE, covers=(HOSTILE, HOSTILE + "2"), kind=HOSTILE)
    path = tmp_path / "report.html"
    report.write(
        result(layers=(bad,)), path, {HOSTILE: seen(-9, 99), HOSTILE + "3": seen(1)},
        (HOSTILE, HOSTILE), {HOSTILE: HOSTILE},
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>alert('x')</script>\"&\ufffd\ufffd\ufffd" in "".join(page.words)
    for drawing in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(drawing)


def test_every_drawing_is_xml_with_a_title_first():
    layers = tuple(layer(f"layer{i}", 20.0 + i) for i in range(15))
    values = np.random.default_rng(0).normal(size=20_000)
    text = report.body(result(layers=layers), {r.name: seen(*values) for r in layers})
    drawings = re.findall(r"<svg.*?</svg>", text)
    assert len(drawings) > 2 * len(layers)
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        assert tree[0].tag == "title"
        assert tree[0].text
        assert tree.get("role") == "img"
    assert len(text) < 150_000


def test_the_clipping_range_and_what_is_outside():
    """Codes 0 to 255 at scale 1/32 and zero point 5 stand for -0.15625 to 7.8125."""
    tree, text = figure(result(), seen(0.0, 1.0, 7.8125, 9.0, 10.0, -3.0))
    assert "3 of 6 values outside (50.00%)" in text
    labels = [element.text for element in tree.iter("text") if element.get("class") == "end"]
    assert labels == ["\u22120.1562", "7.812"]
    assert len([e for e in tree.iter("path") if e.get("class") == "lost"]) == 2
    band = next(e for e in tree.iter("rect") if e.get("class") == "band")
    limits = [e.get("d") for e in tree.iter("path") if e.get("class") == "limit"]
    assert [float(re.match(r"M([\d.]+)", d)[1]) for d in limits] == pytest.approx(
        [float(band.get("x")), float(band.get("x")) + float(band.get("width"))], abs=0.11
    )


def test_what_rounds_to_the_end_code_is_not_outside():
    tree, text = figure(result(), seen(0.0, 7.8125 + 0.4 / 32, -0.15625 - 0.4 / 32))
    assert "0 of 3 values outside" in text
    assert not [e for e in tree.iter("path") if e.get("class") == "lost"]


def test_params_beside_a_histogram_say_the_range():
    pair = seen(-1.0, 1.0, 5.0), QuantizationParams(0.5, 0, "int8")
    tree, text = figure(result(), pair)
    assert [e.text for e in tree.iter("text") if e.get("class") == "end"] == ["\u221264", "63.5"]
    assert "0 of 3 values outside" in text
    pair = seen(0.0, 1.0), QuantizationParams([0.5, 1.0], [0, 0], "uint8", axis=0)
    tree, _ = figure(result(), pair, "input")
    assert [e.text for e in tree.iter("text") if e.get("class") == "end"] == ["0", "255"]


@pytest.mark.parametrize(
    ("zero_point", "qmin", "ends"),
    [
        (-128, -128, ["0", "255"]), (0, -128, ["\u2212128", "127"]),
        (0, -127, ["\u2212127", "127"]), (127, -128, ["\u2212255", "0"]),
    ],
)
def test_the_range_of_int8_codes(zero_point, qmin, ends):
    codes = {"dtype": "int8", "qmin": qmin, "qmax": 127}
    made = layer(scale=1.0, zero_point=zero_point, **codes)
    low = qmin - zero_point
    tree, text = figure(result(layers=(made,)), seen(low - 1.0, low, low + 255.0, low + 300.0))
    assert [e.text for e in tree.iter("text") if e.get("class") == "end"] == ends
    outside = 2 if qmin == -128 else 3
    assert f"{outside} of 4 values outside" in text


def test_histograms_without_a_range_or_without_values():
    _, text = figure(result(), seen(0.0, 1.0), "input")
    assert "range of codes not known" in text
    tree, text = figure(result(layers=(layer(bits=32),)), seen(0.0, 1.0))
    assert "kept in float, nothing is clipped" in text
    assert "32, float \u2013 \u2013" in text
    assert not [e for e in tree.iter("rect") if e.get("class") == "band"]
    text = report.body(result(), {"conv1": Histogram()})
    assert "No values were seen." in Page(text).text
    assert 'class="histogram"' not in text
    assert "<figure" not in report.body(result(), {"conv1": None})
    assert "<figure" not in report.body(result(), {})


@pytest.mark.parametrize("values", [(0.0,), (3.5,), (-2.0,), (1e-42,), (3e38, -3e38)])
def test_histograms_of_few_or_extreme_values(values):
    for layers in ((layer(),), (layer(bits=32),)):
        tree, _ = figure(result(layers=layers), seen(*values))
        numbers = re.findall(r"-?[\d.]+", " ".join(e.get("d", "") for e in tree.iter("path")))
        assert all(0 <= float(n) <= 340 for n in numbers)


@pytest.mark.parametrize("n", [1, 2, 95, 96, 97, 143, 145, 4096])
def test_columns_lose_no_counts(n):
    counts = np.r_[0, 0, np.arange(1, n + 1), 0]
    bins = _svg.Bins(
        SimpleNamespace(counts=counts, first_edge=-1.0, bin_width=0.5, low=0.0, high=n / 2)
    )
    summed, edges = bins.columns()
    assert summed.sum() == bins.total == counts.sum()
    assert len(summed) == len(edges) - 1 <= _svg.MAX_COLUMNS
    assert (edges[0], edges[-1]) == (0.0, n / 2)
    assert (np.diff(edges) > 0).all()


def test_without_labels_accuracy_is_unknown():
    text = Page(report.body(result(float_accuracy=None, quantized_accuracy=None))).text
    assert "Accuracy unknown No labels were given" in text
    assert "points" not in text


def test_without_latency_layers_or_answers():
    text = Page(report.body(result(latency={}, layers=(), confusion=()))).text
    for absent in ("Speed", "SQNR", "Answers"):
        assert absent not in text


def test_the_weakest_layers_are_marked():
    noise = (30.0, math.inf, 12.5, -math.inf, 40.0, 25.0, math.nan, 31.0)
    layers = tuple(layer(f"layer{i}", sqnr) for i, sqnr in enumerate(noise))
    text = report.body(result(layers=layers))
    rows = re.findall(r"<tr class=weak>.*?<code>(\w+)</code>", text)
    assert rows == ["layer2", "layer3", "layer6"]
    words = Page(text).text
    for expected in ("exact", "\u2212\u221e", "n/a", "12.5"):
        assert expected in words
    same = (layer("a", math.inf), layer("b", math.inf))
    assert "weakest" not in Page(report.body(result(layers=same))).text


@pytest.mark.parametrize("n", [1, 2, 3, 10, 24])
def test_few_classes_are_a_grid(n):
    confusion = np.diag(np.arange(1, n + 1) * 1000)
    confusion[0, n - 1] = 7
    text = report.body(result(confusion), class_names=[f"class {i}" for i in range(n - 1)])
    (drawing,) = re.findall(r'<svg class="map.*?</svg>', text)
    tree = ElementTree.fromstring(drawing)
    cells = [group.findtext("text") for group in tree.iter("g")]
    assert sorted(cells) == sorted(str(count) for count in confusion.ravel() if count)
    labels = [element.text for element in tree.findall("text")]
    names = [*(f"class {i}" for i in range(n - 1)), str(n - 1)]
    assert labels[: 2 * n : 2] == labels[1 : 2 * n : 2] == names
    assert ("They never differ." in text) == (n == 1)


def test_many_classes_are_a_list():
    confusion = np.diag(np.full(1000, 2))
    confusion[np.arange(50), np.arange(50) + 900] = np.arange(1, 51)
    text = report.body(result(confusion))
    assert '<svg class="map' not in text
    assert "With 1,000 classes, only answers that differ are listed." in text
    assert "The 20 most frequent of 50 kinds of disagreement, 1,275 samples in all" in text
    rows = re.findall(r"<tr><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td>", text)
    assert rows == [(str(i), str(i + 900), str(i + 1)) for i in range(49, 29, -1)]
    assert len(text) < 30_000


def test_very_long_names():
    name = "block." * 500
    text = report.body(
        result(layers=(layer(name, covers=(name, name + "bn")),)), {name: seen(0, 9)}, [name, name]
    )
    Page(text)
    (drawing,) = re.findall(r'<svg class="map.*?</svg>', text)
    assert all(len(e.text) < 25 for e in ElementTree.fromstring(drawing).findall("text"))


def test_writing_replaces_the_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        assert path.read_text() == "old"
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(report.os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            report.write(result(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    report.write(result(), path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        report.write(result(), tmp_path / "nowhere" / "report.html")
    assert not list(tmp_path.iterdir())


def test_reports_show_themselves(tmp_path):
    found = result()
    assert found._repr_html_() == report.body(found)
    path = Path(tmp_path, "report.html")
    found.to_html(path, {"conv1": seen(0, 1)}, class_names=("bag", "coat"), about={"date": "now"})
    text = path.read_text(encoding="utf-8")
    for expected in ('<svg class="histogram"', "bag", "coat", "now"):
        assert expected in text
