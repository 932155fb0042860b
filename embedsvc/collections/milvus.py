"""A collection in Milvus: the verbs of `Collection` past one machine, or on a file of milvus-lite.

What differs: all documents of an upsert are written before it returns, but not in one step: killed in
the middle, some are new and some old, none lost. Documents come in the order of their keys. Debiasing,
token vectors and `reindex` are not offered.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from embedsvc.collections.collection import CollectionInfo, UpsertResult
from embedsvc.collections.document import Document, check_documents, check_ids
from embedsvc.collections.filters import check_fields, parse_filter
from embedsvc.collections.intake import Intake
from embedsvc.collections.milvus_client import MilvusServer, MilvusTable
from embedsvc.collections.milvus_filters import (
    all_of,
    filter_expression,
    joined_fields,
    languages_expression,
)
from embedsvc.collections.milvus_rows import IS_DOCUMENT, MilvusRows, keys_expression, verify_rows
from embedsvc.collections.milvus_schema import (
    Head,
    create_table,
    head_of,
    key_of,
    milvus_name,
)
from embedsvc.collections.milvus_search import MilvusSearch
from embedsvc.collections.milvus_writer import MilvusWriter
from embedsvc.collections.opening import FindEncoder, check_model, check_options, encoder_of
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.queries import checked_queries
from embedsvc.collections.request import SearchOptions, SearchRequest, checked_request
from embedsvc.collections.schema import Identity
from embedsvc.collections.verbs import Searchable
from embedsvc.collections.verify import VerifyReport
from embedsvc.collections.writer import Batch
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError, NotFoundError, StorageError
from embedsvc.languages import normalize_languages
from embedsvc.reranker import Reranker
from embedsvc.search import Scorers, SearchResult


class MilvusCollection(Searchable):
    """Documents in Milvus, searchable as soon as they are written. Safe to use from several threads."""

    def __init__(
        self,
        uri: str,
        name: str,
        encoder: Encoder | None = None,
        *,
        create: bool = True,
        options: CollectionOptions | None = None,
        token: str | None = None,
        reranker: Reranker | None = None,
        find_encoder: FindEncoder | None = None,
    ) -> None:
        """Open the collection ``name`` at ``uri``, or with ``create`` make it, with ``options``.

        ``uri`` is http://HOST:19530 or the name of a file, ``token`` an API key or USER:PASSWORD. Raises as
        `Collection` does, MissingExtraError without pymilvus, UnavailableError when nobody answers.
        """
        self.name = name
        self.uri = uri
        self._encoder = encoder
        self._reranker = reranker
        self._find_encoder = find_encoder
        self._server = MilvusServer(uri, token)
        try:
            self._head = self._opened(create, options)
        except BaseException:
            self._server.close()
            raise
        self._rows = MilvusRows(MilvusTable(self._server, milvus_name(name)))
        self._writer = MilvusWriter(self._rows.table, self._head.identity.dimension)
        self._intake: Intake | None = None

    @property
    def options(self) -> CollectionOptions:
        """What was decided when the collection was made."""
        return self._head.options

    @property
    def identity(self) -> Identity:
        """Whose vectors the collection holds."""
        return self._head.identity

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return self._head.identity.dimension

    @property
    def fingerprint(self) -> str:
        """Of the model whose vectors are stored; empty for a collection without a model."""
        return self._head.identity.fingerprint

    @property
    def encoder(self) -> Encoder:
        """The encoder; loaded on first use. Raises ModelMismatchError when it is another model."""
        self._encoder = encoder_of(self.name, self.identity, self._encoder, self._find_encoder)
        return self._encoder

    @property
    def count(self) -> int:
        """The number of documents."""
        return self._rows.table.count(IS_DOCUMENT)

    def languages(self) -> dict[str, int]:
        """Return the number of documents per language code, most first."""
        return self._rows.languages()

    def upsert(self, documents: Iterable[Document | Mapping[str, Any]]) -> UpsertResult:
        """Insert documents, or replace those with the same ids.

        When this returns, searches find them. Raises InvalidInputError naming the position of the first bad
        document; then nothing is written.
        """
        checked = check_documents(documents)
        if not checked:
            return UpsertResult(0, 0)
        if self._intake is None:
            encoder = self.encoder if self.fingerprint else None
            self._intake = Intake(self._head.identity, self._head.options, encoder)
        return self.write(self._intake.batch(checked))

    def write(self, batch: Batch, revisions: Sequence[int] | None = None) -> UpsertResult:
        """Write a batch that has its vectors already; ``revisions`` of the documents are the time, else."""
        return self._writer.write(batch, revisions)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents by id; return how many there were. Unknown ids are no error."""
        return self._writer.delete(check_ids(ids))

    def delete_where(
        self, filter: Mapping[str, Any] | None = None, *, languages: Iterable[str] | None = None
    ) -> int:
        """Delete the documents that a filter on metadata and ``languages`` let through; return how many.

        Raises InvalidInputError when neither is given.
        """
        if filter is None and languages is None:
            raise InvalidInputError("give a filter or languages; to delete all, delete the collection")
        return self._writer.delete_all(self._expression(filter, languages))

    def get(self, id: str, *, vector: bool = False) -> Document:
        """Return the document with this id, with ``vector`` also its vector if it has one alone.

        Raises NotFoundError when there is none.
        """
        check_ids([id])
        expression = keys_expression([key_of(id)])
        for document in self._rows.documents(expression, vectors=vector):
            return document
        raise NotFoundError(f"collection {self.name!r} has no document {id!r}", param="id")

    def documents(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        languages: Iterable[str] | None = None,
        vectors: bool = False,
    ) -> Iterator[Document]:
        """Yield the documents in the order of their keys; with ``vectors`` theirs, if they have one alone."""
        yield from self._rows.documents(self._expression(filter, languages), vectors=vectors)

    def query(
        self,
        queries: Sequence[str] | None = None,
        vectors: NDArray[Any] | Sequence[NDArray[Any] | Sequence[float]] | None = None,
        options: SearchOptions | None = None,
    ) -> list[SearchResult]:
        """Return a result for each of ``queries``, or ``vectors`` (n, dimension), or both together."""
        request = checked_request(options or SearchOptions())
        scorers = self._scorers(request)
        asked = checked_queries(queries, vectors, request, self.dimension, lambda: self.encoder)
        return MilvusSearch(self._rows, request, scorers).run(asked)

    def info(self) -> CollectionInfo:
        """Return counts and model. Milvus keeps no size and no generation; these are 0."""
        identity, languages = self._head.identity, self.languages()
        return CollectionInfo(
            name=self.name,
            documents=sum(languages.values()),
            passages=self._rows.table.count("piece == 0"),
            languages=languages,
            fields=sorted(joined_fields(self._rows.notes().fields)),
            model=identity.model,
            fingerprint=identity.fingerprint,
            dimension=identity.dimension,
            options=asdict(self._head.options),
            generation=0,
            created=self._head.created,
            size_bytes=0,
            recall=None,
        )

    def revisions(self, ids: Sequence[str]) -> dict[str, int | None]:
        """Return the revision of each of these documents; None where there is none."""
        found = self._rows.revisions([key_of(id_) for id_ in ids])
        return {id_: found[key_of(id_)] for id_ in ids}

    def verify(self) -> VerifyReport:
        """Check that every document is complete, and that nothing else is there; change nothing."""
        return verify_rows(self._rows)

    def build_index(self) -> bool:
        """Return True: Milvus builds its indexes by itself."""
        return True

    def is_current(self) -> bool:
        """Whether this is still the collection of its name: not deleted nor made anew by another process."""
        described = self._server.describe(milvus_name(self.name))
        return described is not None and head_of(described, self._server) == self._head

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _opened(self, create: bool, options: CollectionOptions | None) -> Head:
        described = self._server.describe(milvus_name(self.name))
        if described is None:
            if not create:
                raise NotFoundError(f"Milvus at {self.uri} has no collection {self.name!r}", param="name")
            return self._created(options or CollectionOptions())
        head = head_of(described, self._server)
        if head is None or head.name != self.name:
            raise StorageError(
                f"Milvus at {self.uri}: {milvus_name(self.name)!r} is no collection {self.name!r} of embedsvc"
            )
        if options is not None:
            check_options(self.name, head.options, options)
        if self._encoder is not None and self._find_encoder is None:
            check_model(self.name, head.identity, self._encoder)
        self._server.load(milvus_name(self.name))
        return head

    def _created(self, options: CollectionOptions) -> Head:
        if options.dimension is not None:
            identity = Identity("", "", options.dimension)
        else:
            first = self._encoder = self._encoder or load_encoder()
            identity = Identity(first.name, first.fingerprint, first.dimension)
        head = Head(self.name, identity, options, time.time())
        create_table(self._server, head)
        return head

    def _scorers(self, request: SearchRequest) -> Scorers:
        if request.maxsim:
            raise InvalidInputError("maxsim is not offered with backend milvus", param="maxsim")
        if request.rerank and self._reranker is None:
            raise InvalidInputError("rerank needs a cross-encoder, and none is configured", param="rerank")
        return Scorers(None, self._reranker)

    def _expression(self, filter: Mapping[str, Any] | None, languages: Iterable[str] | None) -> str:
        codes = languages_expression(None if languages is None else normalize_languages(languages))
        if filter is None:
            return codes
        wanted, known = parse_filter(filter), joined_fields(self._rows.notes().fields)
        check_fields(wanted, list(known))
        return all_of(codes, filter_expression(wanted, known))
