"""The main job, on real labelled images: a float network becomes 8-bit, with proof."""

import datetime
import json
import os
import platform
from importlib import resources
from pathlib import Path

import numpy as np

import qcy
from qcy.nn import MSEObserver, compare_quantized_model, storage
from qcy.nn.calibration import Calibrator
from qcy.nn.fusion import fuse
from qcy.nn.progress import track
from qcy.nn.quantize import convert

CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)


def load_model():
    """Return the float32 network that the package carries, trained on Fashion-MNIST."""
    data = resources.files("qcy.data").joinpath("fashion_cnn.qcy").read_bytes()
    return storage.from_bytes(data, "fashion_cnn.qcy")


def load_images():
    """Return (calibration images, test images, test labels) that the package carries.

    Images are (N, 1, 28, 28) float32 in [0, 1]: 256 of the training set and 2,000 of the test set.
    """
    with (
        resources.files("qcy.data").joinpath("fashion_mnist.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        calibration, test = (
            arrays[name][:, None].astype(np.float32) / np.float32(255)
            for name in ("calibration_images", "test_images")
        )
        return calibration, test, arrays["test_labels"].astype(np.int64)


def quantize(model, images, progress=True):
    """Return the 8-bit model, and the histogram and the parameters of each of its tensors.

    The same as `qcy.nn.quantize_model`, but for keeping what the observers saw.
    """
    fused = fuse(model)
    calibrator = Calibrator(fused, observer=MSEObserver)
    batches = [images[i : i + 32] for i in range(0, len(images), 32)]
    for batch in track(batches, "calibrating", progress):
        calibrator.observe(batch)
    quantized = convert(fused, calibrator)
    histograms = {
        name: (observer.histogram, quantized.params[name])
        for name, observer in calibrator.observers.items()
    }
    return quantized, histograms


def run(output=Path(), as_json=False):
    """Run the demo, print what it found, and write ``report.html`` into the folder `output`."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"the output must be a folder, {output} is a file")
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):      # said now, not after the work
        raise PermissionError(f"the output folder {output} is not writable")
    path = output / "report.html"
    model = load_model()
    calibration, images, labels = load_images()
    about = qcy.info() | {
        "numpy": np.__version__, "machine": platform.machine(),
        "date": datetime.date.today().isoformat(),
    }
    if not as_json:
        print(
            f"qcy {about['version']}, kernels for {about['variant']}, {about['threads']} threads\n"
            f"A float32 network for Fashion-MNIST, {len(model.nodes)} layers; "
            f"{len(calibration)} images to calibrate, {len(images)} to test.\n"
        )
    quantized, histograms = quantize(model, calibration)
    report = compare_quantized_model(quantized, model, images, labels)
    report.to_html(path, histograms, class_names=CLASSES, about=about)
    if as_json:
        print(json.dumps(report.to_dict() | {"report": str(path), "info": about}))
    else:
        print(f"\n{report}\n\nThe whole report, with pictures: {path.resolve()}")
