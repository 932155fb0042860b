"""From the neighbours that a search found to the records of its pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexing import BothWays, VectorShards
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import AnchorSide, NegativeRecord, group_of_key
from training.hard_negatives.report import NegativesReport
from training.hard_negatives.searches import Search
from training.hard_negatives.selection import Neighbourhood, Selection, select
from training.hard_negatives.texts import DistinctTexts
from training.hard_negatives.vectors import read_rows

Rows = NDArray[np.int64]
_PAIRS = 8_192  # looked at together


@dataclass(frozen=True, eq=False)
class Chooser:
    """Chooses the negatives of the anchors of one side. vectors: of all English and of all other texts."""

    texts: DistinctTexts
    vectors: tuple[VectorShards, VectorShards]
    search: Search
    found: BothWays
    side: AnchorSide
    options: NegativeOptions

    def records(self, counts: NegativesReport) -> Iterator[NegativeRecord]:
        """Yield a record per pair of the search, and count what was left out."""
        for start in range(0, len(self.search.pairs), _PAIRS):
            pairs = self.texts.pairs[self.search.pairs[start : start + _PAIRS]]
            candidates, near = self._neighbourhood(pairs)
            selection = select(near, self.options)
            counts.too_near += int(selection.too_near.sum())
            counts.cut_short += self._cut_short(near, selection)
            for at, pair in enumerate(pairs.tolist()):
                columns = selection.columns[at][selection.columns[at] >= 0]
                scores = [float(near.positive[at]), *near.scores[at, columns].tolist()]
                yield self._record(pair, candidates[at, columns].tolist(), scores)

    def _neighbourhood(self, pairs: Rows) -> tuple[Rows, Neighbourhood]:
        """Return (P, k) rows of the other side's texts, and what is to be known of them."""
        texts, (english, other) = self.texts, pairs.T
        if self.side == "english":
            lists, owners = self.found.x_to_y, np.searchsorted(self.search.english, english)
            candidates = self.search.other[np.maximum(lists.rows[owners], 0)]
            keys = texts.group[english][:, None], texts.other_key[candidates]
        else:
            lists, owners = self.found.y_to_x, self._owners(other)
            candidates = self.search.english[np.maximum(lists.rows[owners], 0)]
            keys = texts.group[candidates], texts.other_key[other][:, None]
        group, other_key = np.broadcast_arrays(*keys)
        return candidates, Neighbourhood(
            scores=np.asarray(lists.scores[owners]),
            there=lists.rows[owners] >= 0,
            known=texts.translations.known(group, other_key),
            positive=self._positive_scores(english, other),
        )

    def _owners(self, other: Rows) -> Rows:
        """Return where in the search the texts are, or those of the same key that stand for them."""
        keys = self.texts.other_key
        order = np.argsort(keys[self.search.other], kind="stable")
        found: Rows = order[np.searchsorted(keys[self.search.other][order], keys[other])]
        return found

    def _positive_scores(self, english: Rows, other: Rows) -> NDArray[np.float32]:
        x, y = read_rows(self.vectors[0], english), read_rows(self.vectors[1], other)
        scores: NDArray[np.float32] = np.einsum("ij,ij->i", x, y)
        return scores

    def _cut_short(self, near: Neighbourhood, selection: Selection) -> int:
        """Return how many pairs have too few negatives though texts behind their last neighbour may do."""
        others = self.search.other if self.side == "english" else self.search.english
        if near.scores.shape[1] >= len(others):
            return 0
        few = (selection.columns >= 0).sum(axis=1) < self.options.count
        return int((few & near.there.all(axis=1)).sum())

    def _record(self, pair: list[int], negatives: list[int], scores: list[float]) -> NegativeRecord:
        texts, from_english = self.texts, self.side == "english"
        both = texts.english[pair[0]], texts.other[pair[1]]
        groups = self._groups(negatives) if from_english else [[int(texts.group[row])] for row in negatives]
        return NegativeRecord(
            anchor=both[0] if from_english else both[1],
            positive=both[1] if from_english else both[0],
            negatives=[(texts.other if from_english else texts.english)[row] for row in negatives],
            anchor_side=self.side,
            language=texts.languages[texts.language[pair[1]]],
            negative_languages=[texts.languages[texts.language[row]] for row in negatives]
            if from_english
            else None,
            group=group_of_key(int(texts.group[pair[0]])),
            negative_groups=[[group_of_key(key) for key in of_one] for of_one in groups],
            positive_score=scores[0],
            negative_scores=scores[1:],
        )

    def _groups(self, negatives: list[int]) -> list[list[int]]:
        """Return the keys of all that each of some other texts means."""
        keys, text = self.texts.translations.groups(self.texts.other_key[negatives])
        ends = np.searchsorted(text, np.arange(1, len(negatives)))
        return [part.tolist() for part in np.split(keys, ends)][: len(negatives)]
