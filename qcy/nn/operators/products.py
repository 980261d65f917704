"""Products of reals: matrices, Einstein sums, convolution and transposed convolution."""

import math

import numpy as np

from qcy import _validate
from qcy.nn.operators.pooling import (
    FLOATS, Windows, halves, images, narrow, numbers, sides, wide,
)
from qcy.nn.operators.registry import OPERATORS, operator

#: Bytes of gathered windows that a convolution holds at once.
BLOCK_BYTES = 2**22
INTEGERS = tuple(np.dtype(f"{kind}int{bits}") for bits in (8, 16, 32, 64) for kind in ("", "u"))
#: What an operator may be fused with, and the parameters of that.
ACTIVATIONS = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "Softplus": (), "Softsign": (), "HardSwish": (),
    "LeakyRelu": ("alpha",), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"), "Clip": ("min", "max"),
}


def operands(dtypes, **arrays):
    """Return arrays that must have one dtype, one of `dtypes`; None stays None."""
    arrays = {name: None if a is None else np.asarray(a) for name, a in arrays.items()}
    first, dtype = next((name, a.dtype) for name, a in arrays.items() if a is not None)
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype not in dtypes:
            raise TypeError(f"{name} must be one of {', '.join(map(str, dtypes))}, "
                            f"got {array.dtype}")
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {dtype} as {first}, got {array.dtype}")
    return arrays.values()


