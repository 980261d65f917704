"""The generic tensor: any of ten numeric dtypes in one C-ordered block."""
import numpy as np

cdef class Tensor:
    """Stand-in."""
    cdef readonly object data
    __array_ufunc__ = None
    def __init__(self, data, dtype=None):
        self.data = np.asarray(data.data if isinstance(data, Tensor) else data, dtype=dtype, order="C")
    @property
    def shape(self):
        return self.data.shape
    @property
    def size(self):
        return self.data.size
    @property
    def ndim(self):
        return self.data.ndim
    @property
    def dtype(self):
        return self.data.dtype
    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.data, dtype=dtype)
    def __eq__(self, other):
        return np.array_equal(self.data, other.data)
    def __reduce__(self):
        return Tensor, (self.data,)


def FloatTensor(data):
    return Tensor(data, "float32")
