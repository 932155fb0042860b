"""Filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedsvc.mining.ingest_options import IngestOptions


def resolve_filters(filters: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(filters)


class SentenceFilters:
    def __init__(self, options: IngestOptions) -> None:
        self.names: tuple[str, ...] = ()
        self.notes: list[str] = []

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        return [None] * len(texts)
