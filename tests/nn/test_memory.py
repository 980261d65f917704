"""Calibration keeps nothing of the data: its memory does not grow with the number of images."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="peak memory is read as POSIX tells it")

#: MobileNetV2 (Sandler et al., 2018, table 2) with random weights; calibrated on so many images.
SCRIPT = """
import resource, sys
import numpy as np
from qcy import nn

rng = np.random.default_rng(0)
nodes, channels = [], {"input": 3}

def conv(x, n, kernel, stride=1, groups=1, act=True):
    n_in = channels[x] // groups
    weight = rng.normal(size=(n, n_in, kernel, kernel)) * (2 / (n_in * kernel**2)) ** 0.5
    name = f"conv{len(nodes)}"
    nodes.append((name, nn.Conv2D(weight, np.zeros(n), stride=stride, padding=kernel // 2,
                                  groups=groups, activation="relu6" if act else None), x))
    channels[name] = n
    return name

x = conv("input", 32, 3, 2)
for t, n, times, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                           (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
    for i in range(times):
        stride, inner = (first if i == 0 else 1), channels[x] * t
        y = conv(conv(x, inner, 1) if t > 1 else x, inner, 3, stride, inner)
        y = conv(y, n, 1, act=False)
        if stride == 1 and channels[x] == n:
            nodes.append((f"add{len(nodes)}", nn.Add(), (x, y)))
            y = nodes[-1][0]
            channels[y] = n
        x = y
nodes += [("mean", nn.GlobalAvgPool2D(), conv(x, 1280, 1)), ("flat", nn.Flatten(), "mean"),
          ("dense", nn.Dense(rng.normal(size=(1280, 10)) / 36), "flat")]
model = nn.Model(nodes)
images = rng.normal(size=(2, 3, 224, 224)).astype(np.float32)
quantized = nn.quantize_model(
    model, (images * (1 + i % 7 / 7) for i in range(int(sys.argv[1]) // 2)), progress=False,
    observer=getattr(nn, sys.argv[2]),
)
assert quantized.manifest["n_samples"] == int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(n_images, observer):
    """Return the peak memory of a process that calibrates, in the unit of the system."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(n_images), observer], capture_output=True, text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, check=False,
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_memory_does_not_grow_with_the_number_of_images():
    few, many = (peak(n, "MinMaxObserver") for n in (10, 1000))
    assert abs(many - few) < 0.05 * few


def test_nor_does_it_with_histograms():
    few, many = (peak(n, "MSEObserver") for n in (10, 60))
    assert abs(many - few) < 0.05 * few
