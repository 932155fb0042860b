"""Which texts are looked through for which anchors: one search per language, or one for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from training.hard_negatives.options import Languages, NegativeOptions
from training.hard_negatives.texts import DistinctTexts

Rows = NDArray[np.int64]
_SPARE = 32  # neighbours beyond those wanted, for the ones that are too near


@dataclass(frozen=True, eq=False)
class Search:
    """The neighbours of English texts among other ones, and the reverse.

    english (n,), other (m,): ascending rows of `DistinctTexts`, of the latter each key once. pairs (p,): rows
    of ``pairs`` whose English texts are among these.
    """

    name: str
    english: Rows
    other: Rows
    pairs: Rows


def planned_searches(texts: DistinctTexts, languages: Languages) -> list[Search]:
    """Return the searches that give every pair its negatives; raise InvalidInputError if there is none."""
    if languages == "another" and len(texts.languages) < 2:
        raise InvalidInputError(
            f"languages = 'another', but all translations are in {texts.languages[0]!r}; take 'same'"
        )
    return list(_searches(texts, languages))


def _searches(texts: DistinctTexts, languages: Languages) -> Iterator[Search]:
    if languages == "any":
        every = np.arange(len(texts.pairs))
        yield Search("all", np.arange(len(texts.english)), _each_key_once(texts, texts.language >= 0), every)
        return
    for number, code in enumerate(texts.languages):
        pairs = texts.pairs_in(number)
        inside = texts.language == number
        other = np.flatnonzero(inside) if languages == "same" else _each_key_once(texts, ~inside)
        yield Search(code, np.unique(texts.pairs[pairs, 0]), other, pairs)


def _each_key_once(texts: DistinctTexts, wanted: NDArray[np.bool_]) -> Rows:
    rows = np.flatnonzero(wanted)
    _, first = np.unique(texts.other_key[rows], return_index=True)
    return np.sort(rows[first])


def depth(texts: DistinctTexts, search: Search, options: NegativeOptions) -> int:
    """Return how many neighbours of an anchor to find: `NegativeOptions.depth`, or as many as will do.

    The translations of all but one in a hundred anchors fit beside the negatives wanted.
    """
    if options.depth is not None:
        return options.depth
    english, other = texts.translations.groups(texts.other_key[search.other])
    counts = [np.unique(side, return_counts=True)[1] for side in (english, other)]
    translations = max(float(np.percentile(count, 99)) for count in counts)
    return options.skip + options.count + math.ceil(translations) + _SPARE
