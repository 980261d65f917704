"""The generic tensor beside NumPy on one thread: time, memory, and the ratio of the two."""

import numpy as np

from qcy import Tensor

from .ratio import ratio

SIZES = [16, 1_000_000]
DTYPES = ["int8", "int32", "float32", "float64"]
INTEGERS = ["int8", "int32", "int64"]


def values(dtype, size, limit=11):
    """Return numbers small enough that sums and products of two fit any dtype."""
    return np.random.default_rng(0).integers(1, limit, size).astype(dtype)


class Elementwise:
    """What looks at every element once; 16 elements show what a call costs."""

    params = (["add", "mul", "add_number", "fill", "min_max"], DTYPES, SIZES)
    param_names = ["operation", "dtype", "size"]

    def setup(self, operation, dtype, size):
        a, b = values(dtype, size), values(dtype, size)[::-1].copy()
        x, y = Tensor(a), Tensor(b)
        self.ours, self.numpy = {
            "add": (lambda: x + y, lambda: a + b),
            "mul": (lambda: x * y, lambda: a * b),
            "add_number": (lambda: x + 3, lambda: a + 3),
            "fill": (lambda: x.fill(3), lambda: a.fill(3)),
            "min_max": (lambda: x.min_max(), lambda: (a.min(), a.max())),
        }[operation]

    def time_ours(self, operation, dtype, size):
        self.ours()

    def track_speedup(self, operation, dtype, size):
        return ratio(self.numpy, self.ours)

    track_speedup.unit = "times NumPy"


class Scale(Elementwise):
    """Multiplication by a real number, rounded and checked."""

    params = (["scale"], [*INTEGERS, "float32"], SIZES)

    def setup(self, operation, dtype, size):
        a = values(dtype, size)
        x = Tensor(a)
        self.ours = lambda: x.scale(0.7)
        if a.dtype.kind == "f":
            self.numpy = lambda: a * a.dtype.type(0.7)
        else:
            self.numpy = lambda: np.rint(a * 0.7).astype(dtype)


class Convert(Elementwise):
    """Conversion that names what does not fit; NumPy's is without a check, and may wrap."""

    params = (["astype"], ["int8-float32", "float32-int8", "int32-int8", "float64-float32"], SIZES)
    param_names = ["operation", "dtypes", "size"]

    def setup(self, operation, dtypes, size):
        source, target = dtypes.split("-")
        a = values(source, size)
        x = Tensor(a)
        self.ours, self.numpy = (lambda: x.astype(target)), (lambda: a.astype(target))


class Matmul(Elementwise):
    """Integer matrix products."""

    params = (["matmul"], INTEGERS, [4, 64, 256])

    def setup(self, operation, dtype, size):
        # The second is nearly empty, so that the sums fit int8 too.
        a = values(dtype, (size, size))
        b = (values(dtype, (size, size), 100) == 1).astype(dtype)
        x, y = Tensor(a), Tensor(b)
        self.ours, self.numpy = (lambda: x @ y), (lambda: a @ b)


class Memory:
    """What a million elements need beyond themselves."""

    params = (["add", "min_max", "astype"], ["int8", "float32"])
    param_names = ["operation", "dtype"]

    def setup(self, operation, dtype):
        x = Tensor(values(dtype, 1_000_000))
        self.ours = {
            "add": lambda: x + x, "min_max": x.min_max, "astype": lambda: x.astype("int32"),
        }[operation]

    def peakmem_ours(self, operation, dtype):
        self.ours()

    def peakmem_setup_only(self, operation, dtype):
        """What `peakmem_ours` would show if the operation needed no memory."""
