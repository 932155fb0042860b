"""How neighbours will be found, how long that takes and how much memory: said before it is begun."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError
from indexing.first_pass import FloatProduct, Product
from indexing.int8_product import int8_product, rounded
from indexing.methods import TILES, Method, gpus
from indexing.onnx_matmul import byte_product_is_exact
from indexing.selection import BestLists, take_tile
from indexing.vector_shards import rows_per_shard

_EXACT_SCORES = 5_000_000_000  # 70,000 x 70,000: up to here exact search is quick enough
_PROCESS_BYTES = 250 << 20  # the interpreter, numpy, FAISS and ONNX Runtime
_THREAD_BYTES = (
    4 * 4 * max(height * width for height, width in TILES.values())
)  # a tile, what is opened of it
_ENTRY_SECONDS = 0.3e-6  # to let one score enter a list
_RESCORE_SECONDS = 0.5e-9  # per value of a candidate's vector
_FAISS_SLOWER = 4  # per score, beside the product of large matrices


@dataclass(frozen=True)
class NeighbourPlan:
    """A method with its parameters (see `methods`), the threads it runs on, and what it is expected to take.

    ``threads`` 0 are all there are; ``reason`` says why this method.
    """

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    reason: str = "chosen by the caller"
    threads: int = 0


def plan_neighbours(
    n: int,
    m: int,
    dimension: int,
    k: int,
    *,
    method: str = "auto",
    memory_bytes: int = 2 << 30,
    threads: int | None = None,
    max_seconds: float | None = None,
    shard_rows: int | None = None,
) -> NeighbourPlan:
    """Return how to find the ``k`` nearest of ``n`` and of ``m`` vectors among the others, both ways.

    ``auto`` takes exact search of up to 5 billion scores, above it bytes with exact scores; and inverted
    lists, which miss some neighbours, only where ``max_seconds`` leave no other way. Seconds come
    from a short timing of this machine, memory is that of the whole process, disk that of the lists.
    ``threads`` (None: all) are fewer where each one's tiles would take too much memory; ``shard_rows`` None
    is `rows_per_shard`.

    Raises:
        IndexingError: the method does not work here, or shards of ``shard_rows`` take more than
            ``memory_bytes``.
    """
    rows = min(shard_rows or rows_per_shard(dimension), max(n, m, 1))
    size = _Size(n, m, dimension, k, rows, threads or faiss.omp_get_max_threads())
    Method("exact" if method == "auto" else method)
    chosen, reason = (method, "chosen by the caller") if method != "auto" else _choose(size, max_seconds)
    size = _with_threads_that_fit(size, chosen, memory_bytes)
    needed = _memory_bytes(size, chosen)
    if needed > memory_bytes:
        most = (memory_bytes - _fixed_bytes(size)) // (2 * _row_bytes(size, chosen))
        advice = (
            f"write shards of at most {most} rows, or allow more" if most > 0 else "that is too low for any"
        )
        raise IndexingError(
            f"two shards of {size.shard_rows} rows take {needed >> 20} MiB; "
            f"the limit is {memory_bytes >> 20} MiB; {advice}"
        )
    return NeighbourPlan(
        method=chosen,
        parameters=Method(chosen).complete(),
        seconds=_seconds(size, chosen),
        memory_bytes=needed,
        disk_bytes=_disk_bytes(size),
        reason=reason,
        threads=size.threads,
    )


@dataclass(frozen=True)
class _Size:
    n: int
    m: int
    dimension: int
    k: int
    shard_rows: int
    threads: int

    def shards(self) -> tuple[int, int]:
        return math.ceil(self.n / self.shard_rows), math.ceil(self.m / self.shard_rows)


def _choose(size: _Size, max_seconds: float | None) -> tuple[str, str]:
    """Choose by the sizes alone, unless time is limited: the same input gets the same method every time."""
    scores = size.n * size.m
    if gpus():
        ways = [("gpu", f"{gpus()} graphics card(s)")]
    else:
        bytes_first = ("int8", f"{scores:.3g} scores: bytes first, then exact scores")
        ways = [bytes_first] if byte_product_is_exact() else []
        if scores <= _EXACT_SCORES or not ways:
            ways.insert(0, ("exact", f"{scores:.3g} scores"))
    if max_seconds is None:
        return ways[0]
    needed = [_seconds(size, method) for method, _ in ways]
    affordable = [way for way, seconds in zip(ways, needed, strict=True) if seconds <= max_seconds]
    slow = f"a full search takes {min(needed):.0f} s; {max_seconds:.0f} s are allowed"
    return affordable[0] if affordable else ("ivf", slow)


def _seconds(size: _Size, method: str) -> float:
    way = Method(method)
    if method == "ivf":
        nlist = 4 * math.isqrt(max(1, min(size.shard_rows, size.n, size.m)))
        share = min(1.0, way.complete()["nprobe"] / nlist)
        scores = 2 * size.n * size.m * share * _FAISS_SLOWER * score_seconds("exact", size.dimension)
        return scores / size.threads
    if method == "gpu":
        return size.n * size.m * size.dimension * 4 / (2e13 * max(1, gpus()))
    dimension = way.complete().get("dimensions", size.dimension)
    kind = "exact" if method == "exact" or not byte_product_is_exact() else "int8"
    scores = size.n * size.m * score_seconds(kind, dimension)
    keep, (x_shards, y_shards) = way.keep(size.k), size.shards()
    lists = size.n * y_shards + size.m * x_shards
    entries = lists * keep * (1 + math.log(1 + size.shard_rows / 512)) * _ENTRY_SECONDS
    rescoring = lists * keep * size.dimension * _RESCORE_SECONDS
    return (scores + entries + rescoring) / size.threads


@functools.cache
def score_seconds(kind: str, dimension: int) -> float:
    """Return how much processor time a score takes on this machine, product and selection: the best of five.

    ``kind`` is "exact" or "int8".
    """
    height, width = TILES[kind]
    vectors = np.random.default_rng(0).standard_normal((height + width, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    product = _product(kind, vectors[:height], vectors[height:])
    scores = product.columns(0, width)
    rows, columns = BestLists(height, 1, product.dtype), BestLists(width, 1, product.dtype)
    rows.floors[:] = columns.floors[:] = 1 << 30  # as after many tiles: hardly a score enters
    times = []
    for _ in range(5):
        begin = time.process_time()
        take_tile(scores(0, height), rows, columns, (0, 0))
        times.append(time.process_time() - begin)
    return min(times) / (height * width)


def _product(kind: str, rows: NDArray[np.float32], others: NDArray[np.float32]) -> Product:
    return FloatProduct(rows, others) if kind == "exact" else int8_product(rounded(rows), rounded(others))


def _memory_bytes(size: _Size, method: str) -> int:
    rows = min(size.n, size.shard_rows) + min(size.m, size.shard_rows)
    return _fixed_bytes(size) + rows * _row_bytes(size, method)


def _fixed_bytes(size: _Size) -> int:
    return _PROCESS_BYTES + size.threads * _THREAD_BYTES


def _with_threads_that_fit(size: _Size, method: str, memory_bytes: int) -> _Size:
    spare = memory_bytes - _memory_bytes(replace(size, threads=1), method)
    return replace(size, threads=min(size.threads, 1 + max(0, spare) // _THREAD_BYTES))


def _row_bytes(size: _Size, method: str) -> int:
    """A row as float32 and, for bytes, twice as these; its list while it is ranked."""
    per_value = {"exact": 4, "int8": 4 + 2, "truncated": 4 + 4 + 2, "ivf": 4 + 4, "gpu": 4 + 4}[method]
    return size.dimension * per_value + Method(method).keep(size.k) * 8 * 4


def _disk_bytes(size: _Size) -> int:
    """The blocks, and the merged lists."""
    x_shards, y_shards = size.shards()
    in_blocks = size.n * y_shards + size.m * x_shards
    return in_blocks * (8 * size.k + 4) + (size.n + size.m) * 12 * size.k
