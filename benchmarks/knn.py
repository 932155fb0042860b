"""Neighbours both ways beside FAISS, on vectors with known pairs; and their memory at a million rows a side.

    python benchmarks/knn.py             60 000 x 60 000 x 384, k = 4, on one thread and on two
    python benchmarks/knn.py --memory    1 000 000 x 1 000 000 x 384: peak memory; time from some blocks

The vectors are made up like sentences': topics of very different sizes, hubs, a common direction per
language, and half of each side is a noisy translation of a sentence of the other. A table is one process; the
order of the systems alternates from round to round. "two products" are the bare matrix products that a search
in both directions needs, in numpy's BLAS, without any selection: what FAISS could reach with that BLAS.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.extract import extract_pairs
from embedsvc.mining.margin import best_candidates
from indexing import (
    BothWays,
    NeighbourPlan,
    Neighbours,
    ShardWriter,
    VectorShards,
    neighbours_of_shards,
    open_vector_shards,
    plan_neighbours,
    shards_of_array,
)

Vectors = NDArray[np.float32]
_DRAWN_ROWS = 16_384
_CHILD = "EMBEDSVC_BENCHMARK_CHILD"  # set in the processes that measure


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sentences(n: int, dimension: int, seed: int) -> tuple[Vectors, Vectors, NDArray[np.int64]]:
    """Return a source and a target side and, for every source row, its true target row, or -1."""
    random = np.random.default_rng(seed)
    topics = unit(random.standard_normal((max(8, n // 40), dimension)))
    share = 1 / np.arange(1, len(topics) + 1) ** 0.7
    paired = n // 2

    def drawn(count: int) -> NDArray[np.floating]:
        topic = topics[random.choice(len(topics), count, p=share / share.sum())]
        closeness = random.uniform(0.4, 1.6, (count, 1))
        return unit(topic * closeness + unit(random.standard_normal((count, dimension))))

    source = drawn(n)
    noise = random.uniform(0.3, 1.1, (paired, 1)) * unit(random.standard_normal((paired, dimension)))
    target = np.concatenate([source[:paired] + noise, drawn(n - paired)])
    languages = 0.5 * unit(random.standard_normal((2, dimension)))
    source, target = unit(source + languages[0]), unit(target + languages[1])
    order = random.permutation(n)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    gold = np.where(np.arange(n) < paired, place, -1)
    return source, np.ascontiguousarray(target[order]), gold


def by_faiss(x: Vectors, y: Vectors, k: int) -> BothWays:
    found = []
    for own, other in ((x, y), (y, x)):
        index = faiss.IndexFlatIP(other.shape[1])
        index.add(other)
        found.append(Neighbours(*index.search(own, k)))
    return BothWays(*found)


def two_products(x: Vectors, y: Vectors) -> None:
    buffer = np.empty((1024, 4096), np.float32)
    for own, other in ((x, y), (y, x)):
        for top in range(0, len(own), 1024):
            for left in range(0, len(other), 4096):
                a, b = own[top : top + 1024], other[left : left + 4096]
                np.matmul(a, b.T, out=buffer[: len(a), : len(b)])


def ours(x: Vectors, y: Vectors, k: int, method: str) -> BothWays:
    """Everything from two arrays to lists: checks, fingerprints, block files, merging."""
    with tempfile.TemporaryDirectory() as folder:
        both = neighbours_of_shards(
            shards_of_array(x), shards_of_array(y), k, folder, plan=NeighbourPlan(method)
        )
        return BothWays(*(Neighbours(s.scores[:], s.rows[:]) for s in (both.x_to_y, both.y_to_x)))


def best_f1(both: BothWays, gold: NDArray[np.int64]) -> float:
    """The best F1 that any threshold gives the pairs of margin ratio, retrieval max."""
    pairs = extract_pairs(*best_candidates(both, "ratio"), "max", threshold=-np.inf)
    right = np.cumsum(gold[pairs.source_rows] == pairs.target_rows)
    return float((2 * right / (np.arange(1, len(right) + 1) + (gold >= 0).sum())).max())


def compare(options: argparse.Namespace) -> None:
    """One process: every system in turn, in both orders."""
    faiss.omp_set_num_threads(options.threads)
    x, y, gold = sentences(options.rows, options.dimension, options.seed)
    runs: dict[str, Callable[[], BothWays | None]] = {
        "FAISS IndexFlatIP, twice": lambda: by_faiss(x, y, options.k),
        "two products (numpy)": lambda: two_products(x, y),
        "ours, exact": lambda: ours(x, y, options.k, "exact"),
        "ours, int8": lambda: ours(x, y, options.k, "int8"),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    found: dict[str, BothWays | None] = {}
    for turn in range(options.rounds):
        for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = runs[name]()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    print_table(options, seconds, found, gold)


def print_table(
    options: argparse.Namespace,
    seconds: dict[str, list[tuple[float, float]]],
    found: dict[str, BothWays | None],
    gold: NDArray[np.int64],
) -> None:
    reference = found["FAISS IndexFlatIP, twice"]
    size = f"{options.rows} x {options.rows} x {options.dimension}, k = {options.k}"
    print(f"\n{size}, {options.threads} thread(s), medians of {options.rounds} round(s)")
    print(f"{'':26}   cpu s  wall s  FAISS/it  2 products/it    top-1    top-k      F1")
    medians = {
        name: [statistics.median(values) for values in zip(*times, strict=True)]
        for name, times in seconds.items()
    }
    for name, (wall, cpu) in medians.items():
        line = f"{name:26}{cpu:8.1f}{wall:8.1f}"
        line += f"{medians['FAISS IndexFlatIP, twice'][1] / cpu:10.1f}"
        line += f"{medians['two products (numpy)'][1] / cpu:15.1f}"
        both = found[name]
        if both is not None and reference is not None:
            first, all_k = agreement(both, reference)
            line += f"{first:9.3%}{all_k:9.3%}{best_f1(both, gold):8.4f}"
        print(line)


def agreement(both: BothWays, reference: BothWays) -> tuple[float, float]:
    """The share of rows whose best neighbour is the reference's, and of all neighbours; the worse side."""
    sides = ((both.x_to_y.rows, reference.x_to_y.rows), (both.y_to_x.rows, reference.y_to_x.rows))
    first = min(float((a[:, 0] == b[:, 0]).mean()) for a, b in sides)
    every = min(float((a[:, :, None] == b[:, None, :]).any(axis=2).mean()) for a, b in sides)
    return first, every


