"""Workers as processes of one thread, each in its own environment, and asked over a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# LanceDB waits for itself forever with one thread for its input and output, or one of its scheduler.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
_STOP_S = 60.0


@dataclass(frozen=True)
class Recipe:
    """How a worker is started: its module, its interpreter, where it stores, further arguments."""

    name: str
    module: str
    store: Path
    python: Path = field(default_factory=lambda: Path(sys.executable))
    arguments: tuple[str, ...] = ()


class Worker:
    """A running worker; a call of `ask` is a call of its method."""

    def __init__(self, recipe: Recipe, process: subprocess.Popen[str]) -> None:
        self.name = recipe.name
        self.store = recipe.store
        self._process = process

    def ask(self, method: str, **arguments: Any) -> Any:
        """Return what the method returns; raise RuntimeError with the worker's traceback when it fails."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError(f"{self.name} has no pipes")
        stdin.write(json.dumps({"method": method, **arguments}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer["result"]


@contextmanager
def running(recipe: Recipe, data: Path) -> Iterator[Worker]:
    """Start a worker, and end it whatever happens; what it logs goes to a file beside its store."""
    recipe.store.parent.mkdir(parents=True, exist_ok=True)
    with recipe.store.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [*command(recipe.python, recipe.module, data, recipe.store), *recipe.arguments],
            cwd=ROOT,
            env=one_thread(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield Worker(recipe, process)
        finally:
            _end(process)


def command(python: Path, module: str, data: Path, store: Path) -> list[str]:
    """Return the command line of a worker's module."""
    return [str(python), "-m", f"retrieve.workers.{module}", str(data), str(store)]


def one_thread() -> dict[str, str]:
    """Return the environment of a process that computes in one thread and finds these modules."""
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
    return os.environ | dict.fromkeys(_THREADS, "1") | {"PYTHONPATH": path}


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
