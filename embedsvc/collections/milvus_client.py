"""The one door to Milvus: a client's calls with our errors; pymilvus is imported nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import MissingExtraError, StorageError, UnavailableError

Row = dict[str, Any]
_CALL_S = 60.0
_CONNECT_S = 10.0
_PAGE_ROWS = 500
_CONNECT_FAILED = 2  # pymilvus' code
_UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "Retry run out", "Fail connecting", "timeout")


def is_file(uri: str) -> bool:
    """Return whether a URI names a file, which milvus-lite opens in this process, and no server."""
    return "://" not in uri


class MilvusServer:
    """A connection to a cluster, or to a file that milvus-lite opens in this process.

    Raises MissingExtraError without pymilvus, UnavailableError when nobody answers.
    """

    def __init__(self, uri: str, token: str | None = None) -> None:
        self.uri = uri
        try:
            import pymilvus

            if is_file(uri):
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("backend milvus", "milvus") from error
        # It logs a traceback of every error that it raises; ours say the same once.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        if is_file(uri):  # milvus-lite answers some calls that pymilvus can do without by failing, loudly
            logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
        with self.translated():
            self.client: Any = pymilvus.MilvusClient(uri=uri, token=token or "", timeout=_CONNECT_S)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of pymilvus and gRPC as ours."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except grpc.RpcError as error:
            raise UnavailableError(f"Milvus at {self.uri} does not answer: {error}") from error
        except MilvusException as error:
            if error.code == _CONNECT_FAILED or any(word in str(error.message) for word in _UNREACHABLE):
                raise UnavailableError(f"Milvus at {self.uri} does not answer: {error.message}") from error
            raise StorageError(f"Milvus at {self.uri}: {error.message}") from error

    def names(self) -> list[str]:
        """Return the names of the Milvus collections of this database."""
        with self.translated():
            return list(self.client.list_collections(timeout=_CALL_S))

    def describe(self, name: str) -> dict[str, Any] | None:
        """Return what Milvus knows of a collection; None when there is none of this name."""
        with self.translated():
            if not self.client.has_collection(name, timeout=_CALL_S):
                return None
            return dict(self.client.describe_collection(name, timeout=_CALL_S))

    def load(self, name: str) -> None:
        """Have a Milvus collection in memory, which searches need; after a restart it may not be."""
        with self.translated():
            self.client.load_collection(name, timeout=_CALL_S)

    def drop(self, name: str) -> None:
        """Delete a Milvus collection and all its rows."""
        with self.translated():
            self.client.drop_collection(name, timeout=_CALL_S)

    def close(self) -> None:
        """Close the connection; a file stays open in this process until it ends."""
        self.client.close()


class MilvusTable:
    """The rows of one Milvus collection."""

    def __init__(self, server: MilvusServer, name: str) -> None:
        self._server = server
        self._client = server.client
        self._name = name

    def query(self, expression: str, fields: Sequence[str]) -> list[Row]:
        """Return all rows that satisfy an expression; for few rows."""
        with self._server.translated():
            found = self._client.query(
                self._name, filter=expression, output_fields=list(fields), timeout=_CALL_S
            )
            return [dict(row) for row in found]

    def pages(self, expression: str, fields: Sequence[str]) -> Iterator[list[Row]]:
        """Yield the rows that satisfy an expression, in the order of their keys, up to 500 at a time."""
        with self._server.translated():
            pages = self._client.query_iterator(
                self._name,
                batch_size=_PAGE_ROWS,
                filter=expression,
                output_fields=list(fields),
                timeout=_CALL_S,
            )
        try:
            while True:
                with self._server.translated():
                    page = [dict(row) for row in pages.next()]
                if not page:
                    return
                yield page
        finally:
            pages.close()

    def count(self, expression: str) -> int:
        """Return the number of rows that satisfy an expression."""
        with self._server.translated():
            found = self._client.query(
                self._name, filter=expression, output_fields=["count(*)"], timeout=_CALL_S
            )
            return int(found[0]["count(*)"])

    def nearest(
        self,
        queries: NDArray[np.float32] | Sequence[str],
        field: str,
        limit: int,
        expression: str,
        fields: Sequence[str],
    ) -> list[list[tuple[float, Row]]]:
        """Return for each query up to ``limit`` (score, row), best first: by vector, or by words."""
        depth = {"params": {"ef": max(200, 2 * limit)}} if field == "vector" else {}
        with self._server.translated():
            found = self._client.search(
                self._name,
                data=list(queries),
                anns_field=field,
                limit=limit,
                filter=expression,
                output_fields=list(fields),
                search_params=depth,
                timeout=_CALL_S,
            )
            return [[(float(hit["distance"]), dict(hit["entity"])) for hit in hits] for hits in found]

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, each in the place of one with the same key; searches see them when this returns."""
        with self._server.translated():
            self._client.upsert(self._name, data=list(rows), timeout=_CALL_S)

    def delete(self, expression: str) -> None:
        """Delete the rows that satisfy an expression."""
        with self._server.translated():
            self._client.delete(self._name, filter=expression, timeout=_CALL_S)
