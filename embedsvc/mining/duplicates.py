"""Exact duplicates. Left in, copies of a text are each other's neighbours and push its margin towards 1."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def duplicate_key(text: str) -> str:
    """Return what equal texts share: NFC, runs of whitespace as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def distinct_rows(texts: Sequence[str]) -> list[int]:
    """Return the rows, ascending, of the first occurrence of every distinct text."""
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(duplicate_key(text), row)
    return list(first.values())
