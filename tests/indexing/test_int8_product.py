import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing_reference import clustered_rows, unit_rows

from indexing.int8_product import int8_product, rounded, step
from indexing.onnx_matmul import ZERO, byte_product, byte_product_is_exact


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 40), st.integers(0, 99))
def test_products_of_bytes_are_exact(n, dimension, m, seed):
    random = np.random.default_rng(seed)
    left = random.integers(0, 256, (n, dimension), np.uint8)
    right = random.integers(-128, 128, (dimension, m), np.int8)
    expected = (left.astype(np.int64) - ZERO) @ right.astype(np.int64)
    if byte_product_is_exact():
        np.testing.assert_array_equal(byte_product(right)(left), expected)


def test_a_processor_that_saturates_is_found_out(monkeypatch):
    def saturating(right):
        """Adds products up in pairs of 16 bits, as the instruction of older processors does."""
        wide = right.astype(int)

        def multiply(left):
            products = left.astype(int)[:, :, None] * wide
            pairs = np.clip(products[:, ::2] + products[:, 1::2], -32768, 32767)
            return pairs.sum(axis=1) - ZERO * wide.sum(axis=0)

        return multiply

    monkeypatch.setattr("indexing.onnx_matmul.byte_product", saturating)
    assert not byte_product_is_exact.__wrapped__()


@pytest.mark.parametrize("dimension", [2, 50, 384])
def test_scores_are_within_the_stated_errors(dimension):
    x, y = clustered_rows(200, dimension, seed=1), clustered_rows(150, dimension, seed=2)
    a, b = rounded(x), rounded(y)
    product = int8_product(a, b)
    scores = product.columns(0, 150)(0, 200) * step(dimension) ** 2
    wrong = np.abs(scores - x.astype(np.float64) @ y.T.astype(np.float64))
    bound = a.errors[:, None] * (1 + b.errors) + b.errors
    assert (wrong <= bound + 1e-5).all()
    assert wrong.mean() < 0.03 / np.sqrt(dimension) + 0.02 * (dimension < 10)


def test_one_large_value_does_not_spoil_the_others():
    """Encoders have dimensions far larger than the rest; after the rotation none is."""
    rows = unit_rows(100, 128)
    rows[:, 17] += 0.9
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rounded(rows).errors.max() < 0.025


def test_rounding_is_the_same_for_a_row_in_any_company():
    rows = unit_rows(20_000, 8)
    np.testing.assert_array_equal(rounded(rows).values[9_000:9_100], rounded(rows[9_000:9_100]).values)
