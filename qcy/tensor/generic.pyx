"""The generic tensor: any of ten numeric dtypes in one C-ordered block.

Loops live in `qcy._kernels`, family tensor. Conversion, sums and real
matrix products are NumPy's, since no loop of ours beats those; `astype` adds a check.
"""
import math

import numpy as np

cimport cython
from cpython.buffer cimport PyObject_GetBuffer
from cpython.number cimport PyIndex_Check, PyNumber_AsSsize_t

from qcy.tensor._broadcast import broadcast, matmul
from qcy.tensor._values import (
    C_NAMES, check_products, converted, exact_sum, first_overflow, flat, from_sequence, is_number,
    kernel, number, supported,
)

#: The dtypes that a `Tensor` may hold.
DTYPES = tuple(C_NAMES)

cdef enum:
    MOST_SHOWN = 16             # elements in a repr


cdef object _same_dtype(Tensor tensor, Tensor other):
    """Return the values of `other` if its dtype is that of `tensor`."""
    if tensor.data.dtype != other.data.dtype:
        raise TypeError(f"operands are {tensor.data.dtype} and {other.data.dtype}: use astype")
    return other.data


cdef int _refuse_array(other) except -1:
    if isinstance(other, np.ndarray):
        raise TypeError("the other operand is an ndarray: wrap it in Tensor")
    return 0


cdef object _combine(str op, Tensor tensor, other, bint reflected=False):
    """Return ``tensor op other``, or ``other op tensor`` if `reflected`."""
    a = tensor.data
    if isinstance(other, Tensor):
        b = _same_dtype(tensor, other)
        if a.shape == b.shape:
            shape, axes = a.shape, ((a.size, 1, 1),)
        else:
            shape, axes = broadcast(a.shape, b.shape)
    elif is_number(other):
        b = np.array([number(other, a.dtype)], a.dtype)
        shape, axes = a.shape, ((a.size, 1, 0),)
        if reflected:
            axes = ((a.size, 0, 1),)
            a, b = b, a
    else:
        _refuse_array(other)
        return NotImplemented
    out = np.empty(shape, a.dtype)
    if out.size:
        if kernel("combine", a)(op, flat(a), flat(b), flat(out), axes):
            raise OverflowError(first_overflow(op, a, b, shape))
    return Tensor.__new__(Tensor, out)


def FloatTensor(data):
    """Return a float32 `Tensor`.

    Parameters
    ----------
    data : array_like
        Real numbers; shared if they are a C-ordered float32 array, else converted as by
        `Tensor.astype`.

    Returns
    -------
    Tensor, float32

    Examples
    --------
    >>> FloatTensor([1, 2])
    Tensor([1., 2.], shape=(2,), dtype=float32)
    """
    return Tensor(data, np.float32)


