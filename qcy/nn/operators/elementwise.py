"""Numbers by themselves: arithmetic, activations, comparisons, casts."""

import functools
import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.registry import operator

#: Types by NumPy's letters, as messages name them.
KINDS = {
    "f": "floats", "fi": "floats or signed integers", "fiu": "numbers", "iu": "integers",
    "b": "booleans", "fiub": "numbers or booleans",
}
#: Types by their number in ONNX's TensorProto.
TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}
#: Names of the types that are not there, for messages.
OTHER_TYPES = {
    8: "string", 14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn",
    18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}
#: Elements that a table's function gets at once if there are many more, so that its steps find
#: them in the cache.
BLOCK = 2**16
MANY = 16 * BLOCK


def _one_type(name, kinds, inputs, optional=False):
    """Return inputs as arrays of one type, which must be among `kinds`.

    If they are `optional`, all but the first may be None, or floats of another size.
    """
    arrays = [x if x is None else np.asarray(x) for x in inputs]
    missing = [x is None for x in arrays]
    if not arrays or missing[0] or (any(missing) and not optional):
        raise TypeError(f"{name} lacks an input, got {len(arrays) - sum(missing)}")
    dtype = arrays[0].dtype
    if dtype.kind not in kinds:
        raise TypeError(f"{name} takes {KINDS[kinds]}, got {dtype}")
    for x in arrays:
        is_like = x is None or x.dtype == dtype or (optional and x.dtype.kind == dtype.kind == "f")
        if not is_like:
            raise TypeError(f"{name} takes arrays of one type, got {dtype} and {x.dtype}")
    return arrays


def _typed(*names, kinds, kind=None, dtype=None, optional=False):
    """Enter a function of arrays of one type as an operator.

    The type must be among `kinds`; it is the result's too unless that has a `dtype`. float16 is
    computed in float32. Infinities and NaN are results like others, of which nothing warns. The
    function never gets arrays of no axes only.
    """

    def enter(function):
        is_ufunc = isinstance(function, np.ufunc)
        in_blocks = kind == "table" and not is_ufunc

        @functools.wraps(function)
        def call(*inputs, **attributes):
            if is_ufunc and len(inputs) != function.nin:
                raise TypeError(f"{names[0]} has {function.nin} input(s), got {len(inputs)}")
            arrays = _one_type(names[0], kinds, inputs, optional)
            own = arrays[0].dtype
            if own == np.float16:
                arrays = [x if x is None else x.astype(np.float32) for x in arrays]
            is_single = not any(x is not None and x.ndim for x in arrays)
            if is_single:
                arrays[0] = arrays[0].reshape(1)
            with np.errstate(all="ignore"):
                if in_blocks and arrays[0].size > MANY:
                    result = _blockwise(function, *arrays, **attributes)
                else:
                    result = function(*arrays, **attributes)
                result = np.asarray(result, dtype or own)
            return result.reshape(()) if is_single else result

        return operator(*names, kind=kind)(call)

    return enter


def _blockwise(function, x, *others, **attributes):
    """Compute a function of one array piece by piece."""
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, BLOCK):
        piece = slice(start, start + BLOCK)
        result[piece] = function(flat[piece], *others, **attributes)
    return result.reshape(x.shape)


def _number(name, value):
    """Return an attribute as a float that float32 has, as it has all of ONNX's."""
    return float(np.float32(_validate.real(name, value)))


def _polynomial(coefficients, x):
    """Return a polynomial's values; the highest power's coefficient comes first."""
    y = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        y += coefficient
        y *= x
    y += coefficients[-1]
    return y


for _kinds, _dtype, _kind, _functions in (
    ("f", None, "table", {
        "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal,
        "Sin": np.sin, "Cos": np.cos, "Tan": np.tan, "Asin": np.arcsin, "Acos": np.arccos,
        "Atan": np.arctan, "Sinh": np.sinh, "Cosh": np.cosh, "Tanh": np.tanh,
        "Asinh": np.arcsinh, "Acosh": np.arccosh, "Atanh": np.arctanh, "Floor": np.floor,
        "Ceil": np.ceil, "Round": np.rint,
    }),
    ("fiu", None, "table", {"Abs": np.abs, "Sign": np.sign}),
    ("fi", None, "table", {"Neg": np.negative}),
    ("fiu", None, None, {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}),
    ("fiub", bool, None, {"Equal": np.equal}),
    ("fiu", bool, None, {
        "Greater": np.greater, "Less": np.less, "GreaterOrEqual": np.greater_equal,
        "LessOrEqual": np.less_equal,
    }),
    ("b", None, None, {
        "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Not": np.logical_not,
    }),
    ("iu", None, None, {
        "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor,
        "BitwiseNot": np.invert,
    }),
    ("f", bool, None, {"IsNaN": np.isnan}),
):
    for _name, _function in _functions.items():
        _typed(_name, kinds=_kinds, kind=_kind, dtype=_dtype)(_function)


