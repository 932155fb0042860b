"""Semantic textual similarity: does the cosine order pairs as people's scores do?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import iterate_lines
from training.evaluation.files import find_folder
from training.evaluation.items import Items, Statistic
from training.evaluation.report import PAIRS, Column, Report, Task, make_report
from training.evaluation.vectors import encoded

TASK = Task(
    "sts",
    "100 times Spearman's and Pearson's correlation of the cosine with people's scores. Files whose name "
    "ends in two different languages, as `sts17.en-de.tsv`, are cross-lingual.",
    (PAIRS, Column("spearman"), Column("pearson")),
    "spearman",
)
_LEAST_PAIRS = 3
_LANGUAGES = re.compile(r"(?:^|[._])([a-z]{2,3})-([a-z]{2,3})$")
_STATISTICS: tuple[Statistic, ...] = ("spearman", "pearson")


@dataclass(frozen=True)
class ScoredPairs:
    """The lines of a file: people's scores and the two texts."""

    scores: list[float] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)


def evaluate_sts(encoder: Encoder, data: Path) -> Report:
    """Return correlations per file ``*.tsv`` of ``data/sts`` or ``data``: lines of score, text, text.

    Raises NotFoundError without files and InvalidInputError for a line that is not like that.
    """
    folder = find_folder("sts", (data / "sts", data), "*.tsv")
    rows = {path.stem: _figures(encoder, read_scored_pairs(path)) for path in sorted(folder.glob("*.tsv"))}
    cross = [row for row in rows if _crosses(row)]
    groups = {"cross-lingual": cross, "within a language": [row for row in rows if row not in cross]}
    return make_report(TASK, encoder, rows, groups=groups if cross else None)


def read_scored_pairs(path: Path) -> ScoredPairs:
    """Return the pairs of a TSV file; a first line whose score is no number is a header."""
    pairs = ScoredPairs()
    for score, first, second in _lines(path):
        pairs.scores.append(score)
        pairs.first.append(first)
        pairs.second.append(second)
    if len(pairs.scores) < _LEAST_PAIRS:
        raise InvalidInputError(f"{path} has {len(pairs.scores)} pairs; sts needs at least {_LEAST_PAIRS}")
    if len(set(pairs.scores)) == 1:
        raise InvalidInputError(f"{path}: all scores are {pairs.scores[0]:g}; nothing correlates with that")
    return pairs


def _lines(path: Path) -> Iterator[tuple[float, str, str]]:
    for number, line in iterate_lines(path):
        fields = line.split("\t")
        if len(fields) != 3 or not all(text.strip() for text in fields):
            raise InvalidInputError(f"{path} line {number}: {len(fields)} fields; expected score, text, text")
        score = _number(fields[0])
        if score is not None:
            yield score, fields[1], fields[2]
        elif number > 1:
            raise InvalidInputError(f"{path} line {number}: score {fields[0]!r} is not a number")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _figures(encoder: Encoder, pairs: ScoredPairs) -> dict[str, Items | float]:
    first, second = (encoded(encoder, texts) for texts in (pairs.first, pairs.second))
    cosines = np.einsum("nd,nd->n", first, second)
    values = np.column_stack([cosines, pairs.scores]).astype(np.float64)
    return {"pairs": float(len(values)), **{name: Items(values, name) for name in _STATISTICS}}


def _crosses(row: str) -> bool:
    found = _LANGUAGES.search(row)
    return found is not None and found[1] != found[2]
