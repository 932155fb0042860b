"""Made-up embedding spaces in which it is known which sentences have a partner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.margin import CandidatePairs
from embedsvc.mining.plants import PlantedNeighbours, Plants, plan_plants
from indexing import BothWays, nearest_both_ways, normalize_rows

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Space:
    """Two sides whose first ``partners`` rows belong together, and known pairs of the same kind."""

    x: Vectors
    y: Vectors
    partners: int
    known_x: Vectors
    known_y: Vectors

    def neighbours(self, k: int = 4) -> BothWays:
        return nearest_both_ways(self.x, self.y, k)

    def planted(self, k: int = 4) -> tuple[PlantedNeighbours, Plants]:
        parts = PlantedNeighbours(
            self.neighbours(k),
            nearest_both_ways(self.known_x, self.y, k),
            nearest_both_ways(self.x, self.known_y, k),
            nearest_both_ways(self.known_x, self.known_y, k),
        )
        names = [(f"source {row}", f"target {row}") for row in range(len(self.known_x))]
        return parts, plan_plants(names, ({}.get, {}.get), (len(self.x), len(self.y)))

    def right(self, pairs: CandidatePairs) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = (pairs.source_rows == pairs.target_rows) & (
            pairs.source_rows < self.partners
        )
        return mask


def space(
    sentences: int, partners: int, *, known: int = 300, noise: float = 0.8, common: float = 0.0, seed: int = 0
) -> Space:
    """Return a space; ``common`` is the length of a vector that all sentences share, next to 1 of their own.

    Without it margins of true pairs are near 2; with 3 all sentences are alike and margins near 1.
    """
    random = np.random.default_rng(seed)
    dimension = 48
    shared = common * normalize_rows(random.standard_normal((1, dimension)).astype(np.float32))

    def meanings(count: int) -> Vectors:
        return normalize_rows(random.standard_normal((count, dimension)).astype(np.float32))

    def said(meaning: Vectors) -> Vectors:
        own = meaning + noise * random.random((len(meaning), 1)).astype(np.float32) * meanings(len(meaning))
        return normalize_rows((normalize_rows(own) + shared).astype(np.float32))

    hidden, planted = meanings(partners), meanings(known)
    sides = [said(np.concatenate([hidden, meanings(sentences - partners)])) for _ in range(2)]
    return Space(sides[0], sides[1], partners, said(planted), said(planted))
