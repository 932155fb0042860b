"""Our collection.    python -m retrieve.workers.ours DATA STORE"""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedsvc.collections.collection import Collection, CollectionOptions, Document, SearchOptions
from indexing import VectorIndex
from retrieve.workers.protocol import Data, K, Rows, serve, spent, timed


class Ours:
    """A collection without a model, and a flat `VectorIndex`."""

    def __init__(self, folder: Path, store: Path) -> None:
        self._data = Data(folder)
        self._store = store
        self._collection: Collection | None = None
        self._flat: VectorIndex | None = None

    @property
    def _open(self) -> Collection:
        if self._collection is None:
            self._collection = Collection(self._store)
        return self._collection

    def ingest(self) -> dict[str, float]:
        """Write everything into a new collection."""
        self.close()
        shutil.rmtree(self._store, ignore_errors=True)
        options = CollectionOptions(dimension=self._data.vectors.shape[1])
        self._collection = Collection(self._store, options=options)
        return spent(lambda: [self._write(rows) for rows in self._data.batches()])

    def _write(self, rows: Rows) -> None:
        self._open.upsert(
            [
                Document(**values, vector=vector)
                for values, vector in zip(rows.documents, rows.vectors, strict=True)
            ]
        )

    def build(self) -> dict[str, float]:
        """Ingest unless that is done, and save the index."""
        took = {}
        if not self._store.exists():
            took = {f"ingest_{name}": value for name, value in self.ingest().items()}
        return took | spent(self._open.build_index)

    def about(self) -> dict[str, Any]:
        """Return the summary of the collection."""
        return asdict(self._open.info())

    def plan(self, language: str | None = None, filter: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return how a search is done."""
        options = SearchOptions(languages=[language] if language else None, filter=filter, explain=True)
        plan = self._open.query(vectors=self._data.queries[:1], options=options)[0].plan
        return dict((plan or {})["index"])

    def search(
        self, queries: list[int], language: str | None = None, filter: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Search one query vector at a time: documents and all."""
        collection, languages = self._open, [language] if language else None
        answer = timed(
            lambda query: collection.search_vector(query, top_k=K, languages=languages, filter=filter),
            list(self._data.queries[queries]),
        )
        answer["found"] = [[hit.id for hit in hits] for hits in answer["found"]]
        return answer

    def search_text(self, queries: list[int], mode: str) -> dict[str, Any]:
        """Search one query at a time that has a text and a vector."""
        options = SearchOptions(top_k=K, mode=mode)  # type: ignore[arg-type]
        collection, data = self._open, self._data
        answer = timed(
            lambda query: (
                collection.query(
                    [data.query_texts[query]], vectors=data.queries[query : query + 1], options=options
                )[0].hits
            ),
            queries,
        )
        answer["found"] = [[hit.id for hit in hits] for hits in answer["found"]]
        return answer

    def batch(self, queries: list[int], repeats: int) -> dict[str, float]:
        """Search one batch in the collection."""
        vectors, options = self._data.queries[queries], SearchOptions(top_k=K)
        return spent(lambda: [self._open.query(vectors=vectors, options=options) for _ in range(repeats)])

    def flat_batch(self, queries: list[int], repeats: int) -> dict[str, float]:
        """Search one batch in a flat index."""
        if self._flat is None:
            self._flat = VectorIndex.build(self._data.vectors)
        flat, vectors = self._flat, self._data.queries[queries]
        return spent(lambda: [flat.search(vectors, K) for _ in range(repeats)])

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()
            self._collection = None


if __name__ == "__main__":
    serve(Ours(*map(Path, sys.argv[1:])))
