"""The pairs that both sides are trained on: a share of all English sentences, with all their translations."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

Pair = tuple[str, str, str]  # English, language, other


def read_pairs(folder: Path) -> Iterator[Pair]:
    """Yield the pairs of ``pairs-*.tsv`` or ``.tsv.xz``; an empty first column repeats the English before."""
    for path in sorted([*folder.glob("pairs*.tsv"), *folder.glob("pairs*.tsv.xz")]):
        english = ""
        with _opened(path) as lines:
            for line in lines:
                first, language, other = line.rstrip("\n").split("\t")
                english = first or english
                yield english, language, other


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def write_sample(source: Path, folder: Path, pairs: int) -> Path:
    """Write about so many of the pairs (all for 0) to ``folder/pairs.tsv``, unless it is there; return it."""
    path = folder / "pairs.tsv"
    if not path.exists():
        kept = 1 << 32
        if pairs:
            kept = kept * pairs // max(pairs, sum(1 for _ in read_pairs(source)))
        chosen = (pair for pair in read_pairs(source) if zlib.crc32(pair[0].encode()) < kept)
        _write(chosen, path)
    return path


def write_first(source: Path, folder: Path, pairs: int) -> Path:
    """Write every so-many-th of the pairs to ``folder/pairs.tsv``, unless it is there; return it."""
    path = folder / "pairs.tsv"
    if not path.exists():
        step = max(1, sum(1 for _ in read_pairs(source)) // pairs)
        _write((pair for number, pair in enumerate(read_pairs(source)) if number % step == 0), path)
    return path


def write_english(source: Path, folder: Path) -> Path:
    """Write each English sentence of the pairs as its own translation to ``folder/pairs.tsv``; return it."""
    path = folder / "pairs.tsv"
    if not path.exists():
        distinct = dict.fromkeys(english for english, _, _ in read_pairs(source))
        _write(((english, "eng_Latn", english) for english in distinct), path)
    return path


def _write(pairs: Iterator[Pair], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(pair) + "\n" for pair in pairs)
    unfinished.rename(path)
