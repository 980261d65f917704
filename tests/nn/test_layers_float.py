"""Every layer's float forward against plain loops and plain NumPy that share nothing with it."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from qcy import Tensor, nn


def sides(padding):
    values = (padding,) if isinstance(padding, int) else tuple(padding)
    return values * (4 // len(values))


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def conv_by_loops(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve one output number at a time, in float64."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = pair(stride), pair(dilation), sides(padding)
    batch, _, height, width = x.shape
    n_out, depth, kh, kw = w.shape
    out_h = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
    out_w = (width + left + right - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((batch, n_out, out_h, out_w))
    for o in range(n_out):
        first = o // (n_out // groups) * depth
        for i in range(out_h):
            for j in range(out_w):
                for p in range(kh):
                    for q in range(kw):
                        row, column = i * sh + p * dh - top, j * sw + q * dw - left
                        if 0 <= row < height and 0 <= column < width:
                            for c in range(depth):
                                y[:, o, i, j] += (
                                    x[:, first + c, row, column].astype(float) * w[o, c, p, q]
                                )
        if bias is not None:
            y[:, o] += bias[o]
    return y


def conv_transpose_by_loops(
    x, w, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    """Let each input number add its kernel to the output, in float64."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = pair(stride), pair(dilation), sides(padding)
    batch, channels, height, width = x.shape
    _, depth, kh, kw = w.shape
    out_h = (height - 1) * sh - top - bottom + dh * (kh - 1) + pair(output_padding)[0] + 1
    out_w = (width - 1) * sw - left - right + dw * (kw - 1) + pair(output_padding)[1] + 1
    y = np.zeros((batch, depth * groups, out_h, out_w))
    for c in range(channels):
        first = c // (channels // groups) * depth
        for i in range(height):
            for j in range(width):
                for p in range(kh):
                    for q in range(kw):
                        row, column = i * sh + p * dh - top, j * sw + q * dw - left
                        if 0 <= row < out_h and 0 <= column < out_w:
                            for o in range(depth):
                                y[:, first + o, row, column] += (
                                    x[:, c, i, j].astype(float) * w[c, o, p, q]
                                )
    return y if bias is None else y + np.reshape(bias, (-1, 1, 1))


def pool_by_loops(x, kernel, stride, padding, dilation, reduce):
    """Hand `reduce` the list of numbers inside the image that each window covers."""
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel), pair(stride), pair(dilation)
    top, left, bottom, right = sides(padding)
    batch, channels, height, width = x.shape
    out_h = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
    out_w = (width + left + right - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((batch, channels, out_h, out_w))
    for index in np.ndindex(y.shape):
        b, c, i, j = index
        rows = [i * sh + p * dh - top for p in range(kh)]
        columns = [j * sw + q * dw - left for q in range(kw)]
        y[index] = reduce([
            float(x[b, c, row, column]) for row in rows for column in columns
            if 0 <= row < height and 0 <= column < width
        ])
    return y


def both_layouts(layer, x):
    """Return the result of a layer on NCHW images, having checked that NHWC gives the same."""
    y = layer(x)
    last = layer.with_layout("NHWC")(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    assert y.dtype == last.dtype == np.float32
    assert y.flags.c_contiguous
    assert last.flags.c_contiguous
    assert_array_equal(last.transpose(0, 3, 1, 2), y)
    return y


def random_images(rng, shape):
    return rng.normal(size=shape).astype(np.float32)


WINDOWS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 3), "padding": (2, 1)},
    {"padding": (0, 1, 2, 3)},
    {"padding": (3, 0, 0, 1), "stride": (3, 2)},
    {"dilation": 2, "padding": 2},
    {"dilation": (1, 3), "stride": (2, 1), "padding": (1, 2, 0, 3)},
]


