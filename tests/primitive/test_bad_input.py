"""Bad input is a built-in error that names argument, rule and value, and leaves `out` alone."""

import re

import numpy as np
import pytest
from calls import CALLS, COMPUTING, I32, U8, codes

from qcy import primitive

NAN, INF = float("nan"), float("inf")


def check(function, operands, keywords, error, message):
    """Check that a call with these changes raises, and leaves `out` as it was."""
    given, usual, shape, dtype = CALLS[function]
    given, usual = list(given), dict(usual)
    for index, operand in operands.items():
        given[index] = operand
    out = None
    if shape is not None and "out" not in keywords:
        out = usual["out"] = np.full(shape, 77, dtype)
    with pytest.raises(error, match=message):
        getattr(primitive, function)(*given, **{**usual, **keywords})
    assert out is None or np.all(out == 77)


@pytest.mark.parametrize("function", CALLS)
def test_the_calls_that_this_file_spoils_are_good(function):
    operands, keywords, shape, dtype = CALLS[function]
    result = getattr(primitive, function)(*operands, **keywords)
    if shape is not None:
        assert (result.shape, result.dtype) == (shape, dtype)


# ------------------------------------------------------------------------------------ operands

FIRST = {
    **dict.fromkeys(["gemm_nn_q8", "gemm_nn_q8_accum", "gemm_batched_q8", "add_q8", "mul_q8"], "a"),
    **dict.fromkeys(
        ["dequantize_q8", "lookup_q8", "clamp_q8", "softmax_q8", "layer_norm_q8", "permute_q8",
         "strided_q8", "gather_q8"],
        "codes",
    ),
    "col2im_q8": "columns", "pack_q8": "b", "pack_conv_q8": "w", "attention_q8": "q",
}
TAKE_CODES = [
    name for name in CALLS if name not in ("quantize_q8", "requantize_q8", "embed_q8")
]


@pytest.mark.parametrize("function", TAKE_CODES)
@pytest.mark.parametrize(
    "dtype", ["bool", "i2", "u4", "f4", "c8", "O", "U1", "list of u1"],
)
def test_only_8_bit_integers_are_codes(function, dtype):
    operand = np.ones(CALLS[function][0][0].shape).astype(dtype.removeprefix("list of "))
    operand = operand.tolist() if dtype.startswith("list") else operand
    name = FIRST.get(function, "x")
    check(function, {0: operand}, {}, TypeError, f"{name} must be int8 or uint8, got ")


@pytest.mark.parametrize(
    "function",
    ["gemm_nn_q8", "gemm_batched_q8", "conv2d_q8", "add_q8", "mul_q8", "conv_transpose2d_q8",
     "gemm_nn_q8_accum", "lookup_q8"],
)
def test_the_second_operand_too(function):
    operand = CALLS[function][0][1].astype(np.int16)
    check(function, {1: operand}, {}, TypeError, "(b|w|table) must be int8 or uint8, got int16")


