from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from indexing_reference import (
    EXAMPLE_NAMES,
    EXAMPLES,
    assert_same,
    brute_force,
    clustered_rows,
    rows_with_languages,
    score_error,
    unit_rows,
)

from indexing import (
    Flat,
    Hnsw,
    IndexingError,
    IvfPq,
    PqScan,
    RaBitQ,
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


@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_scores_and_rows_by_hand(kind):
    index = VectorIndex.build(np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32), kind)
    found = index.search(np.array([[1, 0], [0.8, 0.6]], np.float32), 3)
    np.testing.assert_array_equal(found.rows, [[0, 2, 1], [2, 0, 1]])
    np.testing.assert_allclose(found.scores, [[1, 0.6, 0], [0.96, 0.8, 0.6]], atol=score_error(kind))


@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_an_index_knows_what_it_holds(kind):
    index = VectorIndex.build(unit_rows(7), kind)
    assert (index.count, index.dimension, index.kind) == (7, 16, kind)
    if kind.keeps_vectors:
        kept = index.reconstruct(np.array([6, 0, 6]))
        np.testing.assert_allclose(kept, unit_rows(7)[[6, 0, 6]], atol=score_error(kind))
    else:
        with pytest.raises(IndexingError, match="rabitq keeps codes only"):
            index.reconstruct(np.array([6, 0, 6]))


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


@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_slots_beyond_the_last_vector_are_empty(kind):
    found = VectorIndex.build(unit_rows(3), kind).search(unit_rows(2, seed=5), 5)
    assert_same(found, brute_force(unit_rows(2, seed=5), unit_rows(3), 5), score_error(kind))


@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_an_index_of_nothing_finds_nothing(kind):
    index = VectorIndex.build(np.empty((0, 16), np.float32), kind)
    for rows in (None, np.empty(0, np.int64)):
        assert index.search(unit_rows(2), 2, rows=rows).rows.tolist() == [[-1, -1], [-1, -1]]


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


LANGUAGE_VECTORS, LANGUAGES = rows_with_languages(2000, seed=1)
LANGUAGE_QUERIES, QUERY_LANGUAGES = rows_with_languages(60, seed=2)


@pytest.fixture(scope="module", params=EXAMPLES, ids=EXAMPLE_NAMES)
def example(request):
    return VectorIndex.build(LANGUAGE_VECTORS, request.param)


@pytest.mark.parametrize("language", range(4))
def test_every_kind_keeps_its_recall_under_a_filter_that_follows_the_clusters(example, language):
    # Most queries are of other languages: their nearest clusters hold nothing that is allowed.
    rows = np.flatnonzero(language == LANGUAGES)
    found = example.search(LANGUAGE_QUERIES, 10, rows=rows)
    assert np.isin(found.rows, rows).all()
    expected = brute_force(LANGUAGE_QUERIES, LANGUAGE_VECTORS, 10, rows)[1]
    assert recall_at_k(found.rows, expected) >= 0.93
    true_scores = np.take_along_axis(LANGUAGE_QUERIES @ LANGUAGE_VECTORS.T, found.rows, 1)
    np.testing.assert_allclose(found.scores, true_scores, atol=score_error(example.kind))


@pytest.mark.parametrize("count", [1, 7, 60, 1990])
def test_every_kind_finds_allowed_rows_only_and_all_it_should(example, count):
    rows = np.random.default_rng(count).permutation(2000)[:count]
    found = example.search(LANGUAGE_QUERIES, 20, rows=rows)
    real = found.rows >= 0
    np.testing.assert_array_equal(real.sum(axis=1), min(count, 20))
    assert np.isin(found.rows[real], rows).all()
    assert all(len(set(line)) == len(line) for line in (row[row >= 0] for row in found.rows))
    expected = brute_force(LANGUAGE_QUERIES, LANGUAGE_VECTORS, 20, rows)[1]
    assert recall_at_k(found.rows, expected) >= (0.93 if count > 20 else 1)