@_typed("Erf", kinds="f", kind="table")
def erf(x):
    """Return the error function; in float32 off by one unit in the last place or so.

    Up to 0.92 a polynomial of the square, fitted to ``erf(x) / x - 1``; above, one fitted to the
    logarithm of ``1 - erf(x)``; from 4 on 1, as float32 has it.
    """
    if x.dtype == np.float64:
        return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64)
    x = np.clip(x, -4, 4)
    distance = np.abs(x)
    inner = _polynomial((
        -0.00059537706, 0.004985948, -0.026761727, 0.112816826, -0.3761248, 0.12837915,
    ), x * x)
    inner *= x
    inner += x
    outer = _polynomial((
        0.00021353232, -0.0032113132, 0.0228785984, -0.105244644, -0.63573092, -0.12851076,
    ), distance)
    outer *= distance
    outer -= distance
    np.exp(outer, out=outer)
    np.subtract(1, outer, out=outer)
    np.copysign(outer, x, out=outer)
    is_inner = distance < 0.92
    return inner * is_inner + outer * ~is_inner


@_typed("Sigmoid", kinds="f", kind="table")
def sigmoid(x):
    """Return ``1 / (1 + exp(-x))``; where the power is infinite, it is 0."""
    return 1 / (1 + np.exp(-x))


@_typed("Relu", kinds="fi", kind="table")
def relu(x):
    """Return ``max(x, 0)``."""
    return np.maximum(x, 0)


@_typed("LeakyRelu", kinds="f", kind="table")
def leaky_relu(x, *, alpha=0.01):
    """Return x, times alpha where it is negative."""
    return _prelu(x, _number("alpha", alpha))


def _prelu(x, slope):
    """Return x, times a slope where it is negative."""
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


@_typed("PRelu", kinds="fiu")
def prelu(x, slope):
    """Return x, times a slope that broadcasts to it where it is negative."""
    extra = x.ndim - slope.ndim
    if extra < 0 or any(n not in (1, x.shape[extra + i]) for i, n in enumerate(slope.shape)):
        raise ValueError(f"PRelu's slope must broadcast to {x.shape}, got shape {slope.shape}")
    return _prelu(x, slope)


@_typed("Clip", kinds="fiu", kind="table", optional=True)
def clip(x, low=None, high=None):
    """Return ``min(max(x, low), high)``; bounds are by default the type's finite limits."""
    for bound in (low, high):
        if bound is not None and bound.size != 1:
            raise ValueError(f"Clip's bounds must be single numbers, got shape {bound.shape}")
    limits = np.finfo(x.dtype) if x.dtype.kind == "f" else np.iinfo(x.dtype)
    low = limits.min if low is None else low.reshape(())
    high = limits.max if high is None else high.reshape(())
    return np.clip(x, low, high)


@_typed("HardSigmoid", kinds="f", kind="table")
def hard_sigmoid(x, *, alpha=0.2, beta=0.5):
    """Return ``alpha * x + beta``, clipped to [0, 1]."""
    return np.clip(_number("alpha", alpha) * x + _number("beta", beta), 0, 1)


@_typed("HardSwish", kinds="f", kind="table")
def hard_swish(x):
    """Return x times ``x / 6 + 0.5``, clipped to [0, 1]."""
    return x * np.clip(x / 6 + 0.5, 0, 1)


def selu(x, *, alpha=1.6732632, gamma=1.050701):
    """Return gamma times x, or ``alpha * (exp(x) - 1)`` in its place where it is not positive."""
    alpha, gamma = _number("alpha", alpha), _number("gamma", gamma)
    return gamma * np.maximum(x, 0) + gamma * alpha * np.expm1(np.minimum(x, 0))


