"""The texts of a corpus file, whatever its columns: lines, cells, strings of JSON Lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsvc.compression import PACKED_SUFFIXES, without_packing
from embedsvc.errors import InvalidInputError
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import json_rows
from embedsvc.textfiles import iterate_lines

_KINDS = (".txt", ".tsv", ".jsonl", ".ndjson", ".parquet")


def read_corpus(path: Path) -> Iterator[str]:
    """Yield every text with visible content: of a table each cell, of a JSON object each string in it.

    All kinds but Parquet may be packed (.gz, .xz, .zst). Raises InvalidInputError naming file and line.
    """
    kind = without_packing(path).suffix
    if kind == ".txt":
        texts = (line for _, line in iterate_lines(path))
    elif kind == ".tsv":
        texts = (cell for _, line in iterate_lines(path) for cell in line.split("\t"))
    elif kind in (".jsonl", ".ndjson"):
        texts = (text for _, row in json_rows(path, iterate_lines(path)) for text in _strings(row))
    elif path.suffix == ".parquet":
        texts = (text for _, row in parquet_rows(path, None) for text in _strings(row))
    else:
        raise InvalidInputError(
            f"{path}: unknown kind of file {path.suffix!r}; known: {', '.join(_KINDS)}, "
            f"all but the last also with {', '.join(PACKED_SUFFIXES)}"
        )
    return (text for text in texts if text and not text.isspace())


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
