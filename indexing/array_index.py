"""A folder to search, made from nothing but arrays: vectors in any order, and a label for each.

Inside, rows stand label by label; callers see their own row numbers only.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.durable import sync_folder
from indexing.errors import IndexFileError, IndexingError, VectorError
from indexing.manifest import StrPath
from indexing.neighbours import Neighbours
from indexing.shard_folder import MANIFEST, open_shards, save_shards
from indexing.shard_options import GraphStep, ShardOptions, graph_steps
from indexing.shards import ShardedIndex, best_of, group_ranges
from indexing.vectors import check_vectors, normalize_rows

_CHUNK = 65_536  # rows that are read and checked at a time
_ROWS = "rows"  # the array of the callers' row numbers


@dataclass(frozen=True, eq=False)
class ArrayIndex:
    """An index from a folder, memory-mapped; ``rows`` (n,) are the callers' numbers of its own rows."""

    index: ShardedIndex
    rows: NDArray[np.int64]
    extra: dict[str, Any]

    def search(self, queries: NDArray[Any], k: int, *, labels: Iterable[str] | None = None) -> Neighbours:
        """Return the ``k`` best rows for unit ``queries`` (q, dim), only of these labels if given.

        Raises:
            VectorError: ``queries`` break the vector convention or have another dimension.
            IndexingError: ``k`` is not positive, or no row has one of the labels.
        """
        queries = check_vectors(queries, dimension=self.index.dimension, name="queries")
        if k < 1:
            raise IndexingError(f"k is {k}; expected at least 1")
        found = self.index.search(queries, k, groups=None if labels is None else self._known(labels))
        scores, rows = best_of(found.scores, np.where(found.rows < 0, -1, self.rows[found.rows]), k)
        missing = ((0, 0), (0, k - rows.shape[1]))
        return Neighbours(
            np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)
        )

    def _known(self, labels: Iterable[str]) -> list[str]:
        wanted = list(labels)
        for label in wanted:
            if label not in self.index.groups:
                known = ", ".join(repr(known) for known in self.index.groups)
                raise IndexingError(f"no row has the label {label!r}; there are {known}")
        return wanted


def open_array_index(folder: StrPath, *, verify: bool = True) -> ArrayIndex:
    """Open what `build_shards_for_arrays` wrote, memory-mapped; ``verify`` reads every file once.

    Raises:
        IndexFileError: a file is missing or damaged, or the folder was written by another program.
    """
    opened = open_shards(folder, verify=verify)
    rows = opened.arrays.get(_ROWS)
    if rows is None or rows.shape != (opened.index.count,) or not opened.extra.keys() >= {"options", "why"}:
        raise IndexFileError(f"{Path(folder) / MANIFEST}: is not of an index of arrays")
    return ArrayIndex(opened.index, rows, opened.extra)


def build_shards_for_arrays(
    vectors: NDArray[Any],
    labels: Sequence[str] | NDArray[Any] | None,
    folder: StrPath,
    options: ShardOptions | None = None,
    *,
    normalize: bool = False,
    overwrite: bool = False,
    progress: Callable[[GraphStep], None] | None = None,
) -> ArrayIndex:
    """Index ``vectors`` (n, dim), memory-mapped perhaps, with ``labels`` (n,) in any order; write ``folder``.

    Rows must have length 1 unless they are to be scaled by ``normalize``; without labels all rows are one
    group "". The options are `ShardOptions` with kinds to be chosen unless others are given. The folder
    appears whole or not at all; ``overwrite`` puts it in the place of an older index (killed between the
    two renames, the older one is left beside it, as .old-…); who has that open keeps it. While it builds,
    the process holds about three times the vectors as float32.

    Raises:
        VectorError: ``vectors`` break the vector convention.
        IndexingError: labels are not as many, the memory does not suffice, or the folder exists.
        OSError: the folder cannot be written.
    """
    options = options or ShardOptions(graph=None)
    folder = Path(folder)
    _check_target(folder, overwrite=overwrite)
    _check_shape(vectors)
    values = _label_array(labels, len(vectors))
    order = np.argsort(values, kind="stable")
    values = values[order]
    counts = {group.label: group.count for group in group_ranges(values)}
    steps = graph_steps(counts, vectors.shape[1], options)  # refused before hours of reading, if at all
    rows = _sorted_rows(vectors, order, normalize=normalize)
    index = ShardedIndex.build(rows, values, options, progress=progress)
    extra = {
        "options": {"recall": options.recall, "k": options.k, "memory_bytes": options.memory_bytes},
        "why": {step.label: step.why for step in steps},
    }
    _save(index, order, folder, extra)
    return open_array_index(folder, verify=False)


def _check_target(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        above = next(path for path in folder.absolute().parents if path.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise IndexingError(f"{above}: is no folder that can be written, but {folder} is to lie in it")
        return
    if not overwrite:
        raise IndexingError(
            f"{folder} exists; choose another folder, or overwrite it (overwrite, --overwrite)"
        )
    if not (folder / MANIFEST).is_file():
        raise IndexingError(f"{folder} holds no index ({MANIFEST} is missing) and is not overwritten")


def _check_shape(vectors: NDArray[Any]) -> None:
    if vectors.ndim != 2 or not len(vectors):
        raise VectorError(f"vectors have shape {vectors.shape}; expected (n, dim), at least one row")
    check_vectors(vectors[:0])


def _label_array(labels: Sequence[str] | NDArray[Any] | None, count: int) -> NDArray[np.str_]:
    values = np.zeros(count, "U1") if labels is None else np.asarray(labels, np.str_)
    if values.shape != (count,):
        raise IndexingError(f"there are {len(values)} labels for {count} vectors; expected one for each")
    return values


def _sorted_rows(vectors: NDArray[Any], order: NDArray[np.int64], *, normalize: bool) -> NDArray[np.float32]:
    """Return unit rows in ``order``, float32; the file of ``vectors`` is read once, front to back."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _CHUNK):
        stop = start + _CHUNK
        rows[place[start:stop]] = unit_rows(vectors, start, stop, normalize=normalize)
    return rows


def unit_rows(
    vectors: NDArray[Any], start: int, stop: int, *, normalize: bool, name: str = "vectors"
) -> NDArray[np.float32]:
    """Return the rows ``start`` to ``stop`` of ``vectors`` (n, dim), checked, or scaled to length 1.

    Raises VectorError that names the row by its number in all of ``vectors``, if those before are good.
    """
    rows = normalize_rows if normalize else check_vectors
    try:
        return rows(vectors[start:stop], name=name)
    except VectorError:
        _refuse(vectors[:stop], rows, name)  # says the same of the same row, under its number
        raise


def _refuse(vectors: NDArray[Any], rows: Callable[..., NDArray[np.float32]], name: str) -> None:
    check_vectors(vectors, unit=False, name=name)
    try:
        rows(vectors, name=name)
    except VectorError as error:
        advice = "" if rows is normalize_rows else "; normalize scales them"
        raise VectorError(f"{error}{advice}") from error


def _save(index: ShardedIndex, order: NDArray[np.int64], folder: Path, extra: dict[str, Any]) -> None:
    if not folder.exists():
        save_shards(index, folder, arrays={_ROWS: order}, extra=extra)
        return
    new, old = (folder.with_name(f".{age}-{uuid.uuid4().hex}") for age in ("new", "old"))
    save_shards(index, new, arrays={_ROWS: order}, extra=extra)
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old)
