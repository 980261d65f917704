"""Fusion: fewer layers, the same numbers, and hands off what two consumers or an output need."""

import models
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from qcy import nn
from qcy.nn.fusion import fuse

RNG = np.random.default_rng(0)
NORM = models.norm(RNG, 4)


def dense(n_in=4, n_out=4, **options):
    return models.dense(RNG, n_in, n_out, **options)


def names(model):
    return [node.name for node in model.nodes]


def covers(model):
    return {node.name: node.covers for node in model.nodes}


def check(model, *inputs, keep=()):
    """Return the fused model, having checked that it computes the same."""
    fused = fuse(model, keep)
    before, after = models.as_tuple(model(*inputs)), models.as_tuple(fused(*inputs))
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert_allclose(b, a, rtol=1e-5, atol=1e-5)
    assert fused.inputs == model.inputs
    kept = [name for cover in covers(fused).values() for name in cover]
    assert kept == sorted(kept, key=names(model).index)
    dropped = set(names(model)) - set(kept)
    assert all(type(model[name]) in (nn.Dropout, nn.Identity) for name in dropped)
    return fused


X = RNG.normal(size=(6, 4)).astype(np.float32)
IMAGES = RNG.normal(size=(2, 4, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("name", models.ZOO)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_fused_models_compute_the_same(name, layout):
    model, shapes = models.build(name, layout)
    fused = check(model, *models.as_tuple(models.batches(shapes, 1, layout=layout)[0]))
    assert not any(type(node.layer) is nn.Dropout for node in fused.nodes if name == "softmax")


@pytest.mark.parametrize(
    "product",
    [
        nn.Conv2D(models.weight(RNG, 4, 4, 3, 3)),
        models.conv(RNG, 4, 4, 3, 2, padding=1),
        models.conv(RNG, 4, 4, 3, 4),
        nn.ConvTranspose2D(models.weight(RNG, 4, 4, 2, 2), RNG.normal(size=4), stride=2),
        nn.ConvTranspose2D(models.weight(RNG, 4, 2, 2, 2), RNG.normal(size=4), groups=2),
        nn.ConvTranspose2D(models.weight(RNG, 4, 1, 3, 2), groups=4, stride=2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6()], ids=repr)
def test_batch_norm_folds_into_products_of_images(product, activation):
    layers = [product, NORM] + [activation] * (activation is not None)
    fused = check(nn.Sequential(*layers), IMAGES)
    assert len(fused.nodes) == 1
    layer = fused.nodes[0].layer
    assert layer.activation == (activation and type(activation).__name__.lower())
    assert layer.bias is not None


def test_batch_norm_folds_into_dense():
    for product in (nn.Dense(np.eye(4)), dense(), dense(3, 4)):
        x = X[:, : product.weight.shape[0]]
        assert names(check(nn.Sequential(product, NORM, nn.ReLU()), x)) == ["dense_1"]


def test_batch_norm_over_another_axis_than_the_features_stays():
    model = nn.Sequential(dense(4, 7), NORM)
    x = RNG.normal(size=(2, 4, 4)).astype(np.float32)
    assert names(check(model, x)) == ["dense_1", "batchnorm_1"]


def test_folding_is_done_in_float64():
    # Weights times factor in float32 steps would lose what their difference keeps.
    norm = nn.BatchNorm([1e-3], [0.0], [1e4], [1e-10], epsilon=0)
    model = nn.Sequential(nn.Dense([[3.0]], [1e4]), norm)
    fused = fuse(model)
    factor = np.float64(np.float32(1e-3)) / np.sqrt(np.float64(np.float32(1e-10)))
    assert fused.nodes[0].layer.weight == np.float32(factor * 3.0)
    assert fused.nodes[0].layer.bias == 0


def test_activations_fuse_into_what_is_before_them():
    for layer, inputs in (
        (dense(), "input"), (NORM, "input"), (nn.Add(), ("input", "input")),
    ):
        for activation in (nn.ReLU(), nn.ReLU6()):
            model = nn.Model([("a", layer, inputs), ("b", activation, "a")])
            fused = check(model, 4 * X)
            assert covers(fused) == {"a": ("a", "b")}
            assert fused.outputs == ("a",)


def test_only_one_activation_fuses():
    fused = check(nn.Sequential(dense(), nn.ReLU6(), nn.ReLU(), NORM), X)
    assert names(fused) == ["dense_1", "relu_1", "batchnorm_1"]
    assert covers(fused)["dense_1"] == ("dense_1", "relu6_1")
    fused = check(nn.Sequential(dense(activation="relu"), NORM), X)
    assert names(fused) == ["dense_1", "batchnorm_1"]


def test_activations_after_other_layers_stay():
    for layer in (nn.MaxPool2D(2), nn.AvgPool2D(2)):
        assert len(check(nn.Sequential(layer, nn.ReLU()), IMAGES).nodes) == 2
    model = nn.Model([("cat", nn.Concat(), ("input", "input")), ("relu", nn.ReLU(), "cat")])
    assert names(check(model, X)) == ["cat", "relu"]
    assert names(check(nn.Sequential(nn.ReLU()), X)) == ["relu_1"]


def test_functions_of_one_number_become_one():
    model = nn.Sequential(
        nn.Sigmoid(), nn.ReLU(), nn.Operator("Mul", constants={1: np.float32(3)}), nn.GELU(),
        nn.ReLU6(), nn.Operator("Swish"),
    )
    fused = check(model, X)
    assert [type(node.layer) for node in fused.nodes] == [nn.Chain]
    assert repr(fused.nodes[0].layer) == "Chain(Sigmoid, Relu, Mul, Gelu, Clip, Swish)"
    assert len(fused.nodes[0].covers) == 6
    quantized = nn.quantize_model(nn.Sequential(dense(), *(n.layer for n in model.nodes), dense()),
                                  X, progress=False)
    assert [type(node.layer) for node in quantized.nodes][1] is nn.TableQuantized
    with pytest.raises(ValueError, match="steps must be functions of one number, got Softmax"):
        nn.Chain([("Softmax", (), ())])


@pytest.mark.parametrize(
    ("op", "place", "number"),
    [("Add", 0, 2), ("Add", 1, 2), ("Sub", 0, 2), ("Sub", 1, 2), ("Mul", 0, -3), ("Mul", 1, 0),
     ("Div", 1, 4)],
)
def test_arithmetic_with_a_number_folds(op, place, number):
    arithmetic = nn.Operator(op, constants={place: np.float32(number)})
    assert names(check(nn.Sequential(dense(), arithmetic), X)) == ["dense_1"]


def test_arithmetic_that_does_not_fold_stays():
    for operator in (
        nn.Operator("Div", constants={0: np.float32(2)}), nn.Operator("Pow", constants={1: 2.0}),
    ):
        assert len(check(nn.Sequential(dense(), operator), X).nodes) == 2


@pytest.mark.parametrize("second", [NORM, nn.ReLU()], ids=repr)
@pytest.mark.parametrize("other", [nn.Tanh(), nn.ReLU(), NORM], ids=repr)
def test_a_producer_with_two_consumers_is_left_alone(second, other):
    model = nn.Model([
        ("dense", dense(), "input"), ("a", second, "dense"), ("b", other, "dense"),
        ("sum", nn.Add(), ("a", "b")),
    ])
    assert names(check(model, X)) == ["dense", "a", "b", "sum"]


def test_a_producer_used_again_far_below_is_left_alone():
    model = nn.Model([
        ("dense", dense(), "input"), ("relu", nn.ReLU(), "dense"), ("far", dense(), "relu"),
        ("sum", nn.Add(), ("far", "dense")),
    ])
    assert covers(check(model, X))["dense"] == ("dense",)


def test_a_producer_that_is_an_output_is_left_alone():
    nodes = [("dense", dense(), "input"), ("relu", nn.ReLU(), "dense")]
    fused = check(nn.Model(nodes, outputs=("relu", "dense")), X)
    assert names(fused) == ["dense", "relu"]
    assert fused.outputs == ("relu", "dense")
    # A chain whose middle is an output: only what follows it may fuse.
    nodes = [("dense", dense(), "input"), ("bn", NORM, "dense"), ("relu", nn.ReLU(), "bn")]
    fused = check(nn.Model(nodes, outputs=("relu", "bn")), X)
    assert covers(fused) == {"dense": ("dense", "bn"), "relu": ("relu",)}
    assert fused.outputs == ("relu", "dense")


def test_both_consumers_may_fuse_with_their_own():
    model = nn.Model([
        ("dense", dense(), "input"),
        ("left", dense(), "dense"), ("left_relu", nn.ReLU(), "left"),
        ("right", dense(), "dense"), ("right_bn", NORM, "right"),
        ("sum", nn.Add(), ("left_relu", "right_bn")), ("relu", nn.ReLU(), "sum"),
    ])
    assert covers(check(model, X)) == {
        "dense": ("dense",), "left": ("left", "left_relu"), "right": ("right", "right_bn"),
        "sum": ("sum", "relu"),
    }


def test_layers_that_do_nothing_go():
    model = nn.Sequential(
        nn.Dropout(), dense(), nn.Identity(), NORM, nn.Dropout(), nn.Identity(), nn.ReLU()
    )
    fused = check(model, X)
    assert covers(fused) == {"dense_1": ("dense_1", "batchnorm_1", "relu_1")}
    assert fused.nodes[0].inputs == ("input",)


def test_layers_that_do_nothing_stay_where_they_are_outputs():
    fused = check(nn.Sequential(dense(), nn.Dropout()), X)
    assert names(fused) == ["dense_1", "dropout_1"]
    nodes = [
        ("dense", dense(), "input"), ("same", nn.Identity(), "dense"), ("relu", nn.ReLU(), "same")
    ]
    fused = check(nn.Model(nodes, outputs=("same", "relu")), X)
    assert names(fused) == ["dense", "same", "relu"]


def test_two_consumers_behind_a_layer_that_does_nothing():
    # After dropout goes, the dense layer has two consumers: neither may fuse.
    model = nn.Model([
        ("dense", dense(), "input"), ("drop", nn.Dropout(), "dense"),
        ("relu", nn.ReLU(), "drop"), ("tanh", nn.Tanh(), "drop"),
        ("sum", nn.Add(), ("relu", "tanh")),
    ])
    assert names(check(model, X)) == ["dense", "relu", "tanh", "sum"]
    model = nn.Model([
        ("dense", dense(), "input"), ("drop", nn.Dropout(), "dense"),
        ("relu", nn.ReLU(), "drop"), ("sum", nn.Add(), ("relu", "dense")),
    ])
    assert names(check(model, X)) == ["dense", "relu", "sum"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ((), {"dense": ("dense", "bn", "relu")}),
        (("dense",), {"dense": ("dense",), "bn": ("bn", "relu")}),
        (("bn",), {"dense": ("dense",), "bn": ("bn",), "relu": ("relu",)}),
        (("relu",), {"dense": ("dense", "bn"), "relu": ("relu",)}),
    ],
)
def test_kept_layers_are_left_alone(keep, expected):
    model = nn.Model([
        ("dense", dense(), "input"), ("bn", NORM, "dense"), ("drop", nn.Dropout(), "bn"),
        ("relu", nn.ReLU(), "drop"),
    ])
    fused = check(model, X, keep=keep)
    assert covers(fused) == expected
    for name in keep:
        assert fused[name] is model[name]
    assert "drop" in names(check(model, X, keep=("drop",)))


def test_fusing_twice_changes_nothing_more():
    for name in models.ZOO:
        model, shapes = models.build(name)
        once = fuse(model)
        twice = fuse(once)
        assert covers(twice) == covers(once)
        x = models.as_tuple(models.batches(shapes, 1)[0])
        for a, b in zip(models.as_tuple(once(*x)), models.as_tuple(twice(*x)), strict=True):
            assert_array_equal(a, b)


def test_the_given_model_stays_as_it_is():
    model = models.build("residual")[0]
    before = {name: array.copy() for name, array in model.weights().items()}
    fuse(model)
    assert len(model.nodes) == 10
    for name, array in model.weights().items():
        assert_array_equal(array, before[name])
