"""The sample collection: the same everyday passages in many languages, for trying the server out."""

from __future__ import annotations

from embedsvc.collections.backends import AnyCollection, AnyCollectionSet
from embedsvc.collections.collection import Document
from embedsvc.documents import read_documents
from embedsvc.encoder import Encoder
from embedsvc.errors import NotFoundError, StorageError
from embedsvc.model_folder import SAMPLE_FILE

SAMPLE = "sample"


def load_sample(collections: AnyCollectionSet, encoder: Encoder) -> None:
    """Bring the collection 'sample' up to date; only what differs is encoded.

    One of another model's space is made anew, unless it holds documents of somebody else: StorageError.
    """
    documents = list(read_documents(SAMPLE_FILE))
    collection = collections.open(SAMPLE)
    own = sum(_stored(collection, document.id) is not None for document in documents)
    if not encoder.folder.fits(collection.fingerprint):
        if collection.count > own:
            raise StorageError(
                f"collection {SAMPLE!r} has {collection.count - own} documents that are not of the sample, "
                f"made with another model than {encoder.name!r}: delete it (embedsvc collections) or leave "
                "out --demo"
            )
        collections.delete(SAMPLE)
        collection = collections.open(SAMPLE)
    elif collection.count and not own:
        raise StorageError(
            f"collection {SAMPLE!r} holds other documents than the sample; rename your collection or "
            "leave out --demo"
        )
    changed = [document for document in documents if _stored(collection, document.id) != document]
    if changed:
        collection.upsert(changed)


def _stored(collection: AnyCollection, id_: str) -> Document | None:
    try:
        return collection.get(id_)
    except NotFoundError:
        return None
