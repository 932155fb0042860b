"""How far beads agree with those of a human: strict and lax precision, recall and F1.

As vecalign and its predecessors count (Och & Ney's measures on beads, https://aclanthology.org/W11-4624/):
strict counts beads that are the same; lax counts those that share a pair of sentences, a source and a
target one, with some bead of the other alignment. Precision is of all beads found, so a sentence without
counterpart counts; recall only of the beads with two sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Pairing = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Agreement:
    """Shares, from 0 to 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class Accuracy:
    strict: Agreement
    lax: Agreement


def accuracy(documents: Iterable[tuple[Sequence[Pairing], Sequence[Pairing]]]) -> Accuracy:
    """Return the accuracy over documents, each as (gold beads, found beads), all beads counted alike."""
    precision, recall = [0, 0, 0], [0, 0, 0]
    for gold, found in documents:
        _add(precision, _agreeing(gold, found))
        _add(recall, _agreeing(_two_sided(found), _two_sided(gold)))
    strict, lax = (
        Agreement(precision[kind] / max(precision[2], 1), recall[kind] / max(recall[2], 1)) for kind in (0, 1)
    )
    return Accuracy(strict, lax)


def _add(totals: list[int], counts: tuple[int, ...]) -> None:
    totals[:] = [total + count for total, count in zip(totals, counts, strict=True)]


def _two_sided(beads: Sequence[Pairing]) -> list[Pairing]:
    return [bead for bead in beads if bead[0] and bead[1]]


def _agreeing(reference: Sequence[Pairing], judged: Sequence[Pairing]) -> tuple[int, int, int]:
    """Return how many judged beads are strictly right, how many laxly, and how many there are."""
    known = set(reference)
    partners: dict[int, set[int]] = {}
    for source, target in known:
        for i in source:
            partners.setdefault(i, set()).update(target)
    strict = lax = 0
    distinct = {bead for bead in judged if bead[0] or bead[1]}
    for source, target in distinct:
        strict += (source, target) in known
        near = set().union(*(partners.get(i, set()) for i in source))
        lax += (source, target) in known or not near.isdisjoint(target)
    return strict, lax, len(distinct)
