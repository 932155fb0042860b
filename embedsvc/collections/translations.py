"""Documents that are translations of each other, as pairs that a shift between languages is learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from embedsvc.collections.views import PassageRows
from indexing import ParallelPairs

Marks = Sequence[tuple[str, object, int]]  # kind and value of a mark, and the row of a document that bears it


def parallel_pairs(marks: Marks, passages: PassageRows) -> ParallelPairs | None:
    """Return each marked text with its translation into the language that has most of them; None if none has.

    ``marks`` stand in order; documents with an equal one are translations. Those that were split are left
    out: their passages need not say the same.
    """
    place = _places_of_whole_documents(passages)
    families = [
        [place[row] for *_, row in family if row in place]
        for _, family in groupby(marks, key=lambda mark: mark[:2])
    ]
    counts = Counter(
        code for family in families if len(family) > 1 for code in {passages.languages[one] for one in family}
    )
    if not counts:
        return None
    pivot = min(counts, key=lambda code: (-counts[code], code))
    pairs = [
        (one, first)
        for family in families
        for first in [next((one for one in family if passages.languages[one] == pivot), None)]
        if first is not None
        for one in family
        if passages.languages[one] != pivot
    ]
    if not pairs:
        return None
    texts, pivots = np.array(pairs).T
    return ParallelPairs(
        passages.vectors[texts], passages.languages[texts], passages.vectors[pivots], pivot.decode()
    )


def _places_of_whole_documents(passages: PassageRows) -> dict[int, int]:
    """Return where the only passage of a document stands, by the row of the document."""
    documents, first, counts = np.unique(passages.documents, return_index=True, return_counts=True)
    whole = counts == 1
    return dict(zip(documents[whole].tolist(), first[whole].tolist(), strict=True))
