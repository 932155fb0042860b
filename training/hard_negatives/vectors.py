"""Vectors of the texts, in shards on disk: encoded once, and copied for each search."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.side_vectors import SideVectors, unknown_rows, with_stand_ins
from embedsvc.options import EncodeOptions
from indexing import IndexFileError, ShardWriter, VectorShards
from training.hard_negatives.texts import PickedTexts

Rows = NDArray[np.int64]
_AT_ONCE = 8_192  # texts encoded, and rows copied
_GAP = 32  # rows between two wanted ones that are cheaper read than passed over


def encode_texts(
    name: str, texts: PickedTexts, encoder: Encoder, folder: Path, report: Report
) -> VectorShards:
    """Return the vectors of all texts; whole shards that ``folder`` has of them are not made again.

    Raises InvalidInputError when the folder is of other texts or another model.
    """
    extra = {"model": encoder.name, "fingerprint": encoder.fingerprint, "texts": _sha256(texts)}
    options, stage = EncodeOptions(truncate="end"), f"encode {name}"
    try:
        writer = ShardWriter(folder, rows=len(texts), dimension=encoder.dimension, extra=extra)
        for start in range(writer.next_row, len(texts), _AT_ONCE):
            report(Step(stage, start, len(texts), "texts"))
            some = texts.between(start, start + _AT_ONCE)
            vectors = encoder.encode_with_usage(some, options, progress=False).vectors
            writer.write(with_stand_ins(vectors))
        shards = writer.close()
    except IndexFileError as error:
        raise InvalidInputError(f"{error}; its vectors are of other data or another model: take another "
                                "--work, or remove this one") from error  # fmt: skip
    report(Step(stage, len(texts), len(texts), "texts"))
    return shards


def _sha256(texts: PickedTexts) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(texts), _AT_ONCE):
        for text in texts.between(start, start + _AT_ONCE):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def copied(shards: VectorShards, rows: Rows, folder: Path) -> SideVectors:
    """Return some rows, ascending, as shards of their own in ``folder``."""
    extra = {"of": shards.fingerprints(), "rows": hashlib.sha256(rows.tobytes()).hexdigest()}
    try:
        writer = ShardWriter(
            folder, rows=len(rows), dimension=shards.dimension, dtype=shards.dtype.name, extra=extra
        )
        for start in range(writer.next_row, len(rows), _AT_ONCE):
            writer.write(read_rows(shards, rows[start : start + _AT_ONCE]))
        copy = writer.close()
    except IndexFileError as error:
        raise StorageError(f"{error}; remove {folder}") from error
    return SideVectors(copy, unknown_rows(copy))


def read_rows(shards: VectorShards, rows: Rows) -> NDArray[np.float32]:
    """Return the vectors (n, dim) of rows in any order."""
    wanted, place = np.unique(rows, return_inverse=True)
    found = np.empty((len(wanted), shards.dimension), np.float32)
    for first, last in _runs(wanted):
        start = int(wanted[first])
        read = shards.read(start, int(wanted[last - 1]) + 1)
        found[first:last] = read[wanted[first:last] - start]
    taken: NDArray[np.float32] = found[place]
    return taken


def _runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Yield the parts of ascending rows that lie close together."""
    ends = np.flatnonzero(np.diff(rows) > _GAP) + 1
    yield from zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True) if len(rows) else ()
