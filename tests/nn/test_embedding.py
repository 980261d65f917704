"""Embedding, and the indices that it takes: never quantized, refused where they are no rows."""

import models
import numpy as np
import oracles
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, QuantizedTensor, nn

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(300, 4)).astype(np.float32)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (0, 5), (0,)])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint16])
def test_embedding(shape, kind):
    indices = RNG.integers(0, 300, shape).astype(kind)
    layer = nn.Embedding(ROWS)
    assert_array_equal(layer(indices), ROWS[indices.astype(int)])
    out = QuantizationParams.from_range(ROWS.min(), ROWS.max())
    twin = layer.quantized(QuantizationParams(0.1), out)
    assert_array_equal(twin.codes, oracles.quantize(ROWS, out.scale, out.zero_point, np.uint8))
    rounded = qcy.quantize(ROWS, out).dequantize().data
    assert_array_equal(twin(indices), rounded[indices.astype(int)])


@pytest.mark.parametrize("bad", [np.nan, 1.5, -1, 300, 1e30, np.inf])
def test_what_is_no_row_is_refused(bad):
    model = nn.Sequential(nn.Embedding(ROWS), nn.Dense(np.eye(4)))
    x = np.arange(300, dtype=np.float32)[:, None]
    quantized = nn.quantize_model(model, x, progress=False)
    kept = nn.quantize_model(model, x, skip="embedding_1", progress=False)
    want = quantized(x)
    wrong = x.copy()
    wrong[7] = bad
    message = "layer 'embedding_1': x must hold numbers of rows, 0 to 299, got "
    for run in (model, kept):
        with pytest.raises(ValueError, match=message):
            run(wrong)
    for run in (quantized, lambda x: list(quantized.trace(x))):
        with pytest.raises(ValueError, match="whole numbers from 0 to 299; 1 are not"):
            run(wrong)
    bound = quantized.bind(wrong)
    with pytest.raises(ValueError, match="whole numbers from 0 to 299; 1 are not"):
        bound()
    assert_array_equal(quantized(x), want)      # the program goes on


def test_indices_are_never_quantized():
    # 300 of them: 256 codes would not tell them apart.
    x = np.arange(300, dtype=np.float32)[:, None]
    model = nn.Sequential(nn.Embedding(ROWS))
    for skip in ((), "embedding_1"):
        quantized = nn.quantize_model(model, x, skip=skip, progress=False)
        assert quantized.real_inputs == ("input",)
        params = quantized.params["embedding_1"]
        y = quantized(x.astype(np.int64))
        assert_array_equal(y, quantized(x))
        error = np.abs(y[:, 0] - ROWS)
        assert error.max() <= params.scale * 0.51
        with pytest.raises(TypeError, match="input 'input' is of numbers, not of codes"):
            quantized(qcy.quantize(x))
        with pytest.raises(TypeError, match="input 'input' is of numbers, not of codes"):
            list(quantized.trace(qcy.quantize(x)))


def test_indices_must_be_an_input():
    model = nn.Sequential(nn.Reshape(3), nn.Embedding(ROWS))
    x = np.zeros((2, 3, 1), np.float32)
    assert model(x).shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"'embedding_1' takes indices, .*: 'reshape_1' is the"):
        nn.quantize_model(model, x, progress=False)
    through = nn.Sequential(nn.Dropout(), nn.Identity(), nn.Embedding(ROWS))
    assert nn.quantize_model(through, x[..., 0], progress=False)(x[..., 0]).shape == (2, 3, 4)


def test_one_input_may_be_indices_and_numbers():
    model = nn.Model([
        ("rows", nn.Embedding(ROWS), "input"), ("lift", nn.Dense(np.ones((3, 4))), "input"),
        ("same", nn.Reshape((1, 3)), "input"),
    ], outputs=("rows", "lift", "same"))
    x = RNG.integers(0, 200, (5, 3)).astype(np.float32)
    quantized = nn.quantize_model(model, x, progress=False)
    for name, a, b in zip(model.outputs, model(x), quantized(x), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 4 * quantized.params[name].scale


def test_bound_calls_read_vectors_and_indices_anew():
    quantized = models.quantized("transformer")[1]
    inputs = models.batches(models.build("transformer")[1], 2, size=3, seed=5)
    vectors, tokens = (x.copy() for x in inputs[0])
    call = quantized.bind(vectors, tokens, n_threads=2)
    for batch in inputs:
        vectors[...], tokens[...] = batch
        for a, b in zip(call(), quantized(*batch), strict=True):
            assert_array_equal(a, b)


def test_numbers_and_codes_may_be_mixed_where_indices_are():
    model, quantized = models.quantized("transformer")
    vectors, tokens = models.batches(models.build("transformer")[1], 1, seed=5)[0]
    codes = qcy.quantize(vectors, quantized.params["vectors"])
    turned = nn.QuantizedModel(
        quantized.nodes, quantized.outputs, ("tokens", "vectors"), params=quantized.params
    )
    # The first input says what comes out.
    for y, real, real_too in zip(
        quantized(codes, tokens), quantized(vectors, tokens), turned(tokens, codes), strict=True
    ):
        assert isinstance(y, QuantizedTensor)
        assert_array_equal(y.dequantize().data, real)
        assert_array_equal(real_too, real)
    assert None not in turned._programs.values()
    with pytest.raises(TypeError, match="input 'tokens' is of numbers, not of codes"):
        quantized(codes, qcy.quantize(tokens))
    assert model.inputs == quantized.inputs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Embedding([1.0]), ValueError, "weight must have 2 dimensions"),
        (lambda: nn.Embedding(np.zeros((0, 3))), ValueError, "weight must have 1 to 16777216 rows"),
        (lambda: nn.Embedding([[1.0]])(np.zeros((1, 1, 1))), ValueError,
         r"x must have at most 2 dimensions, got shape \(1, 1, 1\)"),
        (lambda: nn.Embedding([[1.0]]).quantized(QuantizationParams(1), QuantizationParams(1))(
            np.zeros((1, 1, 1))), ValueError, "x must have at most 2 dimensions"),
    ],
)
def test_embeddings_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