@pytest.mark.parametrize(
    ("function", "operands", "keywords", "message"),
    [
        ("gemm_nn_q8", {0: codes(3)}, {}, r"a must have 2 dimensions, got shape \(3,\)"),
        ("gemm_nn_q8", {1: codes(1, 3, 4)}, {}, r"b must have 2 dimensions, got shape \(1, 3, 4\)"),
        ("gemm_nn_q8", {1: codes(4, 4)}, {}, r"a is \(2, 3\) and b is \(4, 4\): inner dimensions"),
        ("gemm_nn_q8_accum", {0: codes(2, 4)}, {}, r"a is \(2, 4\) and b is \(3, 4\): inner"),
        ("gemm_batched_q8", {0: codes(3)}, {}, r"a must have at least 2 dimensions, .*\(3,\)"),
        ("gemm_batched_q8", {1: codes(3)}, {}, r"b must have at least 2 dimensions, .*\(3,\)"),
        ("gemm_batched_q8", {1: codes(5, 2, 4)}, {}, "inner dimensions differ"),
        ("gemm_batched_q8", {1: codes(4, 3, 4)}, {}, r"\(4, 3, 4\): leading axes disagree"),
        ("conv2d_q8", {0: codes(4, 5, 5)}, {}, r"x must have 4 dimensions, got shape \(4, 5, 5\)"),
        ("conv2d_q8", {1: codes(4, 5, 5)}, {}, r"w must have 4 dimensions, got shape \(4, 5, 5\)"),
        ("conv2d_q8", {0: codes(1, 3, 5, 5)}, {}, "x must have 4 channels .*, got 3"),
        ("conv2d_q8", {}, {"groups": 2}, "x must have 8 channels .* groups 2, got 4"),
        ("conv2d_q8", {}, {"groups": 4}, "groups must divide the 6 output channels, got 4"),
        ("conv2d_q8", {}, {"dilation": 5}, "must hold the kernel: 5x5 .* dilation"),
        ("conv2d_q8_accum", {1: codes(6, 4, 6, 1)}, {}, "image must hold the kernel: 5x5"),
        ("conv2d_q8", {1: codes(6, 4, 0, 1)}, {}, "kernel_size must be at least 1, got 0"),
        ("conv_transpose2d_q8", {1: codes(3, 6, 2, 2)}, {}, r"w must have 4 input .*\(3, 6, 2"),
        ("conv_transpose2d_q8", {}, {"groups": 3}, "divide the 4 input channels, got 3"),
        ("conv_transpose2d_q8", {}, {"padding": 2}, "padding must leave some output, got 2"),
        ("conv_transpose2d_q8", {}, {"output_padding": 1}, "less than stride or dilation, got 1"),
        ("im2col_q8", {0: codes(2, 3, 3)}, {}, "x must have 4 dimensions"),
        ("im2col_q8", {1: 4}, {}, r"must hold the kernel: 3x3 .*\(4, 4\)"),
        ("im2col_q8", {1: (1, 2, 3)}, {}, r"kernel_size must be a number or a pair, got \(1, 2, 3"),
        ("col2im_q8", {0: codes(4, 7)}, {}, r"columns must have shape \(4, 8\), got \(4, 7\)"),
        ("col2im_q8", {1: (2, 3, 3)}, {}, r"shape must have 4 numbers, got \(2, 3, 3\)"),
        ("col2im_q8", {1: (1, 2, 3, -3)}, {}, "shape must be at least 0, got -3"),
        ("lookup_q8", {1: codes(255)}, {}, "table must have 256 entries, got 255"),
        ("add_q8", {1: codes(2, 4)}, {}, r"a is \(2, 3\) and b is \(2, 4\): shapes do not"),
        ("clamp_q8", {1: 10}, {}, r"clamp must be \(low, high\) with low <= high, got \(10, 9\)"),
        ("clamp_q8", {2: 256}, {}, r"clamp\[1\] must be in \[0, 255\], got 256"),
        ("softmax_q8", {0: np.array(3, U8)}, {}, "codes must have at least 1 dimension"),
        ("softmax_q8", {1: np.ones(255, I32)}, {}, r"table must have shape \(256,\), got \(255,\)"),
        ("max_pool2d_q8", {0: codes(4, 4)}, {}, "x must have 4 dimensions"),
        ("max_pool2d_q8", {}, {"padding": 2}, r"padding must be less than the kernel .*, got 2"),
        ("avg_pool2d_q8", {}, {"padding": (0, 0, 0, 2)}, "padding must be less than the kernel"),
        ("avg_pool2d_q8", {1: 5}, {}, "image must hold the kernel: 4x4"),
        ("pack_q8", {0: codes(3)}, {}, "b must have 2 dimensions"),
        ("pack_conv_q8", {0: codes(3, 3)}, {}, "w must have 4 dimensions"),
        ("pack_conv_q8", {}, {"groups": 0}, "groups must be at least 1, got 0"),
    ],
)
def test_shapes_that_disagree(function, operands, keywords, message):
    check(function, operands, keywords, ValueError, message)


