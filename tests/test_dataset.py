"""Samples from files are those of the files, in batches and in order; what is wrong is named."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from qcy import dataset, nn

pytest.importorskip("onnx")
import onnx_models


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with a few files."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.savez("words.npz", **WORD_DATA, label=np.arange(40))
    return tmp_path


X = onnx_models.normal(0, 7, 3, 8, 8)
WORD_DATA = onnx_models.word_data()
IMAGE = nn.onnx.load(onnx_models.images())
FIXED = nn.onnx.load(onnx_models.fixed())
WORDS = nn.onnx.load(onnx_models.words())


def all_of(samples, size=3):
    """Return the samples as one array for each input, and the sizes of batches."""
    batches = list(samples.batches(size))
    return [np.concatenate(part) for part in zip(*batches, strict=True)], [
        len(batch[0]) for batch in batches
    ]


# --------------------------------------------------------------------------------------- arrays


def test_one_array():
    np.savez("any.npz", any=X)
    np.savez("named.npz", image=X, other=np.ones(3))
    np.savez("labelled.npz", any=X, y=np.arange(7))
    for source in ("x.npy", "any.npz", "named.npz", "labelled.npz"):
        samples = dataset.open_data(source, IMAGE)
        (x,), sizes = all_of(samples)
        assert_array_equal(x, X)
        assert sizes == [3, 3, 1]
        assert len(samples.batches(3)) == 3
    assert_array_equal(samples.labels, np.arange(7))


def test_arrays_by_the_names_of_inputs():
    samples = dataset.open_data("words.npz", WORDS)
    arrays, sizes = all_of(samples, 16)
    assert sizes == [16, 16, 8]
    for array, name in zip(arrays, WORDS.inputs, strict=True):
        assert_array_equal(array, WORD_DATA[name])
        assert array.dtype == WORDS.input_types[name].dtype
    assert_array_equal(samples.labels, np.arange(40))


def test_a_choice_of_samples():
    few = dataset.open_data("words.npz", WORDS, samples=9, seed=1)
    (tokens, _), sizes = all_of(few, 4)
    assert sizes == [4, 4, 1]
    assert (np.diff(few.labels) > 0).all()          # in order, none twice
    assert_array_equal(tokens, WORD_DATA["tokens"][few.labels])
    assert_array_equal(dataset.open_data("words.npz", WORDS, samples=9, seed=1).labels, few.labels)
    assert (dataset.open_data("words.npz", WORDS, samples=9, seed=2).labels != few.labels).any()
    assert len(dataset.open_data("words.npz", WORDS, samples=99).labels) == 40


def test_a_fixed_number_of_samples():
    (x,), sizes = all_of(dataset.open_data("x.npy", FIXED), 32)
    assert sizes == [2, 2, 2]
    assert_array_equal(x, X[:6])


def test_numbers_are_converted_where_nothing_is_lost():
    np.savez("small.npz", tokens=WORD_DATA["tokens"].astype(np.uint8), numbers=np.ones((40, 3)))
    (tokens, numbers), _ = all_of(dataset.open_data("small.npz", WORDS))
    assert (tokens.dtype, numbers.dtype) == (np.int64, np.float32)


def without(name):
    return {key: value for key, value in WORD_DATA.items() if key != name}


def changed(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("model", "arrays", "error", "says"),
    [
        (WORDS, without("numbers"), ValueError, "w.npz must have an array for input 'numbers', it "
                                                "has 'tokens'"),
        (WORDS, {}, ValueError, "must have an array for input 'tokens', it has none"),
        (WORDS, WORD_DATA | {"tokens": WORD_DATA["numbers"]}, TypeError,
         "w.npz: input 'tokens' must be int64[N, 5], got float32"),
        (WORDS, WORD_DATA | {"numbers": np.ones((40, 4), "float32")}, ValueError,
         "w.npz: input 'numbers' must be float32[N, 3], got shape (32, 4)"),
        (WORDS, WORD_DATA | {"numbers": np.ones((39, 3), "float32")}, ValueError,
         "w.npz: data must hold as many samples of each input, got 'tokens' 40, 'numbers' 39"),
        (WORDS, WORD_DATA | {"numbers": np.full((40, 3), "a")}, TypeError,
         "input 'numbers' must be float32[N, 3], got <U1"),
        (WORDS, WORD_DATA | {"numbers": changed(WORD_DATA["numbers"], (37, 1), np.nan)}, ValueError,
         "w.npz: input 'numbers' must be finite, sample 37 holds NaN or infinity"),
        (WORDS, WORD_DATA | {"numbers": changed(WORD_DATA["numbers"], (2, 0), np.inf)}, ValueError,
         "input 'numbers' must be finite, sample 2 holds NaN or infinity"),
        (IMAGE, {"a": X, "b": X}, ValueError, "an array for input 'image', it has 'a', 'b'"),
        (IMAGE, {"image": X[0]}, ValueError, "must be float32[N, 3, 8, 8], got shape (3, 8, 8)"),
        (IMAGE, {"image": X[:0]}, ValueError, "at least one sample, got shape (0, 3, 8, 8)"),
        (IMAGE, {"image": np.float32(1)}, ValueError, "at least one sample, got shape ()"),
        (FIXED, {"image": X[:1]}, ValueError, "w.npz: data must hold at least 2 samples"),
    ],
)
def test_arrays_that_do_not_fit(model, arrays, error, says):
    np.savez("w.npz", **arrays)
    with pytest.raises(error) as caught:
        all_of(dataset.open_data("w.npz", model), 32)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "error", "says"),
    [
        ("none.npz", {}, FileNotFoundError, "none.npz is not there; data must be a .npz or .npy"),
        ("text.txt", {}, ValueError, "data must be a .npz or .npy file, a folder of images, or "
                                     "script.py:function, got text.txt"),
        ("cut.npz", {}, ValueError, "cut.npz must be a whole file of arrays of numbers: "),
        ("cut.npy", {}, ValueError, "cut.npy must be a whole file of arrays of numbers: "),
        ("text.npz", {}, ValueError, "text.npz must be a whole file of arrays of numbers: "),
        ("x.npy", {"mean": (0.5,)}, ValueError, "--mean is for a folder of images, got x.npy"),
        ("x.npy", {"size": (8, 8)}, ValueError, "--size is for a folder of images, got x.npy"),
        ("x.npy", {"labels": "y"}, ValueError, "labels must be a .npy file, got y: x.npy has no"),
        ("y.npz", {"labels": "z"}, ValueError, "or an array of y.npz, which has 'any', 'y'; got z"),
        ("y.npz", {}, ValueError, "labels must be one for each of 7 samples, got shape (6,) in y."),
        ("y.npz", {"labels": "any"}, TypeError, "labels must be integers, got float32 in y.npz"),
        ("x.npy", {"labels": "x.npy"}, TypeError, "labels must be integers, got float32 in x.npy"),
        ("x.npy", {"labels": "none.npy"}, FileNotFoundError, "none.npy"),
    ],
)
def test_files_that_do_not_fit(folder, source, options, error, says):
    np.savez("y.npz", any=X, y=np.arange(6))
    for name, text in (("text.txt", b"text"), ("text.npz", b"text"),
                       ("cut.npz", (folder / "words.npz").read_bytes()[:-30]),
                       ("cut.npy", (folder / "x.npy").read_bytes()[:-30])):
        (folder / name).write_bytes(text)
    with pytest.raises(error) as caught:
        dataset.open_data(source, IMAGE, **options).labels  # noqa: B018
    assert says in str(caught.value)


def test_labels_that_nobody_asks_for_may_be_anything():
    np.savez("y.npz", any=X, y=np.ones(3))
    assert all_of(dataset.open_data("y.npz", IMAGE))[1] == [3, 3, 1]


def test_several_inputs_have_names():
    with pytest.raises(ValueError, match=r"x\.npy is one array, the model has inputs 'tokens', 'n"):
        dataset.open_data("x.npy", WORDS)


# -------------------------------------------------------------------------------------- scripts

SCRIPT = """
import numpy as np
from beside import X

