"""Monolingual text files in, tab-separated pairs out (``score``, ``source``, ``target``, as LASER writes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.mining.mine import MinedPair
from embedsvc.textfiles import atomic_write, iterate_lines

# A carriage return before the line feed is part of the line end; any other would end a line early in
# readers that know all three line ends.
_FORBIDDEN = {"\t": ("tab", r"\t"), "\r": ("carriage return", r"\r")}


@dataclass(frozen=True)
class Sentences:
    """The sentences of a file, the line number (from 1) of each, and how many blank lines were skipped."""

    texts: list[str]
    line_numbers: list[int]
    blank_lines: int


def read_sentences(path: Path) -> Sentences:
    """Read a file with one sentence per line; blank lines are skipped but counted in line numbers.

    Raises InvalidInputError naming file and line for bytes that are not UTF-8 text, for a tab or a
    carriage return within a line (they would break the output), and for a file without any sentence.
    """
    texts, numbers, blank = [], [], 0
    for number, line in iterate_lines(path):
        if not line.strip():
            blank += 1
            continue
        for character, (name, escape) in _FORBIDDEN.items():
            if character in line:
                raise InvalidInputError(
                    f"{path} line {number} has a {name}; a sentence goes into one column of a "
                    f"tab-separated file. To make them spaces: tr '{escape}' ' ' < {path}"
                )
        texts.append(line)
        numbers.append(number)
    if not texts:
        raise InvalidInputError(
            f"{path} has no sentence: it is empty" + (", or all lines are blank" * bool(blank))
        )
    return Sentences(texts, numbers, blank)


def write_pairs(
    path: Path,
    pairs: Sequence[MinedPair],
    *,
    line_numbers: tuple[Sequence[int], Sequence[int]] | None = None,
) -> None:
    """Write one pair per line, whole or not at all: score (6 decimals), source, target; no header.

    With line_numbers (of source rows, of target rows) two more columns hold them.
    """
    with atomic_write(path) as file:
        for pair in pairs:
            columns = [f"{pair.score:.6f}", pair.source, pair.target]
            if line_numbers is not None:
                source, target = line_numbers
                columns += [str(source[pair.source_row]), str(target[pair.target_row])]
            file.write(("\t".join(columns) + "\n").encode())
