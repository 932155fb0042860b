"""The index folder: ``manifest.json`` and the files it names, replaced as one.

The FAISS file carries its own hash in its name (``index-<sha256>.faiss``), so a new one never
overwrites the one in use; so does the file of the order of its vectors (``order-<sha256>.npy``), if they
are not in the order of the rows. Renaming the new manifest into place is the only moment of change: a save
killed before it leaves the old index, one killed after it the new. One writer at a time; readers need
no lock.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.calibrate import Calibration
from indexing.durable import durable_file, file_sha256, move_into_place, sync_folder
from indexing.errors import IndexFileError, IndexingError
from indexing.index import VectorIndex
from indexing.kinds import kind_from
from indexing.manifest import FORMAT_VERSION, MANIFEST, FileRecord, Manifest, StrPath, read_manifest


def save_index(
    index: VectorIndex,
    folder: StrPath,
    *,
    model: str | None = None,
    recall: float | None = None,
    extra: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Manifest:
    """Write ``index`` into ``folder``, durably, in place of the index it may hold; return the manifest.

    Without a ``recall`` of its own the manifest says the one of the ``calibration``.

    Raises:
        OSError: a file cannot be written; the index that was there is untouched.
        IndexingError: ``extra`` is not JSON.
    """
    folder = Path(folder)
    _check_json(extra)
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
    order = None if index.order is None else _write_order(index.order, folder)
    faiss_file = _write_faiss(index, folder)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=index.kind.name,
        parameters=asdict(index.kind),
        dimension=index.dimension,
        count=index.count,
        **asdict(faiss_file),
        model=model,
        recall=recall if calibration is None or recall is not None else calibration.recall,
        extra=dict(extra or {}),
        order=order,
        calibration=None if calibration is None else asdict(calibration),
    )
    with durable_file(folder / "manifest.tmp") as file:
        file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
    move_into_place(folder / "manifest.tmp", folder / MANIFEST)
    _remove_stale(folder, {record.file for record in (faiss_file, order) if record is not None})
    return manifest


def open_index(folder: StrPath, *, memory_map: bool = True, verify: bool = True) -> VectorIndex:
    """Open the index in ``folder``.

    With ``memory_map`` vectors stay in the page cache, shared by all processes that open the folder.
    ``verify`` reads the whole file once to compare its sha256; without it a file of the right size with
    flipped bits goes unnoticed.

    Raises:
        IndexFileError: a file is missing, damaged, of another format version, or the two disagree.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        return _open(folder, manifest, memory_map=memory_map, verify=verify)
    except IndexFileError:
        if read_manifest(folder) == manifest:
            raise
    # The index was replaced between reading its manifest and opening its file.
    return open_index(folder, memory_map=memory_map, verify=verify)


def _open(folder: Path, manifest: Manifest, *, memory_map: bool, verify: bool) -> VectorIndex:
    path = folder / manifest.file
    _check_file(path, manifest.faiss, verify=verify)
    try:
        kind = kind_from(manifest.kind, manifest.parameters)
    except IndexingError as error:
        raise IndexFileError(f"{folder / MANIFEST}: {error}") from error
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if memory_map else 0)
    except RuntimeError as error:
        raise IndexFileError(f"{path}: FAISS cannot read it: {error}") from error
    found = (kind.accepts(index), index.d, index.ntotal, index.metric_type)
    if found != (True, manifest.dimension, manifest.count, faiss.METRIC_INNER_PRODUCT):
        raise IndexFileError(
            f"{path}: holds {type(index).__name__} with {index.ntotal} vectors of dimension {index.d}, "
            f"metric {index.metric_type}; the manifest says {manifest.kind}, {manifest.count} vectors "
            f"of dimension {manifest.dimension}, inner product"
        )
    if manifest.order is None:
        return VectorIndex(kind, index)
    path = folder / manifest.order.file
    _check_file(path, manifest.order, verify=verify)
    try:
        return VectorIndex(kind, index, np.load(path, mmap_mode="r" if memory_map else None))
    except ValueError as error:
        raise IndexFileError(f"{path}: not the order of {manifest.count} vectors: {error}") from error


def _check_file(path: Path, record: FileRecord, *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        sha256 = file_sha256(path) if verify and size == record.size_bytes else record.sha256
    except OSError as error:
        raise IndexFileError(f"{path}: named by the manifest; cannot be read: {error.strerror}") from error
    if size != record.size_bytes:
        raise IndexFileError(f"{path}: has {size} bytes; the manifest says {record.size_bytes}")
    if sha256 != record.sha256:
        raise IndexFileError(f"{path}: damaged; its sha256 is not the one in the manifest")


def _check_json(extra: Mapping[str, Any] | None) -> None:
    try:
        json.dumps(dict(extra or {}))
    except (TypeError, ValueError) as error:
        raise IndexingError(f"extra cannot be written as JSON: {error}") from error


def _write_faiss(index: VectorIndex, folder: Path) -> FileRecord:
    """Write the FAISS file under the name of its hash.

    Through Python's own file, as FAISS's writer takes no notice when the last bytes find the disk full.
    """
    digest = hashlib.sha256()
    with durable_file(folder / "index.tmp") as file:

        def write(data: bytes) -> None:
            file.write(data)
            digest.update(data)

        faiss.write_index(index.faiss_index, faiss.PyCallbackIOWriter(write))
    return _named(folder / "index.tmp", digest.hexdigest(), ".faiss")


def _write_order(order: NDArray[np.int32], folder: Path) -> FileRecord:
    """Write the order of the vectors under the name of its hash."""
    data = io.BytesIO()
    np.save(data, order, allow_pickle=False)
    with durable_file(folder / "order.tmp") as file:
        file.write(data.getbuffer())
    return _named(folder / "order.tmp", hashlib.sha256(data.getbuffer()).hexdigest(), ".npy")


def _named(temporary: Path, sha256: str, suffix: str) -> FileRecord:
    """Move a finished file to the name that says its hash."""
    record = FileRecord(f"{temporary.stem}-{sha256[:16]}{suffix}", temporary.stat().st_size, sha256)
    move_into_place(temporary, temporary.with_name(record.file))
    return record


def _remove_stale(folder: Path, kept: set[str]) -> None:
    """Remove the files of earlier indexes, and of saves that were killed."""
    for pattern in ("index-*.faiss", "order-*.npy", "order.tmp"):
        for stale in folder.glob(pattern):
            if stale.name not in kept:
                stale.unlink()
