"""Documents of a collection: write, export, look up, delete."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from embedsvc.collections.collection import Document, UpsertResult
from embedsvc.collections.collection_set import check_name
from embedsvc.collections.document import check_documents
from embedsvc.collections.transfer import export_lines
from embedsvc.errors import EmbedsvcError, InvalidInputError
from embedsvc.server.answers import json_bytes
from embedsvc.server.auth import charge_texts
from embedsvc.server.errors import error_response
from embedsvc.server.inference import patiently, state_of
from embedsvc.server.requests.body import NDJSON, body_of, is_ndjson, query_of, read_body, read_query
from embedsvc.server.requests.collections import (
    DeletedResponse,
    DeleteRequest,
    DocumentsRequest,
    DocumentsResponse,
    ExportQuery,
    StoredDocument,
)
from embedsvc.server.requests.document_lines import BatchLimits, DocumentBatch, document_batches
from embedsvc.server.requests.lines import ClientGoneError, body_chunks
from embedsvc.server.state import ServerState, StateDep

_EXPORTED_AT_ONCE = 256  # documents
_SENT_AT_ONCE = 1 << 18  # bytes
_LINES = {NDJSON: {"schema": {"type": "string"}}}
_BODY = body_of(DocumentsRequest)
_BODY["requestBody"]["content"] |= _LINES
_log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.put("/{name}/documents", responses={200: {"model": DocumentsResponse}}, openapi_extra=_BODY)
async def put_documents(request: Request, name: str) -> Response:
    """Insert documents, or replace those with the same ids; the collection is made if it is not there.

    A JSON body is written whole or not at all. With `Content-Type: application/x-ndjson` it is a document
    per line, of any number, written in batches while it is read: each is on disk before the next is read.
    """
    check_name(name)
    if is_ndjson(request.headers):
        return await _put_lines(request, name)
    body = await read_body(request, DocumentsRequest)
    state = state_of(request)
    limit = state.settings.max_batch_texts
    if len(body.documents) > limit:
        raise InvalidInputError(
            f"documents has {len(body.documents)} documents; max_batch_texts = {limit}; for more, send a "
            f"line each as {NDJSON}",
            param="documents",
        )
    documents = [document.document() for document in body.documents]
    _charge(request, documents)
    return _counts(await state.writes.run(_upsert, state, name, documents))


@router.get(
    "/{name}/documents",
    response_class=Response,
    responses={200: {"content": _LINES}},
    openapi_extra=query_of(ExportQuery),
)
async def export_documents(request: Request, name: str) -> Response:
    """Return all documents of one moment as NDJSON, oldest first, as PUT takes them.

    What goes wrong on the way is told in a last line, `{"error": …}`. A client that takes nothing for
    request_timeout_s is cut off.
    """
    query = read_query(request, ExportQuery)
    filter_, codes = query.conditions(), query.codes()
    state = state_of(request)

    def begun() -> tuple[_Export, bytes]:
        collection = state.collections.get(name)
        export = _Export(export_lines(collection, vectors=query.vectors, filter=filter_, languages=codes))
        return export, export.piece()

    export, first = await state.storage.run(begun)
    return _Exported(_pieces(state, export, first), state.settings.request_timeout_s)


@router.post("/{name}/documents/delete")
async def delete_documents(name: str, request: DeleteRequest, state: StateDep) -> DeletedResponse:
    """Delete documents by id, or all that a filter on metadata and languages let through."""
    if request.ids is not None and (request.filter is not None or request.languages is not None):
        raise InvalidInputError("give ids, or filter and languages, not both", param="ids")

    def delete() -> int:
        collection = state.collections.get(name)
        if request.ids is not None:
            return collection.delete(request.ids)
        return collection.delete_where(request.filter, languages=request.languages)

    return DeletedResponse(deleted=await state.writes.run(delete))


@router.get("/{name}/documents/{document_id:path}", responses={200: {"model": StoredDocument}})
async def get_document(name: str, document_id: str, state: StateDep, vector: bool = False) -> Response:
    """Return one document, with `?vector=true` also its vector."""
    found = await state.storage.run(lambda: state.collections.get(name).get(document_id, vector=vector))
    told: dict[str, Any] = {
        "id": found.id,
        "text": found.text,
        "language": found.language,
        "metadata": found.metadata,
    }
    if found.vector is not None:
        told["vector"] = found.vector
    return Response(json_bytes(told), media_type="application/json")


@router.delete("/{name}/documents/{document_id:path}")
async def delete_document(name: str, document_id: str, state: StateDep) -> DeletedResponse:
    """Delete one document."""

    def delete() -> int:
        collection = state.collections.get(name)
        deleted = collection.delete([document_id])
        if not deleted:
            collection.get(document_id)  # raises NotFoundError
        return deleted

    return DeletedResponse(deleted=await state.writes.run(delete))


async def _put_lines(request: Request, name: str) -> Response:
    """Write an NDJSON body batch by batch; an error says how many documents were written before it."""
    settings = state_of(request).settings
    chunks = body_chunks(request.receive, settings.request_timeout_s)
    limits = BatchLimits(line_bytes=settings.max_body_bytes, documents=settings.max_batch_texts)
    written = UpsertResult(0, 0)
    try:
        async for batch in document_batches(chunks, limits):
            done = await _write(request, name, batch)
            written = UpsertResult(written.inserted + done.inserted, written.updated + done.updated)
    except EmbedsvcError as error:
        error.message += f" ({written.inserted + written.updated} documents were written before)"
        answer = error_response(error, request.url.path)
        answer.headers["Connection"] = "close"  # the rest of the body is not read
        return answer
    except ClientGoneError:
        return Response(status_code=499)  # nobody reads it; the log does
    return _counts(written)


async def _write(request: Request, name: str, batch: DocumentBatch) -> UpsertResult:
    """Write a batch durably; while the server is full or the key's rate used up, let the client wait."""
    state = state_of(request)

    async def charge() -> None:
        _charge(request, batch.documents)

    await patiently(charge)
    try:
        return await patiently(lambda: state.writes.run(_upsert, state, name, batch.documents))
    except EmbedsvcError as error:
        error.message = batch.at_line(error.message)
        raise


