"""What is searched: a large base segment with an index, and a small exact delta of what came later."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.views import VectorRows
from indexing import Flat, Hnsw, Kind, VectorIndex

FLAT_LIMIT = 50_000  # documents; up to here an exact scan takes a few milliseconds
_LEAST_DELTA = 1_000  # documents that may wait outside the base however small it is
_LARGEST_DELTA = 0.1  # of the base
_MOST_DEAD = 0.2  # of the base


@dataclass(frozen=True, eq=False)
class Segment:
    """An index with the row number (n,), language (n,) and life (n,) of each of its positions."""

    index: VectorIndex
    rows: NDArray[np.int64]
    languages: NDArray[np.bytes_]
    alive: NDArray[np.bool_]

    @classmethod
    def build(cls, found: VectorRows, kind: Kind) -> Segment:
        index = VectorIndex.build(found.vectors, kind)
        return cls(index, found.rows, found.languages, np.ones(len(found.rows), bool))

    @property
    def alive_count(self) -> int:
        return int(np.count_nonzero(self.alive))

    def without(self, rows: NDArray[np.int64]) -> Segment:
        """Return the segment with these row numbers dead; those it does not hold are ignored."""
        dead = np.isin(self.rows, rows)
        return replace(self, alive=self.alive & ~dead) if dead.any() else self

    def living(self) -> VectorRows:
        """Return what is alive."""
        positions = np.flatnonzero(self.alive)
        vectors = self.index.reconstruct(positions)
        return VectorRows(self.rows[positions], vectors, self.languages[positions])

    def search(
        self, vector: NDArray[np.float32], k: int, languages: frozenset[str] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and row numbers of the ``k`` or fewer best living positions for ``vector`` (dim,)."""
        allowed = self.alive
        if languages is not None:
            allowed = allowed & np.isin(self.languages, np.array(sorted(languages), "S3"))
        count = int(np.count_nonzero(allowed))
        if not count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        mask = None if count == len(allowed) else allowed
        found = self.index.search(vector[None], min(k, count), rows=mask)
        real = found.rows[0] >= 0
        return found.scores[0][real], self.rows[found.rows[0][real]]


@dataclass(frozen=True, eq=False)
class State:
    """All documents of one generation as segments; never changed, only replaced."""

    generation: int
    last_row: int
    base: Segment
    delta: Segment

    def after(self, generation: int, last_row: int, new: VectorRows, removed: NDArray[np.int64]) -> State:
        """Return the state after more rows were added and some removed."""
        base, delta = self.base.without(removed), self.delta.without(removed)
        if len(new.rows):
            delta = Segment.build(joined([delta.living(), new]), Flat())
        return State(generation, last_row, base, delta)

    def rebased(self, base: Segment) -> State:
        """Return the same documents with a new base, built from an earlier state of this collection."""
        alive = np.isin(base.rows, self.living_rows())
        left = [part.without(base.rows).living() for part in (self.base, self.delta)]
        return replace(self, base=replace(base, alive=alive), delta=Segment.build(joined(left), Flat()))

    def living(self) -> VectorRows:
        """Return everything that is alive, by ascending row."""
        return joined([self.base.living(), self.delta.living()])

    def living_rows(self) -> NDArray[np.int64]:
        """Return the row numbers of everything that is alive."""
        return np.concatenate([part.rows[part.alive] for part in (self.base, self.delta)])

    @property
    def is_compact(self) -> bool:
        """Whether the base holds everything, nothing else, and is of the right kind."""
        return not self.delta.alive_count and bool(self.base.alive.all()) and self._kind_fits

    @property
    def needs_compaction(self) -> bool:
        """Whether the delta, the dead, or the kind of the base cost too much."""
        size = len(self.base.rows)
        return (
            len(self.delta.rows) > max(_LEAST_DELTA, _LARGEST_DELTA * size)
            or size - self.base.alive_count > max(_LEAST_DELTA, _MOST_DEAD * size)
            or not self._kind_fits
        )

    @property
    def _kind_fits(self) -> bool:
        return self.base.index.kind.name == kind_for(len(self.base.rows)).name

    def search(
        self, vector: NDArray[np.float32], k: int, languages: frozenset[str] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and row numbers of the ``k`` or fewer best, best first; of equals the older."""
        found = [part.search(vector, k, languages) for part in (self.base, self.delta)]
        scores = np.concatenate([part[0] for part in found])
        rows = np.concatenate([part[1] for part in found])
        best = np.lexsort((rows, -scores))[:k]
        return scores[best], rows[best]


def kind_for(count: int) -> Kind:
    """Return the kind of index for this many documents."""
    return Flat() if count <= FLAT_LIMIT else Hnsw()


def joined(parts: list[VectorRows]) -> VectorRows:
    """Return the parts one after the other."""
    return VectorRows(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.languages for part in parts]),
    )
