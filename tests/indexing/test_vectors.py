import numpy as np
import pytest
from indexing_reference import unit_rows

from indexing import IndexingError, VectorError, check_vectors, normalize_rows


def test_right_vectors_are_not_copied():
    vectors = unit_rows(5)
    assert check_vectors(vectors, dimension=16) is vectors


@pytest.mark.parametrize(
    "other",
    [unit_rows(5).astype(np.float64), np.asfortranarray(unit_rows(5)), unit_rows(10)[::2]],
    ids=["float64", "fortran", "strided"],
)
def test_other_layouts_are_copied_into_the_convention(other):
    vectors = check_vectors(other)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_array_equal(vectors, other.astype(np.float32))


def test_rows_stored_as_float16_still_count_as_unit():
    stored = unit_rows(200, 384).astype(np.float16)
    np.testing.assert_array_equal(check_vectors(stored), stored.astype(np.float32))


def test_no_rows_are_vectors_too():
    assert check_vectors(np.empty((0, 3), np.float32), dimension=3).shape == (0, 3)


def broken(row, column, value):
    vectors = unit_rows(6)
    vectors[row, column] = value
    return vectors


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[1.0, 0.0]], "vectors must be a numpy array, not list"),
        (np.eye(3, dtype=np.int64), "vectors have dtype int64; expected float32"),
        (np.eye(3, dtype=np.complex64), "vectors have dtype complex64"),
        (np.array([["a"]]), "vectors have dtype <U1"),
        (np.ones(3, np.float32), r"vectors have shape \(3,\); expected two dimensions"),
        (np.ones((1, 2, 3), np.float32), r"vectors have shape \(1, 2, 3\)"),
        (np.ones((3, 0), np.float32), "vectors have dimension 0; expected at least 1"),
        (broken(4, 2, np.nan), r"vectors\[4\] holds NaN or infinity \(1 of 6 rows do\)"),
        (broken(2, 0, -np.inf), r"vectors\[2\] holds NaN or infinity"),
        (np.array([[1.0, 0.0], [1e300, 0.0]]), r"vectors\[1\] holds NaN or infinity"),
        (unit_rows(4) * 1.01, r"vectors\[0\] has length 1\.01; rows must have length 1 .*4 of 4"),
        (np.zeros((2, 3), np.float32), r"vectors\[0\] has length 0;"),
    ],
)
def test_a_wrong_array_is_named_with_what_is_wrong(array, message):
    with pytest.raises(VectorError, match=message):
        check_vectors(array)


def test_another_dimension_and_the_callers_name_are_in_the_message():
    with pytest.raises(VectorError, match="queries have dimension 16; expected 8"):
        check_vectors(unit_rows(2), dimension=8, name="queries")


def test_every_error_is_an_indexing_error_and_a_value_error():
    assert issubclass(VectorError, IndexingError)
    assert issubclass(IndexingError, ValueError)


def test_any_length_is_taken_if_not_unit():
    long = unit_rows(4) * 7
    assert check_vectors(long, unit=False) is long


def test_normalize_rows_divides_by_the_length():
    rows = np.array([[3.0, 4.0], [0.0, -2.0]], np.float32)
    np.testing.assert_allclose(normalize_rows(rows), [[0.6, 0.8], [0.0, -1.0]], atol=1e-7)
    np.testing.assert_array_equal(rows, [[3.0, 4.0], [0.0, -2.0]])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_normalize_rows_neither_overflows_nor_vanishes(scale):
    rows = np.array([[3.0, 4.0]], np.float32) * np.float32(scale)
    np.testing.assert_allclose(normalize_rows(rows), [[0.6, 0.8]], atol=1e-6)


def test_normalize_rows_of_nothing_is_nothing():
    assert normalize_rows(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_a_row_of_zeros_cannot_be_normalised():
    rows = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    with pytest.raises(VectorError, match=r"vectors\[1\] is all zeros"):
        normalize_rows(rows)
