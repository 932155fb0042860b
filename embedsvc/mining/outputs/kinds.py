"""Which kind of file a path or a name stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from embedsvc.compression import PACKED_SUFFIXES, without_packing
from embedsvc.errors import InvalidInputError

OutputFormat = Literal["tsv", "jsonl", "parquet", "moses", "tmx", "xliff"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

_BY_SUFFIX: dict[str, OutputFormat] = {
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".moses": "moses",
    ".tmx": "tmx",
    ".xlf": "xliff",
    ".xliff": "xliff",
}


@dataclass(frozen=True)
class OutputKind:
    """A format and the suffix of the archive it is packed into, "" for none."""

    format: OutputFormat
    packed: str = ""


def output_kind(path: Path, format: str | None = None) -> OutputKind:
    """Return what a file of pairs is, by its suffix unless ``format`` names it.

    Raises InvalidInputError for an unknown name or suffix, and for a packed Parquet file.
    """
    packed = path.suffix if path.suffix in PACKED_SUFFIXES else ""
    suffix = without_packing(path).suffix
    found = _BY_SUFFIX.get(suffix) if format is None else _named(format)
    if found is None:
        raise InvalidInputError(
            f"{path}: unknown kind of file {suffix!r}; known: {', '.join(_BY_SUFFIX)}, "
            f"all but .parquet also with {', '.join(PACKED_SUFFIXES)}; or name the format: "
            + ", ".join(OUTPUT_FORMATS),
            param="out",
        )
    if found == "parquet" and packed:
        raise InvalidInputError(f"{path}: a Parquet file is packed inside; leave out {packed}", param="out")
    return OutputKind(found, packed)


def _named(name: str) -> OutputFormat:
    for known in OUTPUT_FORMATS:
        if name == known:
            return known
    raise InvalidInputError(f"format {name!r} is unknown; choose {', '.join(OUTPUT_FORMATS)}", param="format")
