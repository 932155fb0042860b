"""Exact k-nearest neighbours of two sets: both directions from one product, tile by tile.

The scores of a tile (some rows of ``x`` against some rows of ``y``) are computed once and feed the
lists of its rows and of its columns. A list takes only scores above its worst entry, so that after
the first tiles almost nothing is left to sort.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.neighbours import Neighbours
from indexing.vectors import check_vectors

BLOCK_BYTES = 32 * 1024 * 1024
"""Default size of a tile of scores. Selecting takes half as much again; 15 times as much if all are equal."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class BothWays:
    """Neighbours of every ``x`` among ``y`` and of every ``y`` among ``x``."""

    x_to_y: Neighbours
    y_to_x: Neighbours


def nearest_both_ways(
    x: NDArray[Any],
    y: NDArray[Any],
    k: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> BothWays:
    """Return the ``k`` nearest rows of ``y`` ``(m, dim)`` for each of ``x`` ``(n, dim)``, and the reverse.

    ``k`` is clipped to the size of the other side: the results are ``(n, min(k, m))`` and
    ``(m, min(k, n))``. Among equal scores the lower row wins. Beside the results, memory is
    in proportion to ``block_bytes`` (see `BLOCK_BYTES`). ``progress`` is called with the rows of ``x``
    done and ``n``.

    Raises:
        VectorError: ``x`` or ``y`` break the vector convention or differ in dimension.
        IndexingError: ``k`` is not positive.
    """
    x, y = _checked(x, y, k, ("x", "y"))
    x_to_y, y_to_x = _empty_lists(len(x), min(k, len(y))), _empty_lists(len(y), min(k, len(x)))
    _fill(x, y, x_to_y, y_to_x, block_bytes=block_bytes, progress=progress)
    return BothWays(x_to_y, y_to_x)


def nearest(
    queries: NDArray[Any],
    vectors: NDArray[Any],
    k: int,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
    trusted: bool = False,
) -> Neighbours:
    """Return the ``min(k, n)`` nearest of ``vectors`` ``(n, dim)`` for each of ``queries`` ``(q, dim)``.

    As `nearest_both_ways`, in one direction. ``trusted`` says that both have passed `check_vectors` before.
    """
    if not trusted:
        queries, vectors = _checked(queries, vectors, k, ("queries", "vectors"))
    lists = _empty_lists(len(queries), min(k, len(vectors)))
    _fill(queries, vectors, lists, None, block_bytes=block_bytes, progress=progress)
    return lists


def _checked(
    x: NDArray[Any], y: NDArray[Any], k: int, names: tuple[str, str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if k < 1:
        raise IndexingError(f"k is {k}; expected at least 1")
    x = check_vectors(x, name=names[0])
    return x, check_vectors(y, dimension=x.shape[1], name=names[1])


def _empty_lists(n: int, k: int) -> Neighbours:
    return Neighbours(np.full((n, k), -np.inf, np.float32), np.full((n, k), -1, np.int64))


def _fill(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    x_lists: Neighbours,
    y_lists: Neighbours | None,
    *,
    block_bytes: int,
    progress: Progress | None,
) -> None:
    height, width = _tile_shape(len(x), len(y), block_bytes)
    buffer = np.empty(height * width, np.float32)
    threads = faiss.omp_get_max_threads()
    with ThreadPoolExecutor(threads) as pool:
        for top in range(0, len(x), height):
            for left in range(0, len(y), width):
                tile = _scores(x[top : top + height], y[left : left + width], buffer)
                jobs = list(_strips(x_lists, tile, top, left, threads))
                if y_lists is not None:
                    jobs += _strips(y_lists, tile.T, left, top, threads)
                for job in [pool.submit(_keep_best, *strip) for strip in jobs]:
                    job.result()
            if progress:
                progress(min(top + height, len(x)), len(x))


def _tile_shape(n: int, m: int, block_bytes: int) -> tuple[int, int]:
    """Rows and columns of a tile: square, unless one side is short."""
    scores = max(1, block_bytes // 4)
    height = max(1, min(n, math.isqrt(scores)))
    width = max(1, min(m, scores // height))
    return max(1, min(n, scores // width)), width


def _scores(
    a: NDArray[np.float32], b: NDArray[np.float32], buffer: NDArray[np.float32]
) -> NDArray[np.float32]:
    out = buffer[: len(a) * len(b)].reshape(len(a), len(b))
    return np.matmul(a, b.T, out=out)


def _strips(
    lists: Neighbours, tile: NDArray[np.float32], first: int, first_other: int, parts: int
) -> Iterator[tuple[Neighbours, NDArray[np.float32], int]]:
    """Split a tile, whose rows belong to ``lists[first:]``, into arguments for `_keep_best`."""
    step = math.ceil(len(tile) / parts)
    for start in range(0, len(tile), step):
        strip = tile[start : start + step]
        own = slice(first + start, first + start + len(strip))
        yield Neighbours(lists.scores[own], lists.rows[own]), strip, first_other


def _keep_best(lists: Neighbours, tile: NDArray[np.float32], first_other: int) -> None:
    """Merge a tile ``(n, others)`` into the lists ``(n, k)`` of its rows, in place.

    ``first_other`` is the number of the first column; earlier columns have been merged before.
    """
    k = lists.rows.shape[1]
    owner, other = _candidates(lists, tile)
    counts = np.bincount(owner, minlength=len(tile))
    touched = np.flatnonzero(counts)
    counts = counts[touched]
    # One line per touched list: its k entries, then its candidates, then nothing.
    line = np.repeat(np.arange(len(touched)), counts)
    column = k + np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    scores = np.full((len(touched), k + counts.max(initial=0)), -np.inf, np.float32)
    rows = np.full(scores.shape, -1, np.int64)
    scores[:, :k], rows[:, :k] = lists.scores[touched], lists.rows[touched]
    scores[line, column], rows[line, column] = tile[owner, other], other + first_other
    # Stable, and rows ascend along a line: among equal scores the lower row wins.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    lists.scores[touched] = np.take_along_axis(scores, best, 1)
    lists.rows[touched] = np.take_along_axis(rows, best, 1)


def _candidates(lists: Neighbours, tile: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the scores that may enter a list, ordered by row, then column."""
    worst = lists.scores[:, -1:]
    full = bool(np.isfinite(worst).all())
    chosen = tile > worst if full else tile >= _low_bound(tile, lists.rows.shape[1])
    transposed = not chosen.flags.c_contiguous
    flat = np.flatnonzero(chosen.T if transposed else chosen)
    outer, inner = np.divmod(flat, chosen.shape[0] if transposed else chosen.shape[1])
    if not transposed:
        return outer, inner
    order = np.argsort(inner, kind="stable")
    return inner[order], outer[order]


def _low_bound(tile: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """A score ``(n, 1)`` that at least ``k`` of each row reach: the k-th best of group maxima."""
    columns = tile.shape[1]
    if columns < k:
        return np.full((len(tile), 1), -np.inf, np.float32)
    groups = min(columns, 8 * k)
    slices = [tile[:, start : start + groups] for start in range(0, columns - groups + 1, groups)]
    maxima = functools.reduce(np.maximum, slices)
    return np.partition(maxima, groups - k, axis=1)[:, groups - k, None]
