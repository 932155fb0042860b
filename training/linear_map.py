"""From one model's vectors to another's: a new model for an old index. Arrays in, a map out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from training.affine import Affine

Vectors = NDArray[np.float32]
MapKind = Literal["procrustes", "ridge"]
_NEIGHBOURS = 10


def fit_map(source: Vectors, target: Vectors, kind: MapKind = "procrustes", *, ridge: float = 1e-3) -> Affine:
    """Return the linear map from source (n, dim) to target (n, other dim) unit vectors of the same texts.

    "procrustes" turns and mirrors only (Schönemann 1966): angles stay. "ridge" is the least squares map,
    with ``ridge`` times the mean of the diagonal added to it: nearer, but angles
    change. Neither has a bias. Raises InvalidInputError for unequal numbers of vectors.
    """
    if len(source) != len(target) or not len(source):
        raise InvalidInputError(f"{len(source)} and {len(target)} vectors; as many of both expected")
    x, y = source.astype(np.float64), target.astype(np.float64)
    if kind == "procrustes":
        left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
        return Affine((left @ right).astype(np.float32))
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    return Affine(np.linalg.solve(gram, x.T @ y).astype(np.float32))


@dataclass(frozen=True)
class Agreement:
    """How far mapped vectors stand for those of the other model, on texts that the map was not fitted on.

    cosine: mean between a mapped vector and the other model's of the same text. found: share of mapped
    vectors whose nearest of all the other model's vectors is that of the same text. neighbours: share of the
    ten nearest other texts that are the same as with the other model's own vector.
    """

    texts: int
    cosine: float
    found: float
    neighbours: float

    def __str__(self) -> str:
        return (
            f"on {self.texts:,} texts held out: cosine {self.cosine:.4f}, {self.found:.1%} nearest to their "
            f"own vector, {self.neighbours:.1%} of the ten nearest texts the same"
        )


def agreement(mapped: Vectors, target: Vectors) -> Agreement:
    """Compare mapped with target vectors (n, dim) of the same texts; all unit rows, n at least 2."""
    scores = mapped @ target.T
    own = target @ target.T
    diagonal = scores.diagonal()
    found = float((scores.max(axis=1) <= diagonal).mean())
    cosine = float(diagonal.mean())
    np.fill_diagonal(scores, -np.inf)
    np.fill_diagonal(own, -np.inf)
    most = min(_NEIGHBOURS, len(target) - 1)
    same = [
        len(set(one) & set(other)) / most
        for one, other in zip(_nearest(scores, most), _nearest(own, most), strict=True)
    ]
    return Agreement(len(target), cosine, found, float(np.mean(same)))


def _nearest(scores: NDArray[np.float32], most: int) -> list[list[int]]:
    nearest: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :most].tolist()
    return nearest
