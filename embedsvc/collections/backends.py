"""Where collections are kept: embedded in a data folder, or in Milvus."""

from __future__ import annotations

from embedsvc.collections.collection import Collection
from embedsvc.collections.collection_set import CollectionSet
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.milvus_set import MilvusCollectionSet
from embedsvc.collections.opening import FindEncoder
from embedsvc.collections.verify import VerifyReport, verify
from embedsvc.encoder import Encoder
from embedsvc.reranker import Reranker
from embedsvc.settings import Settings

AnyCollection = Collection | MilvusCollection
AnyCollectionSet = CollectionSet | MilvusCollectionSet


def open_collection_set(
    settings: Settings,
    encoder: Encoder | None = None,
    *,
    find_encoder: FindEncoder | None = None,
    reranker: Reranker | None = None,
) -> AnyCollectionSet:
    """Return the collections of the backend that the settings name.

    Raises UnavailableError when Milvus does not answer, MissingExtraError when its package is not there.
    """
    if settings.backend == "embedded" or settings.milvus_uri is None:
        return CollectionSet(settings.data_dir, encoder, find_encoder=find_encoder, reranker=reranker)
    return MilvusCollectionSet(
        settings.milvus_uri,
        encoder,
        token=settings.milvus_token,
        find_encoder=find_encoder,
        reranker=reranker,
    )


def verify_any(collection: AnyCollection) -> VerifyReport:
    """Check a collection of either backend; change nothing."""
    return collection.verify() if isinstance(collection, MilvusCollection) else verify(collection)
