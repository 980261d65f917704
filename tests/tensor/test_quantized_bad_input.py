"""What operations of QuantizedTensor refuse, and with which words."""

import math

import numpy as np
import pytest

from qcy import QuantizationParams, QuantizedTensor, Tensor

U8 = QuantizedTensor(np.ones((1, 2, 4, 4), np.uint8), QuantizationParams(0.5, 1))
KERNEL = QuantizedTensor(np.ones((3, 2, 2, 2), np.int8), QuantizationParams(0.5, 0, "int8"))
MATRIX = QuantizedTensor(np.ones((4, 4), np.uint8), QuantizationParams(0.5, 1))
CHANNELS = QuantizationParams([1] * 4, [0] * 4, axis=0)
SPLIT = QuantizedTensor(np.ones((4, 4), np.uint8), CHANNELS)
SHORT = QuantizedTensor(np.ones((3, 3), np.uint8), QuantizationParams(1))
BIG = QuantizedTensor(np.full((4, 4), 255, np.uint8), QuantizationParams(1e18))
TINY = QuantizedTensor(np.ones((4, 4), np.uint8), QuantizationParams(1e-30))
STACK = QuantizedTensor(np.ones((2, 3, 4), np.uint8), QuantizationParams(0.5, 1))
HUGE = QuantizedTensor(np.ones((4, 4), np.uint8), QuantizationParams(1e38))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MATRIX.add(1), TypeError, "must be a QuantizedTensor"),
        (lambda: MATRIX.add(SPLIT), ValueError, "one per channel of axis 0"),
        (lambda: SPLIT.mul(MATRIX), ValueError, "one per channel of axis 0"),
        (lambda: MATRIX.add(SHORT), ValueError, "broadcast"),
        (lambda: MATRIX.add(MATRIX, out_params=1), TypeError, "out_params must be"),
        (lambda: MATRIX.mul(MATRIX, out_params=CHANNELS), ValueError, "one scale"),
        (lambda: HUGE + HUGE * 3, ValueError, "scale must be positive, finite"),
        (lambda: HUGE * HUGE, ValueError, "scale must be positive, finite"),
        (lambda: HUGE @ HUGE, ValueError, "fit float32, got inf to inf with a_scale=.* b_scale="),
        (lambda: BIG @ BIG, ValueError, "fit float32, got 2.*e.41 to .* with a_scale=.* b_scale="),
        (lambda: TINY @ TINY, ValueError, "at least 2..-126: a_scale=1.*, b_scale=1.*, out_scale"),
        (lambda: (U8 * 1e-30).conv2d(KERNEL * 1e-30), ValueError, "-126: x_scale=.* w_scale="),
        (lambda: STACK @ STACK, ValueError, "inner dimensions differ"),
        (lambda: STACK @ STACK.reshape(3, 4, 2), ValueError, "leading axes disagree"),
        (lambda: STACK.matmul(STACK.reshape(3, 4, 2), out_params=STACK.params), ValueError,
         "leading axes disagree"),
        (lambda: MATRIX.matmul(np.ones((4, 4))), TypeError, "must be a QuantizedTensor"),
        (lambda: MATRIX.matmul(SHORT), ValueError, "inner dimensions differ"),
        (lambda: MATRIX.matmul(SHORT, out_params=MATRIX.params), ValueError, "inner dimensions"),
        (lambda: MATRIX.matmul(SPLIT), ValueError, "per channel of its last axis"),
        (lambda: SPLIT.matmul(MATRIX), ValueError, "one per channel of axis 0"),
        (lambda: MATRIX.matmul(MATRIX, bias=np.ones(3, np.int32)), ValueError, "bias"),
        (lambda: MATRIX.matmul(MATRIX, bias=np.ones(4)), TypeError, "bias must hold integers"),
        (lambda: MATRIX.matmul(MATRIX.reshape(16)[0]), ValueError, "at least 1 dimension"),
        (lambda: U8.conv2d(KERNEL.codes), TypeError, "kernel must be a QuantizedTensor"),
        (lambda: U8.conv2d(KERNEL, groups=2), ValueError, "groups"),
        (lambda: U8.conv2d(KERNEL, padding=-1), ValueError, "padding"),
        (lambda: U8.conv2d(KERNEL, stride=0), ValueError, "stride"),
        (lambda: U8.conv2d(KERNEL, dilation=9), ValueError, "must hold the kernel"),
        (lambda: U8.conv2d(KERNEL, layout="CHWN"), ValueError, "layout"),
        (lambda: U8.conv2d(KERNEL, bias=np.ones(2, np.int32)), ValueError, "bias"),
        (lambda: MATRIX.conv2d(KERNEL), ValueError, "x must have 4 dimensions"),
        (lambda: U8.conv2d(U8.transpose(1, 0, 2, 3)), ValueError, "channels"),
        (lambda: U8.conv2d(QuantizedTensor(
            KERNEL.codes, QuantizationParams([1, 1], [0, 0], "int8", 1)
        )), ValueError, "axis 0, not of 1"),
        (lambda: U8.sigmoid(out_params=3), TypeError, "out_params must be"),
        (lambda: SPLIT.tanh(), ValueError, "one per channel"),
        (lambda: MATRIX.max_pool2d(2), ValueError, "x must have 4 dimensions"),
        (lambda: U8.max_pool2d(2, padding=2), ValueError, "padding must be less"),
        (lambda: U8.max_pool2d(5), ValueError, "must hold the kernel"),
        (lambda: U8.avg_pool2d(0), ValueError, "kernel_size"),
        (lambda: U8.avg_pool2d(2, out_params=KERNEL.params), TypeError, "must be uint8"),
    ],
)
def test_operations_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("factor", [1e-60, 1e-40, 1e39, 1e60, 1e300])
def test_scale_by_refuses_a_scale_beyond_float32_whatever_the_sign(factor):
    said = []
    for signed in (factor, -factor):
        with pytest.raises(ValueError, match="scale must be positive, finite") as caught:
            MATRIX * signed
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("factor", "error"),
    [
        (0, ValueError), (0.0, ValueError), (math.nan, ValueError), (math.inf, ValueError),
        (-math.inf, ValueError), (1e39, ValueError), (-1e39, ValueError), (1e-39, ValueError),
        ("2", TypeError), (None, TypeError), (1j, TypeError), ([2.0], TypeError),
        (np.array([2.0]), TypeError),
    ],
)
def test_scale_by_refuses(factor, error):
    with pytest.raises(error, match="must be"):
        QuantizedTensor(np.ones(2, np.uint8), QuantizationParams(1.0)).scale_by(factor)


def test_operators_leave_other_types_alone():
    for operate in (
        lambda x: x + 1, lambda x: x + np.ones(2), lambda x: x * "2", lambda x: x * [2],
        lambda x: x @ np.ones((4, 4)), lambda x: x * Tensor(np.ones((4, 4))), lambda x: 1 + x,
    ):
        with pytest.raises(TypeError):
            operate(MATRIX)