_typed("Selu", kinds="f", kind="table")(selu)
_typed("Elu", kinds="f", kind="table")(functools.partial(selu, alpha=1.0, gamma=1.0))


@_typed("Celu", kinds="f", kind="table")
def celu(x, *, alpha=1.0):
    """Return ``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``."""
    alpha = _number("alpha", alpha)
    if alpha == 0:
        raise ValueError("Celu's alpha must not be 0, got 0")
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(x / alpha), 0)


@_typed("Gelu", "com.microsoft:Gelu", kinds="f", kind="table")
def gelu(x, *, approximate="none"):
    """Return ``x * (1 + erf(x / sqrt(2))) / 2``, or its approximation by tanh."""
    _validate.choice("approximate", approximate, ("none", "tanh"))
    if approximate == "tanh":
        return _gelu_tanh(x)
    if x.dtype == np.float64:
        return np.frompyfunc(math.erfc, 1, 1)(x * -math.sqrt(0.5)).astype(np.float64) * (0.5 * x)
    return x * (0.5 * erf(x * math.sqrt(0.5)) + 0.5)


def _gelu_tanh(x):
    """Return ``x * (1 + tanh(t)) / 2``, which is ``x * sigmoid(2 * t)``, t a cubic function."""
    twice = math.sqrt(8 / math.pi)
    return x * sigmoid(x * (twice * 0.044715 * x * x + twice))


@_typed("com.microsoft:FastGelu", kinds="f", optional=True)
def fast_gelu(x, bias=None):
    """Return `_gelu_tanh` of x, to which a bias may be added."""
    return _gelu_tanh(x if bias is None else x + bias)


def swish(x, *, alpha=1.0):
    """Return ``x * sigmoid(alpha * x)``."""
    return x * sigmoid(_number("alpha", alpha) * x)


_typed("Swish", kinds="f", kind="table")(swish)
_typed("com.microsoft:QuickGelu", kinds="f", kind="table")(functools.partial(swish, alpha=1.702))


@_typed("Mish", kinds="f", kind="table")
def mish(x):
    """Return ``x * tanh(log(1 + exp(x)))``, without the logarithm.

    With ``p = exp(x)`` the tanh is ``(p**2 + 2 * p) / (p**2 + 2 * p + 2)``; from 20 on that is 1.
    """
    power = np.exp(np.minimum(x, 20))
    power *= power + 2
    return x * (power / (power + 2))


@_typed("Softplus", kinds="f", kind="table")
def softplus(x):
    """Return ``log(1 + exp(x))``, which is ``max(x, 0) + log(1 + exp(-abs(x)))``."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@_typed("Softsign", kinds="f", kind="table")
def softsign(x):
    """Return ``x / (1 + abs(x))``."""
    return x / (1 + np.abs(x))


@_typed("ThresholdedRelu", kinds="f", kind="table")
def thresholded_relu(x, *, alpha=1.0):
    """Return x where it is above alpha, and 0 elsewhere."""
    return np.where(x > _number("alpha", alpha), x, 0)


@_typed("Shrink", kinds="fiu", kind="table")
def shrink(x, *, bias=0.0, lambd=0.5):
    """Return x, closer to 0 by the bias, and 0 within lambd of it; integers are cut toward 0."""
    bias, lambd = _number("bias", bias), _number("lambd", lambd)
    real = x if x.dtype.kind == "f" else x.astype(np.float64)
    y = np.zeros_like(real)
    np.subtract(real, bias, out=y, where=real > lambd)
    np.add(real, bias, out=y, where=real < -lambd)
    return y if real is x else _integers("Shrink", y, x.dtype)


def _integers(name, reals, dtype):
    """Return reals cut toward 0 to integers, into which they must fit."""
    limits = np.iinfo(dtype)
    reals = np.trunc(reals)
    fits = (reals >= limits.min) & (reals < float(limits.max + 1))
    if not fits.all():
        raise ValueError(f"{name}'s result must fit {dtype}, got {reals[~fits].flat[0]}")
    return reals.astype(dtype)


@_typed("Div", kinds="fiu")
def div(x, y):
    """Return the quotient, of integers cut toward 0."""
    if x.dtype.kind == "f":
        return np.divide(x, y)
    _refuse_zero("Div", x, y)
    return (x - np.fmod(x, y)) // y if x.dtype.kind == "i" else x // y


@_typed("Mod", kinds="fiu")
def mod(x, y, *, fmod=0):
    """Return the remainder, with the divisor's sign, or with that of x if `fmod`."""
    if x.dtype.kind != "f":
        _refuse_zero("Mod", x, y)
    return np.fmod(x, y) if fmod else np.remainder(x, y)


