import numpy as np
import pytest
from indexing_reference import assert_same, brute_force, clustered_rows, unit_rows

from indexing import (
    KINDS,
    Flat,
    Hnsw,
    IndexingError,
    VectorError,
    VectorIndex,
    kind_from,
    measure_recall,
    recall_at_k,
)

VECTORS = clustered_rows(3000, seed=1)
QUERIES = clustered_rows(40, seed=2)
SMALL_GRAPH = Hnsw(m=8, ef_construction=60, ef_search=60)  # scans up to 1200 of 3000 rows


@pytest.fixture(scope="module")
def flat():
    return VectorIndex.build(VECTORS)


@pytest.fixture(scope="module")
def graph():
    return VectorIndex.build(VECTORS, SMALL_GRAPH)


def mask_of(rows):
    mask = np.zeros(len(VECTORS), bool)
    mask[rows] = True
    return mask


def some_rows(count):
    return np.random.default_rng(count).permutation(len(VECTORS))[:count]


@pytest.mark.parametrize("kind", [kind() for kind in KINDS.values()], ids=list(KINDS))
def test_scores_and_rows_by_hand(kind):
    index = VectorIndex.build(np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32), kind)
    found = index.search(np.array([[1, 0], [0.8, 0.6]], np.float32), 3)
    np.testing.assert_array_equal(found.rows, [[0, 2, 1], [2, 0, 1]])
    np.testing.assert_allclose(found.scores, [[1, 0.6, 0], [0.96, 0.8, 0.6]], atol=1e-6)


@pytest.mark.parametrize("kind", [kind() for kind in KINDS.values()], ids=list(KINDS))
def test_an_index_knows_what_it_holds(kind):
    index = VectorIndex.build(unit_rows(7), kind)
    assert (index.count, index.dimension, index.kind) == (7, 16, kind)
    np.testing.assert_array_equal(index.reconstruct(np.array([6, 0, 6])), unit_rows(7)[[6, 0, 6]])


@pytest.mark.parametrize("k", [1, 10, 150])
def test_flat_search_is_brute_force(flat, k):
    assert_same(flat.search(QUERIES, k), brute_force(QUERIES, VECTORS, k))


def test_one_query_at_a_time_finds_what_a_batch_finds(flat, graph):
    for index in (flat, graph):
        batch = index.search(QUERIES, 5)
        for number, query in enumerate(QUERIES):
            single = index.search(query[None], 5)
            np.testing.assert_array_equal(single.rows[0], batch.rows[number])
            np.testing.assert_allclose(single.scores[0], batch.scores[number], atol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 500, 2900])
def test_filtered_flat_search_is_brute_force_over_the_allowed_rows(flat, count):
    rows = some_rows(count)
    expected = brute_force(QUERIES, VECTORS, 10, rows)
    assert_same(flat.search(QUERIES, 10, rows=rows), expected)
    assert_same(flat.search(QUERIES, 10, rows=mask_of(rows)), expected)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_a_graph_answers_a_narrow_filter_exactly(graph, count):
    rows = some_rows(count)
    expected = brute_force(QUERIES, VECTORS, 10, rows)
    assert_same(graph.search(QUERIES, 10, rows=rows), expected)
    assert_same(graph.search(QUERIES, 10, rows=mask_of(rows)), expected)


def test_a_graph_keeps_its_recall_under_a_wide_filter(graph):
    # Rows on one side of a plane: a filter that cuts through the graph, as a language does.
    rows = np.flatnonzero(VECTORS[:, 0] > 0)
    assert graph.kind._largest_scan(graph.count) < len(rows) < 2000
    found = graph.search(QUERIES, 10, rows=rows)
    assert np.isin(found.rows, rows).all()
    expected_scores, expected_rows = brute_force(QUERIES, VECTORS, 10, rows)
    assert recall_at_k(found.rows, expected_rows) >= 0.98
    np.testing.assert_allclose(found.scores[:, 0], expected_scores[:, 0], atol=1e-6)


@pytest.mark.parametrize("empty", [np.empty(0, np.int64), np.zeros(len(VECTORS), bool)], ids=["rows", "mask"])
def test_a_filter_that_allows_nothing_finds_nothing(flat, graph, empty):
    for index in (flat, graph):
        found = index.search(QUERIES[:2], 3, rows=empty)
        np.testing.assert_array_equal(found.rows, np.full((2, 3), -1))
        np.testing.assert_array_equal(found.scores, np.full((2, 3), -np.inf))


