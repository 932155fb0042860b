"""Score a bitext: pairs that are given, each with the margin it has among all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.encoded_lists import EncodingOptions, check_shape, encoded_rows, in_memory_neighbours
from embedsvc.mining.margin import MARGINS, Margin, margin_scores, neighbourhood_means
from embedsvc.tokens import Truncate, check_unicode
from indexing import VectorError, check_vectors

_PAIRS_AT_ONCE = 65_536  # whose vectors are copied side by side


@dataclass(frozen=True, eq=False)
class PairScores:
    """Margins and cosines, float32 ``(pairs,)``, in the order of the pairs.

    NaN where a side is blank or has no token that the model knows.
    """

    scores: NDArray[np.float32]
    cosines: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class _Side:
    """The row of each pair's text among the distinct ones, -1 for none, and their vectors."""

    rows: NDArray[np.int64]
    vectors: NDArray[Any]


def score_pairs(
    source: Sequence[str],
    target: Sequence[str],
    *,
    encoder: Encoder | None = None,
    margin: Margin = "ratio",
    k: int = 4,
    source_vectors: NDArray[Any] | None = None,
    target_vectors: NDArray[Any] | None = None,
    source_pool: Sequence[str] = (),
    target_pool: Sequence[str] = (),
    prompt_name: str | None = None,
    prompt: str | None = None,
    dimensions: int | None = None,
    truncate: Truncate = "none",
    batch_tokens: int | None = None,
    progress: bool | None = None,
) -> PairScores:
    """Return the score of every pair ``source[i]``, ``target[i]``, in their order.

    The neighbours that a margin compares with are the distinct texts of the other side and of its pool: a
    small bitext needs one, since a text whose only neighbours are its own translation has ratio 1. Texts
    equal but for whitespace and Unicode composition are one, so that copies change no score. The other
    options are those of `mine`; vectors are one per pair, and no pool has any.
    Raises InvalidInputError or DimensionMismatchError. (Artetxe & Schwenk, ACL 2019.)
    """
    _check(source, target, margin, k)
    options: EncodingOptions = {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "dimensions": dimensions,
        "truncate": truncate,
        "batch_tokens": batch_tokens,
    }
    work = _Work(encoder, options, progress)
    x = work.side("source", source, source_vectors, source_pool)
    y = work.side("target", target, target_vectors, target_pool)
    return _scored(x, y, margin, k, progress)


def _check(source: Sequence[str], target: Sequence[str], margin: str, k: int) -> None:
    for name, texts in (("source", source), ("target", target)):
        if isinstance(texts, str):
            raise InvalidInputError(f"{name} must be a list of texts, not one text", param=name)
    if len(source) != len(target):
        raise InvalidInputError(
            f"source has {len(source)} texts, target {len(target)}; a pair is the two at the same place",
            param="target",
        )
    if margin not in MARGINS:
        raise InvalidInputError(f"margin {margin!r} is unknown; choose {', '.join(MARGINS)}", param="margin")
    if k < 1:
        raise InvalidInputError(f"k = {k}; it must be at least 1", param="k")


class _Work:
    """Fold and encode sides; the encoder is loaded when one is needed."""

    def __init__(self, encoder: Encoder | None, options: EncodingOptions, progress: bool | None) -> None:
        self._encoder, self._options, self._progress = encoder, options, progress

    def side(
        self, name: str, texts: Sequence[str], vectors: NDArray[Any] | None, pool: Sequence[str]
    ) -> _Side:
        if vectors is not None:
            check_shape(vectors, len(texts), name)
            _check_lengths(vectors, f"{name}_vectors")
        rows, own, others = _folded(name, texts, pool)
        parts = [self._encoded(name, texts, own) if vectors is None else vectors[own]]
        if len(others):
            parts.append(self._encoded(f"{name}_pool", pool, others))
        if parts[0].shape[1] != parts[-1].shape[1]:
            raise InvalidInputError(
                f"{name}_vectors have {parts[0].shape[1]} dimensions, the pool's {parts[-1].shape[1]}",
                param=f"{name}_vectors",
            )
        return _known(rows, np.concatenate(parts))

    def _encoded(self, name: str, texts: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._encoder is None:
            self._encoder = load_encoder()
        if not len(rows):
            return np.empty((0, self._options["dimensions"] or self._encoder.dimension), np.float32)
        return encoded_rows(self._encoder, name, texts, rows, self._options, self._progress)


def _check_lengths(vectors: NDArray[Any], name: str) -> None:
    """Raise InvalidInputError for a row that is neither of length 1 nor zero, as of an unknown text."""
    unknown = ~vectors.any(axis=1)
    if unknown.any():
        vectors = vectors.copy()
        vectors[unknown, 0] = 1
    try:
        check_vectors(vectors, name=name)
    except VectorError as error:
        raise InvalidInputError(str(error), param=name) from error


def _folded(
    name: str, texts: Sequence[str], pool: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct texts; return each text's number (-1: blank) and where both lists have new ones."""
    numbers: dict[str, int] = {}
    rows, new = [], []
    for position, text in enumerate(chain(texts, pool)):
        where = f"{name}[{position}]" if position < len(texts) else f"{name}_pool[{position - len(texts)}]"
        if not isinstance(text, str):
            raise InvalidInputError(
                f"{where} is {type(text).__name__}, not a text", param=where.split("[")[0]
            )
        check_unicode(text, where, param=where.split("[")[0])
        key = duplicate_key(text)
        if key and key not in numbers:
            numbers[key] = len(numbers)
            new.append(position)
        rows.append(numbers.get(key, -1))
    first = np.array(new, np.int64)
    own = first[first < len(texts)]
    return np.array(rows[: len(texts)], np.int64), own, first[len(own) :] - len(texts)


def _known(rows: NDArray[np.int64], vectors: NDArray[Any]) -> _Side:
    """Leave out texts whose vector is zero: no token of theirs is known."""
    kept = vectors.any(axis=1)
    renumbered = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    return _Side(renumbered[rows], vectors if kept.all() else vectors[kept])


def _scored(x: _Side, y: _Side, margin: Margin, k: int, progress: bool | None) -> PairScores:
    scores, cosines = (np.full(len(x.rows), np.nan, np.float32) for _ in range(2))
    pairs = np.flatnonzero((x.rows >= 0) & (y.rows >= 0))
    if len(pairs):
        both = in_memory_neighbours(x.vectors, y.vectors, k, progress)
        left, right = x.rows[pairs], y.rows[pairs]
        cosines[pairs] = _cosines(x.vectors, y.vectors, left, right)
        means = neighbourhood_means(both.x_to_y)[left], neighbourhood_means(both.y_to_x)[right]
        scores[pairs] = margin_scores(cosines[pairs], *means, margin)
    return PairScores(scores, cosines)


def _cosines(
    x: NDArray[Any], y: NDArray[Any], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float32]:
    found = np.empty(len(left), np.float32)
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        found[some] = np.einsum("ij,ij->i", x[left[some]], y[right[some]], dtype=np.float32)
    return found
