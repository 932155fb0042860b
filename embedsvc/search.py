"""The query path: what was asked, checked; vector -> candidates -> documents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.segments import State
from embedsvc.collections.views import View
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.languages import normalize_languages

MAX_TOP_K = 1_000
MAX_REACH = 10_000  # offset + top_k


@dataclass(frozen=True)
class Hit:
    """A document that was found; ``score`` is the cosine with the query, 1 for the same direction."""

    id: str
    text: str
    language: str
    score: float
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class SearchRequest:
    """How many hits, from where, in which languages (None: all), of what score at least (None: any)."""

    top_k: int
    offset: int
    languages: frozenset[str] | None
    min_score: float | None

    @classmethod
    def checked(
        cls, *, top_k: int, offset: int, languages: Iterable[str] | None, min_score: float | None
    ) -> SearchRequest:
        """Return a request with canonical languages; raise InvalidInputError naming value and limit."""
        _check_integer("top_k", top_k, 1, MAX_TOP_K)
        _check_integer("offset", offset, 0, MAX_REACH - top_k)
        if min_score is not None and (isinstance(min_score, bool) or not _is_finite(min_score)):
            raise InvalidInputError(f"min_score is {min_score!r}; a number expected", param="min_score")
        codes = None if languages is None else normalize_languages(languages)
        return cls(top_k, offset, codes, min_score)


def find_hits(view: View, state: State, vector: NDArray[np.float32], request: SearchRequest) -> list[Hit]:
    """Return the hits for a unit vector (dim,), best first; none for a vector of zeros."""
    if not vector.any():
        return []
    scores, rows = state.search(vector, request.offset + request.top_k, request.languages)
    if request.min_score is not None:
        rows = rows[scores >= request.min_score]
    rows, scores = rows[request.offset :], scores[request.offset : len(rows)]
    return [
        Hit(found.id, found.text, found.language or "", float(score), found.metadata)
        for found, score in zip(view.documents(rows.tolist()), scores, strict=True)
    ]


def unit_vector(vector: NDArray[Any] | Iterable[float], dimension: int) -> NDArray[np.float32]:
    """Return a query vector (dim,) as float32 of length 1 (zeros stay zeros).

    Raises DimensionMismatchError for another length, InvalidInputError for values that are not finite.
    """
    try:
        given = np.asarray(vector, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the vector is no list of numbers: {error}", param="vector") from error
    if given.shape != (dimension,):
        raise DimensionMismatchError(
            f"the vector has shape {given.shape}; the collection has vectors of ({dimension},)",
            param="vector",
        )
    if not np.isfinite(given).all():
        place = int(np.flatnonzero(~np.isfinite(given))[0])
        raise InvalidInputError(f"vector[{place}] is {given[place]}; finite numbers expected", param="vector")
    largest = np.abs(given).max()
    if largest == 0:
        return given.astype(np.float32)
    scaled = given / largest
    unit: NDArray[np.float32] = (scaled / np.linalg.norm(scaled)).astype(np.float32)
    return unit


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInputError(
            f"{name} is {value!r}; an integer from {least} to {most} expected", param=name
        )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
