"""Rows of text files, one at a time: objects of JSON Lines, lines of tab-separated tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError

Lines = Iterator[tuple[int, str]]
Rows = Iterator[tuple[int, dict[str, Any]]]


def json_rows(path: Path, lines: Lines) -> Rows:
    """Yield (line number from 1, object) of the lines of a file of JSON objects; blank lines are skipped.

    Raises InvalidInputError naming file and line.
    """
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{path} line {number}: not JSON: {error}") from error
        if not isinstance(row, Mapping):
            raise InvalidInputError(
                f"{path} line {number}: {type(row).__name__} found; a JSON object expected"
            )
        yield number, dict(row)


def table_rows(path: Path, lines: Lines, columns: Sequence[str] | None = None) -> Rows:
    """Yield (line number from 1, cells by column) of the lines of a tab-separated file.

    The first line names the columns, unless ``columns`` does. Nothing is quoted.
    Raises InvalidInputError naming file and line: other number of cells, a name empty or there twice.
    """
    names = None if columns is None else list(columns)
    for number, line in lines:
        cells = line.split("\t")
        if names is None:
            names = _header(cells, path)
        elif len(cells) != len(names):
            expected = "the header has" if columns is None else "expected are"
            raise InvalidInputError(f"{path} line {number}: {len(cells)} columns; {expected} {len(names)}")
        else:
            yield number, dict(zip(names, cells, strict=True))


def _header(cells: list[str], path: Path) -> list[str]:
    for name in cells:
        if not name or cells.count(name) > 1:
            raise InvalidInputError(f"{path} line 1: column name {name!r} is empty or there twice")
    return cells
