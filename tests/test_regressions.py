"""Defects of the first design that must never come back, those of the primitives: one test each.

The list is section 6 of the arithmetic contract. Numbers 6 (calibration), 7 (per-channel scheme)
and 8 (a quantized model that executes) are in tests/nn.
"""

import time

import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

from qcy import _kernels
from qcy.primitive import (
    col2im_q8,
    conv2d_q8,
    conv2d_q8_accum,
    conv_transpose2d_q8,
    gemm_nn_q8,
    gemm_nn_q8_accum,
    im2col_q8,
    pack_q8,
    requantize_q8,
)


def test_defect_1_convolution_of_5x5_reads_its_matrix_the_right_way(kernels):
    # Right by symmetry for 3x3 images in the wrong orientation, wrong for any larger one.
    x = np.array([
        [3, 1, 4, 1, 5],
        [9, 2, 6, 5, 3],
        [5, 8, 9, 7, 9],
        [3, 2, 3, 8, 4],
        [6, 2, 6, 4, 3],
    ], np.uint8)[None, None]
    w = np.array([[1, 2], [3, 4]], np.int8)[None, None]
    acc = conv2d_q8_accum(x, w)[0, 0]
    assert acc[0].tolist() == [40, 39, 44, 38]      # 3 + 2*1 + 3*9 + 4*2, and so on
    assert_array_equal(acc, oracles.conv_sums(x, w)[0, 0])
    matrix = im2col_q8(x, 2, zero_point=0)
    assert_array_equal(gemm_nn_q8_accum(matrix, w.reshape(4, 1)).reshape(4, 4), acc)


def test_defect_2_padding_is_the_zero_point_not_code_0(kernels):
    x = np.full((1, 1, 2, 2), 7, np.uint8)          # an image of 0.0
    assert np.all(im2col_q8(x, 3, zero_point=7, padding=1) == 7)
    w = np.full((4, 1, 3, 3), 5, np.int8)
    assert np.all(conv2d_q8_accum(x, w, x_zero_point=7, padding=1) == 0)
    x = np.full((1, 4, 2, 2), -9, np.int8)          # depthwise has a loop of its own
    assert np.all(conv2d_q8_accum(x, w, x_zero_point=-9, padding=1, groups=4) == 0)


def test_defect_3_requantization_rounds(kernels):
    acc = np.arange(-8, 9, dtype=np.int32)
    codes = requantize_q8(acc, 0.25, dtype="int8")
    assert codes.tolist() == [-2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    a, b = np.arange(12, dtype=np.uint8).reshape(-1, 1), np.ones((1, 1), np.int8)
    codes = gemm_nn_q8(a, b, a_scale=1, b_scale=1, out_scale=4)[:, 0]
    assert codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3]
    x, w = a.reshape(1, 1, 12, 1), b.reshape(1, 1, 1, 1)
    codes = conv2d_q8(x, w, x_scale=1, w_scale=1, out_scale=4)
    assert codes.ravel().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_defect_4_column_sums_are_computed_once_per_pack(kernels, monkeypatch):
    calls = []

    class Counted:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(kernels.q8, name)

    packed = pack_q8(np.ones((40, 30), np.int8), b_zero_point=3, b_scale=1)
    monkeypatch.setattr(packed, "_kernels", type("K", (), {"q8": Counted()}))
    a = np.ones((20, 40), np.uint8)
    for _ in range(5):
        gemm_nn_q8(a, packed, a_scale=1, out_scale=1, a_zero_point=2)
    assert "pack" not in calls
    assert calls.count("fold") == 1         # the rest is cached for the same zero point and scales
    assert calls.count("product") == 5


def test_defect_4_row_sums_are_computed_once_per_row():
    # Once per output would take as long again as the product, and many times that with VNNI.
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (256, 512), np.uint8), rng.integers(-128, 128, (512, 256), np.int8)
    packs = [pack_q8(b), pack_q8(b, b_zero_point=1)]        # only the second needs row sums
    best = [float("inf")] * 2
    for _ in range(30):
        for i, packed in enumerate(packs):
            start = time.perf_counter()
            gemm_nn_q8_accum(a, packed, n_threads=1)
            best[i] = min(best[i], time.perf_counter() - start)
    assert best[1] < 1.5 * best[0], _kernels.active


def test_defect_5_col2im_and_transposed_convolution_sum_in_32_bits(kernels):
    columns = np.full((9, 4), 255, np.uint8)
    sums = col2im_q8(columns, (1, 1, 4, 4), 2, zero_point=0)
    assert sums.dtype == np.int32
    assert sums[0, 0, 1, 1] == 4 * 255
    x, w = np.full((1, 1, 3, 3), 255, np.uint8), np.full((1, 1, 2, 2), 127, np.int8)
    codes = conv_transpose2d_q8(x, w, x_scale=1, w_scale=1, out_scale=4 * 127)
    assert codes[0, 0].tolist() == [
        [64, 128, 128, 64], [128, 255, 255, 128], [128, 255, 255, 128], [64, 128, 128, 64]
    ]


@pytest.mark.parametrize("zero_point", [0, 5])
def test_defect_9_an_empty_sum_is_the_code_of_0_plus_bias(kernels, zero_point):
    a, b = np.empty((2, 0), np.uint8), np.empty((0, 3), np.int8)
    out = np.full((2, 3), 99, np.uint8)
    keywords = {"a_scale": 1, "b_scale": 1, "out_scale": 1, "b_zero_point": zero_point}
    gemm_nn_q8(a, b, **keywords, out_zero_point=11, out=out)
    assert np.all(out == 11)
    gemm_nn_q8(a, b, **keywords, out_zero_point=11, bias=[0, 20, -5], out=out)
    assert out.tolist() == [[11, 31, 6]] * 2
    acc = np.full((2, 3), 99, np.int32)
    gemm_nn_q8_accum(a, b, b_zero_point=zero_point, bias=[0, 20, -5], out=acc)
    assert acc.tolist() == [[0, 20, -5]] * 2
