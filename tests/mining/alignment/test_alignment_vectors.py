from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.alignment import align_vectors
from embedsvc.mining.alignment.accuracy import Pairing, accuracy
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.blocks import mean_blocks

Floats = NDArray[np.float32]
SHAPES = [(1, 1)] * 14 + [(1, 2), (2, 1), (1, 2), (2, 1), (1, 3), (1, 0), (0, 1)]


@dataclass(frozen=True)
class Pair:
    """Blocks of two documents and the right beads."""

    source: Floats
    target: Floats
    gold: list[Pairing]


def documents(beads: int, seed: int = 0, dimension: int = 48, noise: float = 0.35) -> Pair:
    """Sentences are sums of units that both sides share, cut differently."""
    generator = np.random.default_rng(seed)
    sides: tuple[list[Floats], list[Floats]] = ([], [])
    gold = []
    for shape in (SHAPES[k] for k in generator.integers(0, len(SHAPES), beads)):
        units = generator.standard_normal((max(shape), dimension)).astype(np.float32)
        both = [tuple(range(len(side), len(side) + k)) for side, k in zip(sides, shape, strict=True)]
        gold.append((both[0], both[1]))
        for side, k in zip(sides, shape, strict=True):
            side += [part.sum(axis=0) for part in np.array_split(units, k)] if k else []
    noisy = [np.stack(side) + noise * generator.standard_normal((len(side), dimension)) for side in sides]
    blocks = [mean_blocks(side, np.ones(len(side)), 5) for side in noisy]
    return Pair(blocks[0], blocks[1], gold)


def indices(beads: list[Bead]) -> list[Pairing]:
    return [(bead.source, bead.target) for bead in beads]


def strict_f1(pair: Pair, beads: list[Bead]) -> float:
    return accuracy([(pair.gold, indices(beads))]).strict.f1


@pytest.mark.parametrize("beads", [40, 700])
def test_beads_of_all_kinds_are_found(beads: int) -> None:
    pair = documents(beads)
    found = align_vectors(pair.source, pair.target)
    assert strict_f1(pair, found) > 0.95
    assert {"1-1", "1-2", "2-1", "1-3", "1-0", "0-1"} <= {bead.kind for bead in found}


@pytest.mark.parametrize(("beads", "seed"), [(1, 1), (2, 2), (9, 3), (900, 4)])
def test_every_sentence_is_in_one_bead_and_in_order(beads: int, seed: int) -> None:
    pair = documents(beads, seed, noise=1.5)
    found = align_vectors(pair.source, pair.target, max_bead=3)
    assert [i for bead in found for i in bead.source] == list(range(pair.source.shape[1]))
    assert [j for bead in found for j in bead.target] == list(range(pair.target.shape[1]))
    assert all(len(bead.source) <= 3 and len(bead.target) <= 3 for bead in found)


def test_score_is_the_cosine_above_that_of_random_sentences() -> None:
    pair = documents(60)
    source, target = pair.source, pair.target
    for bead in align_vectors(source, target):
        if not (bead.source and bead.target):
            assert (bead.score, bead.cosine) == (0, 0)
            continue
        x = source[len(bead.source) - 1, bead.source[-1]]
        y = target[len(bead.target) - 1, bead.target[-1]]
        assert bead.cosine == pytest.approx(float(x @ y), abs=1e-5)
        # All but the nearest, which is the translation where it is one sentence.
        chance = [np.sort(rows @ v)[:-1].mean() for v, rows in ((x, target[0]), (y, source[0]))]
        assert bead.score == pytest.approx(bead.cosine - sum(chance) / 2, abs=1e-5)


def test_what_all_sentences_share_changes_little() -> None:
    """A language's own direction, the same in every vector, raises all cosines."""
    pair = documents(300)
    shared = 2 * np.eye(48, dtype=np.float32)[0]
    raised = [mean_blocks(side[0] + shared, np.ones(side.shape[1]), 5) for side in (pair.source, pair.target)]
    assert strict_f1(pair, align_vectors(*raised)) > 0.9


def test_identical_documents_are_all_one_to_one() -> None:
    side = documents(400).source
    assert indices(align_vectors(side, side)) == [((i,), (i,)) for i in range(side.shape[1])]


def test_swapped_sides_give_swapped_beads() -> None:
    pair = documents(300, noise=0.2)
    there, back = align_vectors(pair.source, pair.target), align_vectors(pair.target, pair.source)
    assert {(bead.target, bead.source) for bead in back if bead.score} == {
        (bead.source, bead.target) for bead in there if bead.score
    }


def test_a_long_passage_without_counterpart_is_left_alone() -> None:
    pair = documents(1200, noise=0.2)
    cut = slice(400, 1100)
    target = mean_blocks(np.delete(pair.target[0], cut, axis=0), np.ones(pair.target.shape[1] - 700), 5)
    found = align_vectors(pair.source, target)
    clear = [bead for bead in pair.gold if len(bead[0]) == len(bead[1]) == 1]
    kept = {b if b[1][0] < 400 else (b[0], (b[1][0] - 700,)) for b in clear if not 400 <= b[1][0] < 1100}
    gone = {b[0][0] for b in clear if 405 <= b[1][0] < 1095}
    assert len(kept & set(indices(found))) > 0.97 * len(kept)
    alone = {bead.source[0] for bead in found if not bead.target}
    assert len(gone & alone) > 0.9 * len(gone)


