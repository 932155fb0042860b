"""Alignment without labels: how well two languages fit each other, from unpaired text alone.

No line number is used, so the figures can be had for any two comparable texts. They order models and
languages much as labelled figures do, and say where mining will find something to mine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.margin import best_candidates, candidate_margins
from embedsvc.textfiles import read_texts
from indexing import BothWays, nearest_both_ways
from training.evaluation.files import find_folder
from training.evaluation.items import Items, mean_items
from training.evaluation.report import Column, Report, Task, make_report
from training.evaluation.vectors import encoded

TASK = Task(
    "alignment",
    "From texts in a language and in English, without using which translates which. `mutual`: percent of "
    "sentences whose best English one by ratio margin (k = 4) has them as its best; `margin`: 100 times the "
    "mean ratio margin of the best less 1; `margin gap`: the same of the best less the second best; "
    "`language pull`: 100 times the mean cosine of sentences of one language less that of sentences of two "
    "languages (0 for a space without languages; no interval).",
    (
        Column("texts", "none", counts=True),
        Column("mutual"),
        Column("margin"),
        Column("margin gap"),
        Column("language pull", "lower"),
    ),
    "mutual",
    aligned=True,
)
_NEIGHBOURS = 4


def evaluate_alignment(encoder: Encoder, data: Path) -> Report:
    """Return figures per language from files of ``data/alignment`` or, without it, of FLORES.

    ``alignment/`` holds ``eng.txt`` and other languages' ``<code>.txt``, of any lengths. Raises
    InvalidInputError where a side has less than two sentences: then there is no second best.
    """
    places = (data / "alignment", data / "flores" / "text", data / "flores" / "flores" / "text", data)
    folder = find_folder("alignment", places, "eng*.txt")
    english = next(iter(sorted(folder.glob("eng*.txt"))))
    targets = encoded(encoder, _texts(english))
    rows = {}
    for path in sorted(folder.glob("*.txt")):
        if path != english:
            rows[path.stem] = alignment_figures(encoded(encoder, _texts(path)), targets)
    if not rows:
        raise InvalidInputError(f"alignment: {folder} has no file beside {english.name}")
    return make_report(TASK, encoder, rows)


def _texts(path: Path) -> list[str]:
    texts = read_texts(path)
    if len(texts) < 2:
        raise InvalidInputError(f"{path} has {len(texts)} line; alignment needs at least 2")
    return texts


def alignment_figures(x: NDArray[np.float32], y: NDArray[np.float32]) -> dict[str, Items | float]:
    """Return the row of unit vectors ``(n, dim)`` beside English ones ``(m, dim)``."""
    both = nearest_both_ways(x, y, _NEIGHBOURS)
    margins = -np.sort(-candidate_margins(both, "ratio")[0], axis=1)
    return {
        "texts": float(len(x)),
        "mutual": mean_items(mutual(both)),
        "margin": mean_items(margins[:, 0] - 1),
        "margin gap": mean_items(margins[:, 0] - margins[:, 1]),
        "language pull": 50 * (language_pull(x, y) + language_pull(y, x)),
    }


def mutual(both: BothWays) -> NDArray[np.bool_]:
    """Return whether each x and its best y by ratio margin choose each other ``(n,)``."""
    forward, backward = best_candidates(both, "ratio")
    chosen = set(zip(backward.source_rows.tolist(), backward.target_rows.tolist(), strict=True))
    found = np.zeros(len(both.x_to_y.rows), bool)
    for row, target in zip(forward.source_rows.tolist(), forward.target_rows.tolist(), strict=True):
        found[row] = (row, target) in chosen
    return found


def language_pull(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the mean cosine of two texts of one language less that of texts of it and of other languages.

    ``vectors`` ``(n, dim)`` and ``others`` ``(m, dim)`` are unit rows, n at least 2. All pairs count, from
    sums of vectors. Positive: texts lie by language as well as by meaning.
    """
    total, n = vectors.sum(axis=0, dtype=np.float64), len(vectors)
    squares = float((vectors.astype(np.float64) ** 2).sum())
    same = (total @ total - squares) / (n * (n - 1))
    return float(same - total @ others.mean(axis=0, dtype=np.float64) / n)
