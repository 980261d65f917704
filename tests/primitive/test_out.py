"""An `out` that does not fit, or overlaps an input, is refused before anything is written."""

import numpy as np
import pytest
from calls import CALLS, COMPUTING, I32, U8
from numpy.testing import assert_array_equal

from qcy import primitive


def call(function, **keywords):
    operands, usual, _, _ = CALLS[function]
    return getattr(primitive, function)(*operands, **{**usual, **keywords})


@pytest.mark.parametrize("function", COMPUTING)
def test_out_holds_the_result_and_is_returned(kernels, function):
    _, _, shape, dtype = CALLS[function]
    out = np.full(shape, 77, dtype)
    assert call(function, out=out) is out
    assert_array_equal(out, call(function))


@pytest.mark.parametrize("function", COMPUTING)
def test_out_that_does_not_fit(function):
    _, _, shape, dtype = CALLS[function]
    shown = str(shape).replace("(", r"\(").replace(")", r"\)")
    must = rf"out must be a writable C-ordered {np.dtype(dtype)} array of shape {shown}, got "
    wrong = np.int64 if dtype == I32 else np.int16
    fixed = np.full(shape, 77, dtype)
    fixed.flags.writeable = False
    big_endian = np.full(shape, 77, np.dtype(wrong).newbyteorder(">"))
    for out, got in (
        (np.full((*shape, 1), 77, dtype), "shape"),
        (np.full(shape[:-1], 77, dtype), "shape"),
        (np.full(shape, 77, wrong), np.dtype(wrong).name),
        (big_endian, ">i"),
        (np.full((*shape[:-1], 2 * shape[-1]), 77, dtype)[..., ::2], "not C-ordered"),
        (np.asfortranarray(np.full(shape, 77, dtype)), "not C-ordered"),
        (fixed, "read-only"),
    ):
        with pytest.raises(ValueError, match=must + got if got != "shape" else must):
            call(function, out=out)
        assert np.all(out == 77)
    with pytest.raises(TypeError, match="out must be an ndarray, got list"):
        call(function, out=fixed.tolist())


def overlapping(array, shape, dtype, n_bytes):
    """Return a copy of `array` and an array of `shape`, `n_bytes` of which are the copy's last."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    start = -(-array.nbytes // 8) * 8           # aligned for any dtype
    memory = np.zeros(start + size, np.uint8)
    first = start - array.nbytes
    copy = memory[first:start].view(array.dtype).reshape(array.shape)
    copy[...] = array
    begin = start - n_bytes
    return copy, memory[begin : begin + size].view(dtype).reshape(shape)


OPERANDS = [
    (function, index) for function in COMPUTING for index, operand in enumerate(CALLS[function][0])
    if isinstance(operand, np.ndarray)
]
ARRAYS = [
    ("quantize_q8", "zero_point", {"axis": 1}), ("dequantize_q8", "zero_point", {"axis": 1}),
    ("requantize_q8", "bias", {}), ("conv_transpose2d_q8", "bias", {}),
]


@pytest.mark.parametrize(("function", "index"), OPERANDS)
def test_out_that_overlaps_an_operand(function, index):
    operands, usual, shape, dtype = CALLS[function]
    compute, want = getattr(primitive, function), call(function)
    operand, out = overlapping(operands[index], shape, dtype, 8)
    with pytest.raises(ValueError, match="out must not overlap an input"):
        compute(*operands[:index], operand, *operands[index + 1 :], **usual, out=out)
    assert_array_equal(operand, operands[index])
    operand, out = overlapping(operands[index], shape, dtype, 0)        # side by side is fine
    compute(*operands[:index], operand, *operands[index + 1 :], **usual, out=out)
    assert_array_equal(out, want)


@pytest.mark.parametrize(("function", "name", "keywords"), ARRAYS)
def test_out_that_overlaps_a_parameter(function, name, keywords):
    operands, usual, shape, dtype = CALLS[function]
    n_channels = shape[1]
    parameter, out = overlapping(np.zeros(n_channels, I32), shape, dtype, 8)
    if "axis" in keywords:
        operands = (operands[0], np.ones(n_channels))
    with pytest.raises(ValueError, match="out must not overlap an input"):
        getattr(primitive, function)(
            *operands, **usual, **keywords, **{name: parameter}, out=out
        )


@pytest.mark.parametrize("function", ["clamp_q8", "max_pool2d_q8", "lookup_q8", "add_q8"])
def test_out_that_is_the_operand(function):
    operands, usual, _, _ = CALLS[function]
    operand = np.ones((1, 1, 1, 1), U8) if function == "max_pool2d_q8" else operands[0].copy()
    rest = (1,) if function == "max_pool2d_q8" else operands[1:]
    with pytest.raises(ValueError, match="out must not overlap an input"):
        getattr(primitive, function)(operand, *rest, **usual, out=operand)


# ---------------------------------------------------------------------------------------- copy


@pytest.mark.parametrize(
    ("x", "out", "keywords", "error", "message"),
    [
        ([1, 2], np.zeros(2, U8), {}, TypeError, "x must be an int8 or uint8 array"),
        (np.zeros(2, U8), [0, 0], {}, TypeError, "out must be an int8 or uint8 array"),
        (np.zeros(2, np.int16), np.zeros(2, U8), {}, TypeError, "x must be an int8 or uint8"),
        (np.zeros(2, U8), np.zeros(2, np.int8), {}, TypeError, "one dtype, got uint8 and int8"),
        (np.zeros((2, 1), U8), np.zeros(2, U8), {}, ValueError, r"x must have 1 .*\(2, 1\)"),
        (np.zeros(2, U8), np.zeros((), U8), {}, ValueError, r"out must have 1 .*\(\)"),
        (np.zeros(3, U8), np.zeros(2, U8), {}, ValueError, "out must hold 3 codes .* 2 elements"),
        (np.zeros(3, U8), np.zeros(9, U8), {"n": 4}, ValueError, "x must hold 4 codes"),
        (np.zeros(5, U8), np.zeros(9, U8), {"n": 3, "stride_in": 3}, ValueError, "at stride 3"),
        (np.zeros(5, U8), np.zeros(4, U8), {"n": 3, "stride_out": 2}, ValueError, "out must hold"),
        (np.zeros(2, U8), np.zeros(2, U8), {"n": -1}, ValueError, "n must be at least 0, got -1"),
        (np.zeros(2, U8), np.zeros(2, U8), {"n": 1.0}, TypeError, "n must be an int"),
        (np.zeros(2, U8), np.zeros(2, U8), {"stride_in": 0}, ValueError, "stride_in must be at"),
        (np.zeros(2, U8), np.zeros(2, U8), {"stride_out": -1}, ValueError, "stride_out must be"),
    ],
)
def test_bad_copies(x, out, keywords, error, message):
    with pytest.raises(error, match=message):
        primitive.copy_q8(x, out, **keywords)


def test_copies_onto_themselves_or_into_what_is_read_only():
    x = np.arange(6, dtype=U8)
    with pytest.raises(ValueError, match="out must not overlap x"):
        primitive.copy_q8(x[:3], x[2:5])
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable, got a read-only array"):
        primitive.copy_q8(np.zeros(6, U8), x)
    assert x.tolist() == [0, 1, 2, 3, 4, 5]
