"""Exact k-nearest neighbours of two sets in memory: both directions from one product, tile by tile.

A first pass keeps a few candidates more than asked for, whose scores are computed once more, pair by pair.
So a score is the same, to the last bit, in both directions and whatever the tiles, the threads and the other
vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.first_pass import FloatProduct, Pass, Progress, candidates
from indexing.neighbours import Neighbours
from indexing.rescore import rescored
from indexing.vectors import check_vectors

BLOCK_BYTES = 8 * 1024 * 1024
"""Default size of a tile of scores. Selecting takes half as much again."""

SPARE = 4
"""Candidates beyond ``k``: as many scores may differ by no more than rounding at the end of a list."""


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
    y_lists, x_lists = candidates(FloatProduct(y, x), _pass(y, x, k, block_bytes), progress=progress)
    assert x_lists is not None
    return BothWays(rescored(x, y, x_lists.ranked()[1], k), rescored(y, x, y_lists.ranked()[1], k))


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
    product, options = FloatProduct(queries, vectors), _pass(queries, vectors, k, block_bytes)
    lists, _ = candidates(product, options, both=False, progress=progress)
    return rescored(queries, vectors, lists.ranked()[1], k)


def _checked(
    x: NDArray[Any], y: NDArray[Any], k: int, names: tuple[str, str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if k < 1:
        raise IndexingError(f"k is {k}; expected at least 1")
    x = check_vectors(x, name=names[0])
    return x, check_vectors(y, dimension=x.shape[1], name=names[1])


def _pass(rows: NDArray[np.float32], columns: NDArray[np.float32], k: int, block_bytes: int) -> Pass:
    tile = _tile_shape(len(rows), len(columns), block_bytes)
    return Pass(k + SPARE, tile, faiss.omp_get_max_threads())


def _tile_shape(n: int, m: int, block_bytes: int) -> tuple[int, int]:
    """Rows and columns of a tile: square, unless one side is short."""
    scores = max(1, block_bytes // 4)
    height = max(1, min(n, math.isqrt(scores)))
    width = max(1, min(m, scores // height))
    return max(1, min(n, scores // width)), width
