"""The texts of both sides, each different one once, and which of them are known to mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import text_keys
from training.pair_store import TextPairs
from training.text_store import TextStore
from training.translations import Translations

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PickedTexts:
    """Some texts of a store."""

    store: TextStore
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> str:
        return self.store[int(self.rows[place])]

    def between(self, start: int, stop: int) -> list[str]:
        """Return the texts start to stop - 1."""
        return [self.store[row] for row in self.rows[start:stop].tolist()]


@dataclass(frozen=True, eq=False)
class DistinctTexts:
    """English texts once, other ones once per language; texts with one `text_keys` count as equal.

    "English" are the first texts of pairs, whatever their language. english (e), other (o): the texts, in
    the order of the data, the latter one language after the other. group (e,): the key of what each English
    text means. other_key (o,). language (o,): index into ``languages``, ascending. pairs (p, 2): rows of an
    English and of another text, each pair once.
    """

    english: PickedTexts
    other: PickedTexts
    group: Rows
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
    english_rows, of_english = _distinct(text_keys(pairs.english)[:, None])
    language = np.asarray(pairs.language)
    other_rows, of_other = _distinct(np.stack([language.astype(np.int64), pairs.other_key], axis=1))
    by_language = np.argsort(language[other_rows], kind="stable")
    place = np.argsort(by_language)
    other_rows, of_other = other_rows[by_language], place[of_other]
    group = np.empty(len(pairs.english), np.int64)
    group[pairs.group] = pairs.group_key
    return DistinctTexts(
        english=PickedTexts(pairs.english, english_rows),
        other=PickedTexts(pairs.other, other_rows),
        group=group[english_rows],
        other_key=pairs.other_key[other_rows],
        language=language[other_rows],
        languages=pairs.languages,
        pairs=np.unique(np.stack([of_english[pairs.group], of_other], axis=1), axis=0),
        translations=Translations(pairs.group_key, pairs.other_key),
    )


def _distinct(keys: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """Return the first row of each different key (n, columns), ascending, and which of these each row is."""
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.argsort(order)
    return first[order], place[number.reshape(-1)]