def _product(a, b):
    """Multiply as ``numpy.matmul`` does."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(
            f"A and B must have at least 1 dimension, got shapes {a.shape} and {b.shape}"
        )
    try:
        return np.asarray(np.matmul(wide(a), wide(b)))
    except ValueError:
        raise ValueError(f"A is {a.shape} and B is {b.shape}: they do not multiply") from None


@operator("MatMul")
def matmul(a, b):
    """Multiply matrices, or stacks of them, whose leading axes broadcast."""
    a, b = operands(FLOATS + INTEGERS, A=a, B=b)
    return narrow(_product(a, b), a.dtype)


def _factor(name, value, dtype):
    """Return a factor of a sum; integers need a whole one."""
    value = _validate.real(name, value)
    if dtype.kind == "f":
        return value
    limits = np.iinfo(dtype)
    if not value.is_integer() or not limits.min <= value <= limits.max:
        raise ValueError(f"{name} must be a whole number for {dtype}, got {value}")
    return dtype.type(value)


@operator("Gemm")
def gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """Compute ``alpha * A @ B + beta * C``, either operand transposed if wanted."""
    a, b, c = operands(FLOATS + INTEGERS, A=a, B=b, C=c)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"A and B must have 2 dimensions, got shapes {a.shape} and {b.shape}")
    y = _product(a.T if transA else a, b.T if transB else b)
    alpha, beta = _factor("alpha", alpha, a.dtype), _factor("beta", beta, a.dtype)
    if alpha != 1:
        y *= alpha
    if c is not None and beta != 0:
        check_broadcast("C", c, y.shape)
        y += wide(c) if beta == 1 else beta * wide(c)
    return narrow(y, a.dtype)


def check_broadcast(name, array, shape):
    """Check that an array broadcasts to `shape`, which stays as it is."""
    axes = zip(array.shape[::-1], shape[::-1], strict=False)
    if array.ndim > len(shape) or any(length not in (1, whole) for length, whole in axes):
        raise ValueError(f"{name} must broadcast to {shape}, got shape {array.shape}")


@operator("Einsum")
def einsum(*inputs, equation):
    """Sum products of elements along the letters of an equation."""
    if not inputs:
        raise ValueError(f"equation {equation!r} needs operands, got none")
    arrays = operands(
        FLOATS + INTEGERS, **{f"Inputs[{i}]": value for i, value in enumerate(inputs)}
    )
    arrays = list(arrays)
    try:
        y = np.einsum(equation, *map(wide, arrays), optimize=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"equation {equation!r} does not fit operands of shapes "
            f"{[array.shape for array in arrays]}: {error}"
        ) from None
    return narrow(np.array(y), arrays[0].dtype)


def conv_windows(
    x, w, b, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None,
    strides=None,
):
    """Check the operands of a convolution, and return its windows and how many groups it has."""
    group = _validate.integer("group", group, 1)
    if w.ndim != x.ndim:
        raise ValueError(f"W must have {x.ndim} dimensions as X, got shape {w.shape}")
    if x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ValueError(
            f"X is {x.shape} and W is {w.shape}: channels do not fit, in {group} groups"
        )
    _check_kernel(w, b, kernel_shape, w.shape[0])
    windows = Windows.over(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
    return windows, group


def _check_kernel(w, b, kernel_shape, n_out):
    if kernel_shape is not None and tuple(kernel_shape) not in ((), w.shape[2:]):
        raise ValueError(
            f"kernel_shape must be that of W, {w.shape[2:]}, got {tuple(kernel_shape)}"
        )
    if b is not None and b.shape != (n_out,):
        raise ValueError(f"B must have shape {(n_out,)}, got {b.shape}")


@operator("Conv")
def conv(
    x, w, b=None, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None,
    strides=None,
):
    """Convolve images of one, two or more spatial axes."""
    x, w, b = operands(FLOATS, X=x, W=w, B=b)
    windows, group = conv_windows(
        images("X", x, FLOATS), w, b, auto_pad=auto_pad, dilations=dilations, group=group,
        kernel_shape=kernel_shape, pads=pads, strides=strides,
    )
    y = convolve(wide(x), wide(w), windows, group)
    return narrow(_add_bias(y, b), x.dtype)


def _add_bias(y, b):
    if b is not None:
        y += wide(b).reshape(-1, *(1,) * (y.ndim - 2))
    return y


def convolve(x, w, windows, group):
    """Return the convolution of (B, C, D1, ...) images: (B, O, ...)."""
    y = np.empty((len(x), len(w), *windows.out), x.dtype)
    if group > 1 and w.shape[1] == 1:
        _by_channel(x, w, windows, y)
    elif windows.are_cells:
        matrix = w.reshape(group, len(w) // group, w.shape[1])
        flat = x.reshape(len(x), group, w.shape[1], math.prod(windows.out))
        np.matmul(matrix, flat, out=y.reshape(len(x), *matrix.shape[:2], flat.shape[3]))
    else:
        _by_products(x, w, windows, group, y)
    return y


def _by_channel(x, w, windows, y):
    """Convolve channels apart: multiply and add whole arrays, one cell of the kernel at a time."""
    channels = x.shape[1]
    y = y.reshape(len(y), channels, len(w) // channels, *windows.out)
    w = w.reshape(1, channels, len(w) // channels, *windows.kernel)
    x = x[:, :, None]
    n = max(1, BLOCK_BYTES // max(1, 4 * y.nbytes // max(1, channels)))
    ones = (None,) * len(windows.kernel)
    for first in range(0, channels, n):
        out, part = y[:, first : first + n], x[:, first : first + n]
        weights = w[:, first : first + n]
        out[...] = 0
        for place, taken, cells in windows.taps():
            out[(..., *taken)] += part[(..., *cells)] * weights[(..., *place, *ones)]


def _blocks(n_images, windows, window_bytes):
    """Yield images and rows of windows of which few enough are gathered at once."""
    row_bytes = max(1, window_bytes * math.prod(windows.out[1:]))
    n = max(1, BLOCK_BYTES // max(1, row_bytes * windows.out[0]))
    height = max(1, BLOCK_BYTES // row_bytes)
    for first in range(0, n_images, n):
        for top in range(0, windows.out[0], height):
            bottom = min(windows.out[0], top + height)
            yield slice(first, first + n), slice(top, bottom), windows.rows(top, bottom)


def _by_products(x, w, windows, group, y):
    """Gather the windows of a few images at a time, and multiply them by NumPy's BLAS."""
    depth = math.prod(w.shape[1:])
    matrix = w.reshape(group, len(w) // group, depth)
    is_inside = not any(windows.before) and not any(windows.after)
    buffer = np.empty(0, x.dtype)       # the first block is the largest
    for batch, rows, part in _blocks(len(x), windows, x.itemsize * depth * group):
        image = x[batch]
        shape = (*image.shape[:2], *part.kernel, *part.out)
        buffer = buffer if buffer.size else np.empty(math.prod(shape), x.dtype)
        columns = buffer[: math.prod(shape)].reshape(shape)
        if not is_inside:
            columns[...] = 0
        for place, taken, cells in part.taps():
            columns[(slice(None), slice(None), *place, *taken)] = image[(..., *cells)]
        columns = columns.reshape(len(image), group, depth, math.prod(part.out))
        y[batch, :, rows] = (matrix @ columns).reshape(len(image), len(w), *part.out)


@operator("ConvTranspose")
def conv_transpose(
    x, w, b=None, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None,
    output_padding=None, output_shape=None, pads=None, strides=None,
):
    """Convolve backwards: each cell of the image adds its kernel, weighted, to the output."""
    x, w, b = operands(FLOATS, X=x, W=w, B=b)
    images("X", x, FLOATS)
    group = _validate.integer("group", group, 1)
    if w.ndim != x.ndim or x.shape[1] != w.shape[0] or x.shape[1] % group:
        raise ValueError(
            f"X is {x.shape} and W is {w.shape}: channels do not fit, in {group} groups"
        )
    _check_kernel(w, b, kernel_shape, w.shape[1] * group)
    windows = _windows_back(
        x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad, output_padding, output_shape
    )
    y = np.zeros((len(x), w.shape[1] * group, *windows.size), wide(x).dtype)
    if y.size:
        _scatter(wide(x), wide(w), windows, group, y)
    return narrow(_add_bias(y, b), x.dtype)


def _windows_back(
    size, kernel, strides, dilations, pads, auto_pad, output_padding, output_shape
):
    """Return windows over the output of a transposed convolution, of which the input has cells."""
    n_axes = len(size)
    kernel = numbers("kernel_shape", kernel, n_axes, 1)
    strides = numbers("strides", strides, n_axes, 1, 1)
    dilations = numbers("dilations", dilations, n_axes, 1, 1)
    extra = numbers("output_padding", output_padding, n_axes, 0, 0)
    if any(n >= max(pair) for n, *pair in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"output_padding must be less than strides {strides} or dilations {dilations}, "
            f"got {extra}"
        )
    before, after = sides(None if output_shape else pads, auto_pad, n_axes)
    full = [
        (length - 1) * stride + dilation * (side - 1) + 1 + more
        for length, stride, dilation, side, more in zip(
            size, strides, dilations, kernel, extra, strict=True
        )
    ]
    if output_shape:
        out = numbers("output_shape", output_shape, n_axes, 1)
        if any(n - whole >= stride for n, whole, stride in zip(out, full, strides, strict=True)):
            raise ValueError(f"output_shape must fit {full}, give or take a stride, got {out}")
    elif auto_pad.startswith("SAME"):
        out = tuple(length * stride for length, stride in zip(size, strides, strict=True))
    else:
        out = tuple(whole - a - z for whole, a, z in zip(full, before, after, strict=True))
    if output_shape or auto_pad.startswith("SAME"):
        cut = [max(0, whole - length) for whole, length in zip(full, out, strict=True)]
        before, after = halves(cut, auto_pad == "SAME_UPPER")
    if min(out) < 1 or 0 in size:
        raise ValueError(f"pads must leave some output, got {(*before, *after)} for {full}")
    return Windows(out, kernel, strides, dilations, before, after, tuple(size))


def _scatter(x, w, windows, group, y):
    """Multiply each cell by the kernel, and add the products where they belong."""
    channels = w.shape[0] // group
    depth = math.prod(w.shape[1:])
    matrix = w.reshape(group, channels, depth).swapaxes(1, 2)
    for batch, rows, part in _blocks(len(x), windows, x.itemsize * depth * group):
        image = x[batch, :, rows]
        columns = matrix @ image.reshape(len(image), group, channels, math.prod(part.out))
        columns = columns.reshape(len(image), y.shape[1], *part.kernel, *part.out)
        for place, taken, cells in part.taps():
            given = columns[(slice(None), slice(None), *place, *taken)]
            y[(batch, slice(None), *cells)] += given


def _activate(y, name, parameters):
    """Apply the activation that an operator was fused with."""
    if not name:
        return y
    _validate.choice("activation", name, tuple(ACTIVATIONS))
    if name == "Clip":
        low, high = (np.asarray(parameters[key], y.dtype) for key in ("min", "max"))
        return OPERATORS[name].function(y, low, high)
    return OPERATORS[name].function(y, **parameters)


@operator("com.microsoft:FusedConv")
def fused_conv(x, w, b=None, z=None, *, activation="", activation_params=None, **attributes):
    """Convolve, add `z`, and apply an activation."""
    y = conv(x, w, b, **attributes)
    if z is not None:
        y, z = operands(FLOATS, Y=y, Z=z)
        if z.shape != y.shape:
            raise ValueError(f"Z must have the output's shape {y.shape}, got {z.shape}")
        y = y + z
    names = ACTIVATIONS.get(activation, ())
    values = () if activation_params is None else tuple(activation_params)
    if len(values) != len(names) and (values or activation == "Clip"):
        raise ValueError(f"activation_params must have {len(names)} numbers, got {values}")
    return _activate(y, activation, dict(zip(names, map(float, values), strict=False)))


@operator("com.microsoft:FusedGemm")
def fused_gemm(
    a, b, c=None, *, activation="", activation_alpha=None, activation_beta=None,
    activation_gamma=None, **attributes,
):
    """Compute `gemm`, and apply an activation."""
    given = {"alpha": activation_alpha, "beta": activation_beta, "gamma": activation_gamma}
    names = ACTIVATIONS.get(activation, ())
    parameters = {key: given[key] for key in names if given.get(key) is not None}
    return _activate(gemm(a, b, c, **attributes), activation, parameters)


@operator("com.microsoft:FusedMatMul")
def fused_matmul(
    a, b, *, alpha=1.0, transA=0, transB=0, transBatchA=0, transBatchB=0
):
    """Multiply stacks of matrices, either operand transposed if wanted, by a factor."""
    a, b = operands(FLOATS, A=a, B=b)
    y = _product(_turned(a, transA, transBatchA), _turned(b, transB, transBatchB))
    return narrow(y * _validate.real("alpha", alpha), a.dtype)


def _turned(array, last, batch):
    """Return an operand with its first axis beside the last, and the last two exchanged."""
    if array.ndim < 2:
        return array
    if batch:
        array = np.moveaxis(array, 0, -2)
    return array.swapaxes(-1, -2) if last else array
