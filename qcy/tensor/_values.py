"""What each dtype of a `Tensor` can hold, and how to say what it cannot."""

import math
import operator

import numpy as np

from qcy import _kernels

#: The dtypes that a Tensor may hold, and the C names by which the kernels know them.
C_NAMES = {
    np.dtype(name): {"float32": "float", "float64": "double"}.get(name, f"{name}_t")
    for name in (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float32", "float64",
    )
}
#: The least and the greatest integer of each integer dtype.
LIMITS = {
    dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for dtype in C_NAMES
    if dtype.kind != "f"
}
#: Pairs of dtypes of which the second may not hold a value of the first.
UNSAFE = frozenset(
    (source, target)
    for source in C_NAMES
    for target in C_NAMES
    if not np.can_cast(source, target) and (source.kind == "f" or target.kind != "f")
)
FLOAT32 = np.dtype(np.float32)
#: The least real that rounds to infinity in float32.
FLOAT32_OVERFLOW = 2.0**128 - 2.0**103


def supported(dtype):
    """Return `dtype` in native byte order if a Tensor may hold it, or say that it may not."""
    if dtype is None:
        raise TypeError("dtype must be given, got None")
    dtype = np.dtype(dtype)
    if not dtype.isnative:
        dtype = dtype.newbyteorder("=")
    if dtype not in C_NAMES:
        raise TypeError(f"a Tensor cannot hold {dtype}, only {', '.join(map(str, C_NAMES))}")
    return dtype


def flat(array):
    """Return a C-ordered array with one axis."""
    return array if array.ndim == 1 else array.reshape(-1)


def kernel(name, array):
    """Return the typed loop of that name for an array's dtype."""
    return getattr(_kernels.active.plain, name)[C_NAMES[array.dtype]]


def converted(array, dtype):
    """Return a copy of `array` as `dtype`, or say which is the first element that does not fit."""
    if (array.dtype, dtype) in UNSAFE and array.size:
        check_conversion(array, dtype, *kernel("min_max", array)(flat(array)))
    return array.astype(dtype)


def exact_sum(array, axis):
    """Return sums in 64 bits, reals rounded back to their dtype; integers must fit."""
    if array.dtype.kind == "f":
        total = np.asarray(array.sum(axis=axis, dtype=np.float64))
        return total if axis is None else total.astype(array.dtype)
    wide = np.dtype(np.int64 if array.dtype.kind == "i" else np.uint64)
    total = np.asarray(array.sum(axis=axis, dtype=wide))
    extremes = kernel("min_max", array)(flat(array)) if array.size else (0, 0)
    if array.size * max(map(abs, extremes)) > LIMITS[wide][1]:
        exact = np.asarray(array.astype(object).sum(axis=axis), object)
        if (exact != total.astype(object)).any():
            raise OverflowError(f"a sum does not fit {wide}")
    return total


_WHOLE = (int, np.integer)
_REAL = (*_WHOLE, float, np.floating)


def is_number(value):
    """Return whether `value` is a real number, of Python or NumPy; a bool is not."""
    return isinstance(value, _REAL) and not isinstance(value, bool)


def number(value, dtype):
    """Return `value` as the int or float to store in `dtype`, or say why that cannot be."""
    if not is_number(value):
        raise TypeError(f"a Tensor of {dtype} holds real numbers, got {value!r}")
    is_whole = isinstance(value, _WHOLE)
    exact = int(value) if is_whole else float(value)
    if dtype.kind != "f":
        if not is_whole and not exact.is_integer():
            raise ValueError(f"{exact} is not an integer, but the dtype is {dtype}")
        low, high = LIMITS[dtype]
        if not low <= exact <= high:
            raise ValueError(f"{exact} does not fit {dtype}, whose range is [{low}, {high}]")
        return int(exact)
    try:
        real = float(exact)
    except OverflowError:
        real = math.inf
    # A long double or an int may be too large for a float.
    if (math.isinf(real) and real != value) or (dtype == FLOAT32 and _overflows(real)):
        raise ValueError(f"{value} does not fit {dtype}")
    if is_whole and float(dtype.type(real)) != exact:
        raise ValueError(f"{exact} is not exact in {dtype}")
    return real


def _overflows(real):
    return FLOAT32_OVERFLOW <= abs(real) < math.inf


def from_sequence(data, dtype):
    """Return an array of what is not an array yet, to be converted to `dtype`."""
    array = np.asarray(data)
    if dtype.kind != "f" and array.dtype.kind in "fO":
        # NumPy makes floats or objects of ints that no one dtype of its holds.
        exact = np.asarray(data, dtype=object)
        if exact.size and all(isinstance(value, int) for value in exact.flat):
            return np.array([number(value, dtype) for value in exact.flat], dtype).reshape(
                exact.shape
            )
    return array


def check_conversion(array, dtype, least, greatest):
    """Name the first element that does not fit `dtype`, given the least and the greatest."""
    if dtype == FLOAT32:
        if not (least > -FLOAT32_OVERFLOW and greatest < FLOAT32_OVERFLOW):
            misfits = array[np.isfinite(array) & (np.abs(array) >= FLOAT32_OVERFLOW)]
            if misfits.size:
                raise ValueError(f"{misfits[0]} does not fit {dtype}")
        return
    low, high = LIMITS[dtype]
    low, high = low - 1, high + 1       # reals are truncated toward zero
    if not (low < least and greatest < high):
        first = next(value for value in map(np.generic.item, array.flat) if not low < value < high)
        raise ValueError(f"{first} does not fit {dtype}")


def check_products(array, factor, least, greatest):
    """Name the first integer whose product does not fit, given the least and the greatest."""
    low, high = LIMITS[array.dtype]

    def fits(value):
        product = value * factor
        return math.isfinite(product) and low <= round(product) <= high

    if not (fits(least) and fits(greatest)):
        first = next(value for value in map(np.generic.item, array.flat) if not fits(value))
        raise ValueError(f"{first} * {factor} does not fit {array.dtype}")


_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def first_overflow(op, a, b, shape):
    """Say which is the first result that does not fit the operands' dtype."""
    low, high = LIMITS[a.dtype]
    b = b.reshape(()) if b.size == 1 else b
    a = a.reshape(()) if a.size == 1 else a
    for x, y in zip(np.broadcast_to(a, shape).flat, np.broadcast_to(b, shape).flat, strict=True):
        if not low <= _OPERATORS[op](int(x), int(y)) <= high:
            return f"{x} {op} {y} does not fit {a.dtype}"
    return f"a result does not fit {a.dtype}"
