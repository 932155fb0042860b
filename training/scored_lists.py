"""Queries, each with passages and a teacher's scores: read from JSON Lines, kept as flat arrays.

The format (one module owns it), a query on each line:

    {"query": "...", "passages": ["...", {"eng": "...", "deu": "..."}], "scores": [7.1, -3.2]}

A passage is a text, or one text in several languages; its score holds for all of them. ``scores`` may be
missing where a reranker scores the passages: it reads each in the language that stands first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.rows import json_rows
from embedsvc.textfiles import iterate_lines

_NONE = -1


@dataclass(frozen=True)
class ScoredLists:
    """Passages ``starts[q]:starts[q + 1]`` are those of query q.

    ``texts`` holds every text once. text (passages, languages): rows of ``texts``, -1 where a passage is
    not in that language. first (passages,): the row of the text that stands first. scores (passages,):
    the teacher's, NaN where the file has none.
    """

    queries: list[str]
    texts: list[str]
    languages: list[str]
    starts: NDArray[np.int64]
    text: NDArray[np.int32]
    first: NDArray[np.int32]
    scores: NDArray[np.float32]

    def with_scores(self, scores: NDArray[np.float32]) -> ScoredLists:
        """Return the same lists with other scores (passages,)."""
        return replace(self, scores=scores)

    def some(self, rows: NDArray[np.int64]) -> list[str]:
        """Return some of all queries and texts, the queries first."""
        both = self.queries + self.texts
        return [both[row] for row in rows]

    def lists(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each query and its passages, in the language that stands first."""
        for number, query in enumerate(self.queries):
            rows = self.first[self.starts[number] : self.starts[number + 1]]
            yield query, [self.texts[row] for row in rows]


def read_lists(files: Sequence[Path], *, least: int) -> ScoredLists:
    """Read all queries, each of which needs ``least`` passages.

    Raises InvalidInputError naming file, line and passage of the first bad one.
    """
    texts: dict[str, int] = {}
    codes: dict[str, int] = {}
    queries: list[str] = []
    passages: list[dict[int, int]] = []
    starts, scores = [0], list[float]()
    for where, row in _rows(files):
        queries.append(_text(row.get("query"), f"{where}: query"))
        found = row.get("passages")
        if not isinstance(found, list) or len(found) < least:
            raise InvalidInputError(f"{where}: passages must be a list of at least {least} passages")
        for number, passage in enumerate(found):
            named = _passage(passage, f"{where}: passages[{number}]")
            passages.append(
                {
                    codes.setdefault(code, len(codes)): texts.setdefault(text, len(texts))
                    for code, text in named.items()
                }
            )
        scores += _scores(row.get("scores"), len(found), where)
        starts.append(len(passages))
    if not queries:
        raise InvalidInputError(f"no queries in {', '.join(map(str, files))}")
    table = np.full((len(passages), len(codes)), _NONE, np.int32)
    for row_number, by_language in enumerate(passages):
        table[row_number, list(by_language)] = list(by_language.values())
    first = np.fromiter((next(iter(one.values())) for one in passages), np.int32, len(passages))
    return ScoredLists(
        queries, list(texts), list(codes), np.array(starts), table, first, np.array(scores, np.float32)
    )


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
        for number, row in json_rows(path, iterate_lines(path)):
            yield f"{path} line {number}", row


def _passage(passage: Any, where: str) -> dict[str, str]:
    if isinstance(passage, Mapping) and passage:
        return {str(code): _text(text, f"{where}[{code!r}]") for code, text in passage.items()}
    return {"": _text(passage, where)}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where} is {value!r:.60}; a text that is not blank is expected")
    return value


def _scores(values: Any, passages: int, where: str) -> list[float]:
    if values is None:
        return [math.nan] * passages
    if not isinstance(values, list) or len(values) != passages:
        raise InvalidInputError(f"{where}: scores must be a list of {passages} numbers, one for each passage")
    for number, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInputError(f"{where}: scores[{number}] = {value!r:.40}; a finite number is expected")
    return values
