"""What goes into mining and what comes out: a sentence with its place in a file, and a scored pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["forward", "backward", "both"]
"""Who chose the other as its best candidate: the source, the target, or each the other."""


@dataclass(frozen=True, slots=True)
class Record:
    """A sentence as it stands in a file.

    ``line`` counts from 1: lines of a text file, TSV or JSONL, rows of Parquet, units of TMX or XLIFF.
    ``id`` and ``document`` are what the file says, if it does.
    """

    line: int
    text: str
    id: str | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sentence was found; of equal sentences every one has its own.

    ``id`` is the file's own, else the number of the record (from 0) among all of this side.
    """

    file: str
    line: int
    id: str
    document: str | None = None


@dataclass(frozen=True, slots=True)
class PairSide:
    """One side of a pair; without texts (vectors only) ``text`` is empty and ``line`` None.

    ``id``, ``line``, ``file`` and ``document`` are those of the first origin. For vectors the id is the row.
    """

    id: str
    text: str = ""
    line: int | None = None
    file: str | None = None
    document: str | None = None
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences that are probably translations.

    ``score`` is the margin of the kind ``margin``; ``probability`` is None where nothing was calibrated.
    """

    score: float
    cosine: float
    source: PairSide
    target: PairSide
    margin: str = "ratio"
    direction: Direction = "both"
    probability: float | None = None
