"""Collections in and out: backup, restore, export, verification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedsvc.collections.collection import Collection


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found wrong, in words; and what it looked at: counts by name."""

    problems: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def backup(collection: Collection, folder: Path) -> None:
    """Copy a collection of one moment into the new ``folder``, whole and checksummed; writers go on."""
    raise NotImplementedError


def restore(folder: Path, path: Path) -> None:
    """Make a collection at the new ``path`` from a backup; raise StorageError for a damaged one."""
    raise NotImplementedError


def export_lines(collection: Collection, *, vectors: bool = False) -> Iterator[str]:
    """Yield each document as a line of JSONL that `embedsvc index` reads, oldest first."""
    raise NotImplementedError
    yield ""


def verify(collection: Collection) -> VerifyReport:
    """Check the database, every stored vector and the index against each other; change nothing."""
    raise NotImplementedError
