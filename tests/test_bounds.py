"""No kernel reads or writes a byte outside its operands: they lie against forbidden pages.

A kernel that goes too far dies of a segmentation fault, so each variant has a process of its own.
"""

import os
import subprocess
import sys

import pytest

from qcy import _kernels

SCRIPT = """
import ctypes
import faulthandler
import mmap

import numpy as np

from qcy import primitive as q

faulthandler.enable()
PAGE = mmap.PAGESIZE
kept = []


def fenced(array, at_end):
    '''Return a copy whose memory ends, or begins, at a page that may not be touched.'''
    array = np.ascontiguousarray(array)
    n_pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (n_pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (start, start + (n_pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
    kept.append(memory)
    first = (n_pages + 1) * PAGE - array.nbytes if at_end else PAGE
    copy = np.frombuffer(memory, array.dtype, array.size, first).reshape(array.shape)
    copy[...] = array
    return copy


def run(function, *operands, **keywords):
    '''Call once as usual, then with every array fenced, at its end and at its beginning.'''
    want = function(*operands, **keywords)
    for at_end in (True, False):
        def place(value):
            return fenced(value, at_end) if isinstance(value, np.ndarray) else value
        out = fenced(np.full_like(want, 77), at_end)
        got = function(
            *map(place, operands), **{name: place(v) for name, v in keywords.items()}, out=out
        )
        assert np.array_equal(got, want)
    kept.clear()


rng = np.random.default_rng(0)


def codes(*shape, dtype=np.uint8):
    return rng.integers(0, 127, shape).astype(dtype)


SCALES = {"a_scale": 1.0, "b_scale": 0.1, "out_scale": 3.0}
for m, k, n in [(1, 1, 1), (7, 3, 5), (13, 6, 16), (5, 9, 17), (25, 5, 31), (4, 4, 33), (3, 7, 63),
                (2, 8, 64), (13, 2, 65), (9, 13, 130), (24, 1, 48), (1, 257, 3)]:
    a, b = codes(m, k), codes(k, n, dtype=np.int8)
    for zero in (0, 3):
        run(q.gemm_nn_q8_accum, a, b, b_zero_point=zero)
        run(q.gemm_nn_q8, a, b, b_zero_point=zero, **SCALES)
        packed = q.pack_q8(fenced(b, True), b_zero_point=zero, b_scale=0.1)
        run(q.gemm_nn_q8, a, packed, a_scale=1.0, out_scale=3.0)

for channels, n_out, kernel, groups in [(1, 1, 1, 1), (3, 5, 3, 1), (4, 17, 2, 1), (6, 4, 3, 2),
                                        (5, 5, 3, 5), (65, 65, 2, 65), (33, 2, 1, 1)]:
    x, w = codes(2, 5, 4, channels), codes(n_out, channels // groups, kernel, kernel, dtype=np.int8)
    for padding in (0, 1):
        window = {"groups": groups, "padding": padding, "layout": "NHWC"}
        run(q.conv2d_q8_accum, x, w, w_zero_point=1, **window)
        run(q.conv2d_q8, x, w, x_scale=1.0, w_scale=0.1, out_scale=3.0, **window)
        run(q.im2col_q8, x, kernel, zero_point=0, padding=padding, layout="NHWC")
        columns = q.im2col_q8(x, kernel, zero_point=0, padding=padding, layout="NHWC")
        run(q.col2im_q8, columns, x.shape, kernel, zero_point=0, padding=padding, layout="NHWC")
        if padding < kernel:
            pooling = {"padding": padding, "layout": "NHWC"}
            run(q.max_pool2d_q8, x, kernel, **pooling)
            run(q.avg_pool2d_q8, x, kernel, x_scale=1.0, out_scale=1.0, **pooling)

for n in (1, 3, 15, 16, 17, 63, 64, 65, 200):
    c = codes(n)
    run(q.quantize_q8, c.astype(np.float32), 0.7)
    run(q.quantize_q8, rng.normal(size=(3, n)).astype(np.float32), np.ones(n), axis=1)
    run(q.dequantize_q8, c, 0.7)
    run(q.dequantize_q8, codes(3, n), np.ones(n), axis=1)
    run(q.requantize_q8, c.astype(np.int32), 0.3)
    run(q.requantize_q8, codes(2, n).astype(np.int32), 0.3, bias=np.zeros(n, np.int32))
    run(q.requantize_q8, c.astype(np.int32), 0.3, rounding="tflite")
    run(q.lookup_q8, c, np.arange(256, dtype=np.uint8))
    run(q.add_q8, c, c, **SCALES)
    run(q.mul_q8, c, c, **SCALES)
    run(q.clamp_q8, c, 3, 9)
    run(q.softmax_q8, c, np.arange(256, 0, -1, dtype=np.int32))
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="needs mprotect")
@pytest.mark.parametrize("variant", _kernels.usable_variants())
def test_kernels_stay_inside_their_operands(variant):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "QCY_VARIANT": variant},
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
