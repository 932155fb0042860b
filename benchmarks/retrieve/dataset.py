"""What everybody stores and searches: made once from a seed, kept as plain files that any peer can read.

    documents.npy   queries.npy      unit vectors (n, 384) float32
    documents.jsonl queries.jsonl    id, text, language, metadata: {area, draw}

`area` goes with the topics (3, 10, 30 and 57 % of the documents), `draw` (0-99) with nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieve.texts import LANGUAGES, make_texts
from retrieve.vectors import SHARES, Cloud, Shape, Vectors, make_cloud, measured_shape

CODES = tuple(LANGUAGES)
RAREST = CODES[-1]
AREAS = {"three": 0.03, "ten": 0.10, "thirty": 0.30, "other": 0.57}
_SEED = 4
_DOCUMENT_CHARACTERS, _QUERY_CHARACTERS = 150, 25
_SHAPE_QUERIES = 400


@dataclass(frozen=True)
class Within:
    """What a search is restricted to."""

    language: str | None = None
    area: str | None = None
    draw_below: int | None = None

    def __str__(self) -> str:
        parts = [
            f"language {self.language}" if self.language else "",
            f"area {self.area} ({AREAS[self.area]:.0%})" if self.area else "",
            f"draw < {self.draw_below} ({self.draw_below} %)" if self.draw_below else "",
        ]
        return ", ".join(filter(None, parts)) or "everything"

    @property
    def filter(self) -> dict[str, Any] | None:
        """The restriction on metadata as a search takes it."""
        wanted: dict[str, Any] = {}
        if self.area:
            wanted["area"] = self.area
        if self.draw_below:
            wanted["draw"] = {"$lt": self.draw_below}
        return wanted or None


EVERYTHING = Within()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Documents and held-out queries, with the values of each document's fields (n,)."""

    folder: Path
    vectors: Vectors
    queries: Vectors
    languages: NDArray[np.str_]
    query_languages: NDArray[np.str_]
    areas: NDArray[np.str_]
    draws: NDArray[np.int64]
    shape: Shape

    @property
    def fingerprint(self) -> str:
        """What tells documents and queries from others."""
        return hashlib.sha256(self.vectors.tobytes() + self.queries.tobytes()).hexdigest()[:12]

    def rows(self, within: Within) -> NDArray[np.int64]:
        """Return the documents of a restriction."""
        mask = np.ones(len(self.vectors), bool)
        if within.language:
            mask &= self.languages == within.language
        if within.area:
            mask &= self.areas == within.area
        if within.draw_below:
            mask &= self.draws < within.draw_below
        return np.flatnonzero(mask)

    def nearest(self, within: Within, queries: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return the true nearest documents (q, k) of some queries."""
        rows = self.rows(within)
        metric = faiss.METRIC_INNER_PRODUCT
        _, found = faiss.knn(self.queries[queries], self.vectors[rows], min(k, len(rows)), metric=metric)
        nearest: NDArray[np.int64] = rows[found]
        return nearest


def make_dataset(folder: Path, rows: int, queries: int) -> Dataset:
    """Write the files and return what they hold; the same for the same sizes.

    There are as many queries of each language, so that the rarest is measured as well as the others.
    """
    per_language = max(queries // len(CODES), 1)
    pool = max(round(2 * per_language / min(SHARES)), _SHAPE_QUERIES)
    cloud = make_cloud(rows + pool, _SEED)
    documents, spare = cloud.part(slice(rows)), cloud.part(slice(rows, None))
    asked = np.concatenate([np.flatnonzero(spare.languages == n)[:per_language] for n in range(len(CODES))])
    held_out = Cloud(spare.vectors[asked], spare.languages[asked], spare.topics[asked])
    rng = np.random.default_rng(_SEED + 1)
    areas, draws = _areas(documents.topics, rng), rng.integers(0, 100, rows)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "documents.npy", documents.vectors)
    np.save(folder / "queries.npy", held_out.vectors)
    metadata = [
        {"area": area, "draw": draw} for area, draw in zip(areas.tolist(), draws.tolist(), strict=True)
    ]
    _write_texts(folder / "documents.jsonl", documents, _DOCUMENT_CHARACTERS, rng, metadata)
    _write_texts(folder / "queries.jsonl", held_out, _QUERY_CHARACTERS, rng, [None] * len(asked))
    codes = np.array(CODES)
    return Dataset(
        folder,
        documents.vectors,
        held_out.vectors,
        codes[documents.languages],
        codes[held_out.languages],
        areas,
        draws,
        measured_shape(documents.vectors, spare.vectors[:_SHAPE_QUERIES]),
    )


def _areas(topics: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.str_]:
    """Divide the documents topic by topic; only a topic on a border is in two areas."""
    order = np.argsort(rng.permutation(topics.max() + 1)[topics], kind="stable")
    borders = np.round(np.cumsum(list(AREAS.values()))[:-1] * len(topics)).astype(int)
    areas = np.empty(len(topics), "U8")
    for name, rows in zip(AREAS, np.split(order, borders), strict=True):
        areas[rows] = name
    return areas


def _write_texts(
    path: Path,
    cloud: Cloud,
    characters: int,
    rng: np.random.Generator,
    metadata: Sequence[dict[str, Any] | None],
) -> None:
    texts = np.empty(len(cloud.vectors), object)
    for number, code in enumerate(CODES):
        rows = np.flatnonzero(cloud.languages == number)
        texts[rows] = make_texts(code, len(rows), characters, rng)
    with path.open("w", encoding="utf-8") as file:
        for row, (text, number) in enumerate(zip(texts, cloud.languages.tolist(), strict=True)):
            values = {"id": f"doc-{row}", "text": text, "language": CODES[number], "metadata": metadata[row]}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
