"""What Ray costs beside the local engine: 60 000 x 60 000 x 384, one thread, 16 blocks, on one machine.

    python benchmarks/ray_engine.py [--method int8] [--rounds 3]

Both engines take turns in one run. Processor time counts all processes of Ray: workers, raylet, head and this
one, from when the cluster stands, so that the start of workers is part of it. "sent" has the rows in a matrix
of this process, which workers get through the object store; else they read the files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from indexing import NeighbourPlan, VectorShards, neighbours_of_shards, normalize_rows, shards_of_array
from indexing.ray_engine import ray_engine

_ROWS, _DIMENSION, _SHARD_ROWS, _K = 60_000, 384, 15_000, 4
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="exact")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    plan = NeighbourPlan(options.method, threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vectors = [rows(seed) for seed in (1, 2)]
        for name, matrix in zip("xy", vectors, strict=True):
            np.save(folder / f"{name}.npy", matrix)
        files = [shards_of_array(folder / f"{name}.npy", shard_rows=_SHARD_ROWS) for name in "xy"]
        matrices = [shards_of_array(matrix, shard_rows=_SHARD_ROWS) for matrix in vectors]
        ray.init(address="local", num_cpus=1, object_store_memory=400 << 20, log_to_driver=False)
        compare(plan, files, matrices, folder, options.rounds)


def rows(seed: int) -> NDArray[np.float32]:
    return normalize_rows(
        np.random.default_rng(seed).standard_normal((_ROWS, _DIMENSION), np.float32), name="rows"
    )


def compare(
    plan: NeighbourPlan, files: list[VectorShards], matrices: list[VectorShards], folder: Path, rounds: int
) -> None:
    times: dict[str, list[tuple[float, float]]] = {"local": [], "ray": [], "ray, sent": []}
    for number in range(rounds):
        order = list(times) if number % 2 == 0 else list(times)[::-1]
        for name in order:
            found = folder / f"{name}-{number}"
            times[name].append(
                measured(lambda name=name, found=found: run(name, plan, files, matrices, found))
            )
            print(f"  {name:10} cpu {times[name][-1][0]:6.1f} s", flush=True)
    for name, taken in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*taken, strict=True))
        same = contents(folder / f"{name}-0") == contents(folder / "local-0")
        print(f"{plan.method:6} {name:10} cpu {cpu:6.1f} s  wall {wall:6.1f} s  same bytes: {same}")


def run(
    name: str, plan: NeighbourPlan, files: list[VectorShards], matrices: list[VectorShards], folder: Path
) -> None:
    x, y = matrices if name.endswith("sent") else files
    if name == "local":
        neighbours_of_shards(x, y, _K, folder, plan=plan)
        return
    with ray_engine(threads=1) as engine:
        neighbours_of_shards(x, y, _K, folder, plan=plan, engine=engine)


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Return the processor seconds of this process and all below it, and the seconds that passed."""
    cpu, wall = processor_seconds(), time.monotonic()
    work()
    return processor_seconds() - cpu, time.monotonic() - wall


def processor_seconds() -> float:
    """Return what this process and all below it have used; one that ended counts by its parent."""
    parents, used = dict[int, int](), dict[int, float]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS
    return sum(seconds for process, seconds in used.items() if _is_below(process, parents))


def _is_below(process: int, parents: dict[int, int]) -> bool:
    while process and process != os.getpid():
        process = parents.get(process, 0)
    return process == os.getpid()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


if __name__ == "__main__":
    main()
