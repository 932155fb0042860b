"""xsim (LASER): share of sentences whose best-margin neighbour is not their translation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.mining.margin import Margin, best_candidates
from embedsvc.textfiles import read_texts
from indexing import nearest_both_ways
from training.evaluation.report import Report, make_report

PROTOCOL = (
    "xsim error rate in percent, xx to English, on FLORES lines: ratio margin, k = 4; a candidate with the "
    "same text as the translation counts as right (as LASER's source/xsim.py with eval_text)."
)
COLUMNS = ("pairs", "error")
_ENGLISH = "eng_Latn"
_NEIGHBOURS = 4


def evaluate_xsim(encoder: Encoder, data: Path) -> Report:
    """Return error rates per language from ``<lang_Script>.txt`` in ``data`` or ``data/flores[/text]``."""
    places = (data, data / "text", data / "flores" / "text", data / "flores" / "flores" / "text")
    folder = next((f for f in places if (f / f"{_ENGLISH}.txt").is_file()), None)
    if folder is None:
        raise NotFoundError(f"no {_ENGLISH}.txt in any of: {', '.join(map(str, places))}")
    english = read_texts(folder / f"{_ENGLISH}.txt")
    targets = encoder.encode(english, truncate="end")
    rows = {}
    for path in sorted(folder.glob("*_*.txt")):
        if path.stem == _ENGLISH:
            continue
        texts = read_texts(path)
        if len(texts) != len(english):
            raise InvalidInputError(f"{path} has {len(texts)} lines, the English file {len(english)}")
        error = xsim_error(encoder.encode(texts, truncate="end"), targets, english)
        rows[path.stem] = {"pairs": float(len(texts)), "error": error}
    return make_report("xsim", PROTOCOL, encoder, COLUMNS, rows)


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
    forward, _ = best_candidates(nearest_both_ways(x, y, k), margin)
    found = dict(zip(forward.source_rows.tolist(), forward.target_rows.tolist(), strict=True))
    wrong = sum(row not in found or y_texts[found[row]] != y_texts[row] for row in range(len(x)))
    return 100 * wrong / len(x)
