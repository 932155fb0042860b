"""A bead: the source sentences and the target sentences that are translations of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bead:
    """Consecutive source and target sentences, by index from 0; one side may be empty.

    ``cosine`` is that of the two blocks' vectors and ``score`` how far it lies above the mean cosine of
    both blocks to random sentences of the other document: 0 is chance. Both are 0 where a side is empty.
    The texts are those of the sentences, joined; empty where vectors were aligned.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    score: float = 0.0
    cosine: float = 0.0
    source_text: str = ""
    target_text: str = ""

    @property
    def kind(self) -> str:
        """Return the numbers of sentences, source first: "1-1", "1-2", "0-1" …"""
        return f"{len(self.source)}-{len(self.target)}"


def bead_shapes(max_bead: int) -> list[tuple[int, int]]:
    """Return (source, target) sizes of the beads with sentences on both sides, source sizes ascending.

    A side has at most ``max_bead`` sentences, both together at most one more: 5 allows 1-5, 2-4, 3-3.
    """
    return [(a, b) for a in range(1, max_bead + 1) for b in range(1, max_bead + 2 - a)]


def spans(sizes: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the sentence indices of beads that follow one another, from their sizes."""
    found, i, j = [], 0, 0
    for a, b in sizes:
        found.append((tuple(range(i, i + a)), tuple(range(j, j + b))))
        i, j = i + a, j + b
    return found
