"""The mined negatives of one batch, and how they relate to its texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags, joined
from training.hard_negatives.mined import MinedNegatives, SideNegatives
from training.ragged import ragged
from training.relations import IGNORED, NEGATIVE, PairKeys

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DrawnNegatives:
    """Texts that a batch of B pairs is ranked against besides its own.

    texts: first ``targets`` of the other side, negatives of English texts, then English ones, of the others.
    forward int8 (B, N): how each English text relates to the former (`training.relations`). backward int8
    (B, M): each other text to the latter. In one of several processes ``texts`` are a share of N and of M.
    """

    texts: TokenBags
    targets: int
    forward: NDArray[np.int8]
    backward: NDArray[np.int8]

    def share(self, own: Rows, process: int, processes: int) -> DrawnNegatives:
        """Return what one of several processes encodes, and how all of it relates to its ``own`` pairs."""
        targets = shared_rows(self.forward.shape[1], process, processes)
        sources = shared_rows(self.backward.shape[1], process, processes)
        texts = self.texts.part(np.concatenate([targets, self.targets + sources]))
        return DrawnNegatives(texts, len(targets), self.forward[own], self.backward[own])


def shared_rows(rows: int, process: int, processes: int) -> Rows:
    """Return the rows of one process: as many for each as for the next, only the last ones may have fewer."""
    size = -(-rows // processes)
    return np.arange(min(process * size, rows), min((process + 1) * size, rows))


def draw_negatives(
    mined: MinedNegatives, pairs: Rows, keys: PairKeys, number: int, generator: np.random.Generator
) -> DrawnNegatives:
    """Return ``number`` negatives of each anchor, by chance (all of one that has fewer), each text once.

    Every text of the batch is ranked against all of them. One that means the same as a text of the batch is
    left out for this one, and one that stands in the batch already is not added. pairs (B,): rows of the
    data; keys: of the same.
    """
    targets = _drawn(mined.of_english, pairs, keys.target, number, generator)
    sources = _drawn(mined.of_other, pairs, keys.source, number, generator)
    known = mined.translations
    forward = _unrelated(len(pairs), len(targets))
    forward[known.among(keys.source, mined.of_english.key[targets])] = IGNORED
    backward = _unrelated(len(pairs), len(sources))
    source, target = known.among(mined.of_other.key[sources], keys.target)
    backward[target, source] = IGNORED
    texts = joined([mined.of_english.texts.part(targets), mined.of_other.texts.part(sources)])
    return DrawnNegatives(texts, len(targets), forward, backward)


def _unrelated(rows: int, columns: int) -> NDArray[np.int8]:
    return np.full((rows, columns), NEGATIVE, np.int8)


def _drawn(
    side: SideNegatives, pairs: Rows, present: Rows, number: int, generator: np.random.Generator
) -> Rows:
    """Return the texts drawn, ascending; ``present`` are the keys of those that need no second place."""
    positions, pair = ragged(side.starts[pairs], side.lengths[pairs])
    order = np.lexsort((generator.random(len(pair)), pair))
    rank = np.arange(len(pair)) - np.searchsorted(pair, pair)  # pair is ascending, and stays so
    texts = np.unique(side.rows[positions[order]][rank < number])
    kept: Rows = texts[~np.isin(side.key[texts], present)]
    return kept
