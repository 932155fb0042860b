"""The saved index of a collection: built from the store, saved under a new name, made current by one row.

A folder in use is locked (shared) by every process that has it open; it is removed when it is no longer
the current one and nobody has it open. A folder that cannot be trusted is set aside, never served.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.schema import Identity
from embedsvc.collections.segments import Base
from embedsvc.collections.translations import Marks, parallel_pairs
from embedsvc.collections.views import LANGUAGE, PassageRows, SnapshotRecord, View
from indexing import (
    Debias,
    IndexFileError,
    ShardedIndex,
    ShardOptions,
    fit_debias,
    open_shards,
    save_shards,
)

_log = logging.getLogger(__name__)
_LOCK = "lock"
_ASIDE = "quarantine-"
_DEBIAS = "debias.npz"


@dataclass(frozen=True, eq=False)
class Content:
    """What an index is made of: all passages of one moment; ``count`` has those without a direction too.

    ``marks`` tell which documents are translations of each other, where the collection wants to know.
    """

    generation: int
    identity: Identity
    last_row: int
    count: int
    passages: PassageRows
    marks: Marks = ()


@dataclass(frozen=True, eq=False)
class Built:
    """An index of some content, not yet saved; rows of passages and documents (n,) by position."""

    content: Content
    index: ShardedIndex
    rows: NDArray[np.int64]
    documents: NDArray[np.int64]
    debias: Debias | None


@dataclass(frozen=True, eq=False)
class Opened:
    """A base from the disk, and what its vectors have been through."""

    base: Base
    debias: Debias | None


def snapshot_content(
    view: View, identity: Identity, options: CollectionOptions, table: str = "passages"
) -> Content:
    """Read all passages of a view, which may end then: SQLite's log grows for as long as it is open."""
    last_row = view.last_row(table)
    return Content(
        generation=view.generation(),
        identity=identity,
        last_row=last_row,
        count=view.passage_count(last_row, table),
        passages=view.passages_after(0, identity.dimension, table),
        marks=() if options.debias_pairs is None else view.values_of(options.debias_pairs),
    )


def build_snapshot(content: Content, options: CollectionOptions) -> Built:
    """Index passages; takes about a minute of one core per 100,000 above 10,000."""
    passages = content.passages
    order = np.lexsort((passages.rows, passages.languages))
    languages = passages.languages[order]
    debias = _fitted(content, options)
    vectors = passages.vectors[order]
    if debias is not None:
        vectors = debias.apply(vectors, languages)
    index = ShardedIndex.build(vectors, languages.astype("U"), ShardOptions(recall=options.recall))
    return Built(content, index, passages.rows[order], passages.documents[order], debias)


def save_snapshot(built: Built, folder: Path) -> SnapshotRecord:
    """Write a built index into a new folder below ``folder``; nobody knows it before it is recorded."""
    content = built.content
    name = f"{content.generation}-{uuid.uuid4().hex[:8]}"
    sha256 = save_shards(
        built.index,
        folder / name,
        arrays={"rows": built.rows, "documents": built.documents},
        files={_LOCK: Path.touch} | ({} if built.debias is None else {_DEBIAS: built.debias.save}),
        extra={"generation": content.generation},
        model=content.identity.fingerprint or None,
    )
    return SnapshotRecord(name, sha256, content.generation, content.last_row, content.count)


def open_snapshot(view: View, folder: Path) -> Opened | None:
    """Return the current saved index; None when there is none. Raises IndexFileError when it is bad."""
    record = view.snapshot()
    if record is None:
        return None
    lock = _locked(folder / record.folder)
    opened = open_shards(folder / record.folder, sha256=record.sha256)
    rows, documents = opened.arrays["rows"], opened.arrays["documents"]
    removed = view.removed_since(record.generation)
    there = view.passage_count(record.last_row)
    gone = int(np.count_nonzero(removed <= record.last_row))
    if len(rows) != opened.index.count or there + gone != record.passages:
        raise IndexFileError(
            f"{folder / record.folder}: was made from {record.passages} passages; "
            f"the database has {there} of them and {gone} removed"
        )
    languages = np.empty(len(rows), LANGUAGE)
    for group in opened.index.groups.values():
        languages[group.start : group.stop] = group.label.encode()
    debias = Debias.load(opened.files[_DEBIAS]) if _DEBIAS in opened.files else None
    base = Base(opened.index, rows, documents, languages, lock=lock)
    return Opened(base.without(removed), debias)


def remove_unused(view: View, folder: Path) -> None:
    """Remove the folders that are neither current nor open in any process."""
    record = view.snapshot()
    for entry in folder.iterdir() if folder.is_dir() else ():
        if (record is not None and entry.name == record.folder) or entry.name.startswith(_ASIDE):
            continue
        if not entry.is_dir():
            entry.unlink(missing_ok=True)
            continue
        with contextlib.suppress(OSError), exclusive(entry / _LOCK) as alone:
            if alone:
                shutil.rmtree(entry, ignore_errors=True)


def set_aside(view: View, folder: Path) -> None:
    """Rename the current saved index, which cannot be trusted, so that nothing opens it; keep only it."""
    record = view.snapshot()
    if record is None or not (folder / record.folder).exists():
        return
    for old in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / record.folder).rename(folder / f"{_ASIDE}{record.folder}")


@contextlib.contextmanager
def only_builder(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Give whether this process may build now; no other process gets True at the same time.

    With ``wait`` it is True, if only after the others are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name("index.lock"), wait=wait) as mine:
        yield mine


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a file, which is made if need be, and give whether that went well; with ``wait`` it does."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


class SharedLock:
    """A lock that says that a folder is in use, held for as long as the object lives."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _locked(folder: Path) -> SharedLock:
    try:
        return SharedLock(folder / _LOCK)
    except OSError as error:
        raise IndexFileError(f"{folder}: cannot be opened: {error.strerror}") from error


def _fitted(content: Content, options: CollectionOptions) -> Debias | None:
    passages = content.passages
    if options.debias == "none" or not len(passages):
        return None
    pairs = None
    if options.debias == "shift":
        pairs = parallel_pairs(content.marks, passages)
        if pairs is None:
            return None
    return fit_debias(options.debias, passages.vectors, passages.languages, pairs=pairs)
