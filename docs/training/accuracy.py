"""Measures what 8 bits cost ONNX models for Fashion-MNIST, with the settings that nobody chose.

    python docs/training/accuracy.py tests/data/onnx/*.onnx

Needs onnx and onnxruntime.  Every model is calibrated on the first training images, tested on all
10,000 test images, and timed on one thread, in turn with onnxruntime.  Prints a Markdown table.
"""

import argparse
import os
import platform
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # read when NumPy is imported

import fashion_data
import numpy as np
import onnxruntime

import qcy
from qcy._timing import medians
from qcy.nn import compare_quantized_model, onnx, quantize_model

BATCHES, ROUNDS, SHORTEST = (1, 64), 25, 0.02
HEADER = [
    "model", "float, onnxruntime", "float, qcy", "8-bit, qcy", "difference", "agreement",
    "bytes .onnx", "bytes .qcy",
    *(f"us per image, batch {n}: float onnxruntime / 8-bit qcy" for n in BATCHES),
]


def load(directory, part):
    """(images, labels) as the models take them: float32 in [0, 1], (N, 1, 28, 28)."""
    images, labels = fashion_data.load(directory, part)
    return images[:, None] / np.float32(255), labels.astype(np.int64)


def measure(path, calibration, images, labels):
    """The cells of one model's row, and what makes the report of its layers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x):
        return session.run(None, {name: x})[0]

    model = onnx.load(path)
    quantized = quantize_model(model, calibration, progress=False)
    parts = [images[i : i + 100] for i in range(0, len(images), 100)]
    theirs, ours, coded = (
        np.concatenate([f(x) for x in parts]).argmax(axis=1) for f in (run, model, quantized)
    )
    right = [float(np.mean(answers == labels)) for answers in (theirs, ours, coded)]
    times = []
    for n in BATCHES:
        x = images[:n]
        pair = medians([lambda x=x: run(x), lambda x=x: quantized(x)], ROUNDS, SHORTEST)
        times.append(" / ".join(f"{1e6 * seconds / n:.1f}" for seconds in pair))
    return [
        Path(path).name, *(f"{share:.2%}" for share in right),
        f"{100 * (right[2] - right[1]):+.2f}", f"{np.mean(coded == ours):.2%}",
        f"{os.path.getsize(path):,}", f"{len(quantized.to_bytes()):,}", *times,
    ], lambda: compare_quantized_model(quantized, model, images, labels, batch_sizes=())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--data", default=fashion_data.DEBIAN, help="folder (default %(default)s)")
    parser.add_argument("--calibration", type=int, default=256, help="images (default %(default)s)")
    parser.add_argument("--layers", action="store_true", help="print the error of every layer too")
    args = parser.parse_args()

    calibration = load(args.data, "train")[0][: args.calibration]
    images, labels = load(args.data, "t10k")
    with qcy.threads(1):
        found = [measure(path, calibration, images, labels) for path in args.models]
    print(
        f"qcy {qcy.__version__} with kernels for {qcy.info()['variant']}, onnxruntime "
        f"{onnxruntime.__version__}, NumPy {np.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}; {args.calibration} images to calibrate, {len(images)} to test.\n"
    )
    for row in (HEADER, ["---"] * len(HEADER), *(row for row, _ in found)):
        print(f"| {' | '.join(row)} |")
    if args.layers:
        for row, report in found:
            print(f"\n{row[0]}\n\n{report()}")


if __name__ == "__main__":
    main()
