"""The distinct sentences of one side, on disk: opened memory-mapped, whatever their number.

    manifest.json   what it was made of and with, counts, and size and sha256 of the other files
    texts.txt       a sentence per line, normalised
    ends.bin        where each ends in texts.txt (after its line feed), int64
    origins.bin     every place where a sentence was found (ORIGIN), those of one sentence together
    origin_ends.bin where the origins of each sentence end, int64
    strings.bin     the ids and documents that origins point to
    keys.bin        the keys of all sentences (`sentence_keys`), ascending
    key_rows.bin    and the row of each, int64

The manifest is written last: a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import StorageError
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.ingest_report import IngestReport
from embedsvc.mining.records import Origin, PairSide
from embedsvc.mining.sentence_keys import KEY_BYTES, sentence_keys
from indexing.durable import file_sha256

FORMAT_VERSION = 1
_HASHED_BYTES = 1 << 20
MANIFEST = "manifest.json"
FILES = (
    "texts.txt",
    "ends.bin",
    "origins.bin",
    "origin_ends.bin",
    "strings.bin",
    "keys.bin",
    "key_rows.bin",
)
ORIGIN = np.dtype(
    [
        ("row", "<i8"),
        ("record", "<i8"),  # its number, from 0, among all of this side
        ("line", "<i8"),
        ("file", "<i4"),
        ("id_bytes", "<i4"),  # -1: the file gives none
        ("id_start", "<i8"),  # in strings.bin
        ("document_start", "<i8"),
        ("document_bytes", "<i4"),
    ]
)


class SentenceStore:
    """Distinct sentences, a row each, in order of first occurrence; made by `ingest`."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.sha256: str = manifest["files"]["texts.txt"]["sha256"]
        self.report = IngestReport.from_json(manifest["report"])
        self._names = [file.name for file in self.report.files]
        self._texts, self._strings = _mapped(folder / "texts.txt"), _mapped(folder / "strings.bin")
        self._ends = _array(folder / "ends.bin", np.dtype("<i8"))
        self._origins = _array(folder / "origins.bin", ORIGIN)
        self._origin_ends = _array(folder / "origin_ends.bin", np.dtype("<i8"))
        self._keys = _array(folder / "keys.bin", np.dtype(f"S{KEY_BYTES}"))
        self._key_rows = _array(folder / "key_rows.bin", np.dtype("<i8"))

    def __len__(self) -> int:
        return len(self._ends)

    def text(self, row: int) -> str:
        """Return the sentence of a row, normalised; raise IndexError for a row that is not there."""
        return self.texts(row, row + 1)[0]

    def texts(self, start: int, stop: int) -> list[str]:
        """Return the sentences of the rows from start up to, not including, stop."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} of {len(self)} sentences")
        if start == stop:
            return []
        begin = int(self._ends[start - 1]) if start else 0
        return self._texts[begin : int(self._ends[stop - 1]) - 1].decode().split("\n")

    def sha256_of_first(self, rows: int) -> str:
        """Return what ``sha256`` is of a store of the first rows only."""
        digest = hashlib.sha256()
        end = int(self._ends[rows - 1]) if rows else 0
        for start in range(0, end, _HASHED_BYTES):
            digest.update(self._texts[start : min(start + _HASHED_BYTES, end)])
        return digest.hexdigest()

    def side(self, row: int) -> PairSide:
        """Return the sentence of a row with every place where it was found, the first one first."""
        text = self.text(row)
        begin = int(self._origin_ends[row - 1]) if row else 0
        found = self._origins[begin : int(self._origin_ends[row])].tolist()
        origins = tuple(self._origin(*values) for values in found)
        first = origins[0]
        return PairSide(first.id, text, first.line, first.file, first.document, origins)

    def first_records(self) -> NDArray[np.int64]:
        """Return for every row the number of the record, from 0, where its sentence stood first."""
        firsts = np.concatenate([[0], self._origin_ends[:-1]])
        records: NDArray[np.int64] = self._origins["record"][firsts]
        return records

    def _origin(
        self,
        _: int,
        record: int,
        line: int,
        file: int,
        id_bytes: int,
        id_start: int,
        document_start: int,
        document_bytes: int,
    ) -> Origin:
        id_ = self._string(id_start, id_bytes)
        document = self._string(document_start, document_bytes)
        return Origin(self._names[file], line, str(record) if id_ is None else id_, document)

    def _string(self, start: int, size: int) -> str | None:
        return None if size < 0 else self._strings[start : start + size].decode()

    def row_of(self, text: str) -> int | None:
        """Return the row of a sentence, however it is spaced and composed; None if it is not there."""
        key = sentence_keys([duplicate_key(text).encode(errors="surrogatepass")])
        position = int(self._keys.searchsorted(key)[0])
        if position == len(self) or self._keys[position] != key[0]:
            return None
        return int(self._key_rows[position])


def open_sentence_store(folder: Path, *, verify: bool = True) -> SentenceStore:
    """Open a store; with ``verify`` every file's sha256 is compared.

    Raises StorageError: unfinished, damaged, or of another format version.
    """
    manifest = read_store_manifest(folder)
    try:
        for name in FILES:
            _check_file(folder / name, manifest["files"][name], verify=verify)
        return SentenceStore(folder, manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder / MANIFEST}: damaged: {error}") from error


def read_store_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a store says; raise StorageError."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        version = manifest["format_version"]
    except FileNotFoundError as error:
        raise StorageError(f"{folder} holds no finished sentence store: {MANIFEST} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: damaged: {error}") from error
    if version != FORMAT_VERSION:
        raise StorageError(f"{path}: format version {version}; this program reads {FORMAT_VERSION}")
    return manifest


def _check_file(path: Path, expected: dict[str, Any], *, verify: bool) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != expected["size_bytes"]:
        found = "is missing" if size is None else f"has {size} bytes"
        raise StorageError(f"{path} {found}; the manifest says {expected['size_bytes']} bytes")
    if verify and file_sha256(path) != expected["sha256"]:
        raise StorageError(f"{path}: damaged; its sha256 is not the one in the manifest")


def _array(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.empty(0, kind)


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
