import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing_reference import brute_force, rows_with_languages, unit_rows

from indexing import Flat, Hnsw, IndexingError, IvfPq, RaBitQ, VectorError, VectorIndex, build_calibrated
from indexing.calibrate import LARGEST_SHARE, LEAST_QUERIES, held_out

ROWS = 3000
VECTORS, LANGUAGES = rows_with_languages(ROWS, seed=1)
CODES = np.array(["en", "de", "sw", "is"])[LANGUAGES]
LISTS = IvfPq(nlist=32, dims=2, refine="float32")


@pytest.fixture(scope="module")
def calibrated():
    return build_calibrated(VECTORS, LISTS, groups=CODES, recall=0.9, queries=400)


def standard_error(recalls):
    return np.std(recalls) / np.sqrt(len(recalls))


class HeldOut:
    """The queries that are held out, asked of an index of only the other rows, compared by brute force."""

    def __init__(self, groups, queries, kind):
        held = held_out(groups, queries, np.random.default_rng(0))
        kept = np.setdiff1d(np.arange(len(VECTORS)), held)
        self.groups, self.queries, self.faiss_index = groups[held], VECTORS[held], kind.build(VECTORS[kept])
        self.true = brute_force(self.queries, VECTORS[kept], 10)[1]

    def recalls(self, kind, candidates=10):
        return shares(VectorIndex(kind, self.faiss_index).search(self.queries, candidates).rows, self.true)

    def lowest(self, kind):
        recalls = self.recalls(kind)
        parts = [recalls, *(recalls[self.groups == group] for group in np.unique(self.groups))]
        return min(part.mean() - 2 * standard_error(part) for part in parts if len(part) >= LEAST_QUERIES)


def shares(found, true):
    return np.array([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)])


def test_the_recall_is_that_of_queries_the_index_has_not_seen(calibrated):
    index, calibration = calibrated
    unseen = HeldOut(CODES, 400, LISTS)
    recalls, groups = unseen.recalls(index.kind), unseen.groups
    assert calibration.recall == pytest.approx(recalls.mean())
    expected = {group: recalls[groups == group].mean() for group in ("en", "de", "sw", "is")}
    assert calibration.recall_by_group == pytest.approx(expected)
    assert calibration.queries_by_group == {group: (groups == group).sum() for group in expected}
    assert calibration.queries == len(recalls)


def test_the_parameters_are_the_cheapest_that_reach_the_target_in_every_group(calibrated):
    index, calibration = calibrated
    assert calibration.reached
    ladder = LISTS.search_ladder(ROWS - calibration.queries, 10)
    place = ladder.index(index.kind)
    assert 0 < place < len(ladder) - 1

    unseen = HeldOut(CODES, 400, LISTS)
    assert unseen.lowest(index.kind) >= 0.9
    assert max(unseen.lowest(kind) for kind in ladder[:place]) < 0.9


def test_the_target_is_reached_by_more_than_chance(calibrated):
    kind = calibrated[0].kind
    unseen = HeldOut(CODES, 400, LISTS)
    target = (unseen.recalls(kind).mean() + unseen.lowest(kind)) / 2
    index, _ = build_calibrated(VECTORS, LISTS, groups=CODES, recall=target, queries=400)
    assert unseen.lowest(kind) < target <= unseen.lowest(index.kind)


def test_a_group_that_is_hard_to_find_decides():
    # Rows of no cluster: their neighbours are scattered over all lists.
    vectors = np.concatenate([VECTORS, unit_rows(300, 32, seed=3)])
    groups = np.repeat(["easy", "hard"], [ROWS, 300])
    pooled, _ = build_calibrated(vectors, LISTS, recall=0.9, queries=400)
    fair, calibration = build_calibrated(vectors, LISTS, groups=groups, recall=0.9, queries=400)
    assert calibration.recall_by_group["hard"] >= 0.9
    queries = unit_rows(100, 32, seed=4)
    true = brute_force(queries, vectors, 10)[1]
    assert shares(pooled.search(queries, 10).rows, true).mean() < 0.8
    assert shares(fair.search(queries, 10).rows, true).mean() >= 0.88


@pytest.mark.parametrize("kind", [Hnsw(m=8, ef_construction=40), LISTS], ids=["hnsw", "ivf_pq"])
def test_no_row_is_missing_and_each_is_found_under_its_number(kind):
    index, _ = build_calibrated(VECTORS[:1500], kind, recall=0.9, queries=150)
    assert index.count == 1500
    np.testing.assert_array_equal(index.reconstruct(np.arange(1500)), VECTORS[:1500])
    found = index.search(VECTORS[:1500], 1)
    assert (found.rows[:, 0] == np.arange(1500)).mean() >= 0.95
    np.testing.assert_allclose(
        found.scores[:, 0], (VECTORS[:1500] * VECTORS[found.rows[:, 0]]).sum(axis=1), atol=1e-5
    )


