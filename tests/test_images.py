"""Folders of images as samples: what Pillow reads, in the form that a model takes."""

import os
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_demo import run

from qcy import dataset, nn

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("onnx")
import onnx_models  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
IMAGE = nn.onnx.load(onnx_models.images())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with images, and one with images by class."""
    monkeypatch.chdir(tmp_path)
    for path in ("plain", "classes/cat", "classes/dog", "empty", "classes/.hidden"):
        os.makedirs(path)
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(f"plain/{i}.{'PNG' if i else 'bmp'}")
        Image.fromarray(pixels).save(f"classes/{'dog' if i < 4 else 'cat'}/{i}.png")
    (tmp_path / "plain" / "README.txt").write_text("no image")
    (tmp_path / "plain" / ".0.png").write_text("no image")
    return tmp_path


def images_of(source, model=IMAGE, **options):
    return np.concatenate([x for (x,) in dataset.open_data(source, model, **options).batches(4)])


def test_images_in_order():
    samples = dataset.open_data("plain", IMAGE)
    assert samples.labels is None
    x = images_of("plain")
    assert x.dtype == np.float32
    assert_array_equal(x, (PIXELS.astype(np.float32) / np.float32(255)).transpose(0, 3, 1, 2))


def test_folders_are_classes():
    samples = dataset.open_data("classes", IMAGE)
    assert_array_equal(samples.labels, [0, 0, 1, 1, 1, 1])
    assert_array_equal(images_of("classes"), images_of("plain")[[4, 5, 0, 1, 2, 3]])
    few = dataset.open_data("classes", IMAGE, samples=3)
    assert_array_equal(few.labels, (few.chosen >= 2).astype(int))


def test_numbers_of_classes_are_in_order(folder):
    for name in ("10", "9", "1"):
        os.makedirs(f"numbers/{name}")
        Image.fromarray(PIXELS[int(name) % 6]).save(f"numbers/{name}/a.png")
    assert_array_equal(images_of("numbers"), images_of("plain")[[1, 3, 4]])


def test_channels_last_grey_mean_and_deviation():
    last = nn.onnx.load(onnx_models.images(layout="NHWC"))
    assert_array_equal(images_of("plain", last), images_of("plain").transpose(0, 2, 3, 1))
    grey = images_of("plain", nn.onnx.load(onnx_models.images(channels=1)))
    assert grey.shape == (6, 1, 8, 8)
    weights = np.float32([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    assert_allclose(grey[:, 0], (images_of("plain") * weights).sum(axis=1), atol=1 / 255)
    mean, std = (0.5, 0.25, 0), (0.5, 1, 2)
    for model, shape in ((IMAGE, (3, 1, 1)), (last, (3,))):
        plain = images_of("plain", model)
        want = (plain - np.float32(mean).reshape(shape)) / np.float32(std).reshape(shape)
        assert_allclose(images_of("plain", model, mean=mean, std=std), want, rtol=1e-6)
        assert_allclose(images_of("plain", model, std=(2.0,)), plain / 2)


def test_size_and_kind(folder):
    Image.fromarray(np.full((30, 20, 3), 255, np.uint8)).save("plain/0.bmp")
    Image.new("L", (5, 5), 51).save("plain/1.PNG")
    Image.new("RGBA", (8, 8), (0, 51, 255, 0)).save("plain/2.PNG")
    x = images_of("plain")
    assert x.shape == (6, 3, 8, 8)
    assert (x[0] == 1).all()
    assert (x[1] == np.float32(0.2)).all()
    assert_allclose(x[2, :, 0, 0], [0, 0.2, 1])


def test_models_that_leave_the_size_open():
    model = nn.Sequential(nn.Conv2D(onnx_models.normal(0, 4, 3, 3, 3), layout="NHWC"))
    assert images_of("plain", model, size=(5, 6)).shape == (6, 5, 6, 3)
    quantized = nn.quantize_model(model, np.ones((2, 5, 6, 3), np.float32), progress=False)
    assert images_of("plain", quantized, size=(5, 6)).shape == (6, 5, 6, 3)
    with pytest.raises(ValueError, match=r"--size of images must be given: input 'input' is float"):
        images_of("plain", model)


def test_bytes_stay_bytes():
    model = nn.onnx.load(onnx_models.make(
        [("Cast", ["x"], ["y"], {"to": 1})], [("x", "uint8", ["N", 8, 8, 3])],
        [("y", "float32", ["N", 8, 8, 3])], {},
    ))
    assert_array_equal(images_of("plain", model), PIXELS)
    with pytest.raises(ValueError, match="--std is for images in float32, the model takes uint8"):
        images_of("plain", model, std=(0.5,))


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("empty", {}, "empty must hold images (.bmp .gif .jpeg "),
        ("mixed", {}, "mixed must hold images, or a folder for each class; it has 0.png and cat"),
        ("broken", {}, "broken/b.png must be an image that can be read: "),
        ("cut", {}, "cut/a.png must be an image that can be read: "),
        ("plain", {"mean": (1, 2)}, "--mean must have 3 numbers, got [1, 2]"),
        ("plain", {"std": (1, 0, 1)}, "--std must be positive, got [1.0, 0.0, 1.0]"),
        ("plain", {"size": (4, 4)}, "must be float32[N, 3, 8, 8], got shape (4, 3, 4, 4)"),
        ("plain", {"labels": "y"}, "labels must be a .npy file, got y: plain has no names"),
    ],
)
def test_folders_that_do_not_fit(folder, source, options, says):
    for name in ("mixed/cat", "broken", "cut"):
        os.makedirs(name)
    Image.fromarray(PIXELS[0]).save("mixed/0.png")
    Image.fromarray(PIXELS[0]).save("broken/a.png")
    (folder / "broken" / "b.png").write_text("no image")
    (folder / "cut" / "a.png").write_bytes((folder / "broken" / "a.png").read_bytes()[:100])
    with pytest.raises(ValueError) as caught:
        images_of(source, **options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Dense(np.eye(3))), "input 'input' is of a form that no layer tells"),
        (nn.onnx.load(onnx_models.images(channels=4)), "'image' is float32[N, 4, 8, 8]"),
        (nn.onnx.load(onnx_models.words()), "plain has images alone, the model has inputs"),
    ],
)
def test_models_of_something_else(model, says):
    with pytest.raises(ValueError) as caught:
        images_of("plain", model)
    assert says in str(caught.value)


def test_few_images_are_in_memory_at_once(monkeypatch):
    from qcy._images import _Form

    read = []
    image = _Form.image
    monkeypatch.setattr(_Form, "image", lambda self, path: read.append(path) or image(self, path))
    batches = iter(dataset.open_data("plain", IMAGE).batches(2))
    assert read == []
    next(batches)
    assert len(read) == 2


def test_by_the_command_line(folder, monkeypatch):
    import onnx

    onnx.save(onnx_models.images(), "image.onnx")
    normal = ["--mean", "0.5,0.4,0.3", "--std", "0.2"]
    for command in (
        ["quantize", "image.onnx", "--data", "plain", "-o", "q.qcy", "--batch", 4, *normal],
        ["compare", "image.onnx", "q.qcy", "--data", "classes", "--repeats", 1, *normal],
    ):
        status, out, err = run(*command)
        assert status == 0, err
    assert "accuracy " in out
    status, out, err = run("quantize", "image.onnx", "--data", "empty", "-o", "e.qcy")
    assert (status, out) == (1, "")
    assert err.startswith("qcy: empty must hold images")
    monkeypatch.setitem(sys.modules, "PIL", None)
    status, _, err = run("quantize", "image.onnx", "--data", "plain", "-o", "e.qcy")
    assert status == 1
    assert "qcy: reading images needs the Pillow package: pip install 'qcy[images]'" in err