def test_repeated_rows_in_a_filter_count_once(flat):
    found = flat.search(QUERIES[:1], 3, rows=np.array([5, 5, 2]))
    assert sorted(found.rows[0]) == [-1, 2, 5]


@pytest.mark.parametrize("kind", [Flat(), SMALL_GRAPH], ids=list(KINDS))
def test_slots_beyond_the_last_vector_are_empty(kind):
    found = VectorIndex.build(unit_rows(3), kind).search(unit_rows(2, seed=5), 5)
    assert_same(found, brute_force(unit_rows(2, seed=5), unit_rows(3), 5))


@pytest.mark.parametrize("kind", [Flat(), SMALL_GRAPH], ids=list(KINDS))
def test_an_index_of_nothing_finds_nothing(kind):
    index = VectorIndex.build(np.empty((0, 16), np.float32), kind)
    assert index.search(unit_rows(2), 2).rows.tolist() == [[-1, -1], [-1, -1]]


def test_no_queries_are_answered_with_no_neighbours(flat, graph):
    for index in (flat, graph):
        assert index.search(np.empty((0, 32), np.float32), 4).rows.shape == (0, 4)


@pytest.mark.parametrize("k", [1, 3, 120])
def test_among_equal_scores_the_lower_rows_are_found_in_order(k):
    vectors = np.repeat(unit_rows(2), 200, axis=0)
    index = VectorIndex.build(vectors)
    np.testing.assert_array_equal(index.search(vectors[200:201], k).rows, [200 + np.arange(k)])
    rows = np.arange(399, 250, -1)
    np.testing.assert_array_equal(index.search(vectors[200:201], k, rows=rows).rows, [251 + np.arange(k)])


def test_a_graph_that_comes_back_short_is_repeated_exactly():
    # Identical vectors link only to each other; the graph alone reaches few of them.
    vectors = np.repeat(unit_rows(4), 150, axis=0)
    found = VectorIndex.build(vectors, Hnsw(m=2, ef_construction=4, ef_search=4)).search(unit_rows(4), 300)
    assert (found.rows >= 0).all()
    assert_same(found, brute_force(unit_rows(4), vectors, 300))


def test_default_graph_finds_the_true_neighbours():
    index = VectorIndex.build(VECTORS, Hnsw())
    assert measure_recall(index, QUERIES, VECTORS, 10) >= 0.99


def test_a_small_graph_finds_most_of_the_true_neighbours(graph):
    assert measure_recall(graph, QUERIES, VECTORS, 10) >= 0.95


def test_scores_of_a_graph_are_the_inner_products(graph):
    found = graph.search(QUERIES, 10)
    for query, scores, rows in zip(QUERIES, found.scores, found.rows, strict=True):
        np.testing.assert_allclose(scores, VECTORS[rows] @ query, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(5, bool), r"rows is a mask of shape \(5,\); expected \(3000,\)"),
        (np.array([0.5]), "rows have dtype float64"),
        (np.array([[1, 2]]), r"rows have dtype int64, shape \(1, 2\)"),
        (np.array([1, 3000]), r"rows\[1\] is 3000; the index has 3000 rows"),
        (np.array([-1]), r"rows\[0\] is -1"),
    ],
)
def test_wrong_rows_are_refused(flat, rows, message):
    with pytest.raises(IndexingError, match=message):
        flat.search(QUERIES, 1, rows=rows)


def test_wrong_queries_and_wrong_k_are_refused(flat):
    with pytest.raises(VectorError, match="queries have dimension 16; expected 32"):
        flat.search(unit_rows(1), 1)
    with pytest.raises(VectorError, match=r"queries have shape \(32,\)"):
        flat.search(QUERIES[0], 1)
    with pytest.raises(IndexingError, match="k is 0"):
        flat.search(QUERIES, 0)
    with pytest.raises(IndexingError, match=r"rows\[0\] is 3000"):
        flat.reconstruct(np.array([3000]))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tree", {}, "unknown index kind 'tree'; known: flat, hnsw"),
        ("hnsw", {"depth": 3}, "index kind 'hnsw'.*depth"),
        ("hnsw", {"m": 1}, "hnsw parameter m is 1; expected an integer >= 2"),
        ("hnsw", {"ef_search": "9"}, "hnsw parameter ef_search is '9'"),
    ],
)
def test_an_unknown_kind_or_parameter_is_refused(name, parameters, message):
    with pytest.raises(IndexingError, match=message):
        kind_from(name, parameters)


def test_a_kind_is_found_by_name():
    assert kind_from("hnsw", {"m": 8}) == Hnsw(m=8)
    assert kind_from("flat", {}) == Flat()
