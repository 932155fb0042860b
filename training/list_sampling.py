"""Batches of queries with some of their passages, languages mixed as multilingual Translate-Distill does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import TokenBags, joined
from training.draws import Draws
from training.relations import PairKeys, relation_matrix
from training.sampling import Batch, ScoredRows, part_rows
from training.sampling_config import Mixing


@dataclass(frozen=True)
class ListSource:
    """What is drawn from: token bags of queries and texts, and keys equal for equal ones.

    The rest is as in `training.scored_lists.ScoredLists`.
    """

    queries: TokenBags
    texts: TokenBags
    query_keys: NDArray[np.int64]
    text_keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    text: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class ListShape:
    """``size`` entries, a query with ``passages`` of its passages each, make a batch.

    ``mixing`` (https://arxiv.org/abs/2405.00977): "passages", each in a language of its own; "entries", all
    of an entry in one; "round_robin", each query in one entry for every language, one after the other.
    """

    size: int
    passages: int
    mixing: Mixing = "passages"


class ListSampler:
    """Draw batches of entries; ``batch(t)`` is the same whenever it is asked for."""

    def __init__(
        self,
        source: ListSource,
        draws: Draws,
        shape: ListShape,
        *,
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """``part`` (p, n) draws the p-th of n equal parts of each batch."""
        self._source = source
        self._draws = draws
        self._shape = shape
        self._seed = seed
        self._part = part

    def batch(self, step: int) -> Batch:
        """Return batch number ``step``: the queries, the best passage of each, then the other passages."""
        generator = np.random.default_rng((self._seed, step))
        source = self._source
        entry, queries, passages, languages = self._entries(generator)
        texts = _in_languages(source.text, passages, languages, generator)
        own = part_rows(self._shape.size, self._part)
        entry, queries, passages, texts = (rows[own] for rows in (entry, queries, passages, texts))
        order = np.concatenate([texts[:, 0], texts[:, 1:].ravel()])
        group = source.query_keys[queries]
        keys = PairKeys(source=group, target=source.text_keys[texts[:, 0]], group=group)
        return Batch(
            joined([source.queries.part(queries), source.texts.part(order)]),
            queries,
            keys,
            relation_matrix(keys, keys),
            scored=ScoredRows(source.scores[passages], entry),
        )

    def _entries(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        """Return (size,) draws and their queries, (size, n) passages, best first, and languages, -1: any."""
        size, n, count = self._shape.size, self._shape.passages, self._source.text.shape[1]
        turns = count if self._shape.mixing == "round_robin" else 1
        drawn = self._draws(-(-size // turns), generator)
        entry = np.repeat(np.arange(len(drawn)), turns)[:size]
        passages = np.stack([self._chosen(query, generator) for query in drawn])[entry]
        languages = {
            "passages": np.full(size, -1),
            "entries": generator.integers(0, count, size=size),
            "round_robin": np.arange(size) % turns,
        }[self._shape.mixing]
        return entry, drawn[entry], passages, np.repeat(languages[:, None], n, axis=1)

    def _chosen(self, query: int, generator: np.random.Generator) -> NDArray[np.int64]:
        begin, end = self._source.starts[query], self._source.starts[query + 1]
        rows = begin + generator.choice(end - begin, size=self._shape.passages, replace=False)
        best_first: NDArray[np.int64] = rows[np.argsort(-self._source.scores[rows], kind="stable")]
        return best_first


def _in_languages(
    text: NDArray[np.int32],
    passages: NDArray[np.int64],
    languages: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the texts of the passages in these languages; in any that it has where one is not there."""
    options = text[passages]
    chance = generator.random(options.shape)
    chance[options < 0] = -1.0
    wanted = np.arange(options.shape[2]) == languages[..., None]
    chance[wanted & (options >= 0)] = 2.0
    chosen = np.take_along_axis(options, chance.argmax(axis=2)[..., None], axis=2)[..., 0]
    return chosen.astype(np.int64)
