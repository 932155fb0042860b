"""Mining as in BUCC (Zweigenbaum et al. 2018): a threshold chosen on one set, applied to another.

Gold pairs are hidden among sentences without a partner. Candidates are scored by ratio margin and chosen
one to one (`embedsvc.mining.extract`, "max"); those at or above the threshold with the best F1 on the
development set count as found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.mining.extract import mined_pairs
from indexing import nearest_both_ways
from training.evaluation.bucc_sets import MiningSet, bucc_files, ntrex_folder, ntrex_sets, read_bucc
from training.evaluation.items import Items
from training.evaluation.report import Column, Report, Task, make_report
from training.evaluation.vectors import encoded

_HOW = (
    " Ratio margin, k = 4, one to one; the threshold of the best F1 on the development set, applied to the "
    "test set. `best F1`: with the best threshold of the test set itself, which nobody would know."
)
TASK = Task(
    "bucc",
    "Mining of BUCC's sets, in percent." + _HOW,
    (
        *(Column(name, "none", counts=True) for name in ("sources", "targets", "gold")),
        Column("F1"),
        Column("precision"),
        Column("recall"),
        Column("best F1"),
        Column("threshold", "none"),
    ),
    "F1",
)
NTREX = replace(
    TASK,
    protocol="BUCC-like mining, in percent: NTREX-128 news lines, 600 for development and the rest for test; "
    "a fifth stands on both sides, two fifths on one, two on the other, of the same articles." + _HOW,
    aligned=True,
)
_NEIGHBOURS = 4


def evaluate_bucc(encoder: Encoder, data: Path) -> Report:
    """Return the figures per language of ``data/bucc`` in BUCC's layout, else of sets made of NTREX-128."""
    files = bucc_files(data)
    sets = map(read_bucc, files) if files else ntrex_sets(ntrex_folder(data))
    rows = {s.language: mining_figures(s.test, _mined(encoder, s.test), _mined(encoder, s.dev)) for s in sets}
    return make_report(TASK if files else NTREX, encoder, rows)


@dataclass(frozen=True, eq=False)
class Mined:
    """Scored pairs, best first, ``right`` or not, the source row of each, and how many there are to find."""

    scores: NDArray[np.float32]
    right: NDArray[np.bool_]
    sources: NDArray[np.int64]
    gold: int


def _mined(encoder: Encoder, data: MiningSet) -> Mined:
    x, y = (encoded(encoder, texts) for texts in (data.source, data.target))
    pairs = mined_pairs(nearest_both_ways(x, y, _NEIGHBOURS), "ratio", "max")
    gold = set(map(tuple, data.gold.tolist()))
    found = zip(pairs.source_rows.tolist(), pairs.target_rows.tolist(), strict=True)
    return Mined(pairs.scores, np.array([pair in gold for pair in found], bool), pairs.source_rows, len(gold))


def best_threshold(scores: NDArray[np.float32], right: NDArray[np.bool_], gold: int) -> tuple[float, float]:
    """Return the threshold with the best F1 of pairs given best first, and that F1 (0 to 1).

    It lies midway between the last score taken and the next lower one, as in LASER's tasks/bucc. With
    nothing right to be had, it is above all scores.
    """
    last = np.append(scores[1:] < scores[:-1], True)[: len(scores)]  # equal scores stand or fall together
    f1 = np.where(last, 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + gold), 0)
    if not f1.any():
        return float("inf"), 0.0
    best = int(f1.argmax())
    following = scores[best + 1] if best + 1 < len(scores) else scores[best]
    return float(scores[best] + following) / 2, float(f1[best])


def mining_figures(data: MiningSet, test: Mined, dev: Mined) -> dict[str, Items | float]:
    """Return the row of a test set: what was mined of it, taken by the best threshold of ``dev``."""
    threshold, _ = best_threshold(dev.scores, dev.right, dev.gold)
    taken = test.scores >= threshold
    found, right, gold = (
        np.bincount(rows, minlength=len(data.source)).astype(np.float64)
        for rows in (test.sources[taken], test.sources[taken & test.right], data.gold[:, 0])
    )
    return {
        "sources": float(len(data.source)),
        "targets": float(len(data.target)),
        "gold": float(len(data.gold)),
        "F1": _ratio(2 * right, found + gold),
        "precision": _ratio(right, found),
        "recall": _ratio(right, gold),
        "best F1": 100 * best_threshold(test.scores, test.right, test.gold)[1],
        "threshold": threshold if np.isfinite(threshold) else float("nan"),
    }


def _ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Items:
    return Items(np.column_stack([numerators, denominators]))
