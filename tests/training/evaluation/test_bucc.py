"""The threshold against all thresholds; BUCC's files; gold hidden in NTREX."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError, NotFoundError
from tests.training.evaluation.fakes import chosen
from training.evaluation.bucc import Mined, best_threshold, evaluate_bucc, mining_figures
from training.evaluation.bucc_sets import MiningSet, mining_set, ntrex_sets


def f1_at(threshold: float, scores: np.ndarray, right: np.ndarray, gold: int) -> float:
    taken = scores >= threshold
    return 2 * (taken & right).sum() / (taken.sum() + gold)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12), st.integers(0, 4))
def test_no_threshold_has_a_better_f1(pairs: list[tuple[int, bool]], missed: int) -> None:
    pairs = sorted(pairs, reverse=True)
    scores = np.array([score for score, _ in pairs], np.float32)
    right = np.array([is_right for _, is_right in pairs])
    gold = int(right.sum()) + missed
    if gold == 0:
        return
    threshold, f1 = best_threshold(scores, right, gold)
    assert f1 == pytest.approx(max(f1_at(t, scores, right, gold) for t in [*scores, np.inf]))
    assert f1_at(threshold, scores, right, gold) == pytest.approx(f1)


def test_the_threshold_lies_midway_to_the_next_score() -> None:
    scores, right = np.array([1.4, 1.2, 1.0], np.float32), np.array([True, True, False])
    assert best_threshold(scores, right, 2) == (pytest.approx(1.1), 1.0)
    assert best_threshold(scores, np.zeros(3, bool), 2) == (np.inf, 0.0)


@settings(max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 4))
def test_the_threshold_is_that_of_lasers_loop_where_scores_differ(hits: list[bool], missed: int) -> None:
    if not any(hits):
        return
    scores = np.array([2 - 0.1 * n for n in range(len(hits))], np.float32)
    found = best_threshold(scores, np.array(hits), sum(hits) + missed)
    assert found == pytest.approx(laser_threshold(scores.tolist(), hits, sum(hits) + missed))


def laser_threshold(scores: list[float], hits: list[bool], gold: int) -> tuple[float, float]:
    """As BuccOptimize of LASER's tasks/bucc/bucc.py, to whose end a last score is added."""
    best, threshold, right = 0.0, 0.0, 0
    for number, hit in enumerate(hits):
        right += hit
        if right:
            precision, recall = right / (number + 1), right / gold
            f1 = 2 * precision * recall / (precision + recall)
            if f1 > best:
                best, threshold = f1, (scores[number] + [*scores, scores[-1]][number + 1]) / 2
    return threshold, best


def test_the_threshold_of_the_development_set_is_applied_to_the_test() -> None:
    rows = np.arange(3)
    dev = Mined(np.array([1.4, 1.2, 1.0], np.float32), np.array([True, True, False]), rows, 2)
    test = Mined(np.array([1.3, 1.15, 1.05], np.float32), np.array([True, False, True]), rows, 3)
    data = MiningSet(["a", "b", "c", "d"], ["x", "y", "z"], np.array([[0, 0], [2, 2], [3, 1]]))
    row = mining_figures(data, test, dev)
    figures = {name: row[name].figure() for name in ("F1", "precision", "recall")}  # type: ignore[union-attr]
    assert figures == pytest.approx(
        {"F1": 40, "precision": 50, "recall": 100 / 3}
    )  # 1.1: two taken, one right
    assert row["best F1"] == pytest.approx(200 / 3)
    assert row["threshold"] == pytest.approx(1.1)


def test_files_in_buccs_layout_are_read_and_mined(tmp_path: Path) -> None:
    vectors = {}
    for name in ("sample", "test"):
        stem = tmp_path / "bucc" / "xx-en" / f"xx-en.{name}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        for side, order in (("xx", range(8)), ("en", reversed(range(8)))):
            rows = [f"{side}-{n}\t{name} {side} {n}\n" for n in order]
            stem.with_name(f"{stem.name}.{side}").write_text("".join(rows))
            vectors |= {f"{name} {side} {n}": np.eye(16)[n + 8 * (side == "en" and n > 4)] for n in range(8)}
        stem.with_name(f"{stem.name}.gold").write_text("".join(f"xx-{n}\ten-{n}\n" for n in range(5)))
    report = evaluate_bucc(chosen(vectors), tmp_path)
    assert report.rows["xx"]["F1"] == pytest.approx(100)
    assert [report.rows["xx"][name] for name in ("sources", "targets", "gold")] == [8, 8, 5]


def test_equal_texts_of_a_side_become_one() -> None:
    found = mining_set(["a", "b", "a "], ["x", "y"], [("a ", "y"), ("a", "y")])
    assert (found.source, found.target, found.gold.tolist()) == (["a", "b"], ["x", "y"], [[0, 1]])


def test_ntrex_lines_are_hidden_as_the_protocol_says(tmp_path: Path) -> None:
    english = [f"line {number}" for number in range(50)]
    (tmp_path / "newstest2019-src.eng.txt").write_text("\n".join(english) + "\n")
    (tmp_path / "newstest2019-ref.deu.txt").write_text("\n".join(f"Zeile {n}" for n in range(50)) + "\n")
    (sets,) = ntrex_sets(tmp_path)
    dev_lines = {text.split()[1] for text in sets.dev.source + sets.dev.target}
    for side, gold in ((sets.dev, 5), (sets.test, 5)):
        assert (len(side.source), len(side.target), len(side.gold)) == (15, 15, gold)
        pairs = {(side.source[a].split()[1], side.target[b].split()[1]) for a, b in side.gold.tolist()}
        assert all(a == b for a, b in pairs)
        shared = {t.split()[1] for t in side.source} & {t.split()[1] for t in side.target}
        assert shared == {a for a, _ in pairs}
    assert not dev_lines & {text.split()[1] for text in sets.test.source + sets.test.target}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"neither <xx>-en\.test\.<xx>.*nor newstest2019-src\.eng\.txt"):
        evaluate_bucc(chosen({}), tmp_path)
    folder = tmp_path / "bucc"
    folder.mkdir()
    (folder / "xx-en.test.xx").write_text("1\tone\n")
    with pytest.raises(NotFoundError, match=r"none of xx-en\.training\.gold, xx-en\.dev\.gold"):
        evaluate_bucc(chosen({}), tmp_path)
    with pytest.raises(InvalidInputError, match="without gold pairs"):
        mining_set(["a"], ["b"], [])
