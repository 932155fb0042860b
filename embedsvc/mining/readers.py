"""Sentences from files, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.records import Record
from embedsvc.textfiles import BadBytes, iterate_lines


def read_records(path: Path, options: IngestOptions, on_bad_bytes: BadBytes | None) -> Iterator[Record]:
    for number, line in iterate_lines(path, max_line_bytes=options.max_line_bytes, on_bad_bytes=on_bad_bytes):
        yield Record(number, line)