@cython.final
cdef class Tensor:
    # The first line is where `inspect` and `help` find a C class's signature; neither shows it.
    """Tensor(data, dtype=None)\n--\n
    Multi-dimensional array of numbers.

    Arithmetic takes Tensors of one dtype, whose shapes broadcast as in NumPy, or a Tensor and a
    number that its dtype holds exactly (of a float, float32 holds the nearest). No dtype is ever
    changed silently, and no integer wraps: a result that its dtype cannot hold is an OverflowError.
    Reals follow IEEE 754. ``@`` multiplies matrices as NumPy does; integers are summed in 64 bits.

    Parameters
    ----------
    data : array_like
        Values. A C-ordered ndarray, or another Tensor, is shared and not copied, unless its dtype
        or byte order changes.
    dtype : dtype, optional
        One of `DTYPES`; values are converted as by `astype`. Default: that of `data` in NumPy.

    Attributes
    ----------
    data : ndarray
        The values, C-ordered. Writing to it writes to the tensor.

    Raises
    ------
    TypeError
        If the dtype of `data`, or `dtype`, is not one of `DTYPES`.
    ValueError
        If `dtype` cannot hold a value; the message names the first.

    Examples
    --------
    >>> tensor = Tensor([[1, 2, 3], [4, 5, 6]], dtype="int8")
    >>> tensor.shape, tensor.size, tensor[1, 2]
    ((2, 3), 6, 6)
    >>> tensor * 2 - tensor
    Tensor([[1, 2, 3], [4, 5, 6]], shape=(2, 3), dtype=int8)
    >>> tensor + 125
    Traceback (most recent call last):
    OverflowError: 3 + 125 does not fit int8
    """

    cdef readonly object data

    # NumPy must not treat a tensor as one more ndarray: ``array + tensor`` is an error.
    __array_ufunc__ = None
    __hash__ = None

    def __cinit__(self, data, dtype=None):
        if dtype is not None:
            dtype = supported(dtype)
        if isinstance(data, Tensor):
            array = (<Tensor> data).data
        elif dtype is None or isinstance(data, np.ndarray):
            array = np.asarray(data)
        else:
            array = from_sequence(data, dtype)
        if array.dtype not in C_NAMES:
            array = array.astype(supported(array.dtype))
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned):
            array = array.copy()
        if dtype is not None and dtype != array.dtype:
            array = converted(array, dtype)
        self.data = array

    @property
    def shape(self):
        """Length of each axis."""
        return self.data.shape

    @property
    def size(self):
        """Number of elements."""
        return self.data.size

    @property
    def ndim(self):
        """Number of axes."""
        return self.data.ndim

    @property
    def dtype(self):
        """Type of the elements."""
        return self.data.dtype

    def clone(self):
        """Return a Tensor with its own copy of the values."""
        return Tensor.__new__(Tensor, self.data.copy())

    def reshape(self, *shape):
        """Return a Tensor of another shape that shares the values; one length may be -1.

        Raises
        ------
        ValueError
            If the number of elements differs.
        """
        return Tensor.__new__(Tensor, self.data.reshape(*shape))

    def transpose(self, *axes):
        """Return a Tensor with its axes in another order, reversed by default, and its own values.

        Raises
        ------
        ValueError
            If `axes` is not a permutation of the axes.
        """
        return Tensor.__new__(Tensor, self.data.transpose(*axes).copy())

    def at(self, *indices):
        """Return one element as a Python number.

        Raises
        ------
        IndexError
            If there is not one index for each axis, or one is negative or beyond its axis.
        TypeError
            If an index is not an int.

        Examples
        --------
        >>> Tensor([[1, 2], [3, 4]]).at(1, 0)
        3
        """
        offset = self._offset(indices)
        return kernel("get", self.data)(flat(self.data), offset)

    def set_at(self, indices, value):
        """Replace one element.

        Parameters
        ----------
        indices : int or tuple of int
            One for each axis.
        value : number
            One that the dtype holds exactly; of a float, float32 holds the nearest.

        Raises
        ------
        IndexError, TypeError
            As `at`.
        TypeError
            If `value` is not a real number.
        ValueError
            If the dtype cannot hold `value`, or the values are read-only. Nothing has changed.
        """
        offset = self._offset(indices if isinstance(indices, tuple) else (indices,))
        self._fill(offset, offset + 1, value)

    def fill(self, value):
        """Replace every element by `value`: see `set_at`."""
        self._fill(0, self.data.size, value)

    def __getitem__(self, indices):
        return self.at(*indices) if isinstance(indices, tuple) else self.at(indices)

    def __setitem__(self, indices, value):
        self.set_at(indices, value)

    cdef Py_ssize_t _offset(self, tuple indices) except -1:
        cdef Py_ssize_t offset = 0, axis, index, length
        cdef tuple shape = self.data.shape
        for value in indices:
            if isinstance(value, bool) or not PyIndex_Check(value):
                raise TypeError(f"an index must be an int, got {value!r}: use .data")
        if len(indices) != len(shape):
            raise IndexError(f"shape {shape} takes {len(shape)} indices, got {len(indices)}")
        for axis in range(len(shape)):
            index, length = PyNumber_AsSsize_t(indices[axis], IndexError), shape[axis]
            if not 0 <= index < length:
                raise IndexError(f"indices {indices} are out of bounds for shape {shape}")
            offset = offset * length + index
        return offset

    cdef int _fill(self, Py_ssize_t first, Py_ssize_t last, value) except -1:
        value = number(value, self.data.dtype)
        if not self.data.flags.writeable:
            raise ValueError("the values of this Tensor are read-only")
        if first < last:
            kernel("fill", self.data)(value, flat(self.data), first, last)
        return 0

    def __add__(self, other):
        return _combine("+", self, other)

    def __radd__(self, other):
        return _combine("+", self, other, reflected=True)

    def __sub__(self, other):
        return _combine("-", self, other)

    def __rsub__(self, other):
        return _combine("-", self, other, reflected=True)

    def __mul__(self, other):
        return _combine("*", self, other)

    def __rmul__(self, other):
        return _combine("*", self, other, reflected=True)

    def __matmul__(self, other):
        if isinstance(other, Tensor):
            return Tensor.__new__(Tensor, matmul(self.data, _same_dtype(self, other)))
        _refuse_array(other)
        return NotImplemented

    def __rmatmul__(self, other):
        _refuse_array(other)
        return NotImplemented

    def scale(self, s):
        """Return a Tensor with every element multiplied by a real number.

        Parameters
        ----------
        s : float
            Finite. Real elements are multiplied in their dtype; integers in float64, to which those
            beyond ``2**53`` are rounded, and the product is rounded to an integer, half to even.

        Raises
        ------
        TypeError
            If `s` is not a real number.
        ValueError
            If `s` is not finite or does not fit the dtype, or a product does not.

        Examples
        --------
        >>> Tensor([1, 2, 3], dtype="int8").scale(0.5)
        Tensor([0, 1, 2], shape=(3,), dtype=int8)
        """
        if not is_number(s):
            raise TypeError(f"s must be a real number, got {s!r}")
        data, factor = self.data, float(s)
        if not math.isfinite(factor):
            raise ValueError(f"s must be finite, got {factor}")
        if data.dtype.kind == "f":
            number(factor, data.dtype)
        elif data.size:
            check_products(data, factor, *self.min_max())
        out = np.empty_like(data)
        if out.size:
            kernel("scale", data)(flat(data), factor, flat(out))
        return Tensor.__new__(Tensor, out)

    def astype(self, dtype):
        """Return a Tensor of another dtype, or of the same one, with its own values.

        Reals are truncated toward zero to become integers; what a real dtype does not hold
        exactly is rounded to nearest. No value ever wraps or becomes infinite.

        Parameters
        ----------
        dtype : dtype
            One of `DTYPES`.

        Raises
        ------
        TypeError
            If `dtype` is not one of `DTYPES`.
        ValueError
            If an element does not fit `dtype`; the message names the first.

        Examples
        --------
        >>> Tensor([1.9, -1.9]).astype("int8")
        Tensor([1, -1], shape=(2,), dtype=int8)
        """
        return Tensor.__new__(Tensor, converted(self.data, supported(dtype)))

    def sum(self, axis=None):
        """Return the sum of the elements.

        Parameters
        ----------
        axis : int or tuple of int, optional
            Axes to sum over. Default: all.

        Returns
        -------
        int, float or Tensor
            A number if `axis` is None. Integers are added in int64 or uint64, the dtype of a
            Tensor of sums too. Reals are added in float64; a Tensor has them in its dtype.

        Raises
        ------
        OverflowError
            If a sum of integers does not fit 64 bits.
        ValueError
            If there is no such axis.
        """
        total = exact_sum(self.data, axis)
        return total.item() if axis is None else Tensor(total)

    def min_max(self):
        """Return the smallest and the largest element, as Python numbers.

        Raises
        ------
        ValueError
            If the Tensor is empty or holds a NaN.
        """
        if not self.data.size:
            raise ValueError("an empty Tensor has no range")
        low, high = kernel("min_max", self.data)(flat(self.data))
        if low != low:
            raise ValueError("a Tensor with NaN has no range")
        return low, high

    def min(self):
        """Return the smallest element: see `min_max`."""
        return self.min_max()[0]

    def max(self):
        """Return the largest element: see `min_max`."""
        return self.min_max()[1]

    def __eq__(self, other):
        """Return whether shapes, dtypes and all elements are equal."""
        if not isinstance(other, Tensor):
            return NotImplemented
        return self.dtype == other.dtype and np.array_equal(self.data, other.data)

    def __len__(self):
        if not self.data.ndim:
            raise TypeError("a Tensor without axes has no length")
        return self.data.shape[0]

    def __bool__(self):
        raise TypeError("a Tensor is neither true nor false: use .size, or compare")

    def __iter__(self):
        raise TypeError("a Tensor is not iterable: use .data")

    def __repr__(self):
        values = ""
        if self.data.size <= MOST_SHOWN:
            values = np.array2string(self.data, separator=", ", formatter={"int": str})
            values = " ".join(values.split()) + ", "
        return f"Tensor({values}shape={self.shape}, dtype={self.dtype})"

    def __copy__(self):
        return self.clone()

    def __reduce__(self):
        return Tensor, (self.data,)

    # Three ways in and out, all without a copy.
    def __array__(self, dtype=None, copy=None):
        if copy is None:            # which NumPy 1 does not know
            return np.asarray(self.data, dtype)
        return np.array(self.data, dtype, copy=copy)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyObject_GetBuffer(self.data, buffer, flags)

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()
