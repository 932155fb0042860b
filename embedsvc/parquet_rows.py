"""Rows of Parquet files, a few at a time (pyarrow, extra [parquet])."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.textfiles import check_file

_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20  # read of a column at once, whatever the size of its row group


def parquet_rows(
    path: Path, vector_column: str | None, *, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, values by column); with ``columns`` only these, if the first is there.

    Lists, structs and maps become lists and dicts, dates and times ISO strings; the vector column, if it
    is a list, arrays (dim,). Raises MissingExtraError without pyarrow, InvalidInputError for a bad file.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(f"{path}: reading a Parquet file", "parquet") from error
    check_file(path)
    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names, path)
            names = file.schema_arrow.names
            wanted = [*columns] if columns and columns[0] in names else None
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for row in _rows(batch, vector_column):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} after row {number}: not a sound Parquet file: {error}") from error


def _check_names(names: list[str], path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"{path}: column name {name!r} is there twice")


def _rows(batch: Any, vector_column: str | None) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [
        _vectors(column) if name == vector_column else column.to_pylist(maps_as_pydicts="strict")
        for name, column in zip(names, batch.columns, strict=True)
    ]
    for values in zip(*columns, strict=True):
        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}


def _vectors(column: Any) -> list[Any]:
    """Return arrays, without a Python object for every number; other columns (base64) as they are."""
    from pyarrow import types

    kind = column.type
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not (lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))):
        return list(column.to_pylist())
    return [scalar.values.to_numpy(zero_copy_only=False) if scalar.is_valid else None for scalar in column]


def _plain(value: Any) -> Any:
    """Return the value with dates and times as ISO strings; JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else value
