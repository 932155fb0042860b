"""Real sentences for the load: distinct ones, of which none is longer than the model takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedsvc import Encoder

_SEED = 7


@dataclass(frozen=True)
class Workload:
    """Distinct texts in random order, and what they are."""

    name: str
    texts: list[str]

    def requests(self, size: int, *, texts: int, first: int = 0) -> list[list[str]]:
        """Return ``texts`` texts from position ``first`` on, in requests of ``size``."""
        if first + texts > len(self.texts):
            raise ValueError(f"{self.name} has {len(self.texts)} texts; {first + texts} asked for")
        return [self.texts[begin : begin + size] for begin in range(first, first + texts, size)]


def short_texts(data: Path) -> Workload:
    """Return the English sentences of Tatoeba."""
    return Workload("short", _shuffled(_lines(data / "tatoeba", "tatoeba.*-eng.eng")))


def many_languages(data: Path) -> Workload:
    """Return the sentences of Tatoeba in all its languages."""
    return Workload("Tatoeba, 113 languages", _shuffled(_lines(data / "tatoeba", "tatoeba.*-eng.*")))


def mixed_texts(data: Path, encoder: Encoder) -> Workload:
    """Return sentences of Tatoeba (40 %), of FLORES (40 %), and two to six FLORES sentences in one (20 %).

    Texts beyond the model's limit are left out, so that no server has less work by cutting them.
    """
    rng = random.Random(_SEED)
    long = _shuffled(_lines(data / "flores" / "text", "eng_Latn.txt"))
    joined = [" ".join(rng.sample(long, rng.choice([2, 3, 4, 6]))) for _ in range(len(long) // 2)]
    limit = encoder.runtime.max_tokens or 0
    joined = [
        text for text, ids in zip(joined, encoder.runtime.tokenize(joined), strict=True) if len(ids) <= limit
    ]
    short = short_texts(data).texts[: 2 * len(joined)]
    return Workload("mixed", _shuffled(short + long[: 2 * len(joined)] + joined))


def _lines(folder: Path, pattern: str) -> list[str]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no {pattern} in {folder}; see --data")
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _shuffled(lines: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(lines))
    random.Random(_SEED).shuffle(distinct)
    return distinct
