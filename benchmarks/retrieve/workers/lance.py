"""LanceDB.    python -m retrieve.workers.lance DATA STORE (ivf_pq | hnsw_sq | flat)"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from lancedb.index import Bitmap, HnswSq, IvfPq

from retrieve.workers.protocol import Data, K, Rows, serve, spent, timed

_NAME = "documents"
_INDEXES = {
    "ivf_pq": IvfPq(distance_type="dot", num_partitions=256, num_sub_vectors=96),
    "hnsw_sq": HnswSq(distance_type="dot", num_partitions=1, m=20, ef_construction=150),
    "flat": None,
}
_EFFORTS: dict[str, list[dict[str, int]]] = {
    "ivf_pq": [
        {"nprobes": probes, "refine": refine} for probes in (10, 20, 40, 80, 160) for refine in (4, 10)
    ],
    "hnsw_sq": [{"nprobes": 1, "ef": ef, "refine": 2} for ef in (24, 32, 48, 64, 96, 128, 192, 256, 512)],
    "flat": [{}],
}


class Lance:
    """One table with a vector index of one kind and a bitmap index on the language."""

    def __init__(self, folder: Path, store: Path, kind: str) -> None:
        self._data = Data(Path(folder))
        self._store = Path(store)
        self._kind = kind
        self._table: Any = None
        self.efforts = _EFFORTS[kind]
        self._effort = self.efforts[0]

    def ingest(self) -> dict[str, float]:
        """Write everything into a new table."""
        shutil.rmtree(self._store, ignore_errors=True)
        table = lancedb.connect(str(self._store)).create_table(_NAME, schema=self._schema())
        self._table = table
        return spent(lambda: [table.add(self._values(rows)) for rows in self._data.batches()])

    def build(self) -> dict[str, float]:
        """Ingest unless that is done, and index."""
        if self._store.exists():
            self._table = lancedb.connect(str(self._store)).open_table(_NAME)
            return {}
        took = {f"ingest_{name}": value for name, value in self.ingest().items()}
        return took | spent(self._index)

    def use(self, effort: dict[str, int]) -> None:
        self._effort = effort

    def search(self, queries: list[int], language: str | None = None) -> dict[str, Any]:
        """Search one query vector at a time, and return id and text."""
        answer = timed(lambda query: self._found(query, language), list(self._data.queries[queries]))
        answer["found"] = [hits.column("id").to_pylist() for hits in answer["found"]]
        return answer

    def _found(self, query: Any, language: str | None) -> Any:
        wanted = self._table.search(query, vector_column_name="vector").distance_type("dot").limit(K)
        wanted = wanted.select(["id", "text", "_distance"])
        if language:
            wanted = wanted.where(f"language = '{language}'", prefilter=True)
        if "nprobes" in self._effort:
            wanted = wanted.nprobes(self._effort["nprobes"])
        if "ef" in self._effort:
            wanted = wanted.ef(self._effort["ef"])
        if "refine" in self._effort:
            wanted = wanted.refine_factor(self._effort["refine"])
        return wanted.to_arrow()

    def _index(self) -> None:
        self._table.optimize()
        self._table.create_index("language", config=Bitmap())
        if _INDEXES[self._kind] is not None:
            self._table.create_index("vector", config=_INDEXES[self._kind])

    def _schema(self) -> Any:
        vector = pa.list_(pa.float32(), self._data.vectors.shape[1])
        names = ("id", "text", "language")
        return pa.schema([*(pa.field(name, pa.string()) for name in names), pa.field("vector", vector)])

    def _values(self, rows: Rows) -> Any:
        columns = [[values[name] for values in rows.documents] for name in ("id", "text", "language")]
        width = rows.vectors.shape[1]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.ravel()), width)
        return pa.table([*map(pa.array, columns), vectors], schema=self._schema())


if __name__ == "__main__":
    serve(Lance(*sys.argv[1:]))  # type: ignore[arg-type]
