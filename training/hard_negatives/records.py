"""Files of hard negatives: JSON Lines (also .gz, .xz, .zst) or Parquet, a record per pair.

    anchor, positive     two texts that translate each other
    negatives            texts of the positive's side that mean something else, the nearest first; may be none
    anchor_side          "english" or "other": the side of the training data that the anchor stands on
    language             that of the pair, as the data names it: of its other text
    negative_languages   of each negative; null where these are English
    group                what the pair means: 16 hex digits, a key of its English text (`training.groups`)
    negative_groups      for each negative, all that it is known to mean
    positive_score       cosine of anchor and positive
    negative_scores      and of anchor and each negative
    positive_relevance, negative_relevances    the same as a cross-encoder scores them; null without one

A text stands for every text with the same `training.data.text_keys`. Fields of other names are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embedsvc.compression import packing, without_packing
from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import json_rows
from embedsvc.textfiles import atomic_write, iterate_lines

AnchorSide = Literal["english", "other"]
Text = Annotated[str, Field(min_length=1)]
Group = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
_GROUP_ROWS = 16_384
_PER_NEGATIVE = ("negative_languages", "negative_groups", "negative_scores", "negative_relevances")


class NegativeRecord(BaseModel):
    """A pair and its negatives; see the module for the fields."""

    model_config = ConfigDict(frozen=True)

    anchor: Text
    positive: Text
    negatives: list[Text]
    anchor_side: AnchorSide
    language: Text
    negative_languages: list[Text] | None = None
    group: Group
    negative_groups: list[list[Group]]
    positive_score: float
    negative_scores: list[float]
    positive_relevance: float | None = None
    negative_relevances: list[float] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> NegativeRecord:
        for name in _PER_NEGATIVE:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.negatives):
                raise ValueError(f"{len(self.negatives)} negatives, but {len(values)} {name}")
        return self


def group_of_key(key: int) -> str:
    """Return a text key as the file has it."""
    return f"{key:016x}"


def key_of_group(group: str) -> int:
    """Return the text key that a file's group is."""
    return int(group, 16)


def check_negatives_name(path: Path) -> None:
    """Raise InvalidInputError for a name that says no format that can be written."""
    if path.suffix != ".parquet" and without_packing(path).suffix != ".jsonl":
        raise InvalidInputError(f"{path}: expected a name in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")


def write_negatives(path: Path, records: Iterable[NegativeRecord]) -> None:
    """Write records, whole or not at all; raise MissingExtraError for Parquet without pyarrow."""
    check_negatives_name(path)
    with atomic_write(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(file, records)
            return
        with packing(file, path.suffix) as packed:
            for record in records:
                packed.write(record.model_dump_json().encode() + b"\n")


def read_negatives(path: Path) -> Iterator[NegativeRecord]:
    """Yield the records of a file; raise InvalidInputError naming file, line and field of a bad one."""
    rows = parquet_rows(path, None) if path.suffix == ".parquet" else json_rows(path, iterate_lines(path))
    for number, row in rows:
        try:
            yield NegativeRecord.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            what = f"{field}: {first['msg']}" if field else first["msg"]
            raise InvalidInputError(f"{path} line {number}: no record of hard negatives: {what}") from error


def _write_parquet(file: IO[bytes], records: Iterable[NegativeRecord]) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("writing a Parquet file", "parquet") from error
    schema = _schema(pa)
    rows = (record.model_dump() for record in records)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))


def _schema(pa: Any) -> Any:
    texts, scores = pa.list_(pa.string()), pa.list_(pa.float32())
    kinds = dict.fromkeys(NegativeRecord.model_fields, pa.string())
    kinds |= {"negatives": texts, "negative_languages": texts, "negative_groups": pa.list_(texts)}
    kinds |= {"positive_score": pa.float32(), "positive_relevance": pa.float32()}
    kinds |= {"negative_scores": scores, "negative_relevances": scores}
    return pa.schema(list(kinds.items()))