def test_a_recall_out_of_reach_is_said_and_the_best_is_taken():
    codes = RaBitQ(bits=1, nlist=16)
    index, calibration = build_calibrated(VECTORS, codes, recall=0.95, queries=300)
    assert not calibration.reached
    unseen = HeldOut(np.zeros(ROWS, int), 300, codes)
    assert calibration.recall == pytest.approx(unseen.recalls(index.kind).mean())
    best = max(unseen.lowest(replace(codes, nprobe=nprobe)) for nprobe in (1, 2, 4, 8, 16))
    assert unseen.lowest(index.kind) == best < 0.8


def test_true_neighbours_may_stand_anywhere_among_the_candidates():
    codes = RaBitQ(bits=1, nlist=16)
    index, calibration = build_calibrated(VECTORS, codes, recall=0.95, queries=300, candidates=100)
    assert calibration.reached
    assert (calibration.k, calibration.candidates) == (10, 100)
    unseen = HeldOut(np.zeros(ROWS, int), 300, codes)
    assert calibration.recall == pytest.approx(unseen.recalls(index.kind, candidates=100).mean())


def test_a_calibration_is_json(calibrated):
    _, calibration = calibrated
    assert json.loads(json.dumps(asdict(calibration))) == asdict(calibration)
    assert calibration.parameters == asdict(calibrated[0].kind)
    assert calibration.target == 0.9


def test_an_exact_index_needs_no_measuring():
    index, calibration = build_calibrated(VECTORS[:500], Flat(), groups=CODES[:500])
    assert index.order is None
    assert (calibration.recall, calibration.reached, calibration.queries) == (1, True, 0)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_rows_to_hold_any_out_are_indexed_unmeasured(n):
    index, calibration = build_calibrated(unit_rows(n) if n else np.empty((0, 16), np.float32), Hnsw(m=8))
    assert (index.count, index.kind) == (n, Hnsw(m=8))
    assert (calibration.recall, calibration.reached, calibration.queries) == (None, False, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12), st.integers(1, 600))
def test_every_group_gives_queries_and_none_gives_much_of_itself(sizes, queries):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    held = held_out(labels, queries, np.random.default_rng(1))
    np.testing.assert_array_equal(held, np.unique(held))
    drawn = np.bincount(labels[held], minlength=len(sizes))
    for size, count in zip(sizes, drawn, strict=True):
        assert count <= LARGEST_SHARE * size
        assert count >= min(LEAST_QUERIES, int(LARGEST_SHARE * size))
    assert len(held) <= queries + len(sizes) * (LEAST_QUERIES + 1)


def test_a_large_group_gives_more_queries_and_a_small_one_enough():
    labels = np.repeat([0, 1], [90_000, 10_000])
    held = held_out(labels, 1000, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[held]), [250 + 450, 250 + 50])


def test_the_same_seed_gives_the_same_calibration():
    first, second = (
        build_calibrated(VECTORS[:800], LISTS, recall=0.8, queries=100, seed=seed)[0].order for seed in (5, 5)
    )
    np.testing.assert_array_equal(first, second)
    other = build_calibrated(VECTORS[:800], LISTS, recall=0.8, queries=100, seed=6)[0].order
    assert (first != other).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0}, "recall is 0; expected more than 0"),
        ({"recall": 1.5}, "recall is 1.5"),
        ({"k": 0}, "k is 0"),
        ({"k": 5, "candidates": 4}, "candidates is 4; expected at least k, 5"),
        ({"groups": np.zeros(3)}, r"groups have shape \(3,\); expected one label per row, \(50,\)"),
        ({"queries": 0}, "queries is 0; expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(IndexingError, match=message):
        build_calibrated(unit_rows(50), Hnsw(), **options)


def test_wrong_vectors_are_refused():
    with pytest.raises(VectorError, match=r"vectors\[0\] has length 2"):
        build_calibrated(unit_rows(50) * 2, Hnsw())


def test_copies_of_a_vector_are_all_as_good():
    """Every row is there thirty times: which ten of the thirty are found does not matter."""
    vectors = np.repeat(unit_rows(100, 16, seed=5), 30, axis=0)
    _, calibration = build_calibrated(vectors, Hnsw(), recall=0.95, queries=200)
    assert calibration.reached
    assert calibration.recall is not None
    assert calibration.recall > 0.99