# ---------------------------------------------------------------------------------- parameters

SCALES = [
    (function, name) for function, names in {
        "gemm_nn_q8": ["a_scale", "b_scale", "out_scale"],
        "gemm_batched_q8": ["a_scale", "b_scale", "out_scale"],
        "conv2d_q8": ["x_scale", "w_scale", "out_scale"],
        "conv_transpose2d_q8": ["x_scale", "w_scale", "out_scale"],
        "quantize_q8": [1], "dequantize_q8": [1], "requantize_q8": [1],
        "add_q8": ["a_scale", "b_scale", "out_scale"],
        "mul_q8": ["a_scale", "b_scale", "out_scale"],
        "avg_pool2d_q8": ["x_scale", "out_scale"],
        "pack_q8": ["b_scale"], "pack_conv_q8": ["w_scale"],
    }.items() for name in names
]


@pytest.mark.parametrize(("function", "name"), SCALES)
@pytest.mark.parametrize("value", [0, -1.0, NAN, INF, 1e-39, 1e39, -0.0])
def test_scales_are_positive_normal_numbers(function, name, value):
    given = ({name: value}, {}) if name == 1 else ({}, {name: value})
    called = {"requantize_q8": "multiplier"}.get(function, "scale") if name == 1 else name
    message = rf"^{called} must be positive, finite and at least 2.*, got {re.escape(str(value))}"
    check(function, *given, ValueError, message)


def test_a_bad_multiplier_names_its_channel():
    message = "multiplier must be positive.*got nan in channel 1"
    check("requantize_q8", {1: [1, NAN, 1]}, {}, ValueError, message)


@pytest.mark.parametrize(("function", "name"), SCALES)
@pytest.mark.parametrize("value", [True, "0.5", [None], 1j, [[1.0], [1.0, 2.0]]])
def test_scales_are_real_numbers(function, name, value):
    given = ({name: value}, {}) if name == 1 else ({}, {name: value})
    check(function, *given, TypeError, "(scale|multiplier) must be a real number")


ZEROS = [
    (function, name) for function, names in {
        "gemm_nn_q8": ["a_zero_point", "b_zero_point", "out_zero_point"],
        "gemm_nn_q8_accum": ["a_zero_point", "b_zero_point"],
        "gemm_batched_q8": ["a_zero_point", "b_zero_point", "out_zero_point"],
        "conv2d_q8": ["x_zero_point", "w_zero_point", "out_zero_point"],
        "conv2d_q8_accum": ["x_zero_point", "w_zero_point"],
        "conv_transpose2d_q8": ["x_zero_point", "w_zero_point", "out_zero_point"],
        "im2col_q8": ["zero_point"], "col2im_q8": ["zero_point"],
        "quantize_q8": ["zero_point"], "dequantize_q8": ["zero_point"],
        "requantize_q8": ["zero_point"],
        "add_q8": ["a_zero_point", "b_zero_point", "out_zero_point"],
        "mul_q8": ["a_zero_point", "b_zero_point", "out_zero_point"],
        "avg_pool2d_q8": ["x_zero_point", "out_zero_point"],
        "pack_q8": ["b_zero_point"], "pack_conv_q8": ["w_zero_point"],
    }.items() for name in names
]


@pytest.mark.parametrize(("function", "name"), ZEROS)
@pytest.mark.parametrize("value", [-129, 256, 10**12])
def test_zero_points_are_codes(function, name, value):
    message = rf"^{name} must be in \[(0|-128), (127|255)\], got {value}"
    check(function, {}, {name: value}, ValueError, message)


