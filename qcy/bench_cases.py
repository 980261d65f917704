"""Calls worth timing: shapes that networks have, as bound calls, and the same in NumPy."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from qcy import primitive

N_ELEMENTS = 65536


@dataclass(frozen=True)
class Case:
    """One call to time.

    Attributes
    ----------
    family, name : str
    ops : int
        Of one call: two for each product that is summed, one for each element of an elementwise
        function.
    make : callable
        Given a number of threads, returns qcy's bound call, and a function that does the same in
        float32 with NumPy.
    is_long : bool
        Left out where time is short.
    """

    family: str
    name: str
    ops: int
    make: object
    is_long: bool = False

    @property
    def is_product(self):
        """Whether it sums products, so that the machine's peak is its limit."""
        return self.family != "elementwise"


def _codes(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def _weights(rng, *shape):
    return rng.integers(-127, 128, shape, dtype=np.int8)


def _reals(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def _numpy_product(rng, m, k, n):
    a, b, out = _reals(rng, m, k), _reals(rng, k, n), np.ones((m, n), np.float32)
    return lambda: np.matmul(a, b, out=out)


# ------------------------------------------------------------------------------------- products


def _make_product(m, k, n, n_threads):
    rng = np.random.default_rng(0)
    packed = primitive.pack_q8(
        _weights(rng, k, n), b_scale=0.01, bias=rng.integers(-1000, 1000, n)
    )
    call = primitive.gemm_nn_q8.bind(
        _codes(rng, m, k), packed, a_scale=0.02, a_zero_point=121, out_scale=0.5,
        out_zero_point=128, n_threads=n_threads,
    )
    return call, _numpy_product(rng, m, k, n)


def _make_dynamic(m, k, n, n_threads):
    rng = np.random.default_rng(0)
    packed = primitive.pack_q8(_weights(rng, k, n), b_scale=0.01)
    call = primitive.gemm_dynamic_q8.bind(
        _reals(rng, m, k), packed, bias=_reals(rng, n), n_threads=n_threads
    )
    return call, _numpy_product(rng, m, k, n)


def product(m, k, n, family="product", make=_make_product):
    """Return the case of an (M, K) times a (K, N) matrix."""
    return Case(
        family, f"{m}x{k}x{n}", 2 * m * k * n, partial(make, m, k, n), m * k * n >= 2048**3
    )


# --------------------------------------------------------------------------------- convolutions


def _make_conv(n_in, n_out, size, kernel, stride, groups, n_threads):
    rng = np.random.default_rng(0)
    x = _codes(rng, 1, size, size, n_in)
    packed = primitive.pack_conv_q8(
        _weights(rng, n_out, n_in // groups, kernel, kernel), w_scale=0.01, groups=groups,
        bias=rng.integers(-1000, 1000, n_out),
    )
    call = primitive.conv2d_q8.bind(
        x, packed, x_scale=0.02, out_scale=0.5, stride=stride, padding=kernel // 2,
        layout="NHWC", n_threads=n_threads,
    )
    if groups == 1:         # the windows are gathered beforehand: only the product counts
        return call, _numpy_product(rng, call.out.size // n_out, n_in * kernel * kernel, n_out)
    return call, _numpy_depthwise(rng, n_in, size, kernel, stride, call.out.shape)


def _numpy_depthwise(rng, channels, size, kernel, stride, shape):
    """Return a depthwise convolution by NumPy: for each tap a product of all it meets, summed."""
    padded = _reals(rng, 1, size + kernel - 1, size + kernel - 1, channels)
    weights = _reals(rng, kernel, kernel, channels)
    out, part = np.ones(shape, np.float32), np.ones(shape, np.float32)
    taps = [
        (padded[:, i : i + size : stride, j : j + size : stride], weights[i, j])
        for i in range(kernel) for j in range(kernel)
    ]

    def run():
        np.multiply(*taps[0], out=out)
        for x, weight in taps[1:]:
            np.add(out, np.multiply(x, weight, out=part), out=out)

    return run


def conv(n_in, n_out, size, kernel=3, stride=1, groups=1):
    """Return the case of one image, channels last, padded to keep its size."""
    if groups > 1:
        family, name = "depthwise", f"{n_in} @{size} {kernel}x{kernel}"
    else:
        family, name = "convolution", f"{n_in} to {n_out} @{size} {kernel}x{kernel}"
    name += f" stride {stride}" if stride > 1 else ""
    n_pixels = ((size - 1) // stride + 1) ** 2
    ops = 2 * n_pixels * n_out * (n_in // groups) * kernel * kernel
    return Case(
        family, name, ops, partial(_make_conv, n_in, n_out, size, kernel, stride, groups)
    )


# ---------------------------------------------------------------------------------- elementwise


def _make_elementwise(name, n_threads):
    rng = np.random.default_rng(0)
    codes, reals = _codes(rng, N_ELEMENTS), _reals(rng, N_ELEMENTS)
    other = _reals(rng, N_ELEMENTS)
    images, image_reals = _codes(rng, 1, 32, 32, 64), _reals(rng, 1, 32, 32, 64)
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    out, out_codes = np.ones(N_ELEMENTS, np.float32), np.ones(N_ELEMENTS, np.uint8)
    pooled, mean = np.ones((1, 16, 16, 64), np.float32), np.ones((1, 64), np.float32)
    scales = {"a_scale": 0.1, "b_scale": 0.2, "out_scale": 0.3, "n_threads": n_threads}
    scale = np.float32(0.02)

    def quantize():
        np.divide(reals, scale, out=out)
        np.add(np.rint(out, out=out), np.float32(128), out=out)
        np.clip(out, 0, 255, out=out)
        np.copyto(out_codes, out, casting="unsafe")

    def dequantize():
        np.subtract(codes, np.float32(128), out=out, dtype=np.float32)
        np.multiply(out, scale, out=out)

    def sigmoid():
        np.exp(np.negative(reals, out=out), out=out)
        np.divide(np.float32(1), np.add(out, np.float32(1), out=out), out=out)

    def max_pool():
        np.maximum(image_reals[:, ::2, ::2], image_reals[:, ::2, 1::2], out=pooled)
        np.maximum(pooled, image_reals[:, 1::2, ::2], out=pooled)
        np.maximum(pooled, image_reals[:, 1::2, 1::2], out=pooled)

    lookup = partial(primitive.lookup_q8.bind, codes, table, n_threads=n_threads)
    bind, numpy = {
        "quantize": (
            lambda: primitive.quantize_q8.bind(reals, 0.02, 128, n_threads=n_threads), quantize
        ),
        "dequantize": (
            lambda: primitive.dequantize_q8.bind(codes, 0.02, 128, n_threads=n_threads),
            dequantize,
        ),
        "add": (
            lambda: primitive.add_q8.bind(codes, codes[::-1].copy(), **scales),
            lambda: np.add(reals, other, out=out),
        ),
        "mul": (
            lambda: primitive.mul_q8.bind(codes, codes[::-1].copy(), **scales),
            lambda: np.multiply(reals, other, out=out),
        ),
        "relu": (
            lambda: primitive.clamp_q8.bind(codes, 128, 255, n_threads=n_threads),
            lambda: np.maximum(reals, np.float32(0), out=out),
        ),
        "sigmoid": (lookup, sigmoid),
        "tanh": (lookup, lambda: np.tanh(reals, out=out)),
        "max_pool": (
            lambda: primitive.max_pool2d_q8.bind(
                images, 2, stride=2, layout="NHWC", n_threads=n_threads
            ),
            max_pool,
        ),
        "mean": (
            lambda: primitive.avg_pool2d_q8.bind(
                images, (32, 32), x_scale=0.1, out_scale=0.1, layout="NHWC", n_threads=n_threads
            ),
            lambda: np.mean(image_reals, axis=(1, 2), out=mean),
        ),
    }[name]
    return bind(), numpy


def elementwise(name):
    """Return the case of a function of 65,536 elements."""
    return Case("elementwise", name, N_ELEMENTS, partial(_make_elementwise, name))


# ----------------------------------------------------------------------------------- the tables

#: What `qcy bench` prints, and asv tracks.
CASES = (
    *(product(n, n, n) for n in (64, 256, 512, 1024, 2048)),
    product(128, 768, 768), product(128, 3072, 768), product(128, 768, 3072),
    product(1, 1024, 1024, "one row"), product(1, 4096, 4096, "one row"),
    *(product(*shape, "dynamic", _make_dynamic)
      for shape in ((1, 1024, 1024), (1, 4096, 4096), (128, 768, 768), (512, 512, 512))),
    conv(64, 64, 56), conv(128, 128, 28), conv(256, 256, 14), conv(512, 512, 7),
    conv(64, 256, 56, 1), conv(256, 64, 56, 1), conv(1024, 256, 14, 1), conv(3, 64, 224, 7, 2),
    *(conv(c, c, size, 3, stride, c)
      for c, size in ((144, 56), (384, 28), (960, 7)) for stride in (1, 2)),
    *(elementwise(name) for name in (
        "quantize", "dequantize", "add", "mul", "relu", "sigmoid", "tanh", "max_pool", "mean",
    )),
)

#: Shapes that fit no tile, and the product with M rounded up to 4, K to 64 and N to 16 that each is
#: measured against.
ODD = (
    (product(128, 768, 100), product(128, 768, 112)),
    (product(128, 147, 64), product(128, 192, 64)),
    (product(3, 768, 768), product(4, 768, 768)),
    (product(169, 147, 100), product(172, 192, 112)),
    (conv(64, 64, 13), product(172, 576, 64)),
    (conv(5, 32, 13), product(172, 64, 32)),
    (conv(5, 100, 13), product(172, 64, 112)),
    (conv(3, 20, 57, 7, 2), product(844, 192, 32)),
)
#: Fewer than 16 columns or output channels, and the same with 16.
NARROW = tuple(
    (product(128, 768, n), product(128, 768, 16)) for n in (3, 5, 8, 12)
) + tuple((conv(32, n, 28), conv(32, 16, 28)) for n in (5, 10))
