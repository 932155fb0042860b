"""The manifest of an index folder: what the FAISS file beside it holds, and for whom."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from indexing.errors import IndexFileError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Manifest:
    """What an index folder says about itself.

    ``model`` is the fingerprint of the encoder that made the vectors, ``recall`` what was measured on
    held-out queries, ``extra`` the caller's own JSON values.
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
    if version != FORMAT_VERSION:
        raise IndexFileError(f"{path}: format version {version!r}; this version reads {FORMAT_VERSION}")
    names = {field.name for field in fields(Manifest)}
    if values.keys() != names:
        wrong = ", ".join(sorted(values.keys() ^ names))
        raise IndexFileError(f"{path}: missing or unknown fields: {wrong}")
    for name, expected in (("kind", str), ("parameters", dict), ("file", str), ("size_bytes", int)):
        if not isinstance(values[name], expected):
            raise IndexFileError(f"{path}: {name} is {values[name]!r}; expected {expected.__name__}")
    if Path(values["file"]).name != values["file"]:
        raise IndexFileError(f"{path}: file is {values['file']!r}; expected a name inside the folder")
    return Manifest(**values)
