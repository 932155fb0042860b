"""A file of hard negatives, joined to the pairs that a run draws from."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from indexing.durable import file_sha256
from training.data import TokenBags, joined, text_keys, token_bags
from training.hard_negatives.records import AnchorSide, NegativeRecord, key_of_group, read_negatives
from training.token_store import Tokenization
from training.translations import Translations

Rows = NDArray[np.int64]
_TOKENIZE_TEXTS = 20_000


@dataclass(frozen=True, eq=False)
class PairIdentity:
    """What a record names a pair by: the keys of its texts (pairs,) and its language; and what it means."""

    english_key: Rows
    group_key: Rows
    other_key: Rows
    language: NDArray[np.int16]
    languages: Sequence[str]


@dataclass(frozen=True, eq=False)
class SideNegatives:
    """The texts (n,) that are negatives of anchors of one side, and the list of each pair.

    Pair i has the texts ``rows[starts[i] : starts[i] + lengths[i]]``.
    """

    texts: TokenBags
    key: Rows
    rows: Rows
    starts: Rows
    lengths: Rows

    def without(self, keys: Rows) -> SideNegatives:
        """Return the lists without the texts of these keys."""
        kept = ~np.isin(self.key, keys)[self.rows]
        place = np.concatenate([[0], np.cumsum(kept)])
        return SideNegatives(
            self.texts,
            self.key,
            self.rows[kept],
            place[self.starts],
            place[self.starts + self.lengths] - place[self.starts],
        )


@dataclass(frozen=True, eq=False)
class MinedNegatives:
    """of_english: of English anchors, texts of the other side; of_other: the reverse.

    translations: of the pairs and of the file, which may know more. sha256: of the file.
    """

    of_english: SideNegatives
    of_other: SideNegatives
    translations: Translations
    sha256: str

    def facts(self) -> dict[str, str | int]:
        """Return what tells this file and these pairs from others, as JSON has it."""
        return {
            "sha256": self.sha256,
            "negatives": int(self.of_english.lengths.sum() + self.of_other.lengths.sum()),
            "pairs_with_negatives": int(np.count_nonzero(self.of_english.lengths + self.of_other.lengths)),
        }

    def without(self, english_key: Rows, other_key: Rows) -> MinedNegatives:
        """Return the same without some texts, those that are held out."""
        return MinedNegatives(
            self.of_english.without(other_key),
            self.of_other.without(english_key),
            self.translations,
            self.sha256,
        )


def read_mined(path: Path, pairs: PairIdentity, tokenization: Tokenization) -> MinedNegatives:
    """Return the negatives of a run's pairs; a pair without a record has none.

    Raises InvalidInputError for a file without a record of any of the pairs: it is of other data.
    """
    sides: dict[AnchorSide, _Collected] = {"english": _Collected(), "other": _Collected()}
    meanings = _Meanings()
    for record in read_negatives(path):
        sides[record.anchor_side].add(record)
        meanings.add(record)
    of_english = sides["english"].joined(pairs, tokenization)
    of_other = sides["other"].joined(pairs, tokenization)
    mined = MinedNegatives(of_english, of_other, meanings.translations(pairs), file_sha256(path))
    if not mined.facts()["pairs_with_negatives"]:
        raise InvalidInputError(
            f"data.negatives: {path} has negatives of none of the {len(pairs.other_key)} pairs; it is of "
            "other data, or empty. `embedsvc negatives` makes it from the files that data.pairs names"
        )
    return mined


@dataclass
class _Collected:
    """The records of one side, as they are read."""

    row: dict[str, int] = field(default_factory=dict)
    rows: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    english: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)

    def add(self, record: NegativeRecord) -> None:
        english, other = record.anchor, record.positive
        if record.anchor_side == "other":
            english, other = other, english
        self.rows.extend(self.row.setdefault(text, len(self.row)) for text in record.negatives)
        self.lengths.append(len(record.negatives))
        self.english.append(english)
        self.other.append(other)
        self.language.append(record.language)

    def joined(self, pairs: PairIdentity, tokenization: Tokenization) -> SideNegatives:
        """Return the lists of the pairs: that of their record, or an empty one."""
        none = np.zeros(len(pairs.other_key), np.int64)
        if not self.row:
            return SideNegatives(TokenBags(np.empty(0, np.int32), none[:1]), none[:0], none[:0], none, none)
        lengths = np.array(self.lengths, np.int64)
        starts = np.cumsum(lengths) - lengths
        record, there = self._records(pairs)
        texts = list(self.row)
        return SideNegatives(
            texts=_tokens(texts, tokenization),
            key=text_keys(texts),
            rows=np.array(self.rows, np.int64),
            starts=np.where(there, starts[record], 0),
            lengths=np.where(there, lengths[record], 0),
        )

    def _records(self, pairs: PairIdentity) -> tuple[Rows, NDArray[np.bool_]]:
        """Return (pairs,) the number of each pair's record (anything, if it has none), and whether it has."""
        number = {code: at for at, code in enumerate(pairs.languages)}
        language = np.array([number.get(code, -1) for code in self.language], np.int64)
        codes = _codes(text_keys(self.english), text_keys(self.other), language)
        distinct, first = np.unique(codes, return_index=True)
        wanted = _codes(pairs.english_key, pairs.other_key, pairs.language.astype(np.int64))
        place = np.minimum(np.searchsorted(distinct, wanted), len(distinct) - 1)
        return first[place], distinct[place] == wanted


def _tokens(texts: Sequence[str], tokenization: Tokenization) -> TokenBags:
    parts = []
    for start in range(0, len(texts), _TOKENIZE_TEXTS):
        rows = tokenization.ids_of(texts[start : start + _TOKENIZE_TEXTS])
        parts.append(token_bags([row[: tokenization.max_tokens] for row in rows]))
    return joined(parts)


def _codes(english: Rows, other: Rows, language: Rows) -> NDArray[np.uint64]:
    """Return one number for each pair; two pairs share it once in billions of billions."""
    mixed = english.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) + other.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    coded: NDArray[np.uint64] = mixed ^ (language.astype(np.uint64) * np.uint64(0x94D049BB133111EB))
    return coded


@dataclass
class _Meanings:
    """What the texts of the file mean: the groups of each, as the file has them."""

    groups: dict[str, Sequence[str]] = field(default_factory=dict)

    def add(self, record: NegativeRecord) -> None:
        if record.anchor_side == "english":  # else the negatives are English, and mean themselves
            self.groups.update(zip(record.negatives, record.negative_groups, strict=True))

    def translations(self, pairs: PairIdentity) -> Translations:
        """Return what the pairs and the file say together."""
        counts = [*map(len, self.groups.values())]
        english = [key_of_group(group) for groups in self.groups.values() for group in groups]
        return Translations(
            np.concatenate([pairs.group_key, np.array(english, np.int64)]),
            np.concatenate([pairs.other_key, np.repeat(text_keys([*self.groups]), counts)]),
        )