def _refuse_zero(name, x, y):
    """Check that no integer is divided by 0."""
    if x.size and not y.all():
        raise ValueError(f"{name} must not divide integers by 0, got a divisor with zeros")


@operator("Pow")
def power(x, exponent):
    """Return x to a power, in the type of x; that of the exponent may be another."""
    (x,), (exponent,) = _one_type("Pow", "fiu", [x]), _one_type("Pow", "fiu", [exponent])
    with np.errstate(all="ignore"):
        if exponent.size == 1 and exponent.ndim <= x.ndim and exponent.item() in (2, 3):
            square = np.square(x)
            return np.asarray(square if exponent.item() == 2 else square * x, x.dtype)
        if x.dtype.kind == "f":
            return np.asarray(np.power(x, exponent), x.dtype)
        if exponent.dtype.kind == "f" or (exponent < 0).any():
            reals = np.power(x.astype(np.float64), exponent.astype(np.float64))
            return _integers("Pow", np.asarray(reals), x.dtype)
        y = np.power(x.astype(np.int64), exponent.astype(np.int64))
        return np.asarray(y).astype(x.dtype)


def _folded(function):
    """Return a function of two arrays as one of any number of them."""
    return lambda *arrays: functools.reduce(function, arrays)


_typed("Min", kinds="fiu")(_folded(np.minimum))
_typed("Max", kinds="fiu")(_folded(np.maximum))
_typed("Sum", kinds="f")(_folded(np.add))


@_typed("Mean", kinds="f")
def mean(*arrays):
    """Return the mean of several arrays."""
    return functools.reduce(np.add, arrays) / len(arrays)


@operator("Where")
def where(condition, x, y):
    """Return x where the condition holds, and y elsewhere."""
    (condition,) = _one_type("Where's condition", "b", [condition])
    x, y = _one_type("Where", "fiub", [x, y])
    return np.where(condition, x, y)


@_typed("BitShift", kinds="iu")
def bit_shift(x, y, *, direction):
    """Return x with its bits y places to the left or right; the sign comes in from the left."""
    _validate.choice("direction", direction, ("LEFT", "RIGHT"))
    return np.left_shift(x, y) if direction == "LEFT" else np.right_shift(x, y)


@_typed("IsInf", kinds="f", dtype=bool)
def is_inf(x, *, detect_negative=1, detect_positive=1):
    """Return where numbers are infinite, of one sign or both."""
    y = np.isinf(x)
    if not detect_negative:
        y &= x > 0
    if not detect_positive:
        y &= x < 0
    return y


@operator("Cast")
def cast(x, *, to, saturate=1, round_mode="up"):
    """Return x in the type that has the number `to` in ONNX; the others are for 8-bit floats."""
    if to not in TYPES:
        raise ValueError(
            f"Cast must be to bool, integers of 8 to 64 bits or floats of 16 to 64, got type {to} "
            f"({OTHER_TYPES.get(to, 'unknown')})"
        )
    return cast_like(x, np.empty(0, TYPES[to]))


@operator("CastLike")
def cast_like(x, target_type, *, saturate=1, round_mode="up"):
    """Return x in the type of another array; the attributes are for 8-bit floats."""
    (x,), (target,) = (_one_type("Cast", "fiub", [array]) for array in (x, target_type))
    with np.errstate(all="ignore"):
        return x.astype(target.dtype)


@operator("Identity", kind="moves")
def identity(x):
    """Return x."""
    return _one_type("Identity", "fiub", [x])[0]


@operator("Dropout", counts_outputs=True)
def dropout(x, ratio=None, training_mode=None, *, seed=None, n_outputs=1):
    """Return x, as in inference, and a mask of what was kept, everything, if it is wanted."""
    (x,) = _one_type("Dropout", "fiub", [x])
    if training_mode is not None and np.all(training_mode) and (ratio is None or np.any(ratio)):
        raise ValueError(
            f"Dropout must not be in training mode, got training_mode=True, ratio={ratio}"
        )
    return (x, np.ones(x.shape, bool)) if n_outputs > 1 else x