@pytest.mark.parametrize(("function", "name"), ZEROS)
@pytest.mark.parametrize("value", [1.0, True, "1", NAN])
def test_zero_points_are_integers(function, name, value):
    message = rf"^{name} must (be an int|hold integers), got {value!r}"
    check(function, {}, {name: value}, TypeError, message)


@pytest.mark.parametrize(
    ("function", "keywords", "error", "message"),
    [
        ("gemm_nn_q8", {"b_scale": [1, 1, 1]}, ValueError, r"b_scale .* channel \(4\), .*\(3,\)"),
        ("gemm_nn_q8", {"b_scale": np.ones((2, 4))}, ValueError, r"b_scale .* \(4\), .*\(2, 4\)"),
        ("gemm_nn_q8", {"b_scale": [1, 1, 0, 1]}, ValueError, r"b_scale .* 0 in channel 2"),
        ("gemm_nn_q8", {"a_scale": [1, 1]}, ValueError, r"a_scale must be a number, .*\(2,\)"),
        ("gemm_nn_q8", {"b_zero_point": [0, 0]}, ValueError, r"b_zero_point .* \(4\), .*\(2,\)"),
        ("gemm_nn_q8", {"b_zero_point": [0, 0, 200, 0]}, ValueError, "got 200 in channel 2"),
        ("gemm_nn_q8", {"bias": np.zeros(3, I32)}, ValueError, r"bias must have shape \(4,\)"),
        ("gemm_nn_q8", {"bias": np.zeros(4)}, TypeError, "bias must hold integers, got float64"),
        ("gemm_nn_q8", {"bias": [0, 2**31, 0, 0]}, ValueError, "must fit int32, got 2147483648"),
        ("gemm_nn_q8", {"bias": [0, -(2**31) - 1, 0, 0]}, ValueError, "fit int32, got -2147483649"),
        ("gemm_nn_q8", {"out_dtype": "int16"}, TypeError, "out_dtype must be int8 or .*'int16'"),
        ("gemm_nn_q8", {"out_dtype": "what"}, TypeError, "out_dtype must be int8 or .*'what'"),
        ("gemm_nn_q8", {"rounding": "up"}, ValueError, "rounding must be one .*got 'up'"),
        ("gemm_nn_q8", {"clamp": (3, 2)}, ValueError, r"clamp must be .*low <= high, got \(3"),
        ("gemm_nn_q8", {"clamp": (-1, 2)}, ValueError, r"clamp\[0\] must be in \[0, .*got -1"),
        ("gemm_nn_q8", {"clamp": (0, 2.0)}, TypeError, r"clamp\[1\] must be an int, got 2\.0"),
        ("gemm_nn_q8", {"clamp": 3}, TypeError, r"clamp must be \(low, high\), got 3"),
        ("gemm_nn_q8", {"clamp": (1, 2, 3)}, ValueError, r"clamp must be \(low, high\), got"),
        ("gemm_batched_q8", {"rounding": "up"}, ValueError, "rounding must be one of"),
        ("conv2d_q8", {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ("conv2d_q8", {"stride": 1.0}, TypeError, r"stride must be an int, got 1\.0"),
        ("conv2d_q8", {"stride": (1, 1, 1)}, ValueError, "stride must be a number or a pair"),
        ("conv2d_q8", {"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        ("conv2d_q8", {"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ("conv2d_q8", {"padding": (1, 1, 1)}, ValueError, r"padding must be .*, got \(1, 1, 1\)"),
        ("conv2d_q8", {"padding": "same"}, TypeError, "padding must be an int, got 'same'"),
        ("conv2d_q8", {"layout": "CHWN"}, ValueError, "layout must be one of 'NCHW', 'NHWC'"),
        ("conv2d_q8", {"groups": True}, TypeError, "groups must be an int, got True"),
        ("conv2d_q8", {"bias": np.zeros(5, I32)}, ValueError, r"bias must have shape \(6,\)"),
        ("conv2d_q8", {"rounding": None}, ValueError, "rounding must be one of .*got None"),
        ("conv_transpose2d_q8", {"rounding": "up"}, ValueError, "rounding must be one of"),
        ("conv_transpose2d_q8", {"out_dtype": "f4"}, TypeError, "out_dtype must be int8 or uint8"),
        ("conv_transpose2d_q8", {"bias": [1]}, ValueError, r"bias must have shape \(6,\), got"),
        ("conv_transpose2d_q8", {"clamp": (9, 8)}, ValueError, "clamp must be"),
        ("conv_transpose2d_q8", {"w_scale": [1, 1]}, ValueError, r"w_scale .*\(6\), got shape"),
        ("conv_transpose2d_q8", {"out_scale": 1e-39}, ValueError, "out_scale must be positive"),
        ("conv_transpose2d_q8", {"w_scale": [1, 1, 1, 1, 2e-38, 1], "out_scale": 1e3}, ValueError,
         "multiplier of channel 4 .*input scale=.*weight scale=.*output scale="),
        ("quantize_q8", {"dtype": "int32"}, TypeError, "dtype must be int8 or .*'int32'"),
        ("quantize_q8", {"axis": 2}, ValueError, r"axis must be in \[-2, 1\], got 2"),
        ("quantize_q8", {"axis": 0.0}, TypeError, r"axis must be an int, got 0\.0"),
        ("quantize_q8", {"zero_point": [1, 2, 3]}, ValueError, r"zero_point must be a number"),
        ("quantize_q8", {"zero_point": [1, 2], "axis": 1}, ValueError, r"zero_point .*\(3\)"),
        ("dequantize_q8", {"axis": -3}, ValueError, r"axis must be in \[-2, 1\], got -3"),
        ("requantize_q8", {"bias": [1, 2]}, ValueError, r"bias must have shape \(3,\), got \(2,\)"),
        ("requantize_q8", {"bias": [0, 2**31 - 1, 0], "rounding": "tflite"}, ValueError,
         r"acc \+ bias must fit int32 .* got 2147483648 in channel 1"),
        ("requantize_q8", {"rounding": "up"}, ValueError, "rounding must be one of .*got 'up'"),
        ("softmax_q8", {"out_dtype": "f4"}, TypeError, "out_dtype must be int8 or uint8"),
        ("max_pool2d_q8", {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ("max_pool2d_q8", {"layout": "nchw"}, ValueError, "layout must be one of"),
    ],
)
def test_keywords_out_of_range(function, keywords, error, message):
    check(function, {}, keywords, error, message)


@pytest.mark.parametrize("function", COMPUTING)
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(0, ValueError, "n_threads must be at least 1, got 0"),
     (-1, ValueError, "n_threads must be at least 1, got -1"),
     (True, TypeError, "n_threads must be an int, got True"),
     (1.0, TypeError, r"n_threads must be an int, got 1\.0")],
)
def test_numbers_of_threads(function, value, error, message):
    check(function, {}, {"n_threads": value}, error, message)


@pytest.mark.parametrize(
    ("acc", "error", "message"),
    [
        (np.ones((2, 3)), TypeError, "acc must hold integers, got float64"),
        (np.ones((2, 3), bool), TypeError, "acc must hold integers, got bool"),
        (np.full((2, 3), 2**31), ValueError, "acc must fit int32, got 2147483648"),
        (np.full((2, 3), 2**63, np.uint64), ValueError, "acc must fit int32, got 92233720368547"),
    ],
)
def test_sums_are_32_bit_integers(acc, error, message):
    check("requantize_q8", {0: acc}, {}, error, message)


@pytest.mark.parametrize("dtype", ["bool", "c8", "O", "U1", "M8[s]"])
def test_only_real_numbers_are_quantized(dtype):
    x = np.zeros((2, 3), dtype)
    check("quantize_q8", {0: x}, {}, TypeError, "x must hold real numbers, got ")
