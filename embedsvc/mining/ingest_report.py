"""What became of every sentence of a side: kept, folded into an equal one, or dropped, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 3  # of each reason
_EXAMPLE_CHARACTERS = 80


@dataclass(frozen=True)
class InputFile:
    """A file that was read: its name in the results, its size and hash, and what it held."""

    name: str
    size_bytes: int
    sha256: str
    records: int = 0
    blank: int = 0
    replaced: int = 0


@dataclass(frozen=True)
class Example:
    """A sentence, cut, that was dropped."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class IngestReport:
    """Counts of the records of a side: records = sentences + duplicates + blank + the sum of dropped.

    ``dropped`` counts by reason; a copy of a dropped sentence counts again. ``notes`` say what could not be
    checked. ``replaced`` are the bytes that were not UTF-8 and became U+FFFD.
    """

    records: int = 0
    sentences: int = 0
    duplicates: int = 0
    blank: int = 0
    replaced: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    files: list[InputFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> IngestReport:
        """Return the report that `to_json` wrote."""
        examples = {reason: [Example(**e) for e in found] for reason, found in value["examples"].items()}
        files = [InputFile(**file) for file in value["files"]]
        return cls(**{**value, "examples": examples, "files": files})

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def example(file: str, line: int, text: str) -> Example:
    """Return an example of a dropped sentence."""
    cut = text if len(text) <= _EXAMPLE_CHARACTERS else text[:_EXAMPLE_CHARACTERS] + "…"
    return Example(file, line, cut)
