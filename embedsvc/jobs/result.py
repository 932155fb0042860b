"""The result of a job, page by page: JSON lines, each with a score; a cursor is a place in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import orjson

from embedsvc.errors import InvalidInputError, StorageError

_PAGE_BYTES = 4 * 1024 * 1024  # a page ends there even if it has fewer lines than asked for


@dataclass(frozen=True)
class Page:
    """Lines as they stand in the file, and the cursor of the next page; None at the end."""

    lines: list[bytes]
    next: str | None


@dataclass(frozen=True)
class PageQuery:
    """Which lines: at most ``limit`` after a cursor, none with a score below ``min_score``."""

    limit: int
    after: str | None = None
    min_score: float | None = None


def read_page(path: Path, query: PageQuery, *, best_first: bool) -> Page:
    """Return the lines asked for; where the best come first, the first line below min_score is the end.

    Raises InvalidInputError for a cursor that no page of this file gave, StorageError when it is not there.
    """
    lines: list[bytes] = []
    size = 0
    try:
        with path.open("rb") as file:
            file.seek(_place(query.after, path))
            while len(lines) < query.limit and size < _PAGE_BYTES:
                line = file.readline()
                if not line:
                    return Page(lines, None)
                size += len(line)
                if query.min_score is None or _score(line) >= query.min_score:
                    lines.append(line.rstrip())
                elif best_first:
                    return Page(lines, None)
            place = file.tell()
            return Page(lines, str(place) if file.read(1) else None)
    except OSError as error:
        raise StorageError(f"the result cannot be read: {error.strerror}") from error


def _place(cursor: str | None, path: Path) -> int:
    if cursor is None:
        return 0
    place = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 20 else -1
    if 0 < place < path.stat().st_size:
        with path.open("rb") as file:
            file.seek(place - 1)
            if file.read(1) == b"\n":
                return place
    raise InvalidInputError(f"after is {cursor[:60]!r}; no page of this result ended there", param="after")


def _score(line: bytes) -> float:
    score: float | None = orjson.loads(line)["score"]
    return -math.inf if score is None else score
