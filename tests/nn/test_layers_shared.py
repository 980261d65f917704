"""What float layers and their twins promise alike: they do not change, and take a context."""

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, nn

PARAMS = QuantizationParams(0.1, 128)
RNG = np.random.default_rng(0)


def codes(*shape):
    return RNG.integers(-9, 9, shape, dtype=np.int8)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


SOFTMAX_OUT = QuantizationParams(1 / 256, 0)
#: A constructor, the arrays it takes, and the rest of its arguments.
MADE_OF_ARRAYS = {
    "Dense": ({"weight": floats(3, 2), "bias": floats(2)}, {}),
    "Conv2D": ({"weight": floats(2, 3, 2, 2), "bias": floats(2)}, {}),
    "ConvTranspose2D": ({"weight": floats(3, 2, 2, 2), "bias": floats(2)}, {}),
    "BatchNorm": (
        {name: np.abs(floats(3)) for name in ("gamma", "beta", "mean", "variance")}, {}
    ),
    "DenseQuantized": ({
        "weight": codes(3, 2), "weight_scale": np.full(2, 0.1, np.float32),
        "bias": np.array([7, 8], np.int32), "weight_zero_point": np.array([1, 2], np.int32),
    }, {"in_params": PARAMS, "out_params": PARAMS}),
    "Conv2DQuantized": ({
        "weight": codes(2, 3, 2, 2), "weight_scale": np.full(2, 0.1, np.float32),
        "bias": np.array([7, 8], np.int32), "weight_zero_point": np.array([1, 2], np.int32),
    }, {"in_params": PARAMS, "out_params": PARAMS}),
    "ConvTranspose2DQuantized": ({
        "weight": codes(3, 2, 2, 2), "weight_scale": np.full(2, 0.1, np.float32),
        "bias": np.array([7, 8], np.int32), "weight_zero_point": np.array([1, 2], np.int32),
    }, {"in_params": PARAMS, "out_params": PARAMS}),
    "BatchNormQuantized": ({
        "weight": codes(3), "weight_scale": np.full(3, 0.1, np.float32),
        "bias": np.array([7, 8, 9], np.int32),
    }, {"in_params": PARAMS, "out_params": PARAMS}),
    "SigmoidQuantized": (
        {"table": np.arange(256, dtype=np.uint8)}, {"in_params": PARAMS, "out_params": PARAMS}
    ),
    "SoftmaxQuantized": (
        {"table": np.arange(1, 257, dtype=np.int32)},
        {"in_params": PARAMS, "out_params": SOFTMAX_OUT},
    ),
    "LayerNorm": ({"gamma": floats(3), "beta": floats(3)}, {}),
    "LayerNormQuantized": (
        {"gamma": floats(3), "beta": floats(3)}, {"in_params": PARAMS, "out_params": PARAMS}
    ),
    "Embedding": ({"weight": floats(4, 3)}, {}),
    "EmbeddingQuantized": (
        {"codes": np.arange(12, dtype=np.uint8).reshape(4, 3)},
        {"in_params": PARAMS, "out_params": PARAMS},
    ),
    "DenseDynamic": ({
        "weight": codes(3, 2), "weight_scale": np.full(2, 0.1, np.float32), "bias": floats(2),
    }, {}),
    "ConcatQuantized": (
        {"tables": np.stack([np.arange(256, dtype=np.uint8)] * 2)},
        {"in_params": (PARAMS, PARAMS), "out_params": PARAMS},
    ),
    "PReLU": ({"slope": floats(3)}, {}),
    "PReLUQuantized": ({"slope": floats(3)}, {"in_params": PARAMS, "out_params": PARAMS}),
    "Constant": ({"value": floats(3, 2)}, {}),
    "ConstantQuantized": ({"codes": codes(3, 2).view(np.uint8)}, {"out_params": PARAMS}),
    "DenseWeightOnly": ({
        "weight": codes(3, 2), "weight_scale": np.full(2, 0.1, np.float32), "bias": floats(2),
    }, {}),
    "Conv2DWeightOnly": ({
        "weight": codes(2, 3, 2, 2), "weight_scale": np.full(2, 0.1, np.float32),
        "bias": floats(2),
    }, {}),
    "Recurrent": ({
        "w": floats(1, 8, 3), "r": floats(1, 8, 2), "b": floats(1, 16), "p": floats(1, 6),
    }, {"op": "LSTM", "attributes": {"hidden_size": 2}}),
    "RecurrentDynamic": ({
        "w": codes(1, 8, 3), "r": codes(1, 8, 2), "w_scale": np.full((1, 8), 0.1, np.float32),
        "r_scale": np.full((1, 8), 0.1, np.float32), "b": floats(1, 16), "p": floats(1, 6),
    }, {"op": "LSTM", "attributes": {"hidden_size": 2}}),
}


def test_every_layer_with_arrays_is_here():
    kinds = {name for name in nn.layers.__all__ if getattr(getattr(nn, name), "ARRAYS", ())}
    assert kinds - {"TanhQuantized", "GELUQuantized", "TableQuantized"} == set(MADE_OF_ARRAYS)


