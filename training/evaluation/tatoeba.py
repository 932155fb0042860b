"""Tatoeba (LASER's test sets): find each sentence's translation among at most 1,000, in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.textfiles import read_texts
from training.evaluation.report import Report, make_report

PROTOCOL = (
    "Accuracy in percent of the nearest neighbour by cosine, without margin, as in LASER and LaBSE; "
    "`mean` averages both directions."
)
COLUMNS = ("pairs", "xx-eng", "eng-xx", "mean")


def evaluate_tatoeba(encoder: Encoder, data: Path) -> Report:
    """Return accuracies per language from ``tatoeba.<xx>-eng.{xx,eng}`` in ``data`` or ``data/tatoeba``."""
    folder = next((f for f in (data, data / "tatoeba") if list(f.glob("tatoeba.*-eng.eng"))), None)
    if folder is None:
        raise NotFoundError(f"no tatoeba.<xx>-eng.eng files in {data} or {data / 'tatoeba'}")
    rows = {}
    for english in sorted(folder.glob("tatoeba.*-eng.eng")):
        language = english.name.split(".")[1].removesuffix("-eng")
        rows[language] = _language(encoder, english.with_suffix(f".{language}"), english)
    return make_report("tatoeba", PROTOCOL, encoder, COLUMNS, rows)


def _language(encoder: Encoder, foreign: Path, english: Path) -> dict[str, float]:
    sources, targets = read_texts(foreign), read_texts(english)
    if len(sources) != len(targets):
        raise InvalidInputError(f"{foreign} has {len(sources)} lines, {english} has {len(targets)}")
    x, y = encoder.encode(sources, truncate="end"), encoder.encode(targets, truncate="end")
    to_english, from_english = accuracies(x, y)
    return {
        "pairs": float(len(sources)),
        "xx-eng": to_english,
        "eng-xx": from_english,
        "mean": (to_english + from_english) / 2,
    }


def accuracies(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float]:
    """Return percent right of x to y and of y to x, for aligned unit rows (n, dim)."""
    scores = x @ y.T
    gold = np.arange(len(x))
    return (
        100 * float((scores.argmax(axis=1) == gold).mean()),
        100 * float((scores.argmax(axis=0) == gold).mean()),
    )
