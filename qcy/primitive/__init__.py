"""The Q8 primitives: products, convolutions and conversions of 8-bit codes in NumPy arrays.

This package is the checked door to the compiled kernels; everything behind it trusts its input.

    binding.py      calls that are checked once and run often
    codes.py        quantize, dequantize, requantize, look up, copy
    packing.py      what depends on the weights alone, done once
    packed.py       PackedWeights: how the kernels have them
    gemm.py         matrix products
    conv.py         convolution, transposed convolution
    columns.py      im2col and col2im
    windows.py      where a kernel's windows lie
    move.py         axes in another order, arrays side by side, rows by number
    elementwise.py  add, mul, clamp, softmax
    norm.py         layer normalization
    attention.py    attention
    pool.py         largest and mean of windows

Functions take and return NumPy arrays; everything after the operands is keyword-only.
"""

from qcy.primitive.attention import attention_q8
from qcy.primitive.codes import (
    copy_q8, dequantize_q8, lookup_q8, quantize_dynamic_q8, quantize_q8, requantize_q8,
)
from qcy.primitive.columns import col2im_q8, im2col_q8
from qcy.primitive.conv import conv2d_q8, conv2d_q8_accum, conv_transpose2d_q8
from qcy.primitive.elementwise import add_q8, clamp_q8, mul_q8, softmax_q8, softmax_table
from qcy.primitive.gemm import (
    gemm_batched_q8, gemm_dynamic_q8, gemm_nn_q8, gemm_nn_q8_accum,
)
from qcy.primitive.move import beside_q8, embed_q8, gather_q8, permute_q8, strided_q8
from qcy.primitive.norm import layer_norm_q8
from qcy.primitive.packed import PackedWeights
from qcy.primitive.packing import pack_conv_q8, pack_q8
from qcy.primitive.pool import avg_pool2d_q8, max_pool2d_q8

__all__ = [
    "PackedWeights", "add_q8", "attention_q8", "avg_pool2d_q8", "beside_q8", "clamp_q8",
    "col2im_q8", "conv2d_q8", "conv2d_q8_accum", "conv_transpose2d_q8", "copy_q8",
    "dequantize_q8", "embed_q8", "gather_q8", "gemm_batched_q8", "gemm_dynamic_q8", "gemm_nn_q8",
    "gemm_nn_q8_accum", "im2col_q8", "layer_norm_q8", "lookup_q8", "max_pool2d_q8", "mul_q8",
    "pack_conv_q8", "pack_q8", "permute_q8", "quantize_dynamic_q8", "quantize_q8",
    "requantize_q8", "softmax_q8", "softmax_table", "strided_q8",
]
