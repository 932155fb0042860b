"""Vectors like those of a multilingual model: many topics of very uneven size, languages set apart.

A vector is its topic's centre, its language's offset, noise within a space of few dimensions that the
topic has for itself, and a little noise in all directions. Topics that resemble each other belong to one
of a few fields; each language has favourite topics, so languages are not spread evenly over the space.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
DIMENSION = 384
SHARES = (0.32, 0.16, 0.10, 0.08, 0.065, 0.055, 0.048, 0.042, 0.038, 0.034, 0.031, 0.027)
TOPICS = 3_000
_FIELDS = 60
_LOCAL_DIMENSIONS = 12
_FIELD_PULL = 0.5
_LANGUAGE_PULL = 0.35
_TOPIC_NOISE = 0.70
_OTHER_NOISE = 0.45
_TOPIC_POWER = 1.15  # the size of the r-th topic falls with this power of r


@dataclass(frozen=True, eq=False)
class Cloud:
    """Unit vectors (n, dim) with the language (position in `SHARES`) and the topic of each (n,)."""

    vectors: Vectors
    languages: NDArray[np.int64]
    topics: NDArray[np.int64]

    def part(self, rows: slice) -> Cloud:
        return Cloud(self.vectors[rows], self.languages[rows], self.topics[rows])


@dataclass(frozen=True)
class Shape:
    """What makes a search hard: mean cosine of the 1st and 10th neighbour, local intrinsic dimension."""

    first: float
    tenth: float
    dimension: float

    def __str__(self) -> str:
        return (
            f"cosine of a held-out query's 1st neighbour {self.first:.2f}, of its 10th {self.tenth:.2f}; "
            f"local intrinsic dimension {self.dimension:.1f}"
        )


def make_cloud(count: int, seed: int) -> Cloud:
    """Return ``count`` vectors in random order; the same for the same count and seed."""
    rng = np.random.default_rng(seed)
    fields = _unit(rng.standard_normal((_FIELDS, DIMENSION), np.float32))
    centres = _unit(rng.standard_normal((TOPICS, DIMENSION), np.float32))
    centres = _unit(centres + _FIELD_PULL * fields[rng.integers(0, _FIELDS, TOPICS)])
    offsets = _LANGUAGE_PULL * _unit(rng.standard_normal((len(SHARES), DIMENSION), np.float32))
    languages = rng.choice(len(SHARES), count, p=SHARES)
    topics = _topics(languages, rng)
    vectors = rng.standard_normal((count, DIMENSION), np.float32) * np.float32(_OTHER_NOISE / DIMENSION**0.5)
    vectors += centres[topics] + offsets[languages]
    _add_topic_noise(vectors, topics, rng)
    return Cloud(_unit(vectors), languages, topics)


def measured_shape(vectors: Vectors, queries: Vectors) -> Shape:
    """Return the shape of ``vectors`` as seen from ``queries`` (maximum likelihood, Levina & Bickel 2004)."""
    cosines, _ = faiss.knn(queries, vectors, 101, metric=faiss.METRIC_INNER_PRODUCT)
    distances = np.sqrt(np.maximum(2 - 2 * cosines, 1e-9))
    shrink = np.log(distances[:, :99] / distances[:, 99:100])
    dimension = float(np.median(-1 / shrink.mean(axis=1)))
    return Shape(float(cosines[:, 0].mean()), float(cosines[:, 9].mean()), dimension)


def _topics(languages: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a topic per row: half as everywhere, half by the language's own order of favourites."""
    common = np.arange(1, TOPICS + 1) ** -_TOPIC_POWER
    common /= common.sum()
    topics = np.empty(len(languages), np.int64)
    for language in range(len(SHARES)):
        rows = np.flatnonzero(languages == language)
        chances = (common + common[rng.permutation(TOPICS)]) / 2
        topics[rows] = rng.choice(TOPICS, len(rows), p=chances)
    return topics


def _add_topic_noise(vectors: Vectors, topics: NDArray[np.int64], rng: np.random.Generator) -> None:
    order = np.argsort(topics, kind="stable")
    starts = np.searchsorted(topics[order], np.arange(TOPICS + 1))
    scale = np.float32(_TOPIC_NOISE / (DIMENSION * _LOCAL_DIMENSIONS) ** 0.5)
    for topic in range(TOPICS):
        rows = order[starts[topic] : starts[topic + 1]]
        basis = rng.standard_normal((_LOCAL_DIMENSIONS, DIMENSION), np.float32)
        vectors[rows] += scale * (rng.standard_normal((len(rows), _LOCAL_DIMENSIONS), np.float32) @ basis)


def _unit(vectors: Vectors) -> Vectors:
    rows: Vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return rows
