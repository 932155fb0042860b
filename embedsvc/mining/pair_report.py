"""Pairs that a filter drops, counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedsvc.mining.filters import PAIR_FILTERS
from embedsvc.mining.ingest_report import EXAMPLES
from embedsvc.mining.margin import CandidatePairs
from embedsvc.mining.pair_filters import length_factor, pair_reason
from embedsvc.mining.sentence_store import SentenceStore

_EXAMPLE_CHARACTERS = 80


@dataclass(frozen=True)
class PairExample:
    """A pair, its texts cut, that was dropped."""

    score: float
    source: str
    target: str


@dataclass(frozen=True, eq=False)
class FilteredPairs:
    """The pairs that are kept; of the others, counts and the first examples by reason."""

    kept: CandidatePairs
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[PairExample]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return counts and examples as JSON values."""
        examples = {name: [asdict(pair) for pair in found] for name, found in self.examples.items()}
        return {"dropped": self.dropped, "examples": examples}


def filter_pairs(
    pairs: CandidatePairs, source: SentenceStore, target: SentenceStore, filters: Sequence[str]
) -> FilteredPairs:
    """Try the filters of pairs among ``filters`` on each; how lengths relate is learnt from the best ones."""
    names = [name for name in PAIR_FILTERS if name in filters]
    if not names or not len(pairs):
        return FilteredPairs(pairs)
    factor = length_factor(_texts(pairs, source, target))
    counts: Counter[str] = Counter()
    examples: dict[str, list[PairExample]] = {}
    kept = np.ones(len(pairs), bool)
    for number, texts in enumerate(_texts(pairs, source, target)):
        reason = pair_reason(*texts, names, length_factor=factor)
        if reason is None:
            continue
        kept[number] = False
        counts[reason] += 1
        shown = examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            cut = [text[:_EXAMPLE_CHARACTERS] for text in texts]
            shown.append(PairExample(round(float(pairs.scores[number]), 6), *cut))
    in_order = [name for name in names if name in counts]
    return FilteredPairs(
        pairs.take(kept),
        {name: counts[name] for name in in_order},
        {name: examples[name] for name in in_order},
    )


def _texts(pairs: CandidatePairs, source: SentenceStore, target: SentenceStore) -> Iterator[tuple[str, str]]:
    for i, j in zip(pairs.source_rows.tolist(), pairs.target_rows.tolist(), strict=True):
        yield source.text(i), target.text(j)
