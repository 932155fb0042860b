"""Collections: make, list, describe, verify, delete."""

from __future__ import annotations

from fastapi import APIRouter

from embedsvc.collections.backends import AnyCollection, verify_any
from embedsvc.errors import ModelMismatchError, StorageError
from embedsvc.server.requests.collections import (
    CollectionCard,
    CollectionList,
    CreateRequest,
    DeletedResponse,
    VerifyResponse,
)
from embedsvc.server.state import ServerState, StateDep

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.get("")
async def list_collections(state: StateDep) -> CollectionList:
    """List the collections; one that this server cannot search says why."""

    def cards() -> list[CollectionCard]:
        return [_card(state, name) for name in state.collections.names()]

    return CollectionList(collections=await state.storage.run(cards))


@router.post("", status_code=201)
async def create_collection(request: CreateRequest, state: StateDep) -> CollectionCard:
    """Make an empty collection, of a model or for vectors of one width; a name that is taken is refused."""
    options = request.options()
    model = None if request.model is None else state.models.find(request.model)

    def create() -> CollectionCard:
        encoder = None if model is None else state.encoders.encoder_of(model)
        return _described(state, state.collections.create(request.name, options, encoder=encoder))

    return await state.writes.run(create)


@router.get("/{name}")
async def describe_collection(name: str, state: StateDep) -> CollectionCard:
    """Count the documents of a collection, in all and per language."""

    def card() -> CollectionCard:
        if name not in state.collections.names():
            state.collections.get(name)  # raises, naming those that there are
        return _card(state, name)

    return await state.storage.run(card)


@router.delete("/{name}")
async def delete_collection(name: str, state: StateDep) -> DeletedResponse:
    """Delete a collection with all its documents."""
    await state.writes.run(state.collections.delete, name)
    return DeletedResponse(deleted=1)


@router.post("/{name}/verify")
async def verify_collection(name: str, state: StateDep) -> VerifyResponse:
    """Check the database, every stored vector and the index against each other; nothing is changed."""
    report = await state.checks.run(lambda: verify_any(state.collections.get(name)))
    return VerifyResponse(ok=report.ok, problems=report.problems, checked=report.checked)


def _card(state: ServerState, name: str) -> CollectionCard:
    """Describe a collection, also one that is damaged or whose model is not served."""
    try:
        return _described(state, state.collections.get(name))
    except StorageError as error:
        return CollectionCard(name=name, problem=error.message)


def _described(state: ServerState, collection: AnyCollection) -> CollectionCard:
    about = collection.info()
    return CollectionCard(
        name=about.name,
        documents=about.documents,
        passages=about.passages,
        languages=about.languages,
        fields=about.fields,
        model=about.model or None,
        fingerprint=about.fingerprint or None,
        dimension=about.dimension,
        options=about.options,
        generation=about.generation,
        created=about.created,
        size_bytes=about.size_bytes,
        recall=about.recall,
        problem=_problem(state, collection) if about.fingerprint else None,
    )


def _problem(state: ServerState, collection: AnyCollection) -> str | None:
    """Return why no model of this server can be used for the collection; None when one can."""
    if state.models.with_fingerprint(collection.fingerprint):
        return None
    try:
        collection.encoder  # noqa: B018 - raises, naming both models
    except ModelMismatchError as error:
        return error.message
    return None
