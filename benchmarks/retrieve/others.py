"""Batches, ingest, opening and searches by words: the sections with a table each."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from serve.report import in_turns, ratios, spread, table

from retrieve.dataset import Dataset
from retrieve.process import ROOT, Worker, command, one_thread

_BATCH_QUERIES = 64
_BATCH_REPEATS = 4
_INGEST_BATCH = 1_000
_SYNCS = 200


def batch_table(data: Dataset, ours: Worker, bare: Worker, rounds: int) -> str:
    """Return queries per processor second in batches of 64."""
    queries = np.resize(np.arange(len(data.queries)), _BATCH_QUERIES).tolist()
    asked = {"queries": queries, "repeats": _BATCH_REPEATS}
    theirs = "FAISS flat, its own threshold"
    runs = {
        theirs: partial(bare.ask, "flat_batch", **asked),
        "VectorIndex.search, flat": partial(ours.ask, "flat_batch", **asked),
        "Collection.query, documents and all": partial(ours.ask, "batch", **asked),
    }
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        rates[name].append(_BATCH_QUERIES * _BATCH_REPEATS / run()["cpu_s"])
    rows = [
        [name, spread(values), "" if name == theirs else ratios(values, rates[theirs])]
        for name, values in rates.items()
    ]
    return table(["64 queries at a time", "queries/CPU s", "this / FAISS"], rows)


def ingest_table(data: Dataset, workers: Sequence[Worker], scratch: Path, rounds: int) -> str:
    """Return documents per second of everybody, and what SQLite and the disk can do at most."""
    limit = "the same values into SQLite alone, one table, WAL, synchronous=FULL"
    documents = [json.loads(line) for line in (data.folder / "documents.jsonl").open(encoding="utf-8")]
    runs: dict[str, Callable[[], Mapping[str, float]]] = {
        worker.name: partial(worker.ask, "ingest") for worker in workers
    }
    runs[limit] = partial(_sqlite_alone, data, documents, scratch / "limit.sqlite")
    took: dict[str, list[Mapping[str, float]]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        took[name].append(run())
    count = len(documents)
    per_s = {name: [count / spent["wall_s"] for spent in values] for name, values in took.items()}
    ours = workers[0].name
    rows = []
    for name, values in per_s.items():
        cpu = [count / spent["cpu_s"] for spent in took[name]]
        against = "" if name == ours else ratios(per_s[ours], values)
        rows.append([name, spread(values), spread(cpu), against])
    rows.append(["fdatasync of 4 KiB more, per second", f"{_syncs_per_s(scratch / 'sync'):,.0f}", "", ""])
    return table(["batches of 1,000", "documents/s", "documents/CPU s", "ours / this"], rows)


def _sqlite_alone(data: Dataset, documents: Sequence[Mapping[str, Any]], path: Path) -> dict[str, float]:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size=8192")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE d (row INTEGER PRIMARY KEY, id, text, language, metadata, vector)")
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for first in range(0, len(documents), _INGEST_BATCH):
        vectors = data.vectors[first : first + _INGEST_BATCH].astype("<f2")
        values = [
            (d["id"], d["text"], d["language"], json.dumps(d["metadata"]), vector.tobytes())
            for d, vector in zip(documents[first : first + _INGEST_BATCH], vectors, strict=True)
        ]
        connection.execute("BEGIN")
        insert = "INSERT INTO d (id, text, language, metadata, vector) VALUES (?, ?, ?, ?, ?)"
        connection.executemany(insert, values)
        connection.execute("COMMIT")
    took = {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}
    connection.close()
    path.unlink()
    return took


def _syncs_per_s(path: Path) -> float:
    """Return how often a second the disk confirms a small write at the end of a file."""
    with path.open("wb", buffering=0) as file:
        begin = time.perf_counter()
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        took = time.perf_counter() - begin
    path.unlink()
    return _SYNCS / took


def opening_table(data: Dataset, store: Path, rounds: int) -> str:
    """Return what it takes a fresh process to open the collection and answer, and its memory."""
    run = command(Path(sys.executable), "opening", data.folder, store)
    answers = [
        json.loads(subprocess.run(run, cwd=ROOT, env=one_thread(), stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(rounds)
    ]
    rows = []
    for place, name in enumerate(("import", "Collection(path)", "first search_vector")):
        figures = [spread([answer[kind][place] for answer in answers], ".3f") for kind in ("wall_s", "cpu_s")]
        rows.append([name, *figures])
    both = [spread([sum(answer[kind][1:]) for answer in answers], ".3f") for kind in ("wall_s", "cpu_s")]
    rows.append(["open to first answer", *both])
    steps = {"imported": "imports", "answered": "the first answer", "searched": "as many searches as queries"}
    memory = [
        [
            f"after {name}",
            *(f"{statistics.median(a[key][of] for a in answers):,.0f}" for of in ("own", "files")),
        ]
        for key, name in steps.items()
    ]
    times = table(["pages in the cache", "wall s", "CPU s"], rows)
    return f"{times}\n\n{table(['memory', 'own MiB', 'of files MiB'], memory)}"


def hybrid_table(data: Dataset, ours: Worker, rounds: int, queries: int) -> str:
    """Return the cost of a search by meaning, by words and by both, with text and vector given."""
    few = np.linspace(0, len(data.queries) - 1, min(queries, len(data.queries))).astype(int).tolist()
    runs = {
        mode: partial(ours.ask, "search_text", queries=few, mode=mode)
        for mode in ("dense", "lexical", "hybrid")
    }
    for run in runs.values():
        run()
    cpu_ms: dict[str, list[float]] = {mode: [] for mode in runs}
    wall_ms: dict[str, list[float]] = {mode: [] for mode in runs}
    for mode, run in in_turns(runs, rounds):
        answer = run()
        cpu_ms[mode].append(1000 * answer["cpu_s"] / len(few))
        wall_ms[mode] += sorted(1000 * wall_s for wall_s in answer["wall_s"])
    rows = []
    for mode, values in cpu_ms.items():
        ordered = sorted(wall_ms[mode])
        walls = [f"{ordered[int(share * len(ordered))]:.2f}" for share in (0.5, 0.99)]
        rows.append([mode, spread(values, ".3f"), *walls, ratios(values, cpu_ms["dense"])])
    return table(["mode", "CPU ms per query", "wall p50 ms", "p99 ms", "this / dense"], rows)
