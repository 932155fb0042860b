"""What is searched: a large base with an index on disk, and a small exact delta of what came later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.schema import Identity
from embedsvc.collections.views import LANGUAGE, PassageRows, joined
from indexing import Allowed, Debias, Plan, ShardedIndex

_LEAST_DELTA = 2_000  # passages that may wait outside the base however small it is
_LARGEST_DELTA = 0.1  # of the base
_MOST_DEAD = 0.2  # of the base
_KEPT_FILTERS = 64
_LEAST_FILTERS = 4
_KEPT_BYTES = 256 << 20  # that what is derived from filters may take, about
_BYTES_PER_PASSAGE = 32  # of the base, in what is derived from one filter
_SCORES_AT_ONCE = 1 << 25  # of queries with the delta, which may be all of a large collection: 128 MiB


@dataclass(frozen=True, eq=False)
class Candidates:
    """Found passages, best first: scores, rows, rows of their documents and languages, each (n,)."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    languages: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> Candidates:
        """Return the best ``count``."""
        return self if len(self.rows) <= count else self.take(slice(0, count))

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Candidates:
        """Return the candidates at these places."""
        return Candidates(self.scores[which], self.rows[which], self.documents[which], self.languages[which])


@dataclass(frozen=True, eq=False)
class Base:
    """An index with the passage, document and language of each of its positions (n,), and which live."""

    index: ShardedIndex
    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    languages: NDArray[np.bytes_]
    alive: Allowed | None = None  # None: all
    lock: object = None  # of the folder on disk; released when nothing refers to it any more

    @property
    def is_saved(self) -> bool:
        """Whether the base is one from the disk."""
        return self.lock is not None

    @property
    def alive_count(self) -> int:
        return len(self.rows) if self.alive is None else self.alive.count()

    @cached_property
    def by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows ascending, and the position of each."""
        order = np.argsort(self.rows, kind="stable")
        return self.rows[order], order

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of those of these rows that the base holds."""
        ascending, position = self.by_row
        if not len(ascending):
            return np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
        found: NDArray[np.int64] = position[place[ascending[place] == rows]]
        return found

    def without(self, rows: NDArray[np.int64]) -> Base:
        """Return the base with these rows dead; those it does not hold are ignored."""
        if not len(rows):
            return self
        dead = self.positions(rows)
        if not len(dead):
            return self
        mask = np.ones(len(self.rows), bool) if self.alive is None else self.alive.mask.copy()
        mask[dead] = False
        changed = replace(self, alive=Allowed(mask, scattered=True))
        changed.__dict__["by_row"] = self.by_row  # sorted once for an index, not once for each deletion
        return changed


@dataclass(frozen=True, eq=False)
class Delta:
    """Passages in memory, searched exactly; ``vectors`` are debiased as those of the base are."""

    passages: PassageRows
    alive: NDArray[np.bool_]

    @classmethod
    def of(cls, passages: PassageRows) -> Delta:
        return cls(passages, np.ones(len(passages), bool))

    @property
    def alive_count(self) -> int:
        return int(np.count_nonzero(self.alive))

    def without(self, rows: NDArray[np.int64]) -> Delta:
        """Return the delta with these rows dead; those it does not hold are ignored."""
        dead = np.isin(self.passages.rows, rows) & self.alive
        return replace(self, alive=self.alive & ~dead) if dead.any() else self

    def living(self) -> PassageRows:
        """Return what is alive."""
        if self.alive.all():
            return self.passages
        part = self.passages
        return PassageRows(
            part.rows[self.alive],
            part.documents[self.alive],
            part.languages[self.alive],
            part.vectors[self.alive],
        )


@dataclass(frozen=True, eq=False)
class Restriction:
    """What a search may return: documents by a mask over their rows, languages; None is no restriction."""

    documents: NDArray[np.bool_] | None = None
    languages: frozenset[str] | None = None


ALL = Restriction()


@dataclass(eq=False)
class Memo:
    """What has been derived from one generation: documents per language, and by filter (the caller's key)
    the documents that it lets through and the passages of base and delta that may be found; by filter and
    languages the documents per language.
    """

    languages: dict[str, int] | None = None
    matching: dict[object, NDArray[np.bool_]] = field(default_factory=dict)
    allowed: dict[object, tuple[Allowed, NDArray[np.bool_]]] = field(default_factory=dict)
    facets: dict[object, dict[str, int]] = field(default_factory=dict)
    frequencies: dict[str, int] = field(default_factory=dict)  # of terms; may be of an earlier generation

    @staticmethod
    def keep(kept: dict[Any, Any], key: object, value: Any, most: int = _KEPT_FILTERS) -> None:
        """Remember a value; the oldest is forgotten when there are many."""
        if len(kept) >= most:
            with contextlib.suppress(RuntimeError):  # changed by another thread, which makes room itself
                kept.pop(next(iter(kept)), None)
        kept[key] = value


