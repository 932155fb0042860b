"""Documents from files, a few at a time: .txt (a text per line), .tsv (with a header), .jsonl, .parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.collections.document import Document, check_document
from embedsvc.compression import PACKED_SUFFIXES, without_packing
from embedsvc.errors import InvalidInputError
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import json_rows, table_rows
from embedsvc.textfiles import iterate_lines

KNOWN_SUFFIXES = (".txt", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LANGUAGE_FIELDS = ("language", "lang")
_VECTOR_FIELD = "vector"
_METADATA_FIELD = "metadata"

_Rows = Iterator[tuple[str, dict[str, Any]]]  # each with its place: "line 7"


@dataclass(frozen=True)
class FieldNames:
    """The columns or keys that hold a document's parts.

    None takes what is there: for the language "language" or "lang", for the vector "vector".
    """

    id: str = "id"
    text: str = "text"
    language: str | None = None
    vector: str | None = None


def read_documents(path: Path, names: FieldNames | None = None) -> Iterator[Document]:
    """Yield the documents of a file in order; other fields become metadata.

    The fields of an object "metadata" become metadata too. A .txt line is a text, its id the file's name
    and line number ("notes.txt:7"); blank lines are skipped. A .tsv file starts with the names of its
    columns. A .jsonl or .ndjson line is an object; a number as id becomes its digits. All these may be
    packed (.gz, .xz, .zst).
    Of a .parquet row null columns are left out. A vector is a list of numbers or base64 of little-endian
    float32; a document with one needs no text. An id must not come twice.
    Raises InvalidInputError naming file, line or row, and reason, at the first bad one; MissingExtraError
    for .parquet without pyarrow.
    """
    path = Path(path)
    names = names or FieldNames()
    kind = without_packing(path).suffix
    if kind == ".txt":
        return _from_lines(path)
    if kind == ".tsv":
        return _from_rows(path, _table_rows(path, names), names)
    if kind in (".jsonl", ".ndjson"):
        return _from_rows(path, _json_rows(path), names)
    if path.suffix == ".parquet":
        return _from_rows(path, _parquet_rows(path, names), names)
    raise InvalidInputError(
        f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(KNOWN_SUFFIXES)}, "
        f"all but the last also with {', '.join(PACKED_SUFFIXES)}"
    )


def _from_lines(path: Path) -> Iterator[Document]:
    name = without_packing(path).name
    for number, line in iterate_lines(path):
        if line.strip():
            yield check_document(Document(f"{name}:{number}", line), f"{path} line {number}: document")


def _from_rows(path: Path, rows: _Rows, names: FieldNames) -> Iterator[Document]:
    place_of: dict[str, str] = {}
    for place, row in rows:
        document = _document(row, names, f"{path} {place}")
        first = place_of.setdefault(document.id, place)
        if first != place:
            raise InvalidInputError(f"{path} {place}: id {document.id!r} is also that of {first}")
        yield document


def _document(row: dict[str, Any], names: FieldNames, where: str) -> Document:
    """Take id, text, language and vector out of the fields of a row; the rest is metadata."""
    language_field = names.language or next((name for name in _LANGUAGE_FIELDS if name in row), None)
    vector = row.get(names.vector or _VECTOR_FIELD)
    if vector is not None and row.get(names.text) is None:
        row[names.text] = ""
    for name in (names.id, names.text, language_field, names.vector):
        if name is not None and name not in row:
            there = f"its fields are {', '.join(map(repr, row))}" if row else "it has no fields"
            raise InvalidInputError(f"{where}: {name!r} is missing; {there}")
    id_, text = row.pop(names.id), row.pop(names.text)
    row.pop(names.vector or _VECTOR_FIELD, None)
    language = None if language_field is None else row.pop(language_field)
    if isinstance(id_, int) and not isinstance(id_, bool):
        id_ = str(id_)
    document = Document(id_, text, language or None, _metadata(row, where), vector)
    return check_document(document, f"{where}: document")


def _metadata(row: dict[str, Any], where: str) -> dict[str, Any] | None:
    """Return the fields left in a row together with those of its object "metadata"."""
    given = row.get(_METADATA_FIELD, {})
    if given is not None and not isinstance(given, dict):
        return row  # a field that happens to have this name
    row.pop(_METADATA_FIELD, None)
    for key in given or {}:
        if key in row:
            raise InvalidInputError(f"{where}: {key!r} is a field and also in 'metadata'; give it once")
    return {**row, **(given or {})} or None


def _parquet_rows(path: Path, names: FieldNames) -> _Rows:
    fields = {names.id, names.text, names.language, names.vector}
    for number, row in parquet_rows(path, names.vector or _VECTOR_FIELD):
        known = {name: value for name, value in row.items() if value is not None or name in fields}
        yield f"row {number}", known


def _json_rows(path: Path) -> _Rows:
    for number, row in json_rows(path, iterate_lines(path)):
        yield f"line {number}", row


def _table_rows(path: Path, names: FieldNames) -> _Rows:
    for number, row in table_rows(path, iterate_lines(path)):
        yield f"line {number}", _with_vector(row, names.vector or _VECTOR_FIELD, f"{path} line {number}")


def _with_vector(row: dict[str, Any], field: str, where: str) -> dict[str, Any]:
    """Read a cell that holds a JSON array; an empty one is no vector."""
    cell = row.get(field)
    if cell == "":
        row[field] = None
    elif cell is not None and cell.startswith("["):
        try:
            row[field] = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{where}: {field!r} is not a JSON array: {error}") from error
    return row
