"""Write a bitext again, with columns added or replaced and some pairs left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.compression import packing
from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.mining.bitext.source import Bitext, Row
from embedsvc.mining.outputs.columns import pair_of, rounded
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.kinds import output_kind
from embedsvc.mining.outputs.tables import tsv_line
from embedsvc.mining.outputs.write import full_disk_named, write_pairs
from embedsvc.mining.records import Pair
from embedsvc.textfiles import atomic_write

_BATCH_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class AddedColumns:
    """A value for every pair by the name of its column, and the mask of the pairs that are kept.

    ``stale`` are values for columns that would no longer be true, where a file has them.
    """

    values: Mapping[str, Sequence[Any]]
    kept: NDArray[np.bool_]
    stale: Mapping[str, Any]

    def of(self, number: int, row: Row) -> Row:
        """Return the row with its new values."""
        stale = {name: value for name, value in self.stale.items() if name in row}
        return row | stale | {name: column[number] for name, column in self.values.items()}

    def replaced(self, names: Sequence[str]) -> list[str]:
        """Return which of the columns ``names`` get other values."""
        return [name for name in names if name in self.values or name in self.stale]


def rewrite(bitext: Bitext, out: Path, added: AddedColumns) -> int:
    """Write the kept pairs in their order and return their number; the format goes by the suffix.

    A table of the same kind keeps all its columns, cell for cell; any other gets the columns of `mine`, from
    those of these names and from the two sides.
    """
    kind = output_kind(out)
    if kind.format != bitext.kind or kind.format not in ("tsv", "jsonl", "parquet"):
        info = OutputInfo(bitext.source_language, bitext.target_language)
        return write_pairs(out, _pairs(bitext, added), info)
    with full_disk_named(out), atomic_write(out) as raw, packing(raw, kind.packed) as file:
        if kind.format == "tsv":
            _write_tsv(file, bitext, added)
        elif kind.format == "jsonl":
            _write_jsonl(file, bitext, added)
        else:
            _write_parquet(file, bitext, added)
    return int(added.kept.sum())


def _rows(bitext: Bitext, added: AddedColumns) -> Iterator[tuple[int, int, Row]]:
    """Yield the place (from 0), the number in the file and the values of every kept pair."""
    place = -1
    for place, (number, row) in enumerate(bitext.rows()):
        if place >= len(added.kept):
            break
        if added.kept[place]:
            yield place, number, added.of(place, row)
    if place + 1 != len(added.kept):
        raise _changed(bitext)


def _changed(bitext: Bitext) -> InvalidInputError:
    return InvalidInputError(f"{bitext.path} was changed while it was read")


def _pairs(bitext: Bitext, added: AddedColumns) -> Iterator[Pair]:
    """Yield the kept pairs, those of a table with their place as id and its line unless columns say more."""
    names = bitext.side_names
    for place, number, row in _rows(bitext, added):
        whole: Row = {"margin": added.stale["margin"]}
        for side, name in zip(("src", "tgt"), names, strict=True):
            own = {f"{side}_id": str(place), f"{side}_line": number, f"{side}_file": bitext.path.name}
            whole |= own | {side: row[name] or ""}
        yield pair_of(whole | {name: row[name] for name in row if name not in names}, _where(bitext, number))


def _where(bitext: Bitext, number: int) -> str:
    return f"{bitext.path} {bitext.unit} {number}"


def _write_tsv(file: IO[bytes], bitext: Bitext, added: AddedColumns) -> None:
    names = bitext.names
    names += [name for name in added.values if name not in names]
    if bitext.has_header:
        file.write(tsv_line(names))
    for *_, row in _rows(bitext, added):
        file.write(tsv_line([row[name] for name in names]))


def _write_jsonl(file: IO[bytes], bitext: Bitext, added: AddedColumns) -> None:
    for *_, row in _rows(bitext, added):
        try:
            line = json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair somewhere, which only an escape can say
            line = json.dumps(row).encode()
        file.write(line + b"\n")


def _write_parquet(file: IO[bytes], bitext: Bitext, added: AddedColumns) -> None:
    """Copy the columns as they are, batch by batch."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("writing a Parquet file", "parquet") from error
    with parquet.ParquetFile(bitext.path) as source:
        if source.metadata.num_rows != len(added.kept):
            raise _changed(bitext)
        schema = _extended(source.schema_arrow, added, pa)
        start = 0
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in source.iter_batches(_BATCH_ROWS):
                rows = slice(start, start + len(batch))
                start += len(batch)
                columns = _columns(batch, added, rows, schema, pa)
                kept = pa.array(added.kept[rows])
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema).filter(kept))


def _extended(schema: Any, added: AddedColumns, pa: Any) -> Any:
    for name in added.values:
        kind = pa.string() if name == "reason" else pa.float64()
        field = pa.field(name, kind)
        at = schema.get_field_index(name)
        schema = schema.append(field) if at < 0 else schema.set(at, field)
    return schema


def _columns(batch: Any, added: AddedColumns, rows: slice, schema: Any, pa: Any) -> list[Any]:
    columns = []
    for field in schema:
        if field.name in added.values:
            columns.append(pa.array(added.values[field.name][rows], field.type))
        elif field.name in added.stale:
            columns.append(pa.array([added.stale[field.name]] * len(batch), field.type))
        else:
            columns.append(batch.column(field.name))
    return columns


def numbers(values: NDArray[Any]) -> list[float | None]:
    """Return the values with six decimals, None for NaN."""
    return [rounded(value) for value in values.tolist()]
