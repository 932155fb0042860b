"""FAISS alone, as it comes: no ids, no texts.    python -m retrieve.workers.bare_faiss DATA STORE"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieve.workers.protocol import Data, K, serve, spent, timed


class BareFaiss:
    """HNSW over 8-bit values, and a flat index with FAISS's own threshold for BLAS."""

    efforts = tuple(
        {"ef": ef} for ef in (*range(8, 64, 4), *range(64, 160, 8), *range(160, 512, 32), 512, 768, 1024)
    )

    def __init__(self, folder: Path, store: Path) -> None:
        self._data = Data(folder)
        self._languages = np.array([values["language"] for values in self._data.documents])
        self._store = store / "hnsw_sq8.faiss"
        self._effort = 32
        self._index: Any = None
        self._flat: Any = None

    def build(self) -> dict[str, float]:
        """Make the index unless it is there."""
        if not self._store.exists():
            self._store.parent.mkdir(parents=True, exist_ok=True)
            return spent(self._make)
        self._index = faiss.read_index(str(self._store))
        return {}

    def _make(self) -> None:
        dimension = self._data.vectors.shape[1]
        sq8, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        self._index = faiss.IndexHNSWSQ(dimension, sq8, 32, metric)
        self._index.train(self._data.vectors)
        self._index.add(self._data.vectors)
        faiss.write_index(self._index, str(self._store))

    def use(self, effort: dict[str, int]) -> None:
        self._effort = effort["ef"]

    def search(self, queries: list[int], language: str | None = None) -> dict[str, Any]:
        """Search one query at a time, with parameters made beforehand."""
        selector = None if language is None else self._selector(language)
        parameters = faiss.SearchParametersHNSW(efSearch=self._effort, sel=selector)
        index = self._index
        answer = timed(
            lambda query: index.search(query, K, params=parameters)[1], self._data.queries[queries][:, None]
        )
        answer["found"] = [
            [f"doc-{row}" for row in found[0].tolist() if row >= 0] for found in answer["found"]
        ]
        return answer

    def scan(self, queries: list[int], language: str) -> dict[str, Any]:
        """Scan the vectors of one language exactly."""
        rows = np.flatnonzero(self._languages == language)
        flat = faiss.IndexFlatIP(self._data.vectors.shape[1])
        flat.add(self._data.vectors[rows])
        answer = timed(lambda query: flat.search(query, K)[1], self._data.queries[queries][:, None])
        answer["found"] = [[f"doc-{row}" for row in rows[found[0]].tolist()] for found in answer["found"]]
        return answer

    def flat_batch(self, queries: list[int], repeats: int) -> dict[str, float]:
        """Search one batch in a flat index."""
        if self._flat is None:
            self._flat = faiss.IndexFlatIP(self._data.vectors.shape[1])
            self._flat.add(self._data.vectors)
        batch = self._data.queries[queries]
        return spent(lambda: [self._flat.search(batch, K) for _ in range(repeats)])

    def _selector(self, language: str) -> Any:
        mask = np.packbits(self._languages == language, bitorder="little")
        selector = faiss.IDSelectorBitmap(mask)
        selector.mask = mask  # FAISS keeps only a pointer
        return selector


if __name__ == "__main__":
    serve(BareFaiss(*map(Path, sys.argv[1:])))
