"""FLORES-200: one file per language, line n of each a translation of line n of the English one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsvc.textfiles import read_texts
from training.evaluation.files import find_folder, read_aligned

ENGLISH = "eng_Latn"


def flores_folder(task: str, data: Path) -> Path:
    """Return the folder of the files: ``data``, or ``text/`` or ``flores/text/`` in it."""
    places = (data, data / "text", data / "flores" / "text", data / "flores" / "flores" / "text")
    return find_folder(task, places, f"{ENGLISH}.txt")


def english_lines(folder: Path) -> list[str]:
    """Return the English sentences."""
    return read_texts(folder / f"{ENGLISH}.txt")


def other_languages(folder: Path, lines: int) -> Iterator[tuple[str, list[str]]]:
    """Yield every other language with its sentences; raise InvalidInputError unless there are ``lines``."""
    for path in sorted(folder.glob("*_*.txt")):
        if path.stem != ENGLISH:
            yield path.stem, read_aligned(path, lines, folder / f"{ENGLISH}.txt")
