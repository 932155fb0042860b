"""Pairs as a Parquet file (pyarrow, extra [parquet])."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import IO, Any

from embedsvc.errors import MissingExtraError
from embedsvc.mining.outputs.columns import COLUMNS, ORIGIN_COLUMNS
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.tables import pair_rows
from embedsvc.mining.records import Pair

ROW_GROUP_ROWS = 16_384
"""Rows held at once, and of a row group."""

_NUMBERS = ("score", "probability", "cosine")
_WHOLE_NUMBERS = ("src_line", "tgt_line", "src_copies", "tgt_copies")


def write_parquet(file: IO[bytes], pairs: Iterable[Pair], info: OutputInfo) -> None:
    """Write typed columns in row groups; the languages are in the schema's metadata.

    Raises MissingExtraError without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("writing a Parquet file", "parquet") from error
    schema = _schema(pa, info)
    rows = pair_rows(pairs)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROW_GROUP_ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))


def _schema(pa: Any, info: OutputInfo) -> Any:
    origin = pa.struct(
        [("file", pa.string()), ("line", pa.int64()), ("id", pa.string()), ("document", pa.string())]
    )
    kinds = dict.fromkeys(COLUMNS, pa.string())
    kinds |= dict.fromkeys(_NUMBERS, pa.float64())
    kinds |= dict.fromkeys(_WHOLE_NUMBERS, pa.int64())
    kinds |= dict.fromkeys(ORIGIN_COLUMNS, pa.list_(origin))
    languages = {"source_language": info.source_tag, "target_language": info.target_tag}
    return pa.schema(list(kinds.items()), metadata=languages)