def test_lengths_decide_what_vectors_leave_open() -> None:
    """Two sentences, the second without content: joined or alone? The length of the counterpart says it."""
    pair = documents(200, noise=0.2)
    source = pair.source[0].copy()
    blank = mean_blocks(np.insert(source, 100, 0, axis=0), np.ones(len(source) + 1), 5)
    lengths = np.full(len(source), 100.0)
    target_lengths = np.full(pair.target.shape[1], 100.0)
    bead = next(b for b in pair.gold if b[0] and b[0][-1] == 99)
    for source_, target_ in pair.gold:
        if source_ and target_:
            target_lengths[list(target_)] = 100 * len(source_) / len(target_)
    with_blank = np.insert(lengths, 100, 100.0)
    target_lengths[list(bead[1])] *= (len(bead[0]) + 1) / len(bead[0])
    found = align_vectors(blank, pair.target, source_lengths=with_blank, target_lengths=target_lengths)
    assert ((*bead[0], 100), bead[1]) in indices(found)
    target_lengths[list(bead[1])] *= len(bead[0]) / (len(bead[0]) + 1)
    found = align_vectors(blank, pair.target, source_lengths=with_blank, target_lengths=target_lengths)
    assert ((100,), ()) in indices(found)


def test_same_input_same_beads() -> None:
    pair = documents(600, noise=1.0)
    assert align_vectors(pair.source, pair.target) == align_vectors(pair.source.copy(), pair.target.copy())


def test_the_arrays_given_stay_as_they_are() -> None:
    pair = documents(20)
    source = pair.source.copy()
    source[1, 0] = np.nan  # there is no block of two that ends with the first sentence
    before = source.copy()
    align_vectors(source, pair.target)
    np.testing.assert_array_equal(source, before)


def test_memory_grows_with_the_length_not_with_its_square() -> None:
    peaks = []
    for beads in (600, 2400):
        pair = documents(beads, dimension=8)
        tracemalloc.start()
        align_vectors(pair.source, pair.target)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 6 * peaks[0]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (7, 1), (2, 400), (400, 3)])
def test_documents_of_very_different_lengths(n: int, m: int) -> None:
    generator = np.random.default_rng(0)
    sides = [
        mean_blocks(generator.standard_normal((k, 16)).astype(np.float32), np.ones(k), 5) for k in (n, m)
    ]
    found = align_vectors(*sides)
    assert [sum(len(side) for side in sides_) for sides_ in zip(*indices(found), strict=True)] == [n, m]


def test_one_line_repeated_many_times_is_no_trouble() -> None:
    """All cosines equal: nothing tells sentences apart, so nothing may be lost either."""
    side = mean_blocks(np.tile(np.eye(16, dtype=np.float32)[3], (1500, 1)), np.ones(1500), 5)
    found = align_vectors(side, side[:, :1400])
    assert [i for bead in found for i in bead.source] == list(range(1500))
    assert [j for bead in found for j in bead.target] == list(range(1400))


def test_separators_do_not_outweigh_the_sections_between_them() -> None:
    """Every second line is "* * *", and of the target three passages are gone."""
    generator = np.random.default_rng(8)
    rows = generator.standard_normal((120, 48)).astype(np.float32)
    kept = [i for i in range(120) if i not in (10, 11, 50, 51, 52, 90)]
    other = rows[kept] + 0.8 * generator.standard_normal((len(kept), 48)).astype(np.float32)
    star = 5 * np.eye(48, dtype=np.float32)[0]
    sides = [np.insert(side, range(1, len(side) + 1), star, axis=0) for side in (rows, other)]
    found = align_vectors(*(mean_blocks(side, np.ones(len(side)), 5) for side in sides))
    right = {((2 * i,), (2 * j,)) for j, i in enumerate(kept)}
    assert len(right & set(indices(found))) > 0.95 * len(right)


GOOD = documents(5).source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (GOOD[0], r"source vectors have shape \(\d+, 48\); expected \(block sizes, sentences, dim\)"),
        (GOOD[:, :0], "source vectors have shape"),
        ((GOOD * 100).astype(np.int8), "source vectors are int8; expected floating point"),
        (GOOD * 2, "source vectors: sentences 0 to 0 have a vector of length 2"),
        (np.where(np.arange(48) == 3, np.nan, GOOD), "source vectors: sentences 0 to 0 have .* length nan"),
    ],
)  # fmt: skip
def test_wrong_vectors_are_refused(source: Floats, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        align_vectors(source, GOOD)


def test_the_block_with_a_bad_vector_is_named() -> None:
    """Never a random vector for a block that nobody has encoded."""
    source = GOOD.copy()
    source[2, 4] = np.nan
    with pytest.raises(
        InvalidInputError, match="source vectors: sentences 2 to 4 have a vector of length nan"
    ):
        align_vectors(source, GOOD)


def test_other_bad_arguments_are_refused() -> None:
    with pytest.raises(DimensionMismatchError, match="source vectors have 48 dimensions, target vectors 40"):
        align_vectors(GOOD, documents(5, dimension=40).source)
    with pytest.raises(InvalidInputError, match=r"max_bead = 0; it must be from 1 to 16"):
        align_vectors(GOOD, GOOD, max_bead=0)
    n = GOOD.shape[1]
    with pytest.raises(InvalidInputError, match=rf"target lengths have shape \(2,\); expected \({n},\)"):
        align_vectors(GOOD, GOOD, target_lengths=[1, 2])
