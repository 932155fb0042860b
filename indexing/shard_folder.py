"""The folder of a sharded index: written once, whole, under a temporary name; never changed after.

    shards.json     groups, what every file must be (sha256), and the caller's own values
    exact/ pool/ shard-<label>/    index folders, each with its own manifest
    <name>.npy …    the caller's arrays, a value per row, and other files

The hash of manifest.json stands for everything in the folder: whoever keeps it elsewhere knows whether
the folder is the one that was written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.calibrate import Calibration, least_recall
from indexing.durable import durable_file, file_sha256, sync_folder
from indexing.errors import IndexFileError
from indexing.folder import open_index, save_index
from indexing.index import VectorIndex
from indexing.manifest import Manifest, StrPath, read_manifest
from indexing.shards import Group, ShardedIndex

SHARDS_VERSION = 1
MANIFEST = "shards.json"
EXACT = "exact"


@dataclass(frozen=True, eq=False)
class OpenedShards:
    """A sharded index from a folder, with the arrays (n, …), files and values that were saved beside it."""

    index: ShardedIndex
    arrays: dict[str, NDArray[Any]]
    files: dict[str, Path]
    extra: dict[str, Any]


def save_shards(
    index: ShardedIndex,
    folder: StrPath,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    files: Mapping[str, Callable[[Path], None]] | None = None,
    extra: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> str:
    """Write ``index`` and ``arrays`` into the new folder ``folder``, durably; return the manifest's sha256.

    ``files`` are written, durably, by the function that each name stands for. The folder appears whole or
    not at all. Raises OSError when it exists or cannot be written.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        beside = _Beside(arrays or {}, files or {}, extra or {})
        sha256 = _write(index, temporary, beside, model)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return sha256


def open_shards(folder: StrPath, *, sha256: str | None = None, verify: bool = True) -> OpenedShards:
    """Open a sharded index memory-mapped; ``sha256`` is what `save_shards` returned, if known.

    ``verify`` reads every file once and compares its hash. Raises IndexFileError naming the file.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder / MANIFEST, sha256)
    try:
        groups = [Group(**group) for group in manifest["groups"]]
        parts = {
            name: _open_part(folder / name, expected, verify=verify)
            for name, expected in manifest["parts"].items()
        }
        arrays = {
            name: _open_array(folder / f"{name}.npy", expected, verify=verify)
            for name, expected in manifest["arrays"].items()
        }
        for name, expected in manifest["files"].items():
            _check_file(folder / name, expected, verify=verify)
        files = {name: folder / name for name in manifest["files"]}
        calibrations = _calibrations(manifest)
        exact, pool = parts.pop(EXACT), parts.pop("pool", None)
        graphs = {manifest["labels"][name]: part for name, part in parts.items()}
        extra = manifest["extra"]
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFileError(f"{folder / MANIFEST}: damaged: {error!r}") from error
    return OpenedShards(ShardedIndex(exact, groups, graphs, pool, calibrations), arrays, files, extra)


def saved_recall(folder: StrPath, *, sha256: str | None = None) -> float | None:
    """Return `ShardedIndex.recall` of a saved index, of which only the manifest is read.

    Raises IndexFileError when that is damaged, or not the one with this ``sha256``.
    """
    path = Path(folder) / MANIFEST
    manifest = _read_manifest(path, sha256)
    try:
        return least_recall(_calibrations(manifest).values())
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFileError(f"{path}: damaged: {error!r}") from error


def part_bytes(folder: StrPath) -> dict[str, int]:
    """Return the bytes of the exact vectors (`EXACT`) and of each graph ("pool", "graph of 'label'").

    Raises IndexFileError when a manifest cannot be read.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder / MANIFEST, None)
    sizes = {}
    for name in manifest["parts"]:
        part = read_manifest(folder / name)
        label = manifest["labels"].get(name)
        shown = name if label is None else f"graph of {label!r}"
        sizes[shown] = part.size_bytes + (0 if part.order is None else part.order.size_bytes)
    return sizes


@dataclass(frozen=True, eq=False)
class _Beside:
    """What is saved beside the index."""

    arrays: Mapping[str, NDArray[Any]]
    files: Mapping[str, Callable[[Path], None]]
    extra: Mapping[str, Any]


def _write(index: ShardedIndex, folder: Path, beside: _Beside, model: str | None) -> str:
    folder.mkdir()
    graphs = {f"shard-{number}": label for number, label in enumerate(index.graphs)}
    parts = {EXACT: index.exact} | {name: index.graphs[label] for name, label in graphs.items()}
    if index.pool is not None:
        parts["pool"] = index.pool
    saved = {name: save_index(part, folder / name, model=model) for name, part in parts.items()}
    hashes = {name: _write_array(folder / f"{name}.npy", array) for name, array in beside.arrays.items()}
    for name, write in beside.files.items():
        write(folder / name)
    manifest = {
        "shards_version": SHARDS_VERSION,
        "groups": [asdict(group) for group in index.groups.values()],
        "labels": graphs,
        "parts": {name: _identity(part) for name, part in saved.items()},
        "arrays": hashes,
        "files": {name: file_sha256(folder / name) for name in beside.files},
        "calibrations": {label: asdict(value) for label, value in index.calibrations.items()},
        "extra": dict(beside.extra),
    }
    content = json.dumps(manifest, indent=1).encode()
    with durable_file(folder / MANIFEST) as file:
        file.write(content)
    sync_folder(folder)
    return hashlib.sha256(content).hexdigest()


def _identity(manifest: Manifest) -> dict[str, Any]:
    """Return what tells one index from another; its own manifest is not covered by a hash."""
    return {"sha256": manifest.sha256, "model": manifest.model, "count": manifest.count}


def _open_part(folder: Path, expected: dict[str, Any], *, verify: bool) -> VectorIndex:
    index = open_index(folder, verify=verify)
    found = _identity(read_manifest(folder))
    if found != expected:
        raise IndexFileError(f"{folder}: holds another index than the one that belongs here")
    return index


def _write_array(path: Path, array: NDArray[Any]) -> str:
    with durable_file(path) as file:
        np.save(file, array, allow_pickle=False)
    return file_sha256(path)


def _open_array(path: Path, expected: str, *, verify: bool) -> NDArray[Any]:
    _check_file(path, expected, verify=verify)
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IndexFileError(f"{path}: cannot be read: {error}") from error
    array: NDArray[Any] = mapped.view(np.ndarray)  # the subclass costs microseconds at every use
    return array


def _check_file(path: Path, expected: str, *, verify: bool) -> None:
    try:
        damaged = verify and file_sha256(path) != expected
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    if damaged:
        raise IndexFileError(f"{path}: damaged; its sha256 is not the one in the manifest")


def _calibrations(manifest: dict[str, Any]) -> dict[str, Calibration]:
    return {label: Calibration(**value) for label, value in manifest["calibrations"].items()}


def _read_manifest(path: Path, sha256: str | None) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise IndexFileError(f"{path}: damaged, or another index; its sha256 is not the one on record")
    try:
        manifest: dict[str, Any] = json.loads(content)
        version = manifest.get("shards_version")
    except (ValueError, AttributeError) as error:
        raise IndexFileError(f"{path}: not JSON: {error}") from error
    if version != SHARDS_VERSION:
        raise IndexFileError(f"{path}: version {version!r}; this version reads {SHARDS_VERSION}")
    return manifest
