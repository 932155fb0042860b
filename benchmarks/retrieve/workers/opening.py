"""A fresh process, to its first answer.    python -m retrieve.workers.opening DATA STORE"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def memory_mib() -> dict[str, float]:
    """Return resident MiB of the process: its own, and pages of files, which others can share."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return {"own": sizes["RssAnon"] / 1024, "files": sizes["RssFile"] / 1024}


def main(data: Path, store: Path) -> None:
    queries = np.load(data / "queries.npy")
    times, cpu = [time.perf_counter()], [time.process_time()]

    def mark() -> None:
        times.append(time.perf_counter())
        cpu.append(time.process_time())

    from embedsvc.collections.collection import Collection

    mark()
    before = memory_mib()
    collection = Collection(store)
    mark()
    collection.search_vector(queries[0])
    mark()
    after = memory_mib()
    for query in queries:
        collection.search_vector(query)
    answer = {
        "wall_s": np.diff(times).tolist(),
        "cpu_s": np.diff(cpu).tolist(),
        "imported": before,
        "answered": after,
        "searched": memory_mib(),
    }
    collection.close()
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
