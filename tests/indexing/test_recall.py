import numpy as np
import pytest
from indexing_reference import unit_rows

from indexing import IndexingError, VectorIndex, measure_recall, recall_at_k


def test_recall_by_hand():
    true = np.array([[1, 2, 3], [4, 5, 6]])
    found = np.array([[3, 1, 9], [7, 8, 4]])
    assert recall_at_k(found, true) == 3 / 6


def test_empty_slots_count_on_neither_side():
    assert recall_at_k(np.array([[1, -1]]), np.array([[1, -1]])) == 1
    assert recall_at_k(np.array([[-1, -1]]), np.array([[1, 2]])) == 0
    assert recall_at_k(np.array([[-1]]), np.array([[-1]])) == 1


def test_an_exact_index_has_full_recall():
    assert measure_recall(VectorIndex.build(unit_rows(300)), unit_rows(20, seed=1), unit_rows(300), 10) == 1


def test_an_index_of_other_vectors_has_not():
    index = VectorIndex.build(unit_rows(300, seed=2))
    assert measure_recall(index, unit_rows(20, seed=1), unit_rows(300), 10) < 0.2


def test_unequal_sizes_are_refused():
    with pytest.raises(IndexingError, match="found rows are for 1 queries, true rows for 2"):
        recall_at_k(np.zeros((1, 2), int), np.zeros((2, 2), int))
    with pytest.raises(IndexingError, match="the index holds 3 vectors; got 4"):
        measure_recall(VectorIndex.build(unit_rows(3)), unit_rows(1), unit_rows(4), 1)
