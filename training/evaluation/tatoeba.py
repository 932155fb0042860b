"""Tatoeba (LASER's test sets): find each sentence's translation among at most 1,000, in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.mining.margin import Margin, best_candidates
from embedsvc.textfiles import read_texts
from indexing import BothWays, nearest_both_ways
from training.evaluation.files import find_folder, read_aligned
from training.evaluation.items import Items, mean_items
from training.evaluation.report import PAIRS, Column, Report, Task, make_report
from training.evaluation.tatoeba_groups import GROUPS
from training.evaluation.vectors import encoded

TASK = Task(
    "tatoeba",
    "Accuracy in percent of the nearest neighbour by cosine, without margin, as in LASER and LaBSE; "
    "`mean` averages both directions. `ratio` and `distance`: the same with the margin of xsim, k = 4. `F1`: "
    "as mteb's Tatoeba, of xx to eng.",
    (
        PAIRS,
        *(Column(name) for name in ("xx-eng", "eng-xx", "mean", "ratio", "distance", "F1")),
    ),
    "mean",
)
_NEIGHBOURS = 4
Right = NDArray[np.bool_]
Rows = NDArray[np.int64]


def evaluate_tatoeba(encoder: Encoder, data: Path) -> Report:
    """Return accuracies per language from ``tatoeba.<xx>-eng.{xx,eng}`` in ``data`` or ``data/tatoeba``."""
    folder = find_folder("tatoeba", (data, data / "tatoeba"), "tatoeba.*-eng.eng")
    rows = {}
    for english in sorted(folder.glob("tatoeba.*-eng.eng")):
        language = english.name.split(".")[1].removesuffix("-eng")
        rows[language] = _language(encoder, english.with_suffix(f".{language}"), english)
    return make_report(TASK, encoder, rows, groups=GROUPS)


def _language(encoder: Encoder, foreign: Path, english: Path) -> dict[str, Items | float]:
    targets = read_texts(english)
    sources = read_aligned(foreign, len(targets), english)
    x, y = encoded(encoder, sources), encoded(encoder, targets)
    found, found_back = nearest_rows(x, y)
    forward, backward = _right(found), _right(found_back)
    both = nearest_both_ways(x, y, _NEIGHBOURS)
    return {
        "pairs": float(len(sources)),
        "xx-eng": mean_items(forward),
        "eng-xx": mean_items(backward),
        "mean": mean_items((forward + backward.astype(float)) / 2),
        "ratio": mean_items(margin_right(both, "ratio")),
        "distance": mean_items(margin_right(both, "distance")),
        "F1": mean_items(retrieval_f1(found)),
    }


def nearest_rows(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[Rows, Rows]:
    """Return ``(n,)`` the row of y nearest to each of x, and of x to each of y, for unit rows (n, dim)."""
    scores = x @ y.T
    return scores.argmax(axis=1), scores.argmax(axis=0)


def _right(found: Rows) -> Right:
    right: Right = found == np.arange(len(found))
    return right


def retrieval_f1(found: Rows) -> NDArray[np.float64]:
    """Return ``(n,)`` the F1 of each target, found by its own row or not, and by how many others besides.

    A target found c times, once rightly, has precision 1 / c and recall 1. The mean is the F1 that MTEB
    reports for mining of aligned sides (scikit-learn's, weighted).
    """
    times = np.bincount(found, minlength=len(found))
    return np.where(_right(found), 2 / (1 + times), 0.0)


def accuracies(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float]:
    """Return percent right of x to y and of y to x, for aligned unit rows (n, dim)."""
    forward, backward = map(_right, nearest_rows(x, y))
    return 100 * float(forward.mean()), 100 * float(backward.mean())


def margin_right(both: BothWays, margin: Margin) -> NDArray[np.float64]:
    """Return ``(n,)``, for aligned sides: in how many of the two directions row i's best is row i, halved."""
    right = np.zeros(len(both.x_to_y.rows))
    for pairs in best_candidates(both, margin):
        right[pairs.source_rows[pairs.source_rows == pairs.target_rows]] += 0.5
    return right
