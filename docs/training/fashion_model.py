"""Turns the trained parameters into the model file that the package carries.

Usage: ``python docs/training/fashion_model.py fashion_cnn.npz qcy/data/fashion_cnn.qcy``, with the
parameters that ``fashion_cnn.py --out`` wrote.
"""

import sys

import numpy as np

from qcy.nn import (
    Add, BatchNorm, Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, Model, ReLU,
)


def build(parameters):
    """Return the float model: convolutions, batch norms, a residual block, a classifier."""

    def conv(number, **settings):
        return Conv2D(parameters[f"conv{number}.weight"], padding=1, **settings)

    def norm(number):
        names = ("gamma", "beta", "mean", "variance")
        return BatchNorm(*(parameters[f"bn{number}.{name}"] for name in names))

    return Model([
        ("conv1", conv(1), "input"), ("bn1", norm(1), "conv1"), ("relu1", ReLU(), "bn1"),
        ("conv2", conv(2, stride=2), "relu1"), ("bn2", norm(2), "conv2"),
        ("relu2", ReLU(), "bn2"),
        ("conv3", conv(3), "relu2"), ("bn3", norm(3), "conv3"), ("relu3", ReLU(), "bn3"),
        ("conv4", conv(4), "relu3"), ("bn4", norm(4), "conv4"),
        ("add", Add(), ("bn4", "relu2")), ("relu4", ReLU(), "add"),
        ("pool", MaxPool2D(2), "relu4"),
        ("conv5", conv(5), "pool"), ("bn5", norm(5), "conv5"), ("relu5", ReLU(), "bn5"),
        ("conv6", conv(6), "relu5"), ("bn6", norm(6), "conv6"), ("relu6", ReLU(), "bn6"),
        ("mean", GlobalAvgPool2D(), "relu6"), ("flatten", Flatten(), "mean"),
        ("dense", Dense(parameters["dense.weight"], parameters["dense.bias"]), "flatten"),
    ])


if __name__ == "__main__":
    source, target = sys.argv[1:]
    with np.load(source) as file:
        build(dict(file)).save(target)