# ------------------------------------------------------------------------------------- products


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(
    ("channels", "n_out", "groups"),
    [(1, 1, 1), (3, 4, 1), (4, 6, 2), (3, 3, 3), (3, 6, 3), (4, 2, 2)],
)
def test_conv2d(channels, n_out, groups, window):
    rng = np.random.default_rng(7)
    x = random_images(rng, (2, channels, 7, 8))
    w = rng.normal(size=(n_out, channels // groups, 3, 2))
    bias = rng.normal(size=n_out) if channels > 1 else None
    y = both_layouts(nn.Conv2D(w, bias, groups=groups, **window), x)
    assert_allclose(y, conv_by_loops(x, w, bias, groups=groups, **window), atol=1e-5)


def test_conv2d_over_several_blocks_of_images(monkeypatch):
    from qcy.nn.operators import products

    rng = np.random.default_rng(8)
    x, w = random_images(rng, (7, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    whole = nn.Conv2D(w)(x)
    monkeypatch.setattr(products, "BLOCK_BYTES", 3 * 4 * 18 * 16)      # three images at a time
    assert_allclose(nn.Conv2D(w)(x), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("output_padding", [0, (1, 0), (1, 2)])
@pytest.mark.parametrize(
    "window",
    [
        {"stride": (2, 3)},
        {"stride": (2, 3), "padding": 1},
        {"stride": (2, 3), "padding": (0, 1, 2, 1)},
        {"stride": (1, 3), "dilation": (2, 1), "padding": (1, 0)},
        {"stride": 3, "dilation": 2, "padding": (0, 0, 3, 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize(("channels", "depth", "groups"), [(1, 1, 1), (3, 2, 1), (4, 3, 2)])
def test_conv_transpose2d(channels, depth, groups, window, output_padding):
    rng = np.random.default_rng(9)
    x = random_images(rng, (2, channels, 4, 3))
    w = rng.normal(size=(channels, depth, 3, 2))
    bias = rng.normal(size=depth * groups) if depth > 1 else None
    options = {"groups": groups, "output_padding": output_padding, **window}
    y = both_layouts(nn.ConvTranspose2D(w, bias, **options), x)
    assert_allclose(y, conv_transpose_by_loops(x, w, bias, **options), atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (0, 5), (2, 3, 5)])
def test_dense(shape):
    rng = np.random.default_rng(1)
    x, w, bias = rng.normal(size=shape), rng.normal(size=(5, 3)), rng.normal(size=3)
    for layer, expected in ((nn.Dense(w), x @ w), (nn.Dense(w, bias), x @ w + bias)):
        y = layer(x)
        assert y.dtype == np.float32
        assert y.shape == (*shape[:-1], 3)
        assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_fused_activations(activation):
    rng = np.random.default_rng(2)
    act = {None: lambda x: x, "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: x.clip(0, 6)}
    x = 6 * random_images(rng, (2, 3, 4, 4))
    w = rng.normal(size=(3, 3, 2, 2))
    norm = {"gamma": [1, 2, 3], "beta": [0, 1, 2], "mean": [1, 1, 0], "variance": [1, 2, 3]}
    for cls, arrays in (
        (nn.Conv2D, {"weight": w}), (nn.ConvTranspose2D, {"weight": w}), (nn.BatchNorm, norm),
    ):
        assert_array_equal(
            cls(**arrays, activation=activation)(x), act[activation](cls(**arrays)(x))
        )
    flat, w = x.reshape(-1, 4), rng.normal(size=(4, 2))
    assert_array_equal(nn.Dense(w, activation=activation)(flat), act[activation](nn.Dense(w)(flat)))
    assert_array_equal(nn.Add(activation=activation)(x, x), act[activation](x + x))
    with pytest.raises(ValueError, match="activation must be one of"):
        nn.Dense(w, activation="gelu")


# -------------------------------------------------------------------------------- normalization


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (0, 3)])
def test_batch_norm(shape):
    rng = np.random.default_rng(3)
    gamma, beta, mean = rng.normal(size=(3, 3))
    variance, epsilon = rng.uniform(0.1, 2, 3), 1e-3
    layer = nn.BatchNorm(gamma, beta, mean, variance, epsilon=epsilon)
    x = random_images(rng, shape)
    y = both_layouts(layer, x) if len(shape) == 4 else layer(x)
    for c in range(3):
        expected = gamma[c] * (x[:, c] - mean[c]) / math.sqrt(variance[c] + epsilon) + beta[c]
        assert_allclose(y[:, c], expected, atol=1e-5)


# ------------------------------------------------------------------------------------- pooling

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0, 0, 2)},
    {"kernel_size": 3, "stride": 1, "padding": (2, 2, 1, 0)},
]


def pool_arguments(options):
    return (options["kernel_size"], options.get("stride", options["kernel_size"]),
            options.get("padding", 0))


@pytest.mark.parametrize("options", [*POOLS, {"kernel_size": 2, "dilation": (2, 3), "padding": 1}])
def test_max_pool2d(options):
    # All negative: a padding with zeros would show.
    x = -1 - np.abs(random_images(np.random.default_rng(4), (2, 3, 6, 7)))
    y = both_layouts(nn.MaxPool2D(**options), x)
    dilation = options.get("dilation", 1)
    assert_array_equal(y, pool_by_loops(x, *pool_arguments(options), dilation, max))


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool2d(options, count_include_pad):
    x = random_images(np.random.default_rng(5), (2, 3, 6, 7))
    y = both_layouts(nn.AvgPool2D(**options, count_include_pad=count_include_pad), x)
    cells = math.prod(pair(options["kernel_size"]))
    expected = pool_by_loops(
        x, *pool_arguments(options), 1,
        lambda values: math.fsum(values) / (cells if count_include_pad else len(values)),
    )
    assert_allclose(y, expected, atol=1e-6)


def test_global_avg_pool2d():
    x = random_images(np.random.default_rng(6), (2, 5, 9, 7))
    y = both_layouts(nn.GlobalAvgPool2D(), x)
    assert y.shape == (2, 5, 1, 1)
    for b, c in np.ndindex(2, 5):
        assert abs(y[b, c, 0, 0] - math.fsum(x[b, c].ravel().tolist()) / 63) < 1e-6


# ------------------------------------------------------------------------ activations, shapes


def test_activations():
    x = np.array([-1e4, -100, -7.5, -1, -0.0, 0, 1e-3, 0.5, 6, 7, 100, 1e4], np.float32)
    assert_array_equal(nn.ReLU()(x), [max(v, 0) for v in x])
    assert_array_equal(nn.ReLU6()(x), [min(max(v, 0), 6) for v in x])
    assert_allclose(nn.Tanh()(x), [math.tanh(v) for v in x], atol=1e-6)
    sigmoid = [1 / (1 + math.exp(-v)) if v > -700 else 0 for v in x]
    assert_allclose(nn.Sigmoid()(x), sigmoid, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis"), [((5,), -1), ((3, 5), -1), ((3, 5), 0), ((2, 3, 4), 1), ((0, 5), -1)]
)
def test_softmax(shape, axis):
    x = 20 * np.random.default_rng(7).normal(size=shape)
    y = nn.Softmax(axis)(x)
    power = np.exp(x - x.max(axis=axis, keepdims=True, initial=-999))
    assert_allclose(y, power / power.sum(axis=axis, keepdims=True), atol=1e-6)
    assert_array_equal(nn.Softmax()([[1e4, -1e4, -np.inf]]), [[1, 0, 0]])


@pytest.mark.parametrize("axis", [1, -1, 2, -3])
def test_softmax_counts_image_axes_in_nchw_order(axis):
    x = random_images(np.random.default_rng(8), (2, 3, 4, 5))
    y = both_layouts(nn.Softmax(axis), x)
    assert_allclose(y.sum(axis=axis), 1, atol=1e-6)


def test_layers_that_move_numbers():
    x = random_images(np.random.default_rng(9), (2, 3, 4, 5))
    assert_array_equal(nn.Identity()(x), x)
    assert_array_equal(nn.Dropout(0.9)(x), x)
    flat = nn.Flatten()(x)
    assert_array_equal(flat, x.reshape(2, 60))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    assert_array_equal(nn.Flatten(layout="NHWC")(last), flat)
    assert_array_equal(nn.Flatten()(x[..., 0]), x[..., 0].reshape(2, 12))
    assert nn.Flatten()(np.zeros((0, 3, 4, 5))).shape == (0, 60)
    assert_array_equal(both_layouts(nn.Reshape((5, 4, 3)), x), x.reshape(2, 5, 4, 3))
    assert_array_equal(nn.Reshape((-1, 10))(x), x.reshape(2, 6, 10))
    assert_array_equal(nn.Reshape((60,), layout="NHWC")(last), flat)
    from_flat = nn.Reshape((3, 4, 5), layout="NHWC")(flat)
    assert_array_equal(from_flat, last)
    assert nn.Reshape((3, -1))(np.zeros((0, 12))).shape == (0, 3, 4)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concat(axis):
    rng = np.random.default_rng(10)
    parts = [random_images(rng, (2, 3, 4, 5)) for _ in range(3)]
    y = nn.Concat(axis)(*parts)
    assert_array_equal(y, np.concatenate(parts, axis))
    last = [part.transpose(0, 2, 3, 1) for part in parts]
    assert_array_equal(nn.Concat(axis, layout="NHWC")(*last), y.transpose(0, 2, 3, 1))
    assert_array_equal(nn.Concat()([[1.0]], [[2.0, 3.0]]), [[1, 2, 3]])


# --------------------------------------------------------------------------- what layers share

NORM = nn.BatchNorm([1.0, 1], [0, 0], [0, 0], [1, 1])
IMAGE = np.ones((1, 2, 4, 4), np.float32)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2D(np.ones((3, 2, 3, 3)), np.ones(3), stride=2, padding=(0, 1, 1, 0)),
        nn.Dense(np.ones((4, 2))), nn.ConvTranspose2D(np.ones((2, 1, 2, 2)), stride=2), NORM,
        nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(1), nn.MaxPool2D(2),
        nn.AvgPool2D(2, count_include_pad=True), nn.GlobalAvgPool2D(), nn.Flatten(),
        nn.Reshape((32,)), nn.Concat(), nn.Identity(), nn.Dropout(0.25),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_kinds_of_arrays_and_copies(layer):
    x = IMAGE[0, 0] if isinstance(layer, nn.Dense) else IMAGE
    y = layer(x)
    assert isinstance(y, np.ndarray)
    as_tensor = layer.forward(Tensor(x))
    assert isinstance(as_tensor, Tensor)
    assert_array_equal(as_tensor.data, y)
    for same in (x.tolist(), x.astype(np.float64), x.astype(np.int8)):
        assert_array_equal(layer(same), y)
    again = layer.replace()
    assert type(again) is type(layer)
    assert again.settings() == layer.settings()
    assert repr(again) == repr(layer)
    assert_array_equal(again(x), y)
    stopped = nn.Context()
    stopped.cancel()
    with pytest.raises(nn.Cancelled):
        layer(x, ctx=stopped)
    assert_array_equal(layer(x, ctx=nn.Context()), y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Dense(np.ones(3)), ValueError, "weight must have 2 dimensions"),
        (lambda: nn.Dense([[np.nan]]), ValueError, "weight must be finite"),
        (lambda: nn.Dense([["a"]]), TypeError, "weight must hold real numbers"),
        (lambda: nn.Dense(np.ones((2, 3)), np.ones(2)), ValueError, "bias must have 3"),
        (lambda: nn.Dense(np.ones((2, 3)))(np.ones((1, 3))), ValueError, "2 features"),
        (lambda: nn.Dense(np.ones((4, 3)))(1.0), ValueError, "4 features in the last"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1))), ValueError, "weight must have 4 dimensions"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1, 1)), groups=2), ValueError, "groups must divide"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1, 1)), stride=0), ValueError, "stride"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1, 1)), padding=-1), ValueError, "padding"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1, 1)), layout="CHW"), ValueError, "layout"),
        (lambda: nn.Conv2D(np.ones((3, 3, 1, 1)))(IMAGE), ValueError, "3 channels"),
        (lambda: nn.Conv2D(np.ones((3, 2, 5, 5)))(IMAGE), ValueError, "hold the kernel"),
        (lambda: nn.Conv2D(np.ones((3, 2, 1, 1)))(IMAGE[0]), ValueError, "4 dimensions"),
        (lambda: nn.ConvTranspose2D(np.ones((3, 1, 2, 2)), groups=2), ValueError, "groups"),
        (lambda: nn.ConvTranspose2D(np.ones((2, 1, 2, 2)), output_padding=1), ValueError,
         "output_padding must be less"),
        (lambda: nn.ConvTranspose2D(np.ones((2, 1, 1, 1)), padding=(0, 0, 5, 0))(IMAGE),
         ValueError, "padding must leave some output"),
        (lambda: nn.BatchNorm([1], [0], [0], [-1.0]), ValueError, "must be positive"),
        (lambda: nn.BatchNorm([1], [0, 1], [0], [1]), ValueError, "beta must have 1"),
        (lambda: NORM(np.ones((1, 3))), ValueError, "2 channels in axis 1"),
        (lambda: NORM(np.ones(2)), ValueError, "at least 2 dimensions"),
        (lambda: nn.MaxPool2D(2, padding=2), ValueError, "padding must be less"),
        (lambda: nn.AvgPool2D(5)(IMAGE), ValueError, "hold the kernel"),
        (lambda: nn.MaxPool2D(2)(IMAGE[0]), ValueError, "4 dimensions"),
        (lambda: nn.GlobalAvgPool2D()(IMAGE[0]), ValueError, "4 dimensions"),
        (lambda: nn.Add()(IMAGE, IMAGE[0, :1, :3]), ValueError, "shapes that broadcast"),
        (lambda: nn.Add()(IMAGE), TypeError, r"takes 2 input\(s\), got 1"),
        (lambda: nn.ReLU()(IMAGE, IMAGE), TypeError, r"takes 1 input\(s\), got 2"),
        (lambda: nn.Concat()(), TypeError, "at least 1"),
        (lambda: nn.Softmax(2)(np.ones((2, 2))), ValueError, "axis must be in"),
        (lambda: nn.Dropout(1.0), ValueError, "rate"),
        (lambda: nn.Reshape((-1, -1)), ValueError, "one -1"),
        (lambda: nn.Reshape((5,))(IMAGE), ValueError, "does not fit"),
        (lambda: nn.Reshape((-1, 5))(IMAGE), ValueError, "does not fit"),
        (lambda: nn.ReLU()(["a"]), TypeError, "real numbers"),
    ],
)
def test_layers_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
