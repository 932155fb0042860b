"""Mine translation pairs from two lists of sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, check_texts, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.duplicates import distinct_rows
from embedsvc.mining.encoded_lists import EncodingOptions, check_shape, encoded_rows, in_memory_neighbours
from embedsvc.mining.extract import RETRIEVALS, Retrieval, mined_pairs
from embedsvc.mining.margin import MARGINS, Margin
from embedsvc.tokens import Truncate

DEFAULT_THRESHOLDS: dict[Margin, float] = {"ratio": 1.16, "distance": 0.06, "absolute": 0.4}
"""The least score kept when no threshold is given: near the best F1 of the bundled model on BUCC-like sets
of ten languages against English, with one line in nine translated and with every second
(benchmarks/RESULTS.md). The right value depends on encoder and corpus."""


@dataclass(frozen=True, slots=True)
class MinedPair:
    """A source and a target text, their rows in the lists given, and how well they match."""

    score: float
    source_row: int
    target_row: int
    source: str
    target: str


@dataclass(frozen=True)
class _Side:
    """What is mined of one side: rows of the caller's list, ascending, and their vectors."""

    rows: NDArray[np.int64]
    vectors: NDArray[Any]


def mine(
    source: Sequence[str],
    target: Sequence[str],
    *,
    encoder: Encoder | None = None,
    margin: Margin = "ratio",
    k: int = 4,
    retrieval: Retrieval = "max",
    threshold: float | None = None,
    source_vectors: NDArray[Any] | None = None,
    target_vectors: NDArray[Any] | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    dimensions: int | None = None,
    truncate: Truncate = "none",
    batch_tokens: int | None = None,
    progress: bool | None = None,
) -> list[MinedPair]:
    """Return the pairs that are probably translations, best first; equal scores in order of rows.

    encoder defaults to the bundled model. margin, k and retrieval are explained in `margin` and
    `extract`; k larger than a side is cut to its size. threshold is the least score kept; None takes
    `DEFAULT_THRESHOLDS`, which suit the bundled model: no threshold carries over to another encoder.
    source_vectors and target_vectors, (n, dim) unit rows, one per text, save encoding that side; the
    options after them are those of `Encoder.encode`. Texts equal but for whitespace and Unicode
    composition are mined once, as their first occurrence. A text without any token pairs with none.
    Raises InvalidInputError or DimensionMismatchError.
    """
    _check_options(margin, k, retrieval, threshold)
    check_texts(source, name="source")
    check_texts(target, name="target")
    if not len(source) or not len(target):
        return []
    options: EncodingOptions = {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "dimensions": dimensions,
        "truncate": truncate,
        "batch_tokens": batch_tokens,
    }
    if encoder is None and (source_vectors is None or target_vectors is None):
        encoder = load_encoder()
    sides = []
    for name, texts, vectors in (("source", source, source_vectors), ("target", target, target_vectors)):
        rows = np.array(distinct_rows(texts), np.int64)
        if vectors is not None:
            check_shape(vectors, len(texts), name)
            sides.append(_Side(rows, vectors[rows]))
        elif encoder is not None:
            sides.append(_known(rows, encoded_rows(encoder, name, texts, rows, options, progress)))
    both = in_memory_neighbours(sides[0].vectors, sides[1].vectors, k, progress)
    found = mined_pairs(
        both,
        margin,
        retrieval,
        threshold=DEFAULT_THRESHOLDS[margin] if threshold is None else threshold,
    )
    source_rows = sides[0].rows[found.source_rows].tolist()
    target_rows = sides[1].rows[found.target_rows].tolist()
    return [
        MinedPair(score, i, j, source[i], target[j])
        for score, i, j in zip(found.scores.tolist(), source_rows, target_rows, strict=True)
    ]


def _check_options(margin: str, k: int, retrieval: str, threshold: float | None) -> None:
    """Refuse bad options before the long work."""
    for name, value, known in (("margin", margin, MARGINS), ("retrieval", retrieval, RETRIEVALS)):
        if value not in known:
            raise InvalidInputError(f"{name} {value!r} is unknown; choose {', '.join(known)}", param=name)
    if k < 1:
        raise InvalidInputError(f"k = {k}; it must be at least 1", param="k")
    if threshold is not None and math.isnan(threshold):
        raise InvalidInputError("threshold is not a number", param="threshold")


def _known(rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> _Side:
    """Leave out the texts whose vector is zero: no token of theirs is known."""
    kept = vectors.any(axis=1)
    return _Side(rows, vectors) if kept.all() else _Side(rows[kept], vectors[kept])
