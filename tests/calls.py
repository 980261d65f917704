"""One good call of every primitive, for tests to spoil."""

import numpy as np

U8, I8, F32, I32 = np.uint8, np.int8, np.float32, np.int32


def codes(*shape, dtype=U8):
    return np.ones(shape, dtype)


# Function: operands, keywords, and the result's shape and dtype.
GEMM = {"a_scale": 1, "b_scale": 1, "out_scale": 1}
CONV = {"x_scale": 1, "w_scale": 1, "out_scale": 1}
CALLS = {
    "gemm_nn_q8": ((codes(2, 3), codes(3, 4, dtype=I8)), GEMM, (2, 4), U8),
    "gemm_nn_q8_accum": ((codes(2, 3), codes(3, 4, dtype=I8)), {}, (2, 4), I32),
    "gemm_batched_q8": ((codes(5, 2, 3), codes(5, 3, 4, dtype=I8)), GEMM, (5, 2, 4), U8),
    "conv2d_q8": ((codes(1, 4, 5, 5), codes(6, 4, 2, 2, dtype=I8)), CONV, (1, 6, 4, 4), U8),
    "conv2d_q8_accum": ((codes(1, 4, 5, 5), codes(6, 4, 2, 2, dtype=I8)), {}, (1, 6, 4, 4), I32),
    "conv_transpose2d_q8": (
        (codes(1, 4, 3, 3), codes(4, 6, 2, 2, dtype=I8)), CONV, (1, 6, 4, 4), U8
    ),
    "im2col_q8": ((codes(1, 2, 3, 3), 2), {"zero_point": 0}, (4, 8), U8),
    "col2im_q8": ((codes(4, 8), (1, 2, 3, 3), 2), {"zero_point": 0}, (1, 2, 3, 3), I32),
    "quantize_q8": ((np.ones((2, 3), F32), 0.5), {}, (2, 3), U8),
    "dequantize_q8": ((codes(2, 3), 0.5), {}, (2, 3), F32),
    "requantize_q8": ((np.ones((2, 3), I32), 0.5), {}, (2, 3), U8),
    "lookup_q8": ((codes(2, 3), codes(256)), {}, (2, 3), U8),
    "add_q8": ((codes(2, 3), codes(2, 3)), GEMM, (2, 3), U8),
    "mul_q8": ((codes(2, 3), codes(2, 3)), GEMM, (2, 3), U8),
    "clamp_q8": ((codes(2, 3), 0, 9), {}, (2, 3), U8),
    "softmax_q8": ((codes(2, 3), np.ones(256, I32)), {}, (2, 3), U8),
    "attention_q8": (
        (codes(2, 3), codes(4, 3), codes(4, 5)),
        {"n_heads": 1, "q_scale": 1, "k_scale": 1, "v_scale": 1, "out_scale": 1}, (2, 5), U8
    ),
    "layer_norm_q8": (
        (codes(2, 3), np.ones(3, F32), np.ones(3, F32)), {"scale": 1, "out_scale": 1}, (2, 3), U8
    ),
    "embed_q8": ((np.ones((2, 3), F32), codes(4, 5)), {}, (2, 3, 5), U8),
    "permute_q8": ((codes(2, 3), (1, 0)), {}, (3, 2), U8),
    "gather_q8": ((codes(2, 3), np.array([[0, 5], [4, 4], [2, 1]])), {}, (3, 2), U8),
    "strided_q8": ((codes(2, 3), (3, 2), (1, 3)), {}, (3, 2), U8),
    "max_pool2d_q8": ((codes(1, 2, 4, 4), 2), {}, (1, 2, 2, 2), U8),
    "avg_pool2d_q8": (
        (codes(1, 2, 4, 4), 2), {"x_scale": 1, "out_scale": 1}, (1, 2, 2, 2), U8
    ),
    "pack_q8": ((codes(3, 4),), {}, None, None),
    "pack_conv_q8": ((codes(6, 4, 2, 2),), {}, None, None),
}
COMPUTING = [name for name, call in CALLS.items() if call[2]]
