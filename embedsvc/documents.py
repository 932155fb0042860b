"""Documents from files: .txt (a text per line), .tsv (with a header), .jsonl. One line at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.collections.document import Document, check_document
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import iterate_lines

KNOWN_SUFFIXES = (".txt", ".tsv", ".jsonl")
_LANGUAGE_FIELDS = ("language", "lang")


@dataclass(frozen=True)
class FieldNames:
    """The columns or keys that hold id, text and language; language None takes "language" or "lang"."""

    id: str = "id"
    text: str = "text"
    language: str | None = None


def read_documents(path: Path, names: FieldNames | None = None) -> Iterator[Document]:
    """Yield the documents of a file in order; other fields become metadata.

    A .txt line is a text, its id the file's name and line number ("notes.txt:7"); blank lines are
    skipped. A .tsv file starts with the names of its columns. A .jsonl line is an object; a number as id
    becomes its digits. An id must not come twice.
    Raises InvalidInputError naming file, line and reason, at the first bad line.
    """
    path = Path(path)
    names = names or FieldNames()
    if path.suffix == ".txt":
        return _from_lines(path)
    if path.suffix == ".tsv":
        return _from_rows(path, _table_rows(path), names)
    if path.suffix == ".jsonl":
        return _from_rows(path, _json_rows(path), names)
    raise InvalidInputError(
        f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(KNOWN_SUFFIXES)}"
    )


def _from_lines(path: Path) -> Iterator[Document]:
    for number, line in iterate_lines(path):
        if line.strip():
            yield check_document(Document(f"{path.name}:{number}", line), f"{path} line {number}: document")


def _from_rows(
    path: Path, rows: Iterator[tuple[int, dict[str, Any]]], names: FieldNames
) -> Iterator[Document]:
    line_of: dict[str, int] = {}
    for number, row in rows:
        document = _document(row, names, f"{path} line {number}")
        first = line_of.setdefault(document.id, number)
        if first != number:
            raise InvalidInputError(f"{path} line {number}: id {document.id!r} is also that of line {first}")
        yield document


def _document(row: dict[str, Any], names: FieldNames, where: str) -> Document:
    """Take id, text and language out of the fields of a row; the rest is metadata."""
    language_field = names.language or next((name for name in _LANGUAGE_FIELDS if name in row), None)
    for name in (names.id, names.text, language_field):
        if name is not None and name not in row:
            there = f"its fields are {', '.join(map(repr, row))}" if row else "it has no fields"
            raise InvalidInputError(f"{where}: {name!r} is missing; {there}")
    id_, text = row.pop(names.id), row.pop(names.text)
    language = None if language_field is None else row.pop(language_field)
    if isinstance(id_, int) and not isinstance(id_, bool):
        id_ = str(id_)
    return check_document(Document(id_, text, language or None, row or None), f"{where}: document")


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in iterate_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{path} line {number}: not JSON: {error}") from error
        if not isinstance(row, Mapping):
            raise InvalidInputError(
                f"{path} line {number}: {type(row).__name__} found; a JSON object expected"
            )
        yield number, dict(row)


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    columns: list[str] | None = None
    for number, line in iterate_lines(path):
        cells = line.split("\t")
        if columns is None:
            columns = _header(cells, path)
        elif len(cells) != len(columns):
            raise InvalidInputError(
                f"{path} line {number}: {len(cells)} columns; the header has {len(columns)}"
            )
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _header(cells: list[str], path: Path) -> list[str]:
    for name in cells:
        if not name or cells.count(name) > 1:
            raise InvalidInputError(f"{path} line 1: column name {name!r} is empty or there twice")
    return cells
