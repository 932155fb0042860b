"""milvus-lite through pymilvus.    python -m retrieve.workers.milvus DATA STORE"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from pymilvus import DataType, MilvusClient

from retrieve.workers.protocol import Data, K, Rows, serve, spent, timed

_NAME = "documents"


class Milvus:
    """One collection with an HNSW index on the vectors and an inverted index on the language."""

    efforts = tuple({"ef": ef} for ef in (48, 96, 192, 384, 768))

    def __init__(self, folder: Path, store: Path) -> None:
        self._data = Data(folder)
        self._store = store
        self._client: Any = None
        self._effort = 64

    def ingest(self) -> dict[str, float]:
        """Write everything into a new database."""
        if self._client is not None:
            self._client.drop_collection(_NAME)
        else:
            shutil.rmtree(self._store, ignore_errors=True)
        client = self._connected()
        client.create_collection(_NAME, schema=self._schema(client))
        return spent(lambda: [client.insert(_NAME, _values(rows)) for rows in self._data.batches()])

    def build(self) -> dict[str, float]:
        """Ingest unless that is done, and index."""
        client = self._connected()
        took = {}
        if not client.has_collection(_NAME):
            took = {f"ingest_{name}": value for name, value in self.ingest().items()}
            took |= spent(self._index)
        client.load_collection(_NAME)
        return took

    def use(self, effort: dict[str, int]) -> None:
        self._effort = effort["ef"]

    def search(self, queries: list[int], language: str | None = None) -> dict[str, Any]:
        """Search one query vector at a time, and return id and text."""
        parameters = {"metric_type": "IP", "params": {"ef": self._effort}}
        client, condition = self._client, f'language == "{language}"' if language else ""
        answer = timed(
            lambda query: client.search(
                _NAME,
                data=[query],
                anns_field="vector",
                limit=K,
                filter=condition,
                output_fields=["id", "text"],
                search_params=parameters,
            )[0],
            [vector.tolist() for vector in self._data.queries[queries]],
        )
        answer["found"] = [[hit["id"] for hit in hits] for hits in answer["found"]]
        return answer

    def _connected(self) -> Any:
        if self._client is None:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            self._client = MilvusClient(str(self._store))
        return self._client

    def _schema(self, client: Any) -> Any:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("text", DataType.VARCHAR, max_length=2_000)
        schema.add_field("language", DataType.VARCHAR, max_length=8)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._data.vectors.shape[1])
        return schema

    def _index(self) -> None:
        self._client.flush(_NAME)
        parameters = self._client.prepare_index_params()
        graph = {"M": 16, "efConstruction": 200}
        parameters.add_index("vector", index_type="HNSW", metric_type="IP", params=graph)
        parameters.add_index("language", index_type="INVERTED")
        self._client.create_index(_NAME, parameters)


def _values(rows: Rows) -> list[dict[str, Any]]:
    return [
        {"id": values["id"], "text": values["text"], "language": values["language"], "vector": vector}
        for values, vector in zip(rows.documents, rows.vectors, strict=True)
    ]


if __name__ == "__main__":
    serve(Milvus(*map(Path, sys.argv[1:])))
