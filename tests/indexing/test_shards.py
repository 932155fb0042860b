"""A pool of groups is searched as promised: small groups exactly, graphs with recall for every group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing import Allowed, Hnsw, IndexingError, ShardedIndex, ShardOptions
from indexing.shards import Group, best_of, group_ranges, merged, rescored
from tests.indexing.indexing_reference import rows_with_languages, unit_rows

LABELS = np.array(["en", "de", "sw", "yo"])
SMALL = ShardOptions(flat_rows=1_000, shard_rows=600, graph=Hnsw(m=12, ef_construction=60, storage="sq8"))


@pytest.fixture(scope="module")
def pool():
    """4,000 rows of four groups (about 2,400, 1,170, 350, 80), mostly in clusters of their own; queries."""
    vectors, languages = rows_with_languages(4_000, dimension=32)
    order = np.argsort(LABELS[languages], kind="stable")
    vectors, labels = vectors[order], LABELS[languages][order]
    queries, asked = rows_with_languages(600, dimension=32, seed=1)
    return ShardedIndex.build(vectors, labels, SMALL), vectors, labels, queries, LABELS[asked]


def brute_force(queries, vectors, k, allowed=None):
    """Scores and rows (q, k or fewer), best first, lower row first among equals."""
    allowed = np.arange(len(vectors)) if allowed is None else allowed
    products = queries.astype(np.float64) @ vectors[allowed].astype(np.float64).T
    if k < len(allowed):  # sorting them all would take most of the time of these tests
        best = np.sort(np.argpartition(-products, k, axis=1)[:, :k], axis=1)
    else:
        best = np.broadcast_to(np.arange(len(allowed)), products.shape)
    order = np.argsort(-np.take_along_axis(products, best, 1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, 1)
    return np.take_along_axis(products, best, 1), allowed[best]


def recall(found, wanted):
    """Share of the wanted rows (q, k) that were found; -1 is no row."""
    pairs = [(set(one[one >= 0]), set(two[two >= 0])) for one, two in zip(found.rows, wanted, strict=True)]
    wanted_in_all = sum(len(two) for _, two in pairs)
    return sum(len(one & two) for one, two in pairs) / wanted_in_all if wanted_in_all else 1.0


def assert_right(found, vectors, queries, allowed, k):
    """Only allowed rows, each once, with exact scores, best first, and as many as there are."""
    count = min(k, len(allowed))
    assert found.rows.shape[1] >= count
    rows, scores = found.rows[:, :count], found.scores[:, :count]
    assert np.isin(rows, allowed).all()
    assert (np.diff(np.sort(rows, axis=1), axis=1) > 0).all()
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", vectors[rows], queries), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (found.rows[:, count:] == -1).all()
    assert (found.scores[:, count:] == -np.inf).all()


def test_groups_have_the_graphs_that_their_size_asks_for(pool):
    index, _, labels, _, _ = pool
    assert list(index.groups) == ["de", "en", "sw", "yo"]
    assert {label: group.count for label, group in index.groups.items()} == {
        label: int(np.count_nonzero(labels == label)) for label in index.groups
    }
    assert set(index.graphs) == {"de", "en"}
    assert index.pool is not None
    assert set(index.calibrations) == {"*", "de", "en"}
    assert index.recall is not None


def test_pooled_graph_finds_what_was_promised_for_queries_of_every_group(pool):
    index, vectors, _, queries, asked = pool
    found = index.search(queries, 10)
    assert (found.plan.strategy, found.plan.graphs, found.plan.rows) == ("graph", ("*",), 4_000)
    assert_right(found, vectors, queries, np.arange(4_000), 10)
    _, wanted = brute_force(queries, vectors, 10)
    for label in LABELS:
        own = asked == label
        part = type(found)(found.scores[own], found.rows[own], found.plan)
        assert recall(part, wanted[own]) >= 0.95, label


@pytest.mark.parametrize("label", LABELS)
def test_every_group_alone_finds_what_was_promised(pool, label):
    index, vectors, labels, queries, asked = pool
    allowed = np.flatnonzero(labels == label)
    found = index.search(queries, 10, groups=[label])
    assert_right(found, vectors, queries, allowed, 10)
    scores, wanted = brute_force(queries, vectors, 10, allowed)
    for language in LABELS:  # of the query: it may be another one than that of the rows
        own = asked == language
        assert recall(type(found)(found.scores[own], found.rows[own], found.plan), wanted[own]) >= 0.95, (
            language
        )
    assert found.plan.rows == len(allowed)
    if label in ("sw", "yo"):
        assert found.plan.strategy == "exact"
        np.testing.assert_array_equal(found.rows, wanted)
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    else:
        assert (found.plan.strategy, found.plan.graphs) == ("graph", (label,))


@pytest.mark.parametrize(
    ("groups", "strategy", "graphs"),
    [
        (["en", "de"], "fan-out", ("de", "en")),
        (["yo", "en"], "fan-out", ("en",)),
        (["yo", "sw"], "exact", ()),
        (["yo", "yo", "fr"], "exact", ()),
        (["fr", "xx"], "exact", ()),
        ([], "exact", ()),
        (["en", "de", "sw", "yo", "fr"], "graph", ("*",)),
    ],
)
def test_several_groups_are_joined(pool, groups, strategy, graphs):
    index, vectors, labels, queries, _ = pool
    allowed = np.flatnonzero(np.isin(labels, groups)) if groups else np.empty(0, int)
    found = index.search(queries, 10, groups=groups)
    assert (found.plan.strategy, found.plan.graphs, found.plan.rows) == (strategy, graphs, len(allowed))
    assert_right(found, vectors, queries, allowed, 10)
    assert recall(found, brute_force(queries, vectors, 10, allowed)[1]) >= (
        1 if strategy == "exact" else 0.95
    )


def correlated_mask(vectors, share, seed):
    """The rows nearest to a random direction: a filter that allows some regions and not others."""
    products = vectors @ unit_rows(1, vectors.shape[1], seed)[0]
    return products >= np.quantile(products, 1 - share)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("groups", [None, ["en"], ["de", "yo"]], ids=str)
@pytest.mark.parametrize("kind", ["correlated", "random"])
def test_recall_holds_under_filters(pool, share, groups, kind):
    index, vectors, labels, queries, asked = pool
    if kind == "random":
        queries, asked = queries[:200], asked[:200]
    random = np.random.default_rng(2).random(len(vectors)) < share
    mask = correlated_mask(vectors, share, 3) if kind == "correlated" else random
    allowed = np.flatnonzero(mask & (True if groups is None else np.isin(labels, groups)))
    found = index.search(queries, 10, groups=groups, allowed=Allowed(mask))
    assert found.plan.rows == len(allowed)
    assert_right(found, vectors, queries, allowed, 10)
    _, wanted = brute_force(queries, vectors, 10, allowed)
    for label in LABELS:
        own = asked == label
        part = type(found)(found.scores[own], found.rows[own], found.plan)
        assert recall(part, wanted[own]) >= 0.95, label
    if found.plan.strategy == "exact":
        np.testing.assert_array_equal(found.rows[:, : wanted.shape[1]], wanted)


@pytest.mark.parametrize("k", [1, 10, 300, 5_000])
@pytest.mark.parametrize("groups", [None, ["en"], ["en", "sw"], ["yo"]], ids=str)
def test_any_k_finds_as_many_as_there_are(pool, k, groups):
    index, vectors, labels, queries, _ = pool
    for mask in (
        np.ones(4_000, bool),
        correlated_mask(vectors, 0.5, 5),
        np.arange(4_000) == 17,
        np.zeros(4_000, bool),
    ):
        allowed = np.flatnonzero(mask & (True if groups is None else np.isin(labels, groups)))
        found = index.search(queries[:4], k, groups=groups, allowed=None if mask.all() else Allowed(mask))
        assert_right(found, vectors, queries[:4], allowed, k)
        assert recall(found, brute_force(queries[:4], vectors, k, allowed)[1]) >= 0.95


def test_batch_is_answered_as_one_by_one(pool):
    index, vectors, _, queries, _ = pool
    for groups in (None, ["en", "yo"], ["sw"]):
        for allowed in (None, Allowed(correlated_mask(vectors, 0.4, 6))):
            together = index.search(queries, 10, groups=groups, allowed=allowed)
            for number in range(0, len(queries), 31):
                alone = index.search(queries[number][None], 10, groups=groups, allowed=allowed)
                np.testing.assert_array_equal(alone.rows[0], together.rows[number])
                np.testing.assert_allclose(alone.scores[0], together.scores[number], atol=1e-6)
                assert alone.plan == together.plan


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 12), max_size=6),
    groups=st.none() | st.lists(st.sampled_from("abcdefz"), max_size=4),
    k=st.integers(1, 80),
    share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_small_pools_equal_brute_force(sizes, groups, k, share, seed):
    labels = np.repeat(np.array(list("abcdef"))[: len(sizes)], sizes) if sizes else np.empty(0, "U1")
    vectors, queries = unit_rows(len(labels), 8, seed), unit_rows(3, 8, seed + 1)
    mask = np.random.default_rng(seed).random(len(labels)) < (1 if share is None else share)
    allowed = np.flatnonzero(mask & (True if groups is None else np.isin(labels, groups or [""])))
    index = ShardedIndex.build(vectors, labels)
    found = index.search(queries, k, groups=groups, allowed=None if share is None else Allowed(mask))
    assert found.plan.strategy == "exact"
    assert found.plan.rows == len(allowed)
    assert_right(found, vectors, queries, allowed, k)
    _, wanted = brute_force(queries, vectors, k, allowed)
    np.testing.assert_array_equal(found.rows[:, : min(k, len(allowed))], wanted)


def test_pool_of_one_group_has_one_graph():
    vectors, _ = rows_with_languages(1_200, dimension=16)
    index = ShardedIndex.build(
        vectors, ["en"] * 1_200, ShardOptions(flat_rows=500, shard_rows=500, graph=Hnsw(m=8))
    )
    assert index.graphs == {}
    assert index.search(vectors[:5], 3, groups=["en"]).plan.graphs == ("*",)
    assert (index.search(vectors[:5], 1).rows[:, 0] == np.arange(5)).all()


def test_allowed_counts_and_slices_by_group():
    allowed = Allowed(np.array([True, False, True, True, False, True]))
    assert allowed.rows.tolist() == [0, 2, 3, 5]
    assert allowed.count() == 4
    assert allowed.count(Group("x", 1, 4)) == 2
    assert allowed.within(Group("x", 1, 4)).tolist() == [2, 3]
    assert allowed.within(Group("x", 4, 4)).tolist() == []


def test_groups_are_runs_of_equal_labels():
    assert group_ranges(["b", "b", "a"]) == [Group("b", 0, 2), Group("a", 2, 3)]
    assert group_ranges(np.array([b"en", b"en"])) == [Group("en", 0, 2)]
    assert group_ranges([]) == []
    with pytest.raises(IndexingError, match=r"labels\[2\] is 'a' again; sort the rows by label"):
        group_ranges(["a", "b", "a"])
    with pytest.raises(IndexingError, match="2 labels are given for 3 vectors"):
        ShardedIndex.build(unit_rows(3), ["a", "a"])


def test_rescored_and_merged_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8]], np.float32)
    queries = np.array([[1, 0], [0, 1]], np.float32)
    candidates = np.array([[3, 2, -1], [0, 1, 3]])
    scores, rows = rescored(vectors, queries, candidates, 2)
    assert rows.tolist() == [[2, 3], [1, 3]]
    np.testing.assert_allclose(scores, [[0.6, 0.6], [1, 0.8]])
    alone = rescored(vectors, queries[:1], candidates[:1], 3)
    assert alone[1].tolist() == [[2, 3, -1]]
    assert alone[0][0, 2] == -np.inf
    part = (np.array([[0.6, 0.1]], np.float32), np.array([[5, 1]]))
    other = (np.array([[0.6, -np.inf]], np.float32), np.array([[4, -1]]))
    scores, rows = merged([part, other], 1, 3)
    assert rows.tolist() == [[4, 5, 1]]
    assert merged([], 2, 3)[1].shape == (2, 0)
    assert best_of(part[0], part[1], 1)[1].tolist() == [[5]]
