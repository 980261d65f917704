"""Makes qcy/data/fashion_mnist.npz, the images on which the demo model is calibrated and tested.

    python docs/training/fashion_data.py [--data DIR] [--out FILE.npz]

DIR holds the four idx .gz files of Fashion-MNIST; the default is where Debian's package
dataset-fashion-mnist puts them.  The same input gives the same file, byte for byte, as long as
Python is linked with the same zlib: numpy dates every member of the archive 1980-01-01.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
N_CALIBRATION, N_TEST = 256, 2000


def read_idx(path):
    """The uint8 array in a gzipped idx file: magic 00 00 08 ndim, big-endian sizes, bytes."""
    raw = gzip.decompress(Path(path).read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of unsigned bytes")
    ndim = raw[3]
    shape = np.frombuffer(raw, ">u4", ndim, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def load(directory, part):
    """(images, labels) of part "train" (60,000 images of 28 x 28) or "t10k" (10,000)."""
    directory = Path(directory)
    return (
        read_idx(directory / f"{part}-images-idx3-ubyte.gz"),
        read_idx(directory / f"{part}-labels-idx1-ubyte.gz"),
    )


def main():
    default = Path(__file__).resolve().parents[2] / "qcy" / "data" / "fashion_mnist.npz"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder (default %(default)s)")
    parser.add_argument("--out", type=Path, default=default, help="file to write")
    args = parser.parse_args()
    train_images, _ = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    np.savez_compressed(
        args.out,
        calibration_images=train_images[:N_CALIBRATION],
        test_images=test_images[:N_TEST],
        test_labels=test_labels[:N_TEST],
    )
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