def _upsert(state: ServerState, name: str, documents: Sequence[Document]) -> UpsertResult:
    checked = check_documents(documents)  # before a collection is made for nothing
    return state.collections.open(name).upsert(checked)


def _charge(request: Request, documents: Sequence[Document]) -> None:
    """Count the texts that a model has to encode."""
    charge_texts(request, sum(document.vector is None for document in documents))


def _counts(written: UpsertResult) -> Response:
    return Response(
        json_bytes({"inserted": written.inserted, "updated": written.updated}), media_type="application/json"
    )


class _Export:
    """Lines of one moment of a collection, read by one thread at a time and closed when nobody wants more."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._lock = threading.Lock()

    def piece(self) -> bytes:
        """Return the next lines; empty at the end."""
        with self._lock:
            return "".join(f"{line}\n" for line in islice(self._lines, _EXPORTED_AT_ONCE)).encode()

    def close(self) -> None:
        """End the transaction."""
        with self._lock:
            self._lines.close()  # type: ignore[attr-defined]


class _Exported(StreamingResponse):
    """The lines, sent as the client takes them; one that stops reading ends the export.

    Else its transaction stayed open, and the database's log could not be emptied.
    """

    def __init__(self, pieces: AsyncGenerator[bytes], idle_s: float) -> None:
        super().__init__(pieces, media_type=NDJSON)
        self._pieces = pieces
        self._idle_s = idle_s

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            async with asyncio.timeout(self._idle_s):
                await send(message)

        async with aclosing(self._pieces):
            try:
                await super().stream_response(in_time)
            except TimeoutError:
                _log.warning("an export was ended: its client took nothing for %g s", self._idle_s)


async def _pieces(state: ServerState, export: _Export, piece: bytes) -> AsyncGenerator[bytes]:
    try:
        while piece:
            for start in range(0, len(piece), _SENT_AT_ONCE):
                yield piece[start : start + _SENT_AT_ONCE]
            piece = await patiently(lambda: state.storage.run(export.piece))
    except EmbedsvcError as error:
        yield bytes(error_response(error).body) + b"\n"
    finally:  # not awaited: the client may have gone
        asyncio.get_running_loop().run_in_executor(None, export.close)
