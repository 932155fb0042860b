"""The manifest of an index folder: what the FAISS file beside it holds, and for whom."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from indexing.errors import IndexFileError

FORMAT_VERSION = 2
"""What this version writes. Version 1, without ``order`` and ``calibration``, is still read."""

MANIFEST = "manifest.json"

_NEWER = frozenset({"order", "calibration"})

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class FileRecord:
    """One file of the folder, and how to tell whether it is whole."""

    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an index folder says about itself.

    ``model`` is the fingerprint of the encoder that made the vectors, ``recall`` what was measured on
    held-out queries, ``extra`` the caller's own JSON values. ``order`` is the file of the rows of FAISS's
    numbers, if they differ; ``calibration`` the fields of a `Calibration`, if there was one.
    """

    format_version: int
    kind: str
    parameters: dict[str, Any]
    dimension: int
    count: int
    file: str
    size_bytes: int
    sha256: str
    model: str | None
    recall: float | None
    extra: dict[str, Any]
    order: FileRecord | None = None
    calibration: dict[str, Any] | None = None

    @property
    def faiss(self) -> FileRecord:
        """The FAISS file."""
        return FileRecord(self.file, self.size_bytes, self.sha256)


def read_manifest(folder: StrPath) -> Manifest:
    """Return the manifest of the index in ``folder``; the FAISS file is not looked at.

    Raises:
        IndexFileError: there is no manifest, it is damaged, or its format version is another.
    """
    path = Path(folder) / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IndexFileError(f"{path}: not JSON: {error}") from error
    return _manifest(values, path)


def _manifest(values: Any, path: Path) -> Manifest:
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise IndexFileError(f"{path}: format version {version!r}; this version reads 1 to {FORMAT_VERSION}")
    _check_fields(values, Manifest, path, absent=_NEWER if version == 1 else frozenset())
    for name, expected in (("kind", str), ("parameters", dict)):
        if not isinstance(values[name], expected):
            raise IndexFileError(f"{path}: {name} is {values[name]!r}; expected {expected.__name__}")
    manifest = Manifest(**values | {"order": _order(values.get("order"), path)})
    for record in (manifest.faiss, manifest.order):
        if record is not None:
            _check_record(record, path)
    return manifest


def _order(values: Any, path: Path) -> FileRecord | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise IndexFileError(f"{path}: order is {values!r}; expected an object or null")
    _check_fields(values, FileRecord, path)
    return FileRecord(**values)


def _check_fields(
    values: dict[str, Any], form: type[Any], path: Path, *, absent: frozenset[str] = frozenset()
) -> None:
    wrong = values.keys() ^ ({field.name for field in fields(form)} - absent)
    if wrong:
        raise IndexFileError(f"{path}: missing or unknown fields: {', '.join(sorted(wrong))}")


def _check_record(record: FileRecord, path: Path) -> None:
    for name, expected in (("file", str), ("size_bytes", int), ("sha256", str)):
        value = getattr(record, name)
        if not isinstance(value, expected):
            raise IndexFileError(f"{path}: {name} is {value!r}; expected {expected.__name__}")
    if Path(record.file).name != record.file:
        raise IndexFileError(f"{path}: file is {record.file!r}; expected a name inside the folder")
