"""The texts of both sides, each different one once, and which of them are known to mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import TextPairs, text_keys
from training.translations import Translations

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DistinctTexts:
    """English texts once, other ones once per language; texts with one key count as equal.

    english, other: the texts, in the order of the data, of the latter one language after the other.
    english_key (e,), other_key (o,): see `text_keys`. language (o,): index into ``languages``, ascending.
    pairs (p, 2): rows of an English and of another text, each pair once.
    """

    english: Sequence[str]
    other: Sequence[str]
    english_key: Rows
    other_key: Rows
    language: NDArray[np.int16]
    languages: Sequence[str]
    pairs: Rows
    translations: Translations

    def pairs_in(self, language: int) -> Rows:
        """Return (n,) rows of ``pairs`` whose other text is in the language."""
        found: Rows = np.flatnonzero(self.language[self.pairs[:, 1]] == language)
        return found


def distinct_texts(pairs: TextPairs) -> DistinctTexts:
    """Return every different text of the pairs; of equal ones the first stands for all, at its place."""
    english_keys, keys = text_keys(pairs.english), text_keys(pairs.other)
    english_rows, of_english = _distinct(english_keys[:, None])
    other_rows, of_other = _distinct(np.stack([pairs.language.astype(np.int64), keys], axis=1))
    by_language = np.argsort(pairs.language[other_rows], kind="stable")
    place = np.argsort(by_language)
    other_rows, of_other = other_rows[by_language], place[of_other]
    of_pair = of_english[pairs.group]
    return DistinctTexts(
        english=[pairs.english[row] for row in english_rows],
        other=[pairs.other[row] for row in other_rows],
        english_key=english_keys[english_rows],
        other_key=keys[other_rows],
        language=pairs.language[other_rows],
        languages=pairs.languages,
        pairs=np.unique(np.stack([of_pair, of_other], axis=1), axis=0),
        translations=Translations(english_keys[pairs.group], keys),
    )


def _distinct(keys: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """Return the first row of each different key (n, columns), ascending, and which of these each row is."""
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.argsort(order)
    return first[order], place[number.reshape(-1)]