@pytest.mark.parametrize("kind", MADE_OF_ARRAYS)
def test_arrays_are_the_layers_own(kind):
    arrays, settings = MADE_OF_ARRAYS[kind]
    given = {name: array.copy() for name, array in arrays.items()}
    layer = getattr(nn, kind)(**given, **settings)
    for array in given.values():
        array += 1                  # still the caller's to write to, and no business of the layer's
    for name, array in layer.arrays().items():
        assert_array_equal(array, arrays[name])
        if not hasattr(layer, "_packed"):       # else it is a copy, or that of PackedWeights
            own = getattr(layer, name)
            with pytest.raises(ValueError, match="read-only"):
                own[...] = 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                own.flags.writeable = True


@pytest.mark.parametrize("kind", MADE_OF_ARRAYS)
def test_attributes_are_set_once(kind):
    arrays, settings = MADE_OF_ARRAYS[kind]
    layer = getattr(nn, kind)(**arrays, **settings)
    for name in (*layer.ARRAYS, *layer.SETTINGS):
        with pytest.raises(AttributeError):
            setattr(layer, name, 5)
        with pytest.raises(AttributeError):
            delattr(layer, name)
    with pytest.raises(AttributeError, match=r"does not change.*replace\(layout="):
        nn.Flatten().layout = "NHWC"
    with pytest.raises(AttributeError, match="does not change"):
        nn.Reshape(4).quantized(PARAMS).shape = (3,)


def test_a_model_does_not_change_with_the_arrays_it_was_made_of():
    weight, x = np.ones((2, 2), np.float32), np.ones((4, 2), np.float32)
    model = nn.Sequential(nn.Dense(weight))
    quantized = nn.quantize_model(model, x, progress=False)
    before = model(x), quantized(x)
    weight[:] = 0
    assert_array_equal(model(x), before[0])
    assert_array_equal(quantized(x), before[1])
    weight[:] = 1
    weights = {"dense_1.weight": weight}
    other = model.with_weights(weights)
    weight[:] = 0
    assert_array_equal(other(x), before[0])


# --------------------------------------------------------------------------------------- context


def runs():
    """Yield calls that take a context, each with its inputs."""
    x, y = floats(2, 3), floats(2, 3)
    add = nn.Add()
    twin = add.quantized((PARAMS, PARAMS), PARAMS)
    q = qcy.quantize(x, PARAMS)
    model = nn.Model([("sum", add, ("a", "b"))], inputs=("a", "b"))
    yield add.forward, (x, y)
    yield add, (x, y)
    yield twin.quantized_forward, (q, q)
    yield twin.forward, (x, y)
    yield model.forward, (x, y)
    yield lambda *inputs, **ctx: next(model.trace(*inputs, **ctx))[1], (x, y)
    for use_quantized in (True, False):
        adaptive = nn.AdaptiveLayer(add, twin, use_quantized)
        yield adaptive.forward, (x, y)
        yield adaptive.forward, (q, q)


@pytest.mark.parametrize(("run", "inputs"), list(runs()))
def test_a_context_may_come_last_or_by_name(run, inputs):
    def same(a, b):
        return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b

    y = run(*inputs)
    ctx = nn.Context()
    assert same(run(*inputs, ctx), y)
    assert same(run(*inputs, ctx=ctx), y)
    assert same(run(*inputs, None), y)
    assert same(run(*inputs, ctx=None), y)
    for wrong in (5, "ctx", object()):
        with pytest.raises(TypeError, match="ctx must be a Context, got"):
            run(*inputs, ctx=wrong)
    with pytest.raises(TypeError, match="ctx must be given once"):
        run(*inputs, ctx, ctx=ctx)
    with pytest.raises(TypeError, match=r"takes 2 input\(s\), got 1"):
        run(inputs[0], ctx)
    with pytest.raises(TypeError, match=r"takes 2 input\(s\), got 0"):
        run(ctx)
    ctx.cancel()
    with pytest.raises(nn.Cancelled):
        run(*inputs, ctx)


@pytest.mark.parametrize("timeout", ["1", [1], True, 1j])
def test_a_timeout_is_a_number(timeout):
    with pytest.raises(TypeError, match="timeout must be a real number"):
        nn.Context(timeout)


# ------------------------------------------------------------------------------ nothing, and one


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_without_channels_give_the_bias(layout, groups):
    image = models.to_layout(np.zeros((2, 0, 3, 3), np.float32), layout)
    bias = [1.0, -2.0]
    expected = models.to_layout(
        np.broadcast_to(np.reshape(bias, (1, 2, 1, 1)), (2, 2, 2, 2)).astype(np.float32), layout
    )
    conv = nn.Conv2D(np.zeros((2, 0, 2, 2)), bias, groups=groups, layout=layout)
    assert_array_equal(conv(image), expected)
    twin = conv.quantized(PARAMS, PARAMS)
    assert_array_equal(twin(image), qcy.quantize(expected, PARAMS).dequantize().data)
    nothing = nn.Conv2D(np.zeros((0, 3, 2, 2)), layout=layout)
    image = models.to_layout(np.zeros((2, 3, 3, 3), np.float32), layout)
    assert nothing(image).shape == models.to_layout(np.zeros((2, 0, 2, 2)), layout).shape


