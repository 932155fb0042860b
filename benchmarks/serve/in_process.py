"""The same runtime without a server, in a process of its own: what HTTP and scheduling may cost at most.

python in_process.py TASK        (JSON; prints a JSON list of numbers)
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from embedsvc import Encoder, load_encoder
from embedsvc.encoder import PreparedText, locate_model
from embedsvc.model_folder import Precision, open_model_folder
from embedsvc.options import EncodeOptions
from embedsvc.runtime import RuntimeOptions
from embedsvc.scheduling.layout import open_laid_out
from embedsvc.scheduling.plan import plan_batches


@dataclass(frozen=True)
class Rate:
    """Texts per second, and processor seconds per text, which a busy machine changes less."""

    texts_per_s: float
    cpu_s_per_text: float


@dataclass(frozen=True)
class InProcess:
    """A model as a server runs it: folder (None: the bundled one), precision and batches side by side."""

    folder: str | None
    precision: Precision = "float32"
    workers: int | None = None

    def rate(self, texts: Sequence[str]) -> Rate:
        """Return how fast all texts are, sorted by length into batches beforehand; includes tokenizing."""
        wall_s, cpu_s = self._run("throughput", texts)
        return Rate(len(texts) / wall_s, cpu_s / len(texts))

    def encode_rate(self, texts: Sequence[str]) -> Rate:
        """Return how fast one call of `Encoder.encode` is."""
        wall_s, cpu_s = self._run("encode", texts)
        return Rate(len(texts) / wall_s, cpu_s / len(texts))

    def latencies(self, texts: Sequence[str]) -> list[float]:
        """Return the seconds of tokenizing and a bare forward pass, one text after the other."""
        return self._run("latency", texts)

    def _run(self, measure: str, texts: Sequence[str]) -> list[float]:
        task = {"model": asdict(self), "measure": measure, "texts": list(texts)}
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "task.json"
            file.write_text(json.dumps(task), encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks.serve.in_process", str(file)]
            done = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.PIPE)
        return [float(value) for value in json.loads(done.stdout)]


def _encode_sorted(encoder: Encoder, texts: Sequence[str]) -> None:
    options = EncodeOptions()
    prepared = encoder.prepare(texts, options)
    raw = np.empty((len(texts), encoder.dimension), np.float32)
    batches: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
    for rows in plan_batches(
        encoder.lengths(prepared), encoder.runtime.batch_tokens, pads=encoder.runtime.pads
    ):
        batches.put(rows)

    def work() -> None:
        while (rows := batches.get()) is not None:
            raw[rows] = encoder.runtime.embed([prepared.texts[row] for row in rows])

    threads = [threading.Thread(target=work) for _ in range(encoder.runtime.workers)]
    for thread in threads:
        batches.put(None)
        thread.start()
    for thread in threads:
        thread.join()
    encoder.finish(raw, options)


def _encode(encoder: Encoder, texts: Sequence[str]) -> None:
    encoder.encode(texts, progress=False)


def _seconds_of_all(
    encode: Callable[[Encoder, Sequence[str]], None], encoder: Encoder, texts: Sequence[str]
) -> list[float]:
    """Return wall and processor seconds."""
    encode(encoder, texts[: max(len(texts) // 8, 1)])
    wall, cpu = time.perf_counter(), time.process_time()
    encode(encoder, texts)
    return [time.perf_counter() - wall, time.process_time() - cpu]


def _seconds_of_each(encoder: Encoder, texts: Sequence[str]) -> list[float]:
    runtime = encoder.runtime
    seconds = []
    for text in [*texts[:20], *texts]:
        begin = time.perf_counter()
        runtime.embed([PreparedText(ids) for ids in runtime.tokenize([text])])
        seconds.append(time.perf_counter() - begin)
    return seconds[20:]


def _main(file: Path) -> None:
    task = json.loads(file.read_text(encoding="utf-8"))
    model = InProcess(**task["model"])
    if model.workers is None:
        encoder = load_encoder(model.folder, precision=model.precision)
    else:
        folder = open_model_folder(locate_model(model.folder))
        runtime = open_laid_out(folder, RuntimeOptions(precision=model.precision), model.workers)
        encoder = Encoder(folder, runtime)
    measures: dict[str, Callable[[Encoder, list[str]], list[float]]] = {
        "throughput": partial(_seconds_of_all, _encode_sorted),
        "encode": partial(_seconds_of_all, _encode),
        "latency": _seconds_of_each,
    }
    print(json.dumps(measures[task["measure"]](encoder, task["texts"])))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
