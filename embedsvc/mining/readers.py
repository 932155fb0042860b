"""Sentences from files, one at a time: lines, tables, JSON Lines, Parquet, TMX, XLIFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedsvc.compression import PACKED_SUFFIXES, without_packing
from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.ingest_options import KINDS, IngestOptions
from embedsvc.mining.records import Record
from embedsvc.mining.tmx import read_tmx
from embedsvc.mining.xliff import read_xliff
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import Lines, Rows, json_rows, table_rows
from embedsvc.textfiles import BadBytes, iterate_lines

_KIND_OF_SUFFIX = {
    ".txt": "txt",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tmx": "tmx",
    ".xlf": "xliff",
    ".xliff": "xliff",
}
_MEMORIES = {"tmx": read_tmx, "xliff": read_xliff}
_NO_LANGUAGE = {".csv", ".doc", ".xml", ".npy", ".mod", ".odt", ".out", ".lst"}
"""Suffixes of other kinds of files that happen to be codes of languages as well."""


def read_records(path: Path, options: IngestOptions, on_bad_bytes: BadBytes | None) -> Iterator[Record]:
    """Yield the records of a file in order, blank ones too.

    A .tsv file is one without quotes whose first line names the columns (unless options.columns does); a
    .jsonl line is an object; of a .tmx or .xliff file only the sentences in options.language are read. All
    but .parquet may be packed (.gz, .xz, .zst). A name that ends like ``corpus.de`` or has no ending is that
    of a file of lines. Of ids, numbers become their digits.
    on_bad_bytes is that of `iterate_lines`.
    Raises InvalidInputError naming file, line and what is wrong; NotFoundError; MissingExtraError.
    """
    kind = options.kind or kind_of(path)
    if kind in _MEMORIES:
        if options.language is None:
            raise InvalidInputError(
                f"{path} holds several languages; the option language says which to read", param="language"
            )
        return _MEMORIES[kind](path, options.language)
    if kind == "parquet":
        rows = parquet_rows(path, None, columns=_columns(options))
        return _records(f"{path} row", rows, options)
    lines = iterate_lines(path, max_line_bytes=options.max_line_bytes, on_bad_bytes=on_bad_bytes)
    if kind == "tsv":
        return _records(f"{path} line", table_rows(path, lines, options.columns), options)
    if kind == "jsonl":
        return _records(f"{path} line", json_rows(path, lines), options)
    return _sentences(path, lines, sure=options.kind is not None)


def _sentences(path: Path, lines: Lines, *, sure: bool) -> Iterator[Record]:
    number, line = 0, ""
    for number, line in lines:
        if number == 1 and "\t" in line.strip() and not sure:
            raise InvalidInputError(
                f"{path} line 1 has a tab: for a table give kind tsv, and columns where its first line does "
                "not name them (id,text); for sentences with tabs give kind txt",
                param="kind",
            )
        yield Record(number, line)
    if number == 1 and "\r" in line:
        raise InvalidInputError(
            f"{path}: its lines end with carriage returns (classic Mac OS) and would be one sentence. "
            f"To convert them: tr '\\r' '\\n' < {path}"
        )


def kind_of(path: Path) -> str:
    """Return the kind of a file by its name; raise InvalidInputError for an unknown one."""
    suffix = without_packing(path).suffix
    if suffix.lower() in _KIND_OF_SUFFIX:
        return _KIND_OF_SUFFIX[suffix.lower()]
    if not suffix or (suffix not in _NO_LANGUAGE and _is_language(suffix[1:])):
        return "txt"
    raise InvalidInputError(
        f"{path}: unknown kind of file {suffix!r}; known: {', '.join(_KIND_OF_SUFFIX)}, "
        f"all but .parquet also with {', '.join(PACKED_SUFFIXES)}. The option kind says what a file is, "
        f"whatever its name: {', '.join(KINDS)}"
    )


def _is_language(code: str) -> bool:
    try:
        return bool(normalize_language(code))
    except InvalidInputError:
        return False


def _columns(options: IngestOptions) -> list[str]:
    return [options.text_field, options.id_field or "id", options.document_field or "document"]


def _records(where: str, rows: Rows, options: IngestOptions) -> Iterator[Record]:
    text, id_, document = _columns(options)
    required = [name for name in (options.text_field, options.id_field, options.document_field) if name]
    for number, row in rows:
        for name in required:
            if name not in row:
                raise InvalidInputError(f"{where} {number}: {_missing(name, row)}")
        yield Record(
            number,
            _string(row[text], f"{where} {number}: {text!r}"),
            _name(row.get(id_), f"{where} {number}: {id_!r}"),
            _name(row.get(document), f"{where} {number}: {document!r}"),
        )


def _missing(name: str, row: dict[str, Any]) -> str:
    if not row:
        return f"{name!r} is missing; there are no fields"
    there = ", ".join(repr(key if len(key) <= 40 else key[:40] + "…") for key in row)
    return (
        f"{name!r} is missing; the fields are {there}. text_field names the field of the sentence, "
        "columns the columns of a table without a header"
    )


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(f"{where} is {type(value).__name__}, not a string")
    if "\0" in value:
        raise InvalidInputError(f"{where} has a NUL character at position {value.index(chr(0))}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{where} has half of a surrogate pair ({value[error.start]!a}) at position {error.start}"
        ) from error
    return value


def _name(value: Any, where: str) -> str | None:
    """Return an id or a document; a number becomes its digits, nothing or an empty text None."""
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(value, where)
