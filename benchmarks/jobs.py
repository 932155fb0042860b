"""Single embeddings over HTTP while a mining job runs, and while none does, as Markdown.

    python benchmarks/jobs.py [--rounds 3] [--requests 400] [--job-threads N] [--niceness 19 0]

One server per niceness, each a process of its own; rounds without and with a job alternate. The texts are
made of the words of the sample documents. Printed: median and 99th percentile of the time of a request,
the median over the rounds of their ratio with a job to without, and the processor time that the job had
meanwhile: a job that got none proves nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve.report import table
from serve.servers import Recipe, ours, running

from embedsvc.model_folder import BUNDLED

_LINES = 60_000  # per side: more than a round lasts
_PAUSE_S = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """One round of requests: milliseconds, and the job's share of a processor (0 without one)."""

    p50: float
    p99: float
    job_share: float


class Client:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> dict:
        self._http.request(method, path, body, {"Content-Type": kind})
        return json.loads(self._http.getresponse().read())

    def embed(self, text: str) -> float:
        """Return the seconds that a request for one text takes."""
        body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
        begin = time.perf_counter()
        self.call("POST", "/v1/embeddings", body)
        return time.perf_counter() - begin

    @contextmanager
    def job(self, sides: tuple[bytes, bytes]) -> Iterator[None]:
        """Have a job at work in the block, past the start of its process."""
        job = self.call("POST", "/v1/jobs", *_form(sides))["id"]
        while self.call("GET", f"/v1/jobs/{job}")["stage"] is None:
            time.sleep(0.1)
        yield
        state = self.call("GET", f"/v1/jobs/{job}")["state"]
        if state != "running":
            print(f"the job was {state} before the round ended: more lines are needed", file=sys.stderr)
        self.call("DELETE", f"/v1/jobs/{job}")


def _form(sides: tuple[bytes, bytes]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = []
    for name, lines in zip(("source", "target"), sides, strict=True):
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}.txt"'
        parts.append(f"--{boundary}\r\n{disposition}\r\n\r\n".encode() + lines + b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _sentences(count: int, seed: int) -> list[str]:
    documents = (BUNDLED.parent / "sample" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in documents for word in json.loads(line)["text"].split()})
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(5, 25))) for _ in range(count)]


def _job_ticks() -> int:
    """Return the processor time of all job processes so far; they are told by their command line."""
    listed = subprocess.run(
        ["pgrep", "-f", "embedsvc.jobs.worker"], capture_output=True, text=True, check=False
    )
    ticks = 0
    for pid in listed.stdout.split():
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


def measured(client: Client, texts: list[str]) -> Figures:
    """Ask for the texts one after another, with pauses."""
    begin, ticks = time.perf_counter(), _job_ticks()
    times = []
    for text in texts:
        times.append(client.embed(text) * 1000)
        time.sleep(_PAUSE_S)
    share = (_job_ticks() - ticks) / _TICKS / (time.perf_counter() - begin)
    return Figures(statistics.median(times), sorted(times)[len(times) * 99 // 100], share)


def rows_of(niceness: int, options: argparse.Namespace) -> list[list[str]]:
    """Measure one server; return its rows of the table."""
    sides = tuple("\n".join(_sentences(options.lines, seed)).encode() for seed in (1, 2))
    texts = _sentences(options.requests, 3)
    without, with_job = [], []
    with tempfile.TemporaryDirectory() as data:
        recipe: Recipe = ours(
            *("embedsvc", "--data-dir", data, "--job-niceness", str(niceness)),
            *("--job-threads", str(options.job_threads)),
        )
        with running(recipe) as server:
            client = Client(server.port)
            measured(client, texts)
            for _ in range(options.rounds):
                without.append(measured(client, texts))
                with client.job(sides):
                    with_job.append(measured(client, texts))
    ratios = [
        statistics.median(getattr(b, name) / getattr(a, name) for a, b in zip(without, with_job, strict=True))
        for name in ("p50", "p99")
    ]
    return [
        _row(f"niceness {niceness}, no job", without, []),
        _row(f"niceness {niceness}, job", with_job, ratios),
    ]


def _row(name: str, rounds: list[Figures], ratios: list[float]) -> list[str]:
    figures = [statistics.median(getattr(one, field) for one in rounds) for field in ("p50", "p99")]
    share = statistics.median(one.job_share for one in rounds)
    shown = " / ".join(f"{ratio:.2f}" for ratio in ratios) or "1"
    return [name, *(f"{value:.2f}" for value in figures), shown, f"{share:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--lines", type=int, default=_LINES)
    parser.add_argument("--job-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--niceness", type=int, nargs="+", default=[19, 0])
    options = parser.parse_args()
    rows = [row for niceness in options.niceness for row in rows_of(niceness, options)]
    print(table(["", "p50 ms", "p99 ms", "ratio p50 / p99", "job's processors"], rows))


if __name__ == "__main__":
    main()
