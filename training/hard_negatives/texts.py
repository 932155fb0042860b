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

    english, other: the texts. english_key (e,), other_key (o,): see `text_keys`. language (o,): index into
    ``languages``, ascending. pairs (p, 2): rows of an English and of another text, each pair once.
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
    """Return every different text of the pairs; of equal ones the first stands for all."""
    english_key, english_row, of_english = np.unique(
        text_keys(pairs.english), return_index=True, return_inverse=True
    )
    keys = text_keys(pairs.other)
    both = np.stack([pairs.language.astype(np.int64), keys], axis=1)
    ordered, other_row, of_other = np.unique(both, axis=0, return_index=True, return_inverse=True)
    of_pair = of_english[pairs.group]
    return DistinctTexts(
        english=[pairs.english[row] for row in english_row],
        other=[pairs.other[row] for row in other_row],
        english_key=english_key,
        other_key=ordered[:, 1],
        language=ordered[:, 0].astype(np.int16),
        languages=pairs.languages,
        pairs=np.unique(np.stack([of_pair, of_other.reshape(-1)], axis=1), axis=0),
        translations=Translations(english_key[of_pair], keys),
    )
