"""Collections in and out: backup and restore, export."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from embedsvc.collections.collection import DATABASE, INDEX, Collection
from embedsvc.collections.milvus import MilvusCollection
from embedsvc.collections.snapshots import SharedLock
from embedsvc.collections.store import Store
from embedsvc.collections.views import SnapshotRecord
from embedsvc.errors import StorageError
from indexing.durable import file_sha256, sync_folder

_MANIFEST = "backup.json"
_BACKUP_VERSION = 1


def backup(collection: Collection, folder: Path) -> None:
    """Copy a collection of one moment into the new ``folder``, whole and checksummed; writers go on.

    Raises StorageError when the folder exists or cannot be written.
    """
    with _new_folder(folder) as temporary:
        collection.store.backup(temporary / DATABASE)
        _copy_index(collection.path / INDEX, temporary)
        manifest = {
            "backup_version": _BACKUP_VERSION,
            "collection": collection.name,
            "at": time.time(),
            "files": {name: file_sha256(temporary / name) for name in _files(temporary)},
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def restore(folder: Path, path: Path) -> None:
    """Make a collection at the new ``path`` from a backup.

    Raises StorageError when the backup is damaged or incomplete (naming the file), or ``path`` exists.
    """
    manifest = _manifest(folder)
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file():
            raise StorageError(f"{folder / name}: named by the backup, but not there")
        if file_sha256(folder / name) != expected:
            raise StorageError(f"{folder / name}: damaged; its sha256 is not the one in the backup")
    with _new_folder(path) as temporary:
        for name in manifest["files"]:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, temporary / name)


def backed_up_name(folder: Path) -> str:
    """Return the name of the collection in a backup; raise StorageError when it is none."""
    return str(_manifest(folder)["collection"])


def export_lines(
    collection: Collection | MilvusCollection,
    *,
    vectors: bool = False,
    filter: dict[str, Any] | None = None,
    languages: list[str] | None = None,
) -> Iterator[str]:
    """Yield each document as a line of JSONL that `embedsvc index` reads, oldest first.

    With ``vectors`` a document that has one vector brings it, as base64 of little-endian float32.
    """
    for document in collection.documents(filter=filter, languages=languages, vectors=vectors):
        line: dict[str, Any] = {"id": document.id, "text": document.text, "language": document.language}
        if document.metadata is not None:
            line["metadata"] = document.metadata
        if document.vector is not None:
            content = document.vector.astype(np.dtype("<f4")).tobytes()
            line["vector"] = base64.b64encode(content).decode()
        yield json.dumps(line, ensure_ascii=False)


def _copy_index(source: Path, backup_folder: Path) -> None:
    """Copy the saved index that the copied database names; without one it is built anew when needed."""
    store = Store(backup_folder / DATABASE)
    try:
        with store.reading() as view:
            record = view.snapshot()
        if record is not None and not _copied(source, backup_folder / INDEX, record):
            with store.writing() as writer:
                writer.forget_snapshot()
    finally:
        store.close()
    for leftover in backup_folder.glob(f"{DATABASE}-*"):
        leftover.unlink()


def _copied(source: Path, target: Path, record: SnapshotRecord) -> bool:
    try:
        lock = SharedLock(source / record.folder / "lock")
        shutil.copytree(source / record.folder, target / record.folder)
        del lock
    except OSError:  # replaced meanwhile, or damaged
        shutil.rmtree(target, ignore_errors=True)
        return False
    return True


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``folder``, durably, when the block ends well."""
    if folder.exists():
        raise StorageError(f"{folder}: exists already")
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _sync_all(temporary)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync_folder(path)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names, version = manifest["files"].keys(), manifest["backup_version"]
        if DATABASE not in names or "collection" not in manifest:
            raise KeyError(DATABASE)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}; is {folder} a backup?") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: damaged: {error!r}") from error
    if version != _BACKUP_VERSION:
        raise StorageError(f"{path}: version {version!r}; this version reads {_BACKUP_VERSION}")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StorageError(f"{path}: names {name!r}, which is not inside the backup")
    checked: dict[str, Any] = manifest
    return checked