@dataclass(frozen=True, eq=False)
class State:
    """All passages of one generation; never changed, only replaced."""

    generation: int
    identity: Identity
    last_row: int
    base: Base
    delta: Delta
    debias: Debias | None = None
    memo: Memo = field(default_factory=lambda: Memo())

    def after(self, generation: int, last_row: int, new: PassageRows, removed: NDArray[np.int64]) -> State:
        """Return the state after more passages were added and some removed."""
        base, delta = self.base.without(removed), self.delta.without(removed)
        if len(new):
            delta = Delta.of(joined([delta.living(), new], self.identity.dimension))
        memo = Memo(frequencies=self.memo.frequencies)
        return State(generation, self.identity, last_row, base, delta, self.debias, memo)

    @property
    def count(self) -> int:
        """The number of passages that can be found."""
        return self.base.alive_count + self.delta.alive_count

    @property
    def needs_compaction(self) -> bool:
        """Whether the delta or the dead cost too much."""
        size = len(self.base.rows)
        return len(self.delta.passages) > max(
            _LEAST_DELTA, _LARGEST_DELTA * size
        ) or size - self.base.alive_count > max(_LEAST_DELTA, _MOST_DEAD * size)

    @property
    def is_compact(self) -> bool:
        """Whether the base holds everything and nothing else."""
        return not self.delta.alive_count and self.base.alive_count == len(self.base.rows)

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        within: Restriction = ALL,
        key: object = None,
    ) -> tuple[list[Candidates], Plan]:
        """Return the ``k`` or fewer best passages for each of ``vectors`` (q, dim), and the base's plan.

        ``key`` names the restriction to documents, for which what is derived from it is kept.
        """
        allowed, delta_mask = self._allowed(within, key)
        groups = within.languages
        found = self.base.index.search(vectors, k, groups=groups, allowed=allowed)
        ranked: list[Candidates] = []
        step = max(1, _SCORES_AT_ONCE // max(1, len(delta_mask)))
        for start in range(0, len(vectors), step):
            delta = self._delta_scores(vectors[start : start + step], delta_mask, groups)
            ranked += [
                self._merged(scores, rows, delta, q, k)
                for q, (scores, rows) in enumerate(
                    zip(found.scores[start : start + step], found.rows[start : start + step], strict=True)
                )
            ]
        return ranked, found.plan

    def _allowed(self, within: Restriction, key: object) -> tuple[Allowed | None, NDArray[np.bool_]]:
        if within.documents is None:
            return self.base.alive, self.delta.alive
        kept = self.memo.allowed.get(key) if key is not None else None
        if kept is not None:
            return kept
        mask = within.documents[self.base.documents]
        if self.base.alive is not None:
            mask &= self.base.alive.mask
        made = Allowed(mask), within.documents[self.delta.passages.documents] & self.delta.alive
        if key is not None:
            most = _KEPT_BYTES // (_BYTES_PER_PASSAGE * max(1, len(mask)))
            self.memo.keep(self.memo.allowed, key, made, max(_LEAST_FILTERS, min(_KEPT_FILTERS, most)))
        return made

    def _delta_scores(
        self, vectors: NDArray[np.float32], mask: NDArray[np.bool_], groups: Iterable[str] | None
    ) -> NDArray[np.float32] | None:
        """Return scores (q, m) of the delta, -inf where a passage may not be returned; None for no delta."""
        if not len(mask):
            return None
        if groups is not None:
            mask = mask & _in_languages(self.delta.passages.languages, groups)
        scores = vectors @ self.delta.passages.vectors.T
        scores[:, ~mask] = -np.inf
        return scores

    def _merged(
        self,
        scores: NDArray[np.float32],
        positions: NDArray[np.int64],
        delta: NDArray[np.float32] | None,
        query: int,
        k: int,
    ) -> Candidates:
        if positions.min(initial=0) < 0:
            real = positions >= 0
            scores, positions = scores[real], positions[real]
        base = self.base
        if delta is None:
            found = Candidates(
                scores, base.rows[positions], base.documents[positions], base.languages[positions]
            )
            if (scores[1:] < scores[:-1]).all():
                return found
            return found.take(np.lexsort((found.rows, -scores)))  # the base orders equals by language
        own = delta[query]
        best = np.argpartition(-own, k - 1)[:k] if len(own) > k else np.arange(len(own))
        best = best[own[best] > -np.inf]
        passages = self.delta.passages
        both = Candidates(
            np.concatenate([scores, own[best]]),
            np.concatenate([base.rows[positions], passages.rows[best]]),
            np.concatenate([base.documents[positions], passages.documents[best]]),
            np.concatenate([base.languages[positions], passages.languages[best]]),
        )
        return both.take(np.lexsort((both.rows, -both.scores))[:k])


def _in_languages(codes: NDArray[np.bytes_], wanted: Iterable[str]) -> NDArray[np.bool_]:
    return np.isin(codes, np.array(sorted(wanted), LANGUAGE))
