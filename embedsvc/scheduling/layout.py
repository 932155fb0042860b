"""How a model uses the processors: many batches side by side on one thread each, or one on all of them."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from embedsvc.cpu import effective_cpus
from embedsvc.model_folder import ModelFolder
from embedsvc.runtime import PreparedText, Runtime, RuntimeOptions, choose_runtime, open_runtime

_MAX_WORKERS = 16  # each keeps working memory of its own
_PROBE = ["The train to the coast leaves at nine, and the ferry waits for it. " * 2] * 8
_MEASURED_BYTES = 1_000_000_000  # a larger file is not opened twice to compare
_PATIENCE_S = 0.3
_CLEARLY = 1.2  # on a busy machine a measurement errs; side by side is right nearly everywhere


def open_laid_out(folder: ModelFolder, options: RuntimeOptions, workers: int | None = None) -> Runtime:
    """Open a model for ``workers`` batches side by side.

    None measures for ONNX whether one batch on all processors is clearly faster than one on each; static
    tables and torch bring their own number.
    """
    if choose_runtime(folder, options) != "onnx":
        runtime = open_runtime(folder, options)
        runtime.workers = workers or runtime.workers
        return runtime
    cpus = effective_cpus()
    if workers is not None:
        return _opened(folder, options, workers, max(1, cpus // workers))
    many = min(cpus, _MAX_WORKERS)
    side_by_side = _opened(folder, options, many, cpus // many)
    if cpus == 1 or _file_bytes(folder) > _MEASURED_BYTES:
        return side_by_side
    together = _opened(folder, options, 1, cpus)
    pairs = [(batches_per_second(side_by_side), batches_per_second(together)) for _ in range(2)]
    return together if all(one > _CLEARLY * other for other, one in pairs) else side_by_side


def batches_per_second(runtime: Runtime) -> float:
    """Return how fast a runtime is with all its workers busy, on a small batch."""
    batch = [PreparedText(ids[: runtime.max_tokens]) for ids in runtime.tokenize(_PROBE)]
    begin = time.perf_counter()
    runtime.embed(batch)
    rounds = 3 if time.perf_counter() - begin < _PATIENCE_S else 1

    def work() -> None:
        for _ in range(rounds):
            runtime.embed(batch)

    threads = [threading.Thread(target=work) for _ in range(runtime.workers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rounds * runtime.workers / (time.perf_counter() - begin)


def _opened(folder: ModelFolder, options: RuntimeOptions, workers: int, threads: int) -> Runtime:
    runtime = open_runtime(folder, replace(options, threads=threads))
    runtime.workers = workers
    return runtime


def _file_bytes(folder: ModelFolder) -> int:
    return sum(path.stat().st_size for path in folder.path.rglob("*.onnx*"))