def write_random(folder: Path, rows: int, dimension: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    with ShardWriter(folder, rows=rows, dimension=dimension, extra={}) as writer:
        while writer.next_row < rows:
            count = min(_DRAWN_ROWS, rows - writer.next_row)
            writer.write(unit(random.standard_normal((count, dimension), np.float32)))
        writer.close()


def first_shards(vectors: VectorShards, count: int) -> VectorShards:
    """Return the first shards of more."""
    rows = min(vectors.rows, count * vectors.shard_rows)
    return replace(vectors, rows=rows, hashes=vectors.hashes[:count])


def memory(options: argparse.Namespace) -> None:
    """One process: write both sides, search some blocks, say what that took."""
    faiss.omp_set_num_threads(options.threads)
    n, dimension, k = options.rows, options.dimension, options.k
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for seed, side in enumerate(("x", "y")):
            write_random(folder / side, n, dimension, seed)
        x, y = open_vector_shards(folder / "x"), open_vector_shards(folder / "y")
        plan = plan_neighbours(n, n, dimension, k, method=options.method, threads=options.threads)
        print(f"{n} x {n} x {dimension}, k = {k}: {plan}")
        part = first_shards(x, options.blocks), first_shards(y, 1)
        wall, cpu = time.perf_counter(), time.process_time()
        found = neighbours_of_shards(*part, k, folder / "neighbours", plan=plan)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        share = part[0].rows * part[1].rows / n**2
        print(f"{options.blocks} block(s), {share:.2%} of all: {wall:.0f} s wall, {cpu:.0f} s cpu")
        print(f"all: {wall / share:.0f} s wall on {options.threads} thread(s), {cpu / share:.0f} s cpu")
        print(
            f"rows proven exact: {found.x_certified} of {part[0].rows}, {found.y_certified} of {part[1].rows}"
        )
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, help="per side (60000; with --memory 1000000)")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds, of alternating order")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--blocks", type=int, default=2, help="with --memory: blocks that are searched")
    parser.add_argument("--method", default="int8", help="with --memory")
    parser.add_argument("--folder", help="with --memory: where the vectors are written")
    options = parser.parse_args()
    options.rows = options.rows or (1_000_000 if options.memory else 60_000)
    if os.environ.get(_CHILD):
        options.threads = options.threads[0]
        (memory if options.memory else compare)(options)
        return
    for threads in options.threads[-1:] if options.memory else options.threads:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        command = [sys.executable, __file__, *sys.argv[1:], "--threads", str(threads)]
        subprocess.run(command, check=True, env=os.environ | limits | {_CHILD: "1"})


if __name__ == "__main__":
    main()
