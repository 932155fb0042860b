"""xsim (LASER): share of sentences whose best-margin neighbour is not their translation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.mining.margin import MARGINS, Margin, best_candidates
from indexing import BothWays, nearest_both_ways
from training.evaluation.flores import english_lines, flores_folder, other_languages
from training.evaluation.items import Items, mean_items
from training.evaluation.report import PAIRS, Column, Report, Task, make_report
from training.evaluation.vectors import encoded

TASK = Task(
    "xsim",
    "xsim error rate in percent, xx to English, on FLORES lines: ratio margin, k = 4; a candidate with the "
    "same text as the translation counts as right (as LASER's source/xsim.py with eval_text). `distance` and "
    "`absolute`: the same with the other margins.",
    (PAIRS, *(Column(name, "lower") for name in ("error", "distance", "absolute"))),
    "error",
    aligned=True,
)
_NEIGHBOURS = 4
_COLUMNS: dict[Margin, str] = {"ratio": "error", "distance": "distance", "absolute": "absolute"}


def evaluate_xsim(encoder: Encoder, data: Path) -> Report:
    """Return error rates per language from ``<lang_Script>.txt`` in ``data`` or ``data/flores[/text]``."""
    folder = flores_folder("xsim", data)
    english = english_lines(folder)
    targets = encoded(encoder, english)
    rows: dict[str, dict[str, Items | float]] = {}
    for language, texts in other_languages(folder, len(english)):
        both = nearest_both_ways(encoded(encoder, texts), targets, _NEIGHBOURS)
        rows[language] = {"pairs": float(len(texts))}
        for margin in MARGINS:
            rows[language][_COLUMNS[margin]] = mean_items(_wrong(best_targets(both, margin), english))
    return make_report(TASK, encoder, rows)


def best_targets(both: BothWays, margin: Margin) -> NDArray[np.int64]:
    """Return the row of y that has the best margin with each row of x ``(n,)``, -1 without any."""
    forward, _ = best_candidates(both, margin)
    best = np.full(len(both.x_to_y.rows), -1)
    best[forward.source_rows] = forward.target_rows
    return best


def _wrong(best: NDArray[np.int64], y_texts: Sequence[str]) -> NDArray[np.bool_]:
    pairs = enumerate(best.tolist())
    return np.array([found < 0 or y_texts[found] != y_texts[row] for row, found in pairs])


def xsim_error(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    y_texts: Sequence[str],
    *,
    margin: Margin = "ratio",
    k: int = _NEIGHBOURS,
) -> float:
    """Return the percentage of x rows whose best-margin y row carries another text than row i of y.

    x, y: aligned unit rows (n, dim); y_texts: the n texts of y.
    """
    return 100 * float(_wrong(best_targets(nearest_both_ways(x, y, k), margin), y_texts).mean())