def test_every_kind_finds_most_of_the_true_neighbours(example):
    assert measure_recall(example, LANGUAGE_QUERIES, LANGUAGE_VECTORS, 10) >= 0.93


def test_every_kind_answers_alone_as_in_a_batch(example):
    batch = example.search(LANGUAGE_QUERIES[:8], 5)
    for number, query in enumerate(LANGUAGE_QUERIES[:8]):
        single = example.search(query[None], 5, trusted=True)
        np.testing.assert_allclose(single.scores[0], batch.scores[number], atol=1e-6)
        np.testing.assert_array_equal(single.rows[0], batch.rows[number])


def test_every_kind_answers_many_threads_as_one(example):
    rows = np.flatnonzero(LANGUAGES == 0)
    expected = example.search(LANGUAGE_QUERIES, 5), example.search(LANGUAGE_QUERIES, 5, rows=rows)

    def agrees(number):
        query = LANGUAGE_QUERIES[number : number + 1]
        plain, filtered = (example.search(query, 5, rows=allowed) for allowed in (None, rows))
        return np.array_equal([plain.rows[0], filtered.rows[0]], [whole.rows[number] for whole in expected])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(agrees, range(24)))


def test_trusted_queries_are_not_looked_at(flat):
    found = flat.search(2 * QUERIES, 3, trusted=True)
    np.testing.assert_allclose(found.scores, 2 * flat.search(QUERIES, 3).scores, rtol=1e-5)


def test_every_kind_accepts_its_own_indexes_only(example):
    own = built_alike(example.kind)
    for kind in EXAMPLES:
        # Inverted lists are only one where vectors are few, as those of a scan are.
        one_list = kind.name == "ivf_pq" and example.kind.name == "pq_scan"
        assert kind.accepts(example.faiss_index) == (
            built_alike(kind) == own or (one_list and kind.refine == example.kind.refine)
        )


def built_alike(kind):
    return (kind.name, *(getattr(kind, name, None) for name in ("storage", "refine", "bits")))


def test_memory_is_what_was_estimated(example):
    written = len(faiss.serialize_index(example.faiss_index)) / 2000
    assert example.kind.bytes_per_vector(32, 2000) == pytest.approx(written, rel=0.02, abs=2)


def test_a_ladder_costs_more_with_each_step_and_changes_search_parameters_only():
    assert [kind.ef_search for kind in Hnsw().search_ladder(1000, 30)] == [
        32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048
    ]  # fmt: skip
    ladder = IvfPq(nlist=100, dims=3).search_ladder(10_000, 10)
    assert {(kind.nlist, kind.dims, kind.refine) for kind in ladder} == {(100, 3, "sq8")}
    # 100 lists of 100 codes, 20 codes as dear as one kept vector: 5 per list and 10 per k_factor.
    costs = [5 * kind.nprobe + 10 * kind.k_factor for kind in ladder]
    assert costs == sorted(costs)
    assert costs[0] == 15
    assert costs[-1] == 500 + 320
    assert RaBitQ(k_factor=7, nlist=8).search_ladder(10_000, 10) == [
        RaBitQ(k_factor=7, nlist=8, nprobe=nprobe) for nprobe in (1, 2, 4, 8)
    ]
    assert Flat().search_ladder(10, 1) == [Flat()]
    assert PqScan(dims=3).search_ladder(10, 1)[0] == PqScan(dims=3, k_factor=1)


@pytest.mark.parametrize("dimension", [1, 2, 31, 35])
@pytest.mark.parametrize("kind", EXAMPLES, ids=EXAMPLE_NAMES)
def test_any_dimension_is_indexed(kind, dimension):
    vectors = unit_rows(50, dimension)
    found = VectorIndex.build(vectors, kind).search(vectors, 1)
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=0.1)


ORDER = np.random.default_rng(4).permutation(len(LANGUAGE_VECTORS))


