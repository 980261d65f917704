"""A table in a product's last step: the codes of the product, looked up."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from oracles import DTYPES, Q8, SEEDS, random_clamp, random_codes, random_zero_point

from qcy.primitive import gemm_nn_q8, lookup_q8, pack_q8

SCALES = {"a_scale": 0.5, "out_scale": 40.0}


@given(
    seed=SEEDS, a_dtype=DTYPES, b_dtype=DTYPES, out_dtype=DTYPES, table_dtype=DTYPES,
    m=st.integers(0, 20), k=st.integers(0, 70), n=st.integers(0, 150),
    n_threads=st.integers(1, 3), is_packed=st.booleans(),
)
def test_codes_of_the_product_are_looked_up(
    kernels, seed, a_dtype, b_dtype, out_dtype, table_dtype, m, k, n, n_threads, is_packed
):
    rng = np.random.default_rng(seed)
    a, b = random_codes(rng, (m, k), a_dtype), random_codes(rng, (k, n), b_dtype)
    table = rng.permutation(256).astype(np.uint8).view(table_dtype)
    a_zero, b_zero = random_zero_point(rng, a_dtype), random_zero_point(rng, b_dtype)
    zero, clamp = random_zero_point(rng, out_dtype), random_clamp(rng, out_dtype)
    right, keywords = b, {"b_scale": 0.7, "b_zero_point": b_zero}
    if is_packed:
        right, keywords = pack_q8(b, **keywords), {}
    codes = gemm_nn_q8(
        a, right, **SCALES, **keywords, a_zero_point=a_zero, out_zero_point=zero,
        out_dtype=out_dtype, clamp=clamp, table=table, n_threads=n_threads,
    )
    assert codes.dtype == table_dtype
    plain = oracles.requantize(
        oracles.sums(a, b, a_zero, b_zero), oracles.multiplier(0.5, 0.7, 40), zero, out_dtype, clamp
    )
    assert_array_equal(codes, table[plain.astype(int) - oracles.code_range(out_dtype)[0]])


@pytest.mark.parametrize("out_dtype", Q8)
def test_every_entry_is_found(kernels, out_dtype):
    low, high = oracles.code_range(out_dtype)
    a = np.arange(low, high + 1).astype(out_dtype)[:, None]
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    codes = gemm_nn_q8(
        a, np.ones((1, 100), np.int8), a_scale=1, b_scale=1, out_scale=1, out_dtype=out_dtype,
        table=table,
    )
    assert_array_equal(codes, np.repeat(table[:, None], 100, axis=1))


def test_packed_weights_keep_each_table_apart(kernels):
    rng = np.random.default_rng(0)
    a, b = random_codes(rng, (9, 30), np.uint8), rng.integers(-9, 9, (30, 40), np.int8)
    packed = pack_q8(b, b_scale=0.7)
    plain = gemm_nn_q8(a, packed, **SCALES)
    tables = [rng.permutation(256).astype(np.uint8) for _ in range(3)]
    for table in (*tables, *tables, tables[0].view(np.int8)):
        assert_array_equal(
            gemm_nn_q8(a, packed, **SCALES, table=table), lookup_q8(plain, table), strict=True
        )
        assert_array_equal(gemm_nn_q8(a, packed, **SCALES), plain)


def test_out_is_of_the_tables_dtype():
    a, b = np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8)
    table = np.arange(256, dtype=np.uint8).view(np.int8)
    out = np.zeros((2, 4), np.int8)
    keywords = {"a_scale": 1, "b_scale": 1, "out_scale": 1, "table": table}
    assert gemm_nn_q8(a, b, **keywords, out=out) is out
    assert np.all(out == 3)
    with pytest.raises(ValueError, match="out must be a writable C-ordered int8"):
        gemm_nn_q8(a, b, **keywords, out=out.view(np.uint8))


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        (np.zeros(255, np.uint8), {}, ValueError, "table must have 256 entries, got 255"),
        (np.zeros((16, 16), np.uint8), {}, ValueError, "table must have 1 dimension"),
        (np.zeros(256), {}, TypeError, "table must be int8 or uint8"),
        (np.zeros(256, np.uint8), {"rounding": "tflite"}, ValueError,
         "table needs rounding='nearest_even', got 'tflite'"),
        (np.zeros(256, np.uint8), {"rounding": "tflite_single"}, ValueError, "table needs"),
        (np.zeros(256, np.uint8), {"rounding": "up"}, ValueError, "rounding must be one of"),
    ],
)
def test_tables_that_do_not_fit_are_refused_before_anything_is_written(
    table, options, error, message
):
    a, b, out = np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8), np.full((2, 4), 77, np.uint8)
    with pytest.raises(error, match=message):
        gemm_nn_q8(a, b, **SCALES, b_scale=1, table=table, out=out, **options)
    assert np.all(out == 77)
