"""All collections of embedsvc in one Milvus, by name."""

from __future__ import annotations

import threading

from embedsvc.collections.collection_set import check_name
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.milvus_client import MilvusServer
from embedsvc.collections.milvus_schema import PREFIX, head_of, milvus_name
from embedsvc.collections.opening import FindEncoder
from embedsvc.collections.options import CollectionOptions
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.reranker import Reranker


class MilvusCollectionSet:
    """The collections at a Milvus URI, opened on demand; as `CollectionSet`. Safe with several threads."""

    def __init__(
        self,
        uri: str,
        encoder: Encoder | None = None,
        *,
        token: str | None = None,
        find_encoder: FindEncoder | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """Connect; raise UnavailableError when nobody answers, MissingExtraError without pymilvus."""
        self.uri = uri
        self._token = token
        self._encoder = encoder
        self._find_encoder = find_encoder
        self._reranker = reranker
        self._server = MilvusServer(uri, token)
        self._open: dict[str, MilvusCollection] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        described = [self._server.describe(name) for name in self._server.names() if name.startswith(PREFIX)]
        heads = [head_of(found, self._server) for found in described if found is not None]
        return sorted(head.name for head in heads if head is not None)

    def get(self, name: str) -> MilvusCollection:
        """Return an existing collection; raise NotFoundError naming those that there are."""
        check_name(name)
        with self._lock:
            self._check_known(name)
            return self._opened(name, create=False)

    def open(self, name: str) -> MilvusCollection:
        """Return the collection of this name, made if it is not there."""
        check_name(name)
        with self._lock:
            return self._opened(name, create=True)

    def create(
        self, name: str, options: CollectionOptions | None = None, *, encoder: Encoder | None = None
    ) -> MilvusCollection:
        """Make a new collection, of ``encoder`` if given; raise InvalidInputError when the name is taken."""
        check_name(name)
        with self._lock:
            if self._server.describe(milvus_name(name)) is not None:
                raise InvalidInputError(f"collection {name!r} exists already", param="name")
            return self._opened(name, create=True, options=options, encoder=encoder)

    def delete(self, name: str) -> None:
        """Delete a collection and all its documents; raise NotFoundError naming those that there are."""
        check_name(name)
        with self._lock:
            self._check_known(name)
            opened = self._open.pop(name, None)
            self._server.drop(milvus_name(name))
        if opened is not None:
            opened.close()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
            self._server.close()

    def _opened(
        self,
        name: str,
        *,
        create: bool,
        options: CollectionOptions | None = None,
        encoder: Encoder | None = None,
    ) -> MilvusCollection:
        found = self._open.get(name)
        if found is not None and found.is_current():
            return found
        if found is not None:
            self._open.pop(name).close()
        collection = self._open[name] = MilvusCollection(
            self.uri,
            name,
            encoder or self._encoder,
            create=create,
            options=options,
            token=self._token,
            reranker=self._reranker,
            find_encoder=self._find_encoder,
        )
        return collection

    def _check_known(self, name: str) -> None:
        if self._server.describe(milvus_name(name)) is None:
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"no collection {name!r}; known: {known}", param="name")