@pytest.mark.parametrize("lead", [(2,), (2, 4), (0,), ()])
def test_no_features_give_the_bias(lead):
    x = np.zeros((*lead, 0), np.float32)
    dense = nn.Dense(np.zeros((0, 3)), [1, 2, 3])
    expected = np.broadcast_to(np.array([1, 2, 3], np.float32), (*lead, 3))
    assert_array_equal(dense(x), expected)
    twin = nn.DenseQuantized(np.zeros((0, 3), np.int8), 1.0, [1, 2, 3], PARAMS, PARAMS)
    y = twin.forward_codes(np.zeros((*lead, 0), np.uint8))
    assert_array_equal(y, qcy.quantize(0.1 * expected, PARAMS).codes.data)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.Identity(), nn.Dropout(),
     nn.Add(), nn.Add(activation="relu6")],
    ids=repr,
)
def test_arrays_without_axes_stay_arrays(layer):
    inputs = (np.array(0.5, np.float32),) * layer.N_INPUTS
    y = layer(*inputs)
    assert type(y) is np.ndarray
    assert (y.shape, y.dtype) == ((), np.float32)
    assert_array_equal(y, layer(*(x[None] for x in inputs))[0])
    names = ("a", "b")[: layer.N_INPUTS]
    model = nn.Model([("one", layer, names), ("two", nn.ReLU(), "one")], inputs=names)
    assert type(model(*inputs)) is np.ndarray
    assert all(type(value) is np.ndarray for _, value in model.trace(*inputs))


def test_a_window_that_misses_the_image():
    pool = nn.MaxPool2D(2, 1, 1, 2)
    for layout, shape in (("NCHW", (1, 2, 1, 5)), ("NHWC", (1, 5, 1, 2))):
        pool = nn.MaxPool2D(2, 1, 1, 2, layout=layout)
        for run in (pool, pool.quantized(PARAMS)):
            with pytest.raises(ValueError, match="each window must have a cell inside the image"):
                run(np.ones(shape))
    for run in (pool, pool.quantized(PARAMS)):
        assert_array_equal(run(np.ones((1, 2, 3, 1))), np.ones((1, 2, 3, 1)))


# ------------------------------------------------------------------------------------- bad input

CHANNELS = QuantizationParams([0.1, 0.2], [0, 0], axis=1)
SETTLED = [
    nn.Sigmoid(), nn.Tanh(), nn.Softmax(), nn.ReLU(), nn.ReLU6(), nn.MaxPool2D(2), nn.Flatten(),
    nn.Reshape(4), nn.Identity(), nn.Dropout(),
]
OTHERS = [
    nn.Dense([[1.0]]), nn.Conv2D(np.ones((1, 1, 1, 1))), nn.ConvTranspose2D(np.ones((1, 1, 1, 1))),
    nn.BatchNorm([1], [0], [0], [1]), nn.AvgPool2D(2), nn.GlobalAvgPool2D(), nn.Concat(),
    nn.GELU(), nn.LayerNorm([1], [0]), nn.Embedding([[1.0]]),
]


@pytest.mark.parametrize("layer", [*SETTLED, *OTHERS], ids=lambda layer: type(layer).__name__)
def test_quantized_refuses_other_things_than_params(layer):
    for wrong in (None, 5, "p", 0.5):
        with pytest.raises(TypeError, match="in_params must be QuantizationParams"):
            layer.quantized(wrong, PARAMS)
        if wrong is not None or layer in OTHERS:
            with pytest.raises(TypeError, match="out_params must be QuantizationParams"):
                layer.quantized(PARAMS, wrong)
    with pytest.raises(ValueError, match="in_params must have one scale"):
        layer.quantized(CHANNELS, PARAMS)
    with pytest.raises(ValueError, match="out_params must have one scale"):
        layer.quantized(PARAMS, CHANNELS)
    if layer in SETTLED:
        assert layer.quantized(PARAMS, None).out_params == layer.quantized(PARAMS).out_params


@pytest.mark.parametrize("shape", [12, np.int64(12), (12,), [12], np.array([12]), -1])
def test_a_shape_of_one_axis_may_be_a_number(shape):
    assert nn.Reshape(shape)(np.zeros((2, 3, 4))).shape == (2, 12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Reshape(None), "shape must be an int"),
        (lambda: nn.Reshape("12"), "shape must be an int"),
        (lambda: nn.Dropout("a"), "rate must be a real number, got 'a'"),
        (lambda: nn.BatchNorm([1], [0], [0], [1], epsilon="a"), "epsilon must be a real number"),
        (lambda: nn.LayerNorm([1], [0], epsilon="a"), "epsilon must be a real number"),
        (lambda: nn.Attention("2"), "n_heads must be an int"),
        (lambda: nn.Attention(2, score_scale="1"), "score_scale must be a real number"),
    ],
)
def test_settings_of_the_wrong_kind(call, message):
    with pytest.raises(TypeError, match=message):
        call()
