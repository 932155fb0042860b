"""An embedded collection copied to Milvus, with the vectors it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedsvc.collections.collection import Collection
from embedsvc.collections.document import Document
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.milvus_client import MilvusServer
from embedsvc.collections.milvus_schema import Head, create_table, milvus_name
from embedsvc.collections.passages import Span
from embedsvc.collections.store import identity_of
from embedsvc.collections.views import View
from embedsvc.collections.writer import Batch
from embedsvc.errors import ModelMismatchError

_BATCH = 500

Progress = Callable[[int, int], None]


def open_target(
    source: Collection, uri: str, *, name: str | None = None, token: str | None = None
) -> MilvusCollection:
    """Open the collection at ``uri`` that ``source`` is to be copied to, made like it if it is not there.

    Its name is that of the source unless given. Raises InvalidInputError for options that Milvus has not.
    """
    name = name or source.name
    with source.store.reading() as view:
        identity = identity_of(view)
    server = MilvusServer(uri, token)
    try:
        if server.describe(milvus_name(name)) is None:
            create_table(server, Head(name, identity, source.options, source.store.created))
    finally:
        server.close()
    return MilvusCollection(uri, name, create=False, options=source.options, token=token)


def migrate(source: Collection, target: MilvusCollection, *, progress: Progress | None = None) -> int:
    """Copy the documents of one moment, their passages and vectors; return how many were copied.

    Interrupted and called again, it copies what is missing or has changed since. Documents that were
    written to the target itself are left as they are. ``progress`` is called with documents done and their
    number in all. Raises ModelMismatchError unless the vectors of both are of one model.
    """
    copied = done = row = 0
    with source.store.reading() as view:
        _check_model(source, view, target)
        total = view.count()
        while found := view.documents_after(row, _BATCH):
            row = found[-1][0]
            missing = _missing(found, target)
            if missing:
                batch = _batch([document for _, document in missing], [at for at, _ in missing], view, target)
                target.write(batch, [at for at, _ in missing])
            copied += len(missing)
            done += len(found)
            if progress is not None:
                progress(done, total)
    return copied


def _check_model(source: Collection, view: View, target: MilvusCollection) -> None:
    identity = identity_of(view)
    mine, other = (identity.fingerprint, identity.dimension), (target.fingerprint, target.dimension)
    if mine != other:
        raise ModelMismatchError(
            f"collection {source.name!r} has vectors of model {identity.model!r} (fingerprint "
            f"{mine[0] or 'none'}, dimension {mine[1]}), {target.name!r} at {target.uri} of "
            f"{target.identity.model!r} (fingerprint {other[0] or 'none'}, dimension {other[1]})"
        )


def _missing(found: Sequence[tuple[int, Document]], target: MilvusCollection) -> list[tuple[int, Document]]:
    """Return the documents that the target has not, or has from an older row of the source."""
    there = target.revisions([document.id for _, document in found])
    missing = []
    for row, document in found:
        revision = there[document.id]
        if revision is None or revision < row:
            missing.append((row, document))
    return missing


def _batch(documents: Sequence[Document], rows: Sequence[int], view: View, target: MilvusCollection) -> Batch:
    passages = view.stored_passages(rows, target.dimension)
    return Batch(
        documents,
        [],
        [[Span(start, stop) for start, stop, _ in passages[row]] for row in rows],
        np.stack([vector for row in rows for _, _, vector in passages[row]]),
        [],
    )
