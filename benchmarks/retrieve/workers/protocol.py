"""What every worker does: reads a request per line, answers with a line of JSON.

A request names a method of the peer and its arguments, or a value of it. Needs numpy alone, as it runs
in any environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

K = 10
BATCH = 1_000
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """A batch of documents: their values as in the file, and their vectors (n, dim)."""

    documents: list[dict[str, Any]]
    vectors: Vectors


class Data:
    """The files of the data set."""

    def __init__(self, folder: Path) -> None:
        self.vectors: Vectors = np.load(folder / "documents.npy")
        self.queries: Vectors = np.load(folder / "queries.npy")
        self.documents = _lines(folder / "documents.jsonl")
        self.query_texts = [values["text"] for values in _lines(folder / "queries.jsonl")]

    def batches(self) -> Iterator[Rows]:
        for first in range(0, len(self.documents), BATCH):
            part = slice(first, first + BATCH)
            yield Rows(self.documents[part], self.vectors[part])


def serve(operations: object) -> None:
    """Answer requests until there are no more; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            named = getattr(operations, request.pop("method"))
            answer = {"result": named(**request) if callable(named) else named}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed(run: Callable[[Any], list[str]], queries: Sequence[Any]) -> dict[str, Any]:
    """Return the ids that each query finds, its wall time, and the processor time of all of them."""
    found, wall_s = [], []
    cpu_s = time.process_time()
    for query in queries:
        begin = time.perf_counter()
        found.append(run(query))
        wall_s.append(time.perf_counter() - begin)
    return {"found": found, "wall_s": wall_s, "cpu_s": time.process_time() - cpu_s}


def spent(run: Callable[[], object]) -> dict[str, float]:
    """Return what one call takes."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
