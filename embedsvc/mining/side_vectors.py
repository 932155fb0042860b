"""The vectors of one side, in shards on disk; a killed run goes on behind the last whole shard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.sentence_store import SentenceStore
from embedsvc.options import EncodeOptions
from indexing import (
    IndexFileError,
    ShardWriter,
    VectorError,
    VectorShards,
    grow_shards,
    shards_of_array,
)
from indexing.vector_files import VECTORS, VectorFiles, read_vector_files

_ENCODE_TEXTS = 8_192


@dataclass(frozen=True)
class SideTexts:
    """The sentences of a side; ``name`` is "source" or "target"."""

    name: str
    store: SentenceStore

    def place(self, row: int) -> str:
        """Return where a row's text stands, for error messages."""
        side = self.store.side(row)
        return f"{side.file} line {side.line}"


@dataclass(frozen=True, eq=False)
class SideVectors:
    """A side's vectors, a row per text, and the rows ``(n,)`` whose text has no token the model knows."""

    shards: VectorShards
    unknown: NDArray[np.int64]


def encode_options(options: MiningOptions) -> EncodeOptions:
    """Return how texts are encoded."""
    return EncodeOptions(
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        dimensions=options.dimensions,
        truncate=options.truncate,
    )


def encode_side(
    texts: SideTexts, encoder: Encoder, folder: Path, options: MiningOptions, report: Report
) -> SideVectors:
    """Encode what is not on disk yet; raise InvalidInputError naming file and line of a text refused.

    Full shards of an earlier, smaller store stay where its texts are the first of this one. A text without
    any known token has no direction: it gets `stand_in`, and its row is named.
    """
    encoding = encode_options(options)
    extra = {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "prompt": encoder.lead(encoding),
        "truncate": encoding.truncate,
        "texts": texts.store.sha256,
    }
    width = options.dimensions or encoder.dimension
    stage = f"encode {texts.name}"
    try:
        _keep_first(folder, texts.store, extra)
        writer = ShardWriter(folder, rows=len(texts.store), dimension=width, extra=extra)
        for start, stop in _steps(writer.next_row, len(texts.store)):
            report(Step(stage, start, len(texts.store)))
            vectors = _encoded(texts, start, stop, encoder, encoding, options.batch_tokens)
            writer.write(with_stand_ins(vectors))
        shards = writer.close()
    except IndexFileError as error:
        raise StorageError(f"{error}; remove {folder} to encode anew") from error
    report(Step(stage, len(texts.store), len(texts.store)))
    return SideVectors(shards, unknown_rows(shards))


def _keep_first(folder: Path, store: SentenceStore, extra: Mapping[str, Any]) -> None:
    """Let the vectors of the store's first texts be those of the store; remove those of other texts.

    Vectors that were made in another way stay, and are refused.
    """
    found = _begun(folder)
    if found is None or {**found.extra, "texts": None} != {**extra, "texts": None}:
        return
    if found.rows <= len(store) and found.extra["texts"] == store.sha256_of_first(found.rows):
        grow_shards(folder, rows=len(store), extra=extra)
    else:
        shutil.rmtree(folder)


def _begun(folder: Path) -> VectorFiles | None:
    return read_vector_files(folder) if (folder / VECTORS).exists() else None


def _steps(start: int, total: int) -> Iterator[tuple[int, int]]:
    for begin in range(start, total, _ENCODE_TEXTS):
        yield begin, min(begin + _ENCODE_TEXTS, total)


def _encoded(
    texts: SideTexts,
    start: int,
    stop: int,
    encoder: Encoder,
    options: EncodeOptions,
    batch_tokens: int | None,
) -> NDArray[np.float32]:
    batch = texts.store.texts(start, stop)
    try:
        vectors: NDArray[np.float32] = encoder.encode_with_usage(
            batch, options, batch_tokens=batch_tokens, progress=False
        ).vectors
    except InvalidInputError as error:
        raise _at_line(error, texts, start) from error
    return vectors


def _at_line(error: InvalidInputError, texts: SideTexts, start: int) -> InvalidInputError:
    """The encoder's error about the n-th text it was given, as an error about a line of a file."""

    def place(found: re.Match[str]) -> str:
        return texts.place(start + int(found[1]))

    return type(error)(re.sub(r"\binput\[(\d+)\]", place, error.message), param=error.param)


def given_vectors(path: Path, texts: SideTexts | None, folder: Path, name: str) -> SideVectors:
    """Return the vectors of a .npy file, unit rows; of a side with texts those of its sentences.

    A row of the file is a record of the texts, blank and repeated ones included. Raises InvalidInputError.
    """
    none = np.empty(0, np.int64)
    try:
        given = shards_of_array(path)
    except (VectorError, IndexFileError) as error:
        raise InvalidInputError(str(error), param=f"{name}_vectors") from error
    if texts is None:
        return SideVectors(given, none)
    records = texts.store.report.records
    if len(given) != records:
        raise InvalidInputError(
            f"{path} has {len(given)} rows, the {name} has {records} records; expected one row per record",
            param=f"{name}_vectors",
        )
    try:
        return SideVectors(_chosen(given, texts, folder), none)
    except IndexFileError as error:
        raise StorageError(f"{error}; remove {folder} to copy the vectors anew") from error


def _chosen(given: VectorShards, texts: SideTexts, folder: Path) -> VectorShards:
    """Copy the vectors of the sentences that are kept, each that of its first record."""
    extra = {"vectors": given.fingerprints(), "texts": texts.store.sha256}
    found = _begun(folder)
    if found is not None and found.extra != extra:
        shutil.rmtree(folder)  # no more than a copy
    writer = ShardWriter(
        folder, rows=len(texts.store), dimension=given.dimension, dtype=given.dtype.name, extra=extra
    )
    records = texts.store.first_records()
    for start, stop in _steps(writer.next_row, len(texts.store)):
        for wanted in _near(records[start:stop]):
            rows = given.read(int(wanted[0]), int(wanted[-1]) + 1)
            writer.write(rows[wanted - wanted[0]])
    return writer.close()


def _near(records: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide ascending numbers so that those of a part lie close together: what is between them is read."""
    return np.split(records, np.flatnonzero(np.diff(records // _ENCODE_TEXTS)) + 1)


def stand_in(dimension: int) -> NDArray[np.float32]:
    """Return a unit vector ``(dimension,)`` that no model gives."""
    values: NDArray[np.float32] = np.full(dimension, 1 / np.sqrt(dimension), np.float32)
    values[1::2] *= -1
    return values


def with_stand_ins(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors with `stand_in` for every row of zeros, in place."""
    vectors[~vectors.any(axis=1)] = stand_in(vectors.shape[1])
    return vectors


def unknown_rows(shards: VectorShards) -> NDArray[np.int64]:
    """Return the rows (n,) that hold `stand_in`, whose texts the model does not know."""
    expected = stand_in(shards.dimension).astype(shards.dtype).astype(np.float32)
    found = [
        start + np.flatnonzero((shards.read(start, stop) == expected).all(axis=1))
        for start, stop in _steps(0, len(shards))
    ]
    return np.concatenate([np.empty(0, np.int64), *found])
