"""A collection: documents that can be found by meaning, in any language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document, check_documents, check_ids, metadata_json
from embedsvc.collections.live_index import LiveIndex
from embedsvc.collections.store import Store, is_empty
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError, ModelMismatchError, NotFoundError, TextTooLongError
from embedsvc.search import Hit, SearchRequest, find_hits, unit_vector

DATABASE = "documents.sqlite"

__all__ = ["Collection", "CollectionInfo", "Document", "Hit", "UpsertResult"]


@dataclass(frozen=True)
class UpsertResult:
    """How many documents were new, and how many took the place of one with the same id."""

    inserted: int
    updated: int


@dataclass(frozen=True)
class CollectionInfo:
    """A summary; ``created`` in seconds since 1970, ``size_bytes`` of the database without its index."""

    name: str
    documents: int
    languages: dict[str, int]
    model: str
    fingerprint: str
    dimension: int
    generation: int
    created: float
    size_bytes: int


class Collection:
    """Documents in one folder, searchable as soon as they are written. Safe to use from several threads.

    What `upsert` and `delete` have returned from is on disk; several processes may use the same folder.
    """

    def __init__(self, path: str | Path, encoder: Encoder | None = None, *, create: bool = True) -> None:
        """Open the collection in the folder ``path``, or with ``create`` make it.

        Without an encoder the bundled model is loaded when it is first needed.
        Raises NotFoundError, StorageError for a damaged file, and ModelMismatchError when it was made
        with another model than ``encoder``.
        """
        self.path = Path(path)
        self._given_encoder = encoder
        database = self.path / DATABASE
        if create and is_empty(database):
            first = self._given_encoder = encoder or load_encoder()
            self._store = Store.create(
                database, model=first.name, fingerprint=first.fingerprint, dimension=first.dimension
            )
        else:
            self._store = Store(database)
        self._index = LiveIndex(self._store, self.path / "index")
        if encoder is not None:
            self._check_model(encoder)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def encoder(self) -> Encoder:
        """The encoder; loaded on first use. Raises ModelMismatchError when it is another model."""
        if self._given_encoder is None:
            encoder = load_encoder()
            self._check_model(encoder)
            self._given_encoder = encoder
        return self._given_encoder

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return self._store.dimension

    @property
    def count(self) -> int:
        """The number of documents."""
        with self._store.reading() as view:
            return view.count()

    def languages(self) -> dict[str, int]:
        """Return the number of documents per language code, most first."""
        with self._store.reading() as view:
            return view.languages()

    def upsert(self, documents: Iterable[Document | Mapping[str, Any]]) -> UpsertResult:
        """Insert documents, or replace those with the same ids: all of them or none.

        A document is a `Document` or a mapping with id, text and perhaps language and metadata. When
        this returns they are on disk, and the next search finds them.
        Raises InvalidInputError naming the position of the first bad document.
        """
        checked = check_documents(documents)
        if not checked:
            return UpsertResult(0, 0)
        metadata = [metadata_json(document.metadata, "documents") for document in checked]
        vectors = self._document_vectors([document.text for document in checked])
        with self._store.writing() as writer:
            updated = writer.upsert(checked, metadata, vectors)
        return UpsertResult(len(checked) - updated, updated)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id, all in one step; return how many there were. Unknown ids are no error."""
        known = check_ids(ids)
        with self._store.writing() as writer:
            return writer.delete(known)

    def get(self, id: str) -> Document:
        """Return the document with this id; raise NotFoundError when there is none."""
        check_ids([id])
        with self._store.reading() as view:
            found = view.document(id)
        if found is None:
            raise NotFoundError(f"collection {self.name!r} has no document {id!r}", param="id")
        return found

    def search(
        self,
        query: str,
        *,
        top_k: int = 10,
        languages: Iterable[str] | None = None,
        offset: int = 0,
        min_score: float | None = None,
    ) -> list[Hit]:
        """Return the documents nearest in meaning to ``query``, best first; the query may be in any language.

        languages keeps only documents in these languages; offset skips hits already seen; min_score
        drops what is less similar (cosine). A query of which the model knows no token finds nothing.
        Raises InvalidInputError naming the value and the limit.
        """
        request = SearchRequest.checked(top_k=top_k, offset=offset, languages=languages, min_score=min_score)
        if not isinstance(query, str) or not query.strip():
            raise InvalidInputError("query must be a text that is not empty", param="query")
        vector = self.encoder.encode([query], prompt_name=self.encoder.query_prompt_name)[0]
        return self._find(vector, request)

    def search_vector(
        self,
        vector: NDArray[Any] | Sequence[float],
        *,
        top_k: int = 10,
        languages: Iterable[str] | None = None,
        offset: int = 0,
        min_score: float | None = None,
    ) -> list[Hit]:
        """As `search`, for a query vector (dimension,) of the collection's model, of any length but 0."""
        request = SearchRequest.checked(top_k=top_k, offset=offset, languages=languages, min_score=min_score)
        return self._find(unit_vector(vector, self.dimension), request)

    def info(self) -> CollectionInfo:
        """Return counts, model and size of one moment."""
        with self._store.reading() as view:
            languages, generation = view.languages(), view.generation()
        return CollectionInfo(
            name=self.name,
            documents=sum(languages.values()),
            languages=languages,
            model=self._store.model,
            fingerprint=self._store.fingerprint,
            dimension=self.dimension,
            generation=generation,
            created=self._store.created,
            size_bytes=self._store.size_bytes,
        )

    def build_index(self) -> None:
        """Save an index of all documents now, so that the next start is quick.

        Above 50,000 documents this makes a graph, which takes about a minute of one core per 50,000; later
        calls make it anew only when enough has changed.
        """
        self._index.build()

    def is_current(self) -> bool:
        """Whether this is still the collection at its path: not deleted nor made anew by another process."""
        return self._store.is_current()

    def close(self) -> None:
        """Wait for an index being built, then close all files."""
        self._index.wait()
        self._store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, vector: NDArray[np.float32], request: SearchRequest) -> list[Hit]:
        with self._index.current() as (view, state):
            return find_hits(view, state, vector, request)

    def _document_vectors(self, texts: list[str]) -> NDArray[np.float32]:
        encoder = self.encoder
        try:
            vectors: NDArray[np.float32] = encoder.encode(
                texts, prompt_name=encoder.document_prompt_name, progress=False
            )
        except TextTooLongError as error:
            raise TextTooLongError(
                error.message.replace("input[", "documents[", 1), param="documents"
            ) from error
        return vectors

    def _check_model(self, encoder: Encoder) -> None:
        if encoder.fingerprint != self._store.fingerprint:
            raise ModelMismatchError(
                f"collection {self.name!r} was made with model {self._store.model!r} (fingerprint "
                f"{self._store.fingerprint}), not with {encoder.name!r} (fingerprint {encoder.fingerprint}); "
                "open it with its own model, or index the documents again into a new collection"
            )
