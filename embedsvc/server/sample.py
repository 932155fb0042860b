"""The sample collection: the same everyday passages in many languages, for trying the server out."""

from __future__ import annotations

from embedsvc.collections.collection import Collection, Document
from embedsvc.collections.collection_set import CollectionSet
from embedsvc.documents import read_documents
from embedsvc.encoder import Encoder
from embedsvc.errors import ModelMismatchError, NotFoundError, StorageError
from embedsvc.model_folder import SAMPLE_FILE

SAMPLE = "sample"


def load_sample(collections: CollectionSet, encoder: Encoder) -> None:
    """Bring the collection 'sample' up to date; only what differs is encoded.

    One made with another model is made anew, unless it holds documents of somebody else: StorageError.
    """
    documents = list(read_documents(SAMPLE_FILE))
    try:
        collection = collections.open(SAMPLE)
        if collection.count and not any(_stored(collection, document.id) for document in documents):
            raise StorageError(
                f"collection {SAMPLE!r} holds other documents than the sample; rename your collection or "
                "leave out --demo"
            )
    except ModelMismatchError as error:
        with Collection(collections.folder / SAMPLE, create=False) as old:
            own = sum(_stored(old, document.id) is not None for document in documents)
            foreign = old.count - own
        if foreign:
            raise StorageError(
                f"collection {SAMPLE!r} has {foreign} documents that are not of the sample, made with "
                f"another model than {encoder.name!r}: delete it (embedsvc collections) or leave out --demo"
            ) from error
        collections.delete(SAMPLE)
        collection = collections.open(SAMPLE)
    changed = [document for document in documents if _stored(collection, document.id) != document]
    if changed:
        collection.upsert(changed)


def _stored(collection: Collection, id_: str) -> Document | None:
    try:
        return collection.get(id_)
    except NotFoundError:
        return None
