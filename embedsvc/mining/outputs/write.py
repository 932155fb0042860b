"""Write pairs in any format, whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from embedsvc.compression import packing
from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.mining.outputs.columns import check_encodable
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.kinds import OutputFormat, output_kind
from embedsvc.mining.outputs.moses import moses_paths, write_moses
from embedsvc.mining.outputs.parquet import write_parquet
from embedsvc.mining.outputs.tables import write_jsonl, write_tsv
from embedsvc.mining.outputs.xml import write_tmx, write_xliff
from embedsvc.mining.records import Pair
from embedsvc.textfiles import atomic_write

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_pairs(path: Path, pairs: Iterable[Pair], info: OutputInfo, *, format: str | None = None) -> int:
    """Write the pairs in their order and return how many there were.

    The format is that of the path's suffix (.tsv, .jsonl, .parquet, .tmx, .xlf, .xliff, .moses; text also
    .gz, .xz or .zst) or named. Pairs are taken one at a time, whatever their number. The same pairs give the
    same bytes. Should anything fail, what was at ``path`` stays as it was.
    Raises InvalidInputError for an unknown format or a lone surrogate in a text, MissingExtraError for
    Parquet without pyarrow, StorageError when the disk is full.
    """
    kind = output_kind(path, format)
    counted = _Counted(pairs)
    with full_disk_named(path):
        if kind.format == "moses":
            write_moses(path, counted, info, kind)
        else:
            with atomic_write(path) as raw, packing(raw, kind.packed) as file:
                _write(file, counted, info, kind.format)
    return counted.count


def output_files(path: Path, info: OutputInfo, *, format: str | None = None) -> tuple[Path, ...]:
    """Return the files that `write_pairs` writes: of a Moses pair two, else the path.

    Raises InvalidInputError where there can be no such files.
    """
    kind = output_kind(path, format)
    return moses_paths(path, info, kind.packed) if kind.format == "moses" else (path,)


def check_output(path: Path, info: OutputInfo, inputs: Iterable[Path], *, format: str | None = None) -> None:
    """Raise InvalidInputError where `write_pairs` could not write, or would write over an input."""
    written = {file.resolve(): file for file in output_files(path, info, format=format)}
    for file in inputs:
        if file.resolve() in written:
            raise InvalidInputError(
                f"out {path}: {written[file.resolve()]} is one of the input files; it would be overwritten",
                param="out",
            )


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn what a full disk, quota or limit raises while a file is written into StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageError(f"{path} cannot be written: {error.strerror}; nothing was changed") from error


class _Counted:
    """Pairs, checked and counted while they pass."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._pairs = pairs
        self.count = 0

    def __iter__(self) -> Iterator[Pair]:
        for pair in self._pairs:
            self.count += 1
            check_encodable(pair, self.count)
            yield pair


def _write(file: IO[bytes], pairs: Iterable[Pair], info: OutputInfo, format: OutputFormat) -> None:
    if format == "tsv":
        write_tsv(file, pairs)
    elif format == "jsonl":
        write_jsonl(file, pairs)
    elif format == "parquet":
        write_parquet(file, pairs, info)
    elif format == "tmx":
        write_tmx(file, pairs, info)
    elif format == "xliff":
        write_xliff(file, pairs, info)
