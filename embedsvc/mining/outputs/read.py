"""Read back the pairs of a file that `write_pairs` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.mining.outputs.columns import pair_of
from embedsvc.mining.outputs.kinds import output_kind
from embedsvc.mining.records import Pair
from embedsvc.mining.tmx import tmx_units
from embedsvc.mining.translation_units import TranslationUnit
from embedsvc.mining.xliff import xliff_units
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import json_rows, table_rows
from embedsvc.textfiles import iterate_lines

Rows = Iterator[tuple[str, dict[str, Any]]]


def read_pairs(path: Path, *, format: str | None = None) -> Iterator[Pair]:
    """Yield the pairs of a file in order, one at a time; the format as for `write_pairs`, Moses excepted.

    All that the format keeps comes back: Moses files have texts only, TSV no list of origins (nor do TMX and
    XLIFF). A score or cosine that is not there is NaN.
    Raises InvalidInputError for a damaged file, or one without the columns of pairs.
    """
    for where, row in _rows(path, output_kind(path, format).format):
        if "src" not in row or "tgt" not in row:
            missing = "tgt" if "src" in row else "src"
            raise InvalidInputError(f"{path} {where}: {missing!r} is missing; this is no file of pairs")
        yield pair_of(row, f"{path} {where}")


def _rows(path: Path, format: str) -> Rows:
    if format == "tsv":
        return ((f"line {number}", row) for number, row in table_rows(path, iterate_lines(path)))
    if format == "jsonl":
        return ((f"line {number}", row) for number, row in json_rows(path, iterate_lines(path)))
    if format == "parquet":
        return ((f"row {number}", row) for number, row in parquet_rows(path, None))
    if format == "tmx":
        return _unit_rows(tmx_units(path))
    if format == "xliff":
        return _unit_rows(xliff_units(path))
    raise InvalidInputError(f"{path}: Moses files hold texts only; pairs cannot be read back")


def _unit_rows(units: Iterator[TranslationUnit]) -> Rows:
    for unit in units:
        row: dict[str, Any] = {name.removeprefix("x-"): value for name, value in unit.properties.items()}
        texts = [variant.text for variant in unit.variants[:2]]
        yield f"unit {unit.number}", row | dict(zip(("src", "tgt"), texts, strict=False))
