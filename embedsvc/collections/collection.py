"""A collection: documents that can be found by meaning and by words, in any language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.document import Document, check_documents, check_ids
from embedsvc.collections.filters import check_fields, matching_mask, parse_filter
from embedsvc.collections.intake import Intake
from embedsvc.collections.live_index import LiveIndex
from embedsvc.collections.maxsim import TokenScorer
from embedsvc.collections.opening import FindEncoder, check_model, check_options, encoder_of
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.queries import checked_queries
from embedsvc.collections.request import SearchOptions, SearchRequest, checked_request
from embedsvc.collections.schema import Identity
from embedsvc.collections.segments import State
from embedsvc.collections.store import Store, identity_of, is_empty
from embedsvc.collections.verbs import Searchable
from embedsvc.collections.views import Operation, View
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError, ModelMismatchError, NotFoundError
from embedsvc.languages import normalize_languages
from embedsvc.reranker import Reranker
from embedsvc.search import Hit, Query, Scorers, Search, SearchResult, query_language
from indexing import IndexFileError, saved_recall

DATABASE = "documents.sqlite"
INDEX = "index"

__all__ = [
    "Collection",
    "CollectionInfo",
    "CollectionOptions",
    "Document",
    "Hit",
    "SearchOptions",
    "SearchResult",
    "UpsertResult",
]


@dataclass(frozen=True)
class UpsertResult:
    """How many documents were new, and how many took the place of one with the same id."""

    inserted: int
    updated: int


@dataclass(frozen=True)
class CollectionInfo:
    """A summary; ``created`` in seconds since 1970, ``size_bytes`` of the database without its index.

    ``recall`` is what the index was measured to find of the true 10 nearest, the least of all languages;
    None while every search is exact.
    """

    name: str
    documents: int
    passages: int
    languages: dict[str, int]
    fields: list[str]
    model: str
    fingerprint: str
    dimension: int
    options: dict[str, Any]
    generation: int
    created: float
    size_bytes: int
    recall: float | None


class Collection(Searchable):
    """Documents in one folder, searchable as soon as they are written. Safe to use from several threads.

    What `upsert` and `delete` have returned from is on disk; several processes may use the same folder.
    """

    def __init__(
        self,
        path: str | Path,
        encoder: Encoder | None = None,
        *,
        create: bool = True,
        options: CollectionOptions | None = None,
        reranker: Reranker | None = None,
        find_encoder: FindEncoder | None = None,
    ) -> None:
        """Open the collection in the folder ``path``, or with ``create`` make it, with ``options``.

        Without an encoder the bundled model is loaded when it is first needed; ``find_encoder`` is asked for
        the one with a fingerprint. Options with a ``dimension`` make a collection without a model.
        Raises NotFoundError, StorageError for a damaged file, ModelMismatchError when it was made
        with another model than ``encoder``, InvalidInputError when it has other options.
        """
        self.path = Path(path)
        self._encoder = encoder
        self._find_encoder = find_encoder
        self._reranker = reranker
        self._intake: Intake | None = None
        database = self.path / DATABASE
        if create and is_empty(database):
            self._store = self._created(database, options or CollectionOptions())
        else:
            self._store = Store(database)
        try:
            if options is not None:
                check_options(self.name, self._store.options, options)
            self._identity = self._store.identity()
            if encoder is not None and find_encoder is None:
                check_model(self.name, self._identity, encoder)
        except BaseException:
            self._store.close()
            raise
        self._index = LiveIndex(self._store, self.path / INDEX)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def store(self) -> Store:
        """The database; for backup, verification and re-embedding."""
        return self._store

    @property
    def options(self) -> CollectionOptions:
        """What was decided when the collection was made."""
        return self._store.options

    @property
    def encoder(self) -> Encoder:
        """The encoder; loaded on first use. Raises ModelMismatchError when it is another model."""
        return self._encoder_of(self._store.identity())

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return self._store.identity().dimension

    @property
    def fingerprint(self) -> str:
        """Of the model whose vectors are stored; empty for a collection without a model."""
        return self._store.identity().fingerprint

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

        A document is a `Document` or a mapping with id, text and perhaps language, metadata and vector. When
        this returns they are on disk, and the next search finds them.
        Raises InvalidInputError naming the position of the first bad document.
        """
        checked = check_documents(documents)
        if not checked:
            return UpsertResult(0, 0)
        while True:
            identity = self._store.identity()
            batch = self._intake_for(identity).batch(checked)
            with self._store.writing() as writer:
                if identity_of(writer) == identity:  # else re-embedded meanwhile, with another model
                    updated = writer.upsert(batch)
                    return UpsertResult(len(checked) - updated, updated)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id, all in one step; return how many there were. Unknown ids are no error."""
        known = check_ids(ids)
        with self._store.writing() as writer:
            return writer.delete(known)

    def delete_where(
        self, filter: Mapping[str, Any] | None = None, *, languages: Iterable[str] | None = None
    ) -> int:
        """Delete the documents that a filter on metadata and ``languages`` let through; return how many.

        Raises InvalidInputError when neither is given.
        """
        if filter is None and languages is None:
            raise InvalidInputError("give a filter or languages; to delete all, delete the collection")
        with self._store.writing() as writer:
            return writer.delete_rows(_matching_rows(writer, filter, languages))

    def get(self, id: str, *, vector: bool = False) -> Document:
        """Return the document with this id, with ``vector`` also its vector if it has one alone.

        Raises NotFoundError when there is none.
        """
        check_ids([id])
        with self._store.reading() as view:
            found = view.document(id, identity_of(view).dimension if vector else None)
        if found is None:
            raise NotFoundError(f"collection {self.name!r} has no document {id!r}", param="id")
        return found

    def documents(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        languages: Iterable[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Document]:
        """Yield the documents of one moment, oldest first, with ``vectors`` those that have one alone."""
        with self._store.reading() as view:
            wanted = None
            if filter is not None or languages is not None:
                wanted = set(_matching_rows(view, filter, languages))
            dimension = identity_of(view).dimension if vectors else None
            for row, document in view.documents(vectors=dimension):
                if wanted is None or row in wanted:
                    yield document

    def query(
        self,
        queries: Sequence[str] | None = None,
        vectors: NDArray[Any] | Sequence[NDArray[Any] | Sequence[float]] | None = None,
        options: SearchOptions | None = None,
    ) -> list[SearchResult]:
        """Return a result for each of ``queries``, or ``vectors`` (n, dimension), or both together.

        Where a query has a vector, that is searched for, and its text only for words and reranking.
        """
        request = checked_request(options or SearchOptions())
        while True:
            identity = self._identity
            try:
                asked = checked_queries(
                    queries, vectors, request, identity.dimension, partial(self._encoder_of, identity)
                )
            except (DimensionMismatchError, ModelMismatchError):
                self._identity = self._store.identity()
                if self._identity == identity:
                    raise
                continue  # re-embedded since, with a model of another width
            scorers = self._scorers(request, identity)
            with self._index.current() as (view, state):
                if state.identity == identity:
                    return Search(view, state, request, scorers).run(_debiased(asked, state, request))
                self._identity = state.identity  # re-embedded since, with another model

    def info(self) -> CollectionInfo:
        """Return counts, model and size of one moment; the index is not opened for it."""
        with self._store.reading() as view:
            languages, identity = view.languages(), identity_of(view)
            return CollectionInfo(
                name=self.name,
                documents=sum(languages.values()),
                passages=view.passage_count(view.last_row()),
                languages=languages,
                fields=sorted(view.field_names()),
                model=identity.model,
                fingerprint=identity.fingerprint,
                dimension=identity.dimension,
                options=asdict(self._store.options),
                generation=view.generation(),
                created=self._store.created,
                size_bytes=self._store.size_bytes,
                recall=self._recall(view),
            )

    def operations(self, limit: int = 20) -> list[Operation]:
        """Return the last entries of the operation log, the newest first."""
        with self._store.reading() as view:
            return view.operations(limit)

    def build_index(self) -> bool:
        """Save an index of all documents now, so that the next start is quick; return whether there is one.

        There is none of all when another process is building one, or it could not be saved (that is logged).

        Above 10,000 passages this makes graphs, which takes about a minute of one core per 100,000.
        """
        return self._index.build()

    def is_current(self) -> bool:
        """Whether this is still the collection at its path: not deleted nor made anew by another process."""
        return self._store.is_current()

    def close(self) -> None:
        """Wait for an index being built, then close all files."""
        self._index.close()
        self._store.close()

    def _recall(self, view: View) -> float | None:
        record = view.snapshot()
        if record is None:
            return None
        try:
            return saved_recall(self.path / INDEX / record.folder, sha256=record.sha256)
        except IndexFileError:  # replaced meanwhile, or damaged: the next search makes it again
            return None

    def _created(self, database: Path, options: CollectionOptions) -> Store:
        if options.dimension is not None:
            return Store.create(database, Identity("", "", options.dimension), options)
        first = self._encoder = self._encoder or load_encoder()
        return Store.create(database, Identity(first.name, first.fingerprint, first.dimension), options)

    def _encoder_of(self, identity: Identity) -> Encoder:
        self._encoder = encoder_of(self.name, identity, self._encoder, self._find_encoder)
        return self._encoder

    def _intake_for(self, identity: Identity) -> Intake:
        if self._intake is None or self._intake.identity != identity:
            encoder = self._encoder_of(identity) if identity.fingerprint else None
            self._intake = Intake(identity, self._store.options, encoder)
        return self._intake

    def _scorers(self, request: SearchRequest, identity: Identity) -> Scorers:
        if request.rerank and self._reranker is None:
            raise InvalidInputError(
                "rerank needs a cross-encoder, and none is configured (serve and search: --reranker FOLDER; "
                "Collection: reranker=)",
                param="rerank",
            )
        tokens = None
        if request.maxsim:
            if not self._store.options.token_vectors:
                raise InvalidInputError(
                    f"maxsim needs token vectors, and collection {self.name!r} was made without "
                    "(token_vectors)",
                    param="maxsim",
                )
            tokens = TokenScorer(self._encoder_of(identity))
        return Scorers(tokens, self._reranker)


def _debiased(asked: Sequence[Query], state: State, request: SearchRequest) -> Sequence[Query]:
    """Return the queries with vectors that have been through what those of the index have."""
    if state.debias is None or not asked or any(query.vector is None for query in asked):
        return asked
    codes = np.array([request.query_language or query_language(query.text or "") or "und" for query in asked])
    matrix = np.stack([query.vector for query in asked if query.vector is not None])
    some = matrix.any(axis=1)
    matrix[some] = state.debias.apply_to_queries(matrix[some], codes[some])
    return [replace(query, vector=vector) for query, vector in zip(asked, matrix, strict=True)]


def _matching_rows(
    view: View, filter: Mapping[str, Any] | None, languages: Iterable[str] | None
) -> list[int]:
    """Return the rows of the documents that a filter and languages let through."""
    last = view.last_row("documents")
    mask = np.ones(last + 1, bool)
    if filter is not None:
        wanted = parse_filter(filter)
        check_fields(wanted, view.field_names())
        mask &= matching_mask(wanted, view, last)
    codes = None if languages is None else normalize_languages(languages)
    return view.document_rows(mask, codes)
