"""Collections of documents: fill, look up, search, delete."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from embedsvc.collections.collection import Collection, CollectionInfo, Document, UpsertResult
from embedsvc.collections.collection_set import CollectionSet
from embedsvc.collections.document import check_documents
from embedsvc.errors import InvalidInputError, ModelMismatchError, StorageError
from embedsvc.options import EncodeOptions
from embedsvc.search import SearchRequest
from embedsvc.server.schemas import (
    CollectionCard,
    CollectionList,
    DeletedResponse,
    DocumentBody,
    DocumentsRequest,
    DocumentsResponse,
    HitBody,
    SearchBody,
    SearchResponse,
)
from embedsvc.server.state import ServerState, StateDep

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.get("")
async def list_collections(state: StateDep) -> CollectionList:
    """List the collections; one that this server cannot use says why."""

    def cards() -> list[CollectionCard]:
        return [_card(state.collections, name) for name in state.collections.names()]

    return CollectionList(collections=await state.storage.run(cards))


@router.get("/{name}")
async def describe_collection(name: str, state: StateDep) -> CollectionCard:
    """Count the documents of a collection, in all and per language."""

    def card() -> CollectionCard:
        if name not in state.collections.names():
            state.collections.get(name)  # raises, naming those that there are
        return _card(state.collections, name)

    return await state.storage.run(card)


@router.delete("/{name}")
async def delete_collection(name: str, state: StateDep) -> DeletedResponse:
    """Delete a collection with all its documents."""
    await state.storage.run(state.collections.delete, name)
    return DeletedResponse(deleted=1)


@router.put("/{name}/documents")
async def put_documents(name: str, request: DocumentsRequest, state: StateDep) -> DocumentsResponse:
    """Insert documents, or replace those with the same ids; the collection is made if it is not there."""
    limit = state.settings.max_batch_texts
    if len(request.documents) > limit:
        raise InvalidInputError(
            f"documents has {len(request.documents)} documents; max_batch_texts = {limit}", param="documents"
        )

    def upsert() -> UpsertResult:
        given = [Document(**document.model_dump()) for document in request.documents]
        checked = check_documents(given)  # before a collection is made for nothing
        return state.collections.open(name).upsert(checked)

    return DocumentsResponse(**asdict(await state.storage.run(upsert)))


@router.get("/{name}/documents/{document_id:path}")
async def get_document(name: str, document_id: str, state: StateDep) -> DocumentBody:
    """Return one document."""
    found = await state.storage.run(lambda: state.collections.get(name).get(document_id))
    return DocumentBody.model_construct(**asdict(found))


@router.delete("/{name}/documents/{document_id:path}")
async def delete_document(name: str, document_id: str, state: StateDep) -> DeletedResponse:
    """Delete one document."""

    def delete() -> int:
        collection = state.collections.get(name)
        deleted = collection.delete([document_id])
        if not deleted:
            collection.get(document_id)  # raises NotFoundError
        return deleted

    return DeletedResponse(deleted=await state.storage.run(delete))


@router.post("/{name}/search")
async def search(name: str, request: SearchBody, state: StateDep) -> SearchResponse:
    """Find the documents nearest in meaning to a question in any language."""
    options = request.model_dump(exclude={"query"})
    SearchRequest.checked(**options)  # before the model works
    collection = await state.storage.run(state.collections.get, name)
    vector = await _query_vector(request.query, state)
    hits = await state.storage.run(collection.search_vector, vector, **options)
    return SearchResponse(hits=[HitBody.model_construct(**vars(hit)) for hit in hits])


async def _query_vector(query: str, state: ServerState) -> NDArray[np.float32]:
    """Return the vector (dim,) of a query, encoded together with other requests' texts."""
    if not query.strip():
        raise InvalidInputError("query is empty", param="query")
    try:
        encoding = await state.models.default.encode([query], EncodeOptions(input_type="query"))
    except InvalidInputError as error:
        raise type(error)(error.message.replace("input[0]", "query", 1), param="query") from error
    vector: NDArray[np.float32] = encoding.vectors[0]
    return vector


def _card(collections: CollectionSet, name: str) -> CollectionCard:
    """Describe a collection, also one that is damaged or was made with another model."""
    try:
        return _filled_card(collections.get(name).info())
    except StorageError as error:
        return CollectionCard(name=name, problem=error.message)
    except ModelMismatchError as error:
        with Collection(collections.folder / name, create=False) as other:
            return _filled_card(other.info(), problem=error.message)


def _filled_card(info: CollectionInfo, problem: str | None = None) -> CollectionCard:
    return CollectionCard(
        name=info.name,
        documents=info.documents,
        languages=info.languages,
        model=info.model,
        fingerprint=info.fingerprint,
        dimension=info.dimension,
        problem=problem,
    )
