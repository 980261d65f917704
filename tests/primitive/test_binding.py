"""A bound call is checked once, reads its operands anew, and gives what the call gives."""

import numpy as np
import pytest
from calls import CALLS, CONV, F32, GEMM, I8, I32, U8, codes
from numpy.testing import assert_array_equal

from qcy import primitive

PACKED = primitive.pack_q8(np.arange(12, dtype=I8).reshape(3, 4), b_scale=1)
KERNEL = primitive.pack_conv_q8(np.arange(24, dtype=I8).reshape(6, 4, 1, 1), w_scale=1)
SUMMED = primitive.pack_conv_q8(np.ones((4, 1, 3, 3), I8), w_scale=1, groups=4)
NHWC = {"layout": "NHWC"}
#: Function: operands, how many of them are read, keywords.
BOUND = {
    "gemm_nn_q8": ((codes(2, 3), PACKED), 1, {"a_scale": 1, "out_scale": 1}),
    "gemm_nn_q8_accum": ((codes(2, 3), PACKED), 1, {}),
    "gemm_dynamic_q8": ((np.ones((2, 3), F32), PACKED), 1, {}),
    "conv2d_q8": ((codes(1, 5, 5, 4), KERNEL), 1, {"x_scale": 1, "out_scale": 1, **NHWC}),
    "conv2d_q8_accum": ((codes(1, 5, 5, 4, dtype=I8), SUMMED), 1, NHWC),
    "quantize_q8": ((np.ones((2, 3), F32), 0.5), 1, {}),
    "dequantize_q8": ((codes(2, 3), 0.5), 1, {}),
    "requantize_q8": ((np.ones((2, 3), I32), 0.5), 1, {}),
    "lookup_q8": ((codes(2, 3), np.arange(256, dtype=U8)), 1, {}),
    "add_q8": ((codes(2, 3), codes(2, 3)), 2, GEMM),
    "mul_q8": ((codes(2, 3), codes(2, 3)), 2, GEMM),
    "clamp_q8": ((codes(2, 3), 0, 9), 1, {}),
    "softmax_q8": ((codes(2, 3), np.arange(1, 257, dtype=I32)), 1, {}),
    "attention_q8": (CALLS["attention_q8"][0], 3, CALLS["attention_q8"][1]),
    "layer_norm_q8": (
        (codes(2, 3), np.ones(3, F32), np.zeros(3, F32)), 1, {"scale": 1, "out_scale": 0.01}
    ),
    "embed_q8": ((np.ones((2, 3), F32), np.arange(500, dtype=U8).reshape(100, 5)), 1, {}),
    "max_pool2d_q8": ((codes(1, 4, 4, 2), 2), 1, NHWC),
    "avg_pool2d_q8": ((codes(1, 4, 4, 2), 2), 1, {"x_scale": 1, "out_scale": 1, **NHWC}),
}


@pytest.mark.parametrize("name", BOUND)
def test_a_bound_call_reads_its_operands_anew(kernels, name):
    operands, n_read, keywords = BOUND[name]
    call, rng = getattr(primitive, name), np.random.default_rng(0)
    operands = [o.copy() if i < n_read else o for i, o in enumerate(operands)]
    if name.startswith(("gemm", "conv")):       # packed for the kernels in force
        operands[1] = type(operands[1])(*operands[1].__reduce__()[1])
    bound = call.bind(*operands, **keywords)
    for _ in range(3):
        for operand in operands[:n_read]:
            operand[...] = rng.integers(0, 100, operand.shape)
        result = bound()
        assert result is bound.out
        assert_array_equal(result, call(*operands, **keywords))


@pytest.mark.parametrize("name", BOUND)
def test_a_bound_call_writes_where_it_was_told(name):
    operands, _, keywords = BOUND[name]
    call = getattr(primitive, name)
    want = call(*operands, **keywords)
    out = np.zeros_like(want)
    assert call.bind(*operands, **keywords, out=out, n_threads=2)() is out
    assert_array_equal(out, want)


@pytest.mark.parametrize("name", BOUND)
def test_what_would_be_copied_is_refused(name):
    operands, n_read, keywords = BOUND[name]
    for i in range(n_read):
        spoiled = list(operands)
        spoiled[i] = np.repeat(operands[i], 2, axis=-1)[..., ::2]
        with pytest.raises(ValueError, match=rf"operand {i} of a bound call must be read where"):
            getattr(primitive, name).bind(*spoiled, **keywords)


def test_broadcast_operands_are_refused():
    with pytest.raises(ValueError, match=r"operand 1 .* got uint8 of shape \(1, 3\)"):
        primitive.add_q8.bind(codes(2, 3), codes(1, 3), **GEMM)


def test_what_takes_more_than_one_kernel_is_refused():
    with pytest.raises(ValueError, match="conv2d_q8 can be bound only where one kernel"):
        primitive.conv2d_q8.bind(*CALLS["conv2d_q8"][0], **CONV)
    with pytest.raises(ValueError, match="gemm_nn_q8 can be bound only"):
        primitive.gemm_nn_q8.bind(
            codes(2, 3), PACKED, a_scale=1, out_scale=1, rounding="tflite"
        )


def test_arguments_are_checked_when_bound():
    x = codes(2, 3)
    with pytest.raises(ValueError, match="out must not overlap an input"):
        primitive.clamp_q8.bind(x, 0, 9, out=x)
    with pytest.raises(ValueError, match="a is"):
        PACKED.bind(codes(2, 4), np.zeros((2, 4), U8), a_scale=1, out_scale=1)


def test_a_nan_is_found_when_the_call_runs():
    x = np.ones(3, F32)
    bound = primitive.quantize_q8.bind(x, 0.5)
    bound()
    x[1:] = np.nan
    with pytest.raises(ValueError, match="x must not hold NaN, got 2 of them"):
        bound()


def test_packed_weights_bind():
    x, out = codes(1, 5, 5, 4), np.zeros((1, 5, 5, 6), U8)
    bound = KERNEL.bind(x, out, x_scale=1, out_scale=1)
    assert bound() is out
    assert_array_equal(out, primitive.conv2d_q8(x, KERNEL, x_scale=1, out_scale=1, **NHWC))
    assert repr(bound) == "BoundCall(out=uint8 of shape (1, 5, 5, 6))"
