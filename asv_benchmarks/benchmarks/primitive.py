"""The Q8 primitives as they are called directly: time, memory, and what the checks cost."""

import numpy as np

from qcy import primitive

from .ratio import ratio

#: (M, K, N): one sample, a convolution as a matrix, a transformer's product, a square.
SHAPES = {
    "1x1024x1024": (1, 1024, 1024), "3136x576x64": (3136, 576, 64),
    "128x768x768": (128, 768, 768), "512x512x512": (512, 512, 512),
}


class GemmQ8:
    """`gemm_nn_q8` with packed weights, called directly on one thread."""

    params = (list(SHAPES), ["uint8", "int8"])
    param_names = ["shape", "a_dtype"]

    def setup(self, shape, a_dtype):
        m, k, n = SHAPES[shape]
        rng = np.random.default_rng(0)
        info = np.iinfo(a_dtype)
        self.a = rng.integers(info.min, info.max + 1, (m, k), dtype=a_dtype)
        codes = rng.integers(-127, 128, (k, n), dtype=np.int8)
        self.b = primitive.pack_q8(codes, b_scale=0.01, bias=rng.integers(-1000, 1000, n))
        # Filled, not empty: else the first call also pays for the page faults.
        self.settings = {
            "a_scale": 0.1, "out_scale": 10.0, "a_zero_point": 3, "n_threads": 1,
            "out": np.ones((m, n), np.uint8),
        }

    def time_gemm(self, shape, a_dtype):
        primitive.gemm_nn_q8(self.a, self.b, **self.settings)

    def peakmem_gemm(self, shape, a_dtype):
        primitive.gemm_nn_q8(self.a, self.b, **self.settings)

    def peakmem_setup_only(self, shape, a_dtype):
        """What `peakmem_gemm` would show if the product needed no memory."""


class SmallCalls:
    """What a call costs when there is little to compute."""

    def setup(self):
        self.codes = np.arange(64, dtype=np.uint8).reshape(8, 8)
        self.reals = self.codes.astype(np.float32)
        self.packed = primitive.pack_q8(np.ones((8, 8), np.int8), b_scale=1.0)

    def time_gemm(self):
        primitive.gemm_nn_q8(self.codes, self.packed, a_scale=1.0, out_scale=1.0)

    def time_quantize(self):
        primitive.quantize_q8(self.reals, 0.1)

    def time_add(self):
        primitive.add_q8(self.codes, self.codes, a_scale=1.0, b_scale=1.0, out_scale=1.0)


class Elementwise:
    """Conversions and arithmetic of codes, 64k elements, beside the obvious NumPy."""

    params = ["quantize", "dequantize", "requantize", "lookup", "add", "mul"]
    param_names = ["operation"]

    def setup(self, operation):
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 256, 65536, dtype=np.uint8)
        reals = rng.standard_normal(65536, np.float32)
        acc = rng.integers(-30000, 30000, 65536, dtype=np.int32)
        table = rng.integers(0, 256, 256, dtype=np.uint8)
        scales = {"a_scale": 0.1, "b_scale": 0.2, "out_scale": 0.3, "n_threads": 1}

        def numpy_add():
            left = (codes.astype(np.int32) - 3) * np.float32(0.3)
            return np.clip(np.rint(left + left) + 7, 0, 255).astype(np.uint8)

        self.calls = {
            "quantize": (
                lambda: primitive.quantize_q8(reals, 0.02, 128, n_threads=1),
                lambda: np.clip(np.rint(reals / np.float32(0.02)) + 128, 0, 255).astype(np.uint8),
            ),
            "dequantize": (
                lambda: primitive.dequantize_q8(codes, 0.02, 128, n_threads=1),
                lambda: (codes.astype(np.int32) - 128).astype(np.float32) * np.float32(0.02),
            ),
            "requantize": (
                lambda: primitive.requantize_q8(acc, 0.01, zero_point=7, n_threads=1),
                lambda: np.clip(
                    np.rint(acc.astype(np.float32) * np.float32(0.01)) + 7, 0, 255
                ).astype(np.uint8),
            ),
            "lookup": (
                lambda: primitive.lookup_q8(codes, table, n_threads=1), lambda: table[codes],
            ),
            "add": (lambda: primitive.add_q8(codes, codes, **scales), numpy_add),
            "mul": (lambda: primitive.mul_q8(codes, codes, **scales), numpy_add),
        }[operation]

    def time_qcy(self, operation):
        self.calls[0]()

    def track_speedup(self, operation):
        return ratio(self.calls[1], self.calls[0])

    track_speedup.unit = "times NumPy"