@pytest.fixture(scope="module", params=[Flat(), EXAMPLES[2], PqScan()], ids=["flat", "hnsw", "pq_scan"])
def reordered(request):
    """The same vectors in rows and in an index that numbers them otherwise; and the plain index."""
    faiss_index = request.param.build(LANGUAGE_VECTORS[ORDER])
    return VectorIndex(request.param, faiss_index, ORDER)


@pytest.mark.parametrize("rows", [None, np.array([7, 1900, 12, 12]), LANGUAGES == 2, LANGUAGES == 0])
def test_an_order_is_hidden_from_callers(reordered, rows):
    allowed = None if rows is None else np.flatnonzero(rows) if rows.dtype == bool else rows
    found = reordered.search(LANGUAGE_QUERIES, 10, rows=rows)
    expected = brute_force(LANGUAGE_QUERIES, LANGUAGE_VECTORS, 10, allowed)
    if reordered.kind == Flat():
        assert_same(found, expected)
    else:
        assert recall_at_k(found.rows, expected[1]) >= 0.95
        np.testing.assert_array_equal(found.rows < 0, expected[1] < 0)


def test_vectors_are_reconstructed_by_row_whatever_the_order(reordered):
    rows = np.array([3, 1999, 3])
    error = score_error(reordered.kind)
    np.testing.assert_allclose(reordered.reconstruct(rows), LANGUAGE_VECTORS[rows], atol=error)


def test_among_equal_scores_the_lower_row_is_first_whatever_the_order():
    vectors = np.repeat(unit_rows(1), 6, axis=0)
    index = VectorIndex(Flat(), Flat().build(vectors), np.array([3, 5, 0, 1, 4, 2]))
    assert index.search(vectors[:1], 6).rows.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert index.search(vectors[:1], 9).rows.tolist() == [[0, 1, 2, 3, 4, 5, -1, -1, -1]]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1], r"order has dtype int64, shape \(2,\); expected integers \(3,\)"),
        ([0.0, 1, 2], "order has dtype float64"),
        ([0, 3, 1], r"order\[1\] is 3; there are 3 rows"),
        ([0, -1, 1], r"order\[1\] is -1"),
        ([0, 2, 2], "order holds row 2 more than once"),
    ],
)
def test_an_order_that_is_no_permutation_is_refused(order, message):
    with pytest.raises(IndexingError, match=message):
        VectorIndex(Flat(), Flat().build(unit_rows(3)), np.array(order))


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
        ("tree", {}, "unknown index kind 'tree'; known: flat, hnsw, ivf_pq, pq_scan, rabitq"),
        ("hnsw", {"depth": 3}, "index kind 'hnsw'.*depth"),
        ("hnsw", {"m": 1}, "hnsw parameter m is 1; expected an integer >= 2"),
        ("hnsw", {"ef_search": "9"}, "hnsw parameter ef_search is '9'"),
        ("hnsw", {"storage": "sq4"}, "hnsw parameter storage is 'sq4'; expected one of float32, sq8"),
        ("ivf_pq", {"nprobe": 0}, "ivf_pq parameter nprobe is 0; expected an integer >= 1"),
        ("ivf_pq", {"refine": "none"}, "ivf_pq parameter refine is 'none'; expected one of float32, sq8"),
        ("pq_scan", {"dims": 0}, "pq_scan parameter dims is 0"),
        ("rabitq", {"bits": 10}, "rabitq parameter bits is 10; expected at most 9"),
        ("rabitq", {"refine": "fp16"}, "rabitq parameter refine is 'fp16'; expected one of none, float32"),
    ],
)
def test_an_unknown_kind_or_parameter_is_refused(name, parameters, message):
    with pytest.raises(IndexingError, match=message):
        kind_from(name, parameters)


def test_a_kind_is_found_by_name():
    assert kind_from("hnsw", {"m": 8}) == Hnsw(m=8)
    assert kind_from("flat", {}) == Flat()
