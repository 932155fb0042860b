"""Beads in files: as pairs in any of their formats, or as vecalign writes them (``[0]:[0, 1]:0.123``)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.accuracy import Pairing
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.document import Document
from embedsvc.mining.outputs import OutputInfo, output_kind, write_pairs
from embedsvc.mining.records import Pair, PairSide
from embedsvc.textfiles import atomic_write, iterate_lines

VECALIGN = "vecalign"
_TWO_SIDED = {"moses", "tmx", "xliff"}  # a unit with one text only is nothing to their readers


def write_beads(
    path: Path,
    beads: Sequence[Bead],
    documents: tuple[Document, Document],
    files: tuple[str, str],
    *,
    format: str | None = None,
) -> int:
    """Write the beads in order and return how many; those with an empty side only to formats with ids.

    The format is named or that of the suffix, as `write_pairs` knows them, or .vecalign.
    Raises InvalidInputError for an unknown format, and what `write_pairs` raises.
    """
    if format == VECALIGN or (format is None and path.suffix == f".{VECALIGN}"):
        with atomic_write(path) as file:
            for bead in beads:
                file.write(f"{list(bead.source)}:{list(bead.target)}:{bead.score:.6f}\n".encode())
        return len(beads)
    info = OutputInfo(documents[0].language, documents[1].language)
    if output_kind(path, format).format in _TWO_SIDED:
        beads = [bead for bead in beads if bead.source and bead.target]
    return write_pairs(path, bead_pairs(beads, documents, files), info, format=format)


def bead_pairs(
    beads: Iterable[Bead], documents: tuple[Document, Document], files: tuple[str, str]
) -> Iterator[Pair]:
    """Yield the beads as pairs: the id lists the sentences ("4,5"), the line is that of the first.

    A bead with an empty side has no score.
    """
    for bead in beads:
        yield Pair(
            score=bead.score if bead.source and bead.target else math.nan,
            cosine=bead.cosine if bead.source and bead.target else math.nan,
            source=_side(bead.source, bead.source_text, documents[0], files[0]),
            target=_side(bead.target, bead.target_text, documents[1], files[1]),
            margin="distance",
        )


def _side(sentences: tuple[int, ...], text: str, document: Document, file: str) -> PairSide:
    ids = ",".join(map(str, sentences))
    return PairSide(
        ids, text, document.lines[sentences[0]] if sentences else None, file if sentences else None
    )


def read_beads(path: Path) -> list[Pairing]:
    """Read beads as vecalign writes them, ``[source]:[target]`` and perhaps ``:score``, a line each.

    Raises InvalidInputError naming the line that is something else.
    """
    return [_pairing(line, f"{path} line {number}") for number, line in iterate_lines(path) if line.strip()]


def _pairing(line: str, where: str) -> Pairing:
    try:
        source, target = (json.loads(part) for part in line.split(":")[:2])
        return _indices(source), _indices(target)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{where} is {line[:60]!r}; expected such as [0]:[0, 1]") from error


def _indices(given: object) -> tuple[int, ...]:
    if not isinstance(given, list) or not all(type(index) is int and index >= 0 for index in given):
        raise ValueError(given)
    return tuple(given)