print("a script may speak")

def array():
    return X

def labelled():
    return {"image": X.tolist(), "label": list(range(7))}

def batches():
    for start in range(0, 7, 3):
        print("and speak")
        yield X[start : start + 3]

def pairs():
    return [(np.zeros((2, 5), int), np.ones((2, 3))), {"numbers": np.ones((1, 3)),
                                                       "tokens": np.ones((1, 5), int)}]

def fails():
    yield X
    raise KeyError("no more")

def none():
    return []

def number():
    return 3

def missing():
    yield {"numbers": np.ones((1, 3))}

def nan():
    yield X
    yield X * np.nan

value = 3
"""


@pytest.fixture
def script(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (folder / "made.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("import numpy as np\nX = np.load('x.npy')\n")
    (folder / "broken.py").write_text("def f(:\n")


def test_functions_in_scripts(script, capsys):
    cut = [2, 2, 2, 1]
    for name, sizes in (("array", cut), ("labelled", cut), ("batches", [3, 3, 1])):
        samples = dataset.open_data(f"made.py:{name}", IMAGE)
        (x,), found = all_of(samples, 2)
        assert_array_equal(x, X)
        assert found == sizes
    assert_array_equal(dataset.open_data("made.py:labelled", IMAGE).labels, np.arange(7))
    (tokens, numbers), sizes = all_of(dataset.open_data("made.py:pairs", WORDS))
    assert sizes == [2, 1]
    assert (tokens.dtype, numbers.dtype) == (np.int64, np.float32)
    out, err = capsys.readouterr()
    assert out == ""
    assert "a script may speak" in err
    assert "and speak" in err


def test_the_first_samples_of_batches(script):
    np.save("labels.npy", np.arange(7))
    samples = dataset.open_data("made.py:batches", IMAGE, samples=4, labels="labels.npy")
    (x,), sizes = all_of(samples)
    assert sizes == [3, 1]
    assert_array_equal(x, X[:4])
    assert_array_equal(samples.labels, np.arange(4))


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("none.py:f", FileNotFoundError, "none.py is not there; data must be"),
        ("made.py:nothing", ValueError, "made.py must have a function 'nothing', got None"),
        ("made.py:value", ValueError, "made.py must have a function 'value', got 3"),
        ("made.py:", ValueError, "made.py must have a function '', got None"),
        ("made.py", ValueError, "data must be a .npz or .npy file, a folder of images, or script"),
        ("broken.py:f", ValueError, "broken.py:f: SyntaxError: "),
        ("made.py:fails", ValueError, "made.py:fails, line 24: KeyError: 'no more'"),
        ("made.py:none", ValueError, "made.py:none must make at least one batch, got none"),
        ("made.py:number", TypeError, "made.py:number must return an array, a dict of arrays, or "
                                      "an iterable of batches, got int"),
        ("made.py:pairs", ValueError, "made.py:pairs, batch from sample 0: "),
        ("made.py:missing", ValueError, "batch from sample 0: data must have input 'image'"),
        ("made.py:nan", ValueError, "input 'image' must be finite, sample 7 holds NaN or infinity"),
    ],
)
def test_scripts_that_do_not_fit(script, source, error, says):
    with pytest.raises(error) as caught:
        all_of(dataset.open_data(source, IMAGE))
    assert says in str(caught.value)


def test_labels_of_batches_are_in_a_file(script):
    with pytest.raises(ValueError, match=r"labels must be a \.npy file, got y: made\.py:batches"):
        dataset.open_data("made.py:batches", IMAGE, labels="y")
