"""Where test sets lie, and what to say when they do not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.textfiles import read_texts


def find_folder(task: str, places: Iterable[Path], pattern: str) -> Path:
    """Return the first of the places that has a file of this pattern; raise NotFoundError naming them all."""
    places = list(places)
    for place in places:
        if next(place.glob(pattern), None) is not None:
            return place
    looked = " or ".join(map(str, places))
    raise NotFoundError(f"{task}: no {pattern} in {looked}")


def read_aligned(path: Path, lines: int, other: Path) -> list[str]:
    """Return the lines of ``path``; raise InvalidInputError unless there are as many as in ``other``."""
    texts = read_texts(path)
    if len(texts) != lines:
        raise InvalidInputError(f"{path} has {len(texts)} lines, {other} has {lines}")
    return texts
