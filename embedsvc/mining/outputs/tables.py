"""Pairs as lines of text: tab-separated with a header, or JSON objects.

TSV quotes and escapes nothing, so that cut, awk and every line-based tool read it: a tab, line feed,
carriage return or NUL within a value is written as a space. (Readers that take quotes for markup must be
told not to: pandas ``quoting=3``.) JSON Lines and Parquet keep every character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import orjson

from embedsvc.mining.outputs.columns import COLUMNS, DECIMALS, ORIGIN_COLUMNS, origins_of, values_of
from embedsvc.mining.records import Pair

_BREAKS = str.maketrans("\t\n\r\0", "    ")


def decimals(value: Any) -> str:
    """Return a value as text, floats with six decimals and None as nothing."""
    if isinstance(value, float):
        return f"{value:.{DECIMALS}f}"
    return "" if value is None else str(value)


def tsv_line(values: Sequence[Any]) -> bytes:
    """Return the values as a line, with no break within a value."""
    cells = list(map(decimals, values))
    line = "\t".join(cells)
    if line.count("\t") >= len(cells) or "\n" in line or "\r" in line or "\0" in line:
        line = "\t".join(cell.translate(_BREAKS) for cell in cells)
    return (line + "\n").encode()


def write_tsv(file: IO[bytes], pairs: Iterable[Pair]) -> None:
    """Write a header and a line per pair."""
    file.write(tsv_line(COLUMNS))
    for pair in pairs:
        file.write(tsv_line(values_of(pair)))


def write_jsonl(file: IO[bytes], pairs: Iterable[Pair]) -> None:
    """Write an object per pair, always with every key; null for none."""
    for row in pair_rows(pairs):
        file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def pair_rows(pairs: Iterable[Pair]) -> Iterator[dict[str, Any]]:
    """Yield the values of each pair by name, its origins included."""
    for pair in pairs:
        row = dict(zip(COLUMNS, values_of(pair), strict=True))
        origins = (origins_of(pair.source), origins_of(pair.target))
        yield row | dict(zip(ORIGIN_COLUMNS, origins, strict=True))
