"""Dense layers that quantize as reals come, and models of them: no data, no ranges."""

import copy
import pickle

import models
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import qcy
from qcy import QuantizationScheme, Tensor, nn
from qcy.primitive import gemm_dynamic_q8, pack_q8

SYMMETRIC = QuantizationScheme.SYMMETRIC
PER_CHANNEL = QuantizationScheme.PER_CHANNEL
RNG = np.random.default_rng(0)


@given(
    seed=oracles.SEEDS, lead=st.lists(st.integers(0, 4), max_size=2), n_in=st.integers(0, 40),
    n_out=st.integers(0, 40), scheme=st.sampled_from([SYMMETRIC, SYMMETRIC | PER_CHANNEL]),
    activation=st.sampled_from([None, "relu", "relu6"]), has_bias=st.booleans(),
)
def test_dense_becomes_a_dynamic_product(
    kernels, seed, lead, n_in, n_out, scheme, activation, has_bias
):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n_in, n_out)).astype(np.float32)
    bias = rng.normal(size=n_out).astype(np.float32) if has_bias else None
    layer = nn.Dense(weight, bias, activation=activation)
    dynamic = layer.dynamic(scheme)
    axis = 0 if scheme.is_per_channel else None
    largest = np.abs(weight).max(axis=axis, initial=0)
    scale = np.where(largest == 0, 1, largest / np.float64(127)).astype(np.float32)
    assert_array_equal(dynamic.weight_scale, scale)
    assert dynamic.weight.dtype == np.int8
    assert_array_equal(dynamic.weight, oracles.quantize(weight, scale, 0, np.int8))
    x = rng.normal(size=(*lead, n_in)).astype(np.float32)
    y = dynamic(x)
    rows = x.reshape(int(np.prod(lead)), n_in)
    packed = pack_q8(dynamic.weight, b_scale=scale)
    want = gemm_dynamic_q8(rows, packed, bias=bias).reshape(*lead, n_out)
    limits = {None: (-np.inf, np.inf), "relu": (0, np.inf), "relu6": (0, 6)}[activation]
    assert_array_equal(y, np.clip(want, *limits), strict=True)
    if y.size and n_in:
        # Each product is off by half a step of either side, and the square of it.
        steps = np.ptp(np.append(rows, np.zeros((len(rows), 1)), axis=1), axis=1) / 255
        off = (
            np.abs(rows).sum(axis=1)[:, None] * scale / 2 * np.ones(n_out)
            + steps[:, None] / 2 * np.abs(weight).sum(axis=0)
            + n_in * steps[:, None] * scale * np.ones(n_out)
        ).reshape(y.shape)
        assert np.all(np.abs(y - layer(x)) <= off * 1.01 + 1e-5)


def test_weights_stop_at_minus_127():
    dynamic = nn.Dense([[-1.0, 0.5], [0.25, 0.5]]).dynamic(SYMMETRIC)
    assert dynamic.weight.min() == -127


def test_each_row_has_a_scale_of_its_own():
    dynamic = nn.Dense(np.eye(2)).dynamic()
    x = [[1e-20, 2e-20], [1e20, -3e20]]
    assert_allclose(dynamic(x), x, rtol=0.02)


