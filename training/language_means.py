"""What tells languages apart in a vector space, measured and taken out. Arrays in, arrays out.

Centring and removal of components need the language of every text, also of the ones encoded later; what
is the same for all languages (`common_subspace`) is a linear map, which a model folder can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LanguageMeans:
    """The mean vector (dim,) of each language (Libovický et al. 2020)."""

    means: dict[str, Vectors]

    @classmethod
    def fit(cls, vectors: Vectors, languages: Sequence[str]) -> LanguageMeans:
        """Return the means of vectors (n, dim) with their languages (n,), not empty."""
        return cls({code: vectors[rows].mean(axis=0) for code, rows in _rows(vectors, languages).items()})

    def __call__(self, vectors: Vectors, languages: Sequence[str]) -> Vectors:
        """Return unit rows (n, dim) without the mean of each row's language.

        Raises InvalidInputError naming the first language without a mean.
        """
        centred = vectors.copy()
        for code, rows in _rows(vectors, languages).items():
            centred[rows] -= _known(self.means, code)
        return _unit(centred)


@dataclass(frozen=True)
class LanguageComponents:
    """The first principal directions (r, dim) of each language's vectors, not centred (Yang et al. 2021)."""

    directions: dict[str, Vectors]

    @classmethod
    def fit(cls, vectors: Vectors, languages: Sequence[str], *, rank: int = 1) -> LanguageComponents:
        """Return the ``rank`` strongest directions of each language; vectors (n, dim), languages (n,).

        Raises InvalidInputError for a language with fewer vectors than directions.
        """
        found = {}
        for code, rows in _rows(vectors, languages).items():
            if len(rows) < rank:
                raise InvalidInputError(
                    f"language {code!r} has {len(rows)} vectors; {rank} at least are needed"
                )
            _, _, right = np.linalg.svd(vectors[rows].astype(np.float64), full_matrices=False)
            found[code] = right[:rank].astype(np.float32)
        return cls(found)

    def __call__(self, vectors: Vectors, languages: Sequence[str]) -> Vectors:
        """Return unit rows (n, dim) without what lies in the directions of each row's language."""
        rest = vectors.copy()
        for code, rows in _rows(vectors, languages).items():
            directions = _known(self.directions, code)
            rest[rows] -= rest[rows] @ directions.T @ directions
        return _unit(rest)


def common_subspace(means: LanguageMeans, rank: int) -> Vectors:
    """Return the ``rank`` orthonormal directions (rank, dim) in which the languages' means differ most.

    Without them vectors say less of their language, whichever it is (Xie et al. 2022, with the plain mean
    of the languages as their centre). Raises InvalidInputError for a rank that so few languages do not have.
    """
    stacked = np.stack(list(means.means.values())).astype(np.float64)
    if not 1 <= rank < len(stacked):
        raise InvalidInputError(
            f"rank = {rank}; the means of {len(stacked)} languages differ in 1 to {len(stacked) - 1} "
            "directions",
            param="rank",
        )
    _, _, right = np.linalg.svd(stacked - stacked.mean(axis=0), full_matrices=False)
    directions: Vectors = right[:rank].astype(np.float32)
    return directions


def _rows(vectors: Vectors, languages: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    if len(vectors) != len(languages) or not len(vectors):
        raise InvalidInputError(
            f"{len(vectors)} vectors and {len(languages)} languages; one for each expected"
        )
    codes = np.asarray(languages)
    return {str(code): np.flatnonzero(codes == code) for code in dict.fromkeys(languages)}


def _known(of: dict[str, Vectors], code: str) -> Vectors:
    if code not in of:
        raise InvalidInputError(f"language {code!r} was not fitted; known are {', '.join(sorted(of))}")
    return of[code]


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