def test_a_dynamic_layer_can_be_copied_pickled_and_stored(tmp_path):
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    for bias in (None, [1.0, 2.0]):
        for scheme in (SYMMETRIC, SYMMETRIC | PER_CHANNEL):
            layer = nn.Dense(RNG.normal(size=(3, 2)), bias, activation="relu").dynamic(scheme)
            want = layer(x)
            for again in (
                copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)),
                layer.replace(), nn.DenseDynamic(**layer.settings(), **dict.fromkeys(layer.ARRAYS)
                                                 | layer.arrays()),
            ):
                assert repr(again) == repr(layer)
                assert_array_equal(again(x), want)
            model = nn.Sequential(layer)
            model.save(tmp_path / "model.qcy")
            again = qcy.load(tmp_path / "model.qcy")
            assert type(again) is nn.Model
            assert_array_equal(again(x), want)
            assert again.to_bytes() == model.to_bytes()
            assert isinstance(again(Tensor(x)), Tensor)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Dense([[1.0]]).dynamic(QuantizationScheme.ASYMMETRIC), ValueError,
         "weight_scheme must be symmetric, got"),
        (lambda: nn.DenseDynamic(np.ones((2, 2)), 1.0), TypeError, "int8 or uint8"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.uint8), 1.0), TypeError,
         "weight must be int8, got uint8"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.int8), None), TypeError,
         "weight_scale must be"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.int8), [1, 2, 3]), ValueError, "scale"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.int8), 0), ValueError, "must be positive"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.int8), 1, [1]), ValueError, "bias must have"),
        (lambda: nn.DenseDynamic(np.ones((2, 2), np.int8), 1, activation="tanh"), ValueError,
         "activation must be one of"),
        (lambda: nn.Dense(np.eye(2)).dynamic()([[1, 2, 3]]), ValueError, "2 features"),
        (lambda: nn.Dense(np.eye(2)).dynamic()([[1, np.nan]]), ValueError, "must be finite"),
        (lambda: nn.Dense(np.eye(2)).dynamic()([[1, np.inf]]), ValueError, "must be finite"),
        (lambda: nn.Dense(np.eye(2)).dynamic().quantized(None, None), TypeError,
         "DenseDynamic has no 8-bit twin"),
    ],
)
def test_dynamic_layers_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("name", models.ZOO)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_models_of_every_layer_kind(name, layout):
    model, shapes = models.build(name, layout)
    inputs = models.as_tuple(models.batches(shapes, 1, layout=layout)[0])
    dynamic = nn.quantize_model(model, mode="dynamic")
    assert type(dynamic) is nn.Model
    kinds = [type(node.layer) for node in dynamic.nodes]
    assert nn.Dense not in kinds
    dense = [node.name for node in model.nodes if type(node.layer) is nn.Dense]
    assert kinds.count(nn.DenseDynamic) == len(dense)
    for a, b in zip(
        models.as_tuple(model(*inputs)), models.as_tuple(dynamic(*inputs)), strict=True
    ):
        assert a.shape == b.shape
        assert np.square(a - b).sum() <= 1e-3 * np.square(a).sum()
    if dense:
        kept = nn.quantize_model(model, mode="dynamic", skip=dense)
        for a, b in zip(
            models.as_tuple(model(*inputs)), models.as_tuple(kept(*inputs)), strict=True
        ):
            assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        some = nn.quantize_model(model, mode="dynamic", skip=dense[0])
        assert type(some[dense[0]]) is nn.Dense


def test_batch_norms_after_dense_layers_stay():
    # Features in the last axis, channels in axis 1, and as many of both: only data would tell.
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Dense(rng.normal(size=(3, 4))), models.norm(rng, 4), nn.ReLU())
    dynamic = nn.quantize_model(model, mode="dynamic")
    assert [type(node.layer) for node in dynamic.nodes][:2] == [nn.DenseDynamic, nn.BatchNorm]
    for x in (rng.normal(size=(9, 3)), rng.normal(size=(9, 4, 3))):
        real = model(x)
        assert np.square(dynamic(x) - real).sum() <= 1e-3 * np.square(real).sum()
    image = models.build("residual")[0]
    kinds = {type(node.layer) for node in nn.quantize_model(image, mode="dynamic").nodes}
    assert nn.BatchNorm not in kinds


def test_weight_schemes():
    model = nn.Sequential(nn.Dense(RNG.normal(size=(3, 4))))
    one = nn.quantize_model(model, mode="dynamic", weight_scheme=SYMMETRIC)
    each = nn.quantize_model(model, mode="dynamic")
    assert (one["dense_1"].weight_scale.shape, each["dense_1"].weight_scale.shape) == ((), (4,))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.ones((4, 3)),), {}, ValueError, 'data is for mode="static"'),
        ((), {"mode": "dynamical"}, ValueError,
         "mode must be one of 'static', 'dynamic', 'weight_only', got"),
        ((), {"mode": None}, ValueError, "mode must be one of"),
        ((), {"mode": "static"}, TypeError, 'got None; only mode="dynamic" needs no data'),
        ((), {"skip": "head"}, ValueError, r"skip must name layers of the model, got \['head'\]"),
        ((), {"weight_scheme": QuantizationScheme.ASYMMETRIC}, ValueError,
         "layer 'dense_1': weight_scheme must be symmetric"),
        ((), {"weight_scheme": "x"}, TypeError, "weight_scheme must be a QuantizationScheme"),
    ],
)
def test_dynamic_models_refuse(arguments, options, error, message):
    model = nn.Sequential(nn.Dense(np.ones((3, 4))))
    with pytest.raises(error, match=message):
        nn.quantize_model(model, *arguments, **{"mode": "dynamic", **options})
