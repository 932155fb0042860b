"""How steady: interactive requests under bulk load, memory, overload."""

from __future__ import annotations

import contextlib
import re
import resource
import time
import urllib.error
from dataclasses import dataclass

from serve.load import Stream, quantile
from serve.report import milliseconds, table
from serve.servers import Server
from serve.texts import Workload

_BATCHES = re.compile(r"^embedsvc_batch_seconds_(sum|count)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """Resident MiB in the course of a load."""

    label: str
    requests: list[int]
    mebibytes: list[float]


def interactive_under_bulk(server: Server, workload: Workload, *, seconds: float, rate: float) -> str:
    """Return latencies of single requests while bulk requests of 512 texts saturate the server."""
    single = workload.requests(1, texts=int(rate * seconds))
    bulk = workload.requests(512, texts=len(workload.texts) // 512 * 512)
    alone = server.load(Stream(single[: len(single) // 2], 64, rate=rate))[0]
    before = _batches(server)
    mixed, background = server.load(Stream(single, 64, rate=rate), Stream(bulk, 4, endless=True))
    after = _batches(server)
    if alone.errors or mixed.errors or background.errors:
        raise RuntimeError(f"{server.name}: {alone.statuses}, {mixed.statuses}, {background.statuses}")
    batch_s = (after[0] - before[0]) / (after[1] - before[1])
    rows = [
        ["single requests alone", *(milliseconds(alone.quantile(share)) for share in (0.5, 0.95, 0.99)), ""],
        [
            f"with bulk at {background.texts_per_second:,.0f} texts/s",
            *(milliseconds(mixed.quantile(share)) for share in (0.5, 0.95, 0.99)),
            f"{mixed.quantile(0.99) / batch_s:.2f}",
        ],
        ["mean batch", milliseconds(batch_s), "", "", ""],
    ]
    return table([f"{workload.name}, {rate:g}/s", "p50 ms", "p95 ms", "p99 ms", "p99 / batch"], rows)


def growth(server: Server, workload: Workload, requests: int, *, connections: int) -> Memory:
    """Return resident memory after every tenth of so many single-text requests."""
    each = requests // 10
    at, sizes = [0], [server.memory()[0]]
    for step in range(10):
        first = step * each % (len(workload.texts) - each)
        server.texts_per_second(workload.requests(1, texts=each, first=first), connections)
        at.append((step + 1) * each)
        sizes.append(server.memory()[0])
    return Memory(server.name, at, sizes)


def growth_table(memories: list[Memory]) -> str:
    """Return a row per server: at the start, after each step, and the change over the second half."""
    rows = []
    for memory in memories:
        middle = len(memory.mebibytes) // 2
        change = memory.mebibytes[-1] - memory.mebibytes[middle]
        course = ", ".join(f"{size:.0f}" for size in memory.mebibytes[1:])
        late = f"{change:+.1f} over the last {memory.requests[-1] - memory.requests[middle]:,}"
        rows.append([memory.label, f"{memory.requests[-1]:,}", f"{memory.mebibytes[0]:.0f}", course, late])
    return table(["server", "requests", "MiB at the start", "MiB after each tenth", "change"], rows)


def overload(server: Server, workload: Workload, *, seconds: float) -> str:
    """Return what happens to single requests at ten times the rate that the server manages."""
    calm = server.texts_per_second(workload.requests(1, texts=1000), 64)
    usual_s = server.texts_per_second(workload.requests(1, texts=50), 1).quantile(0.5)
    wanted = 10 * calm.texts_per_second
    count = int(wanted * seconds)
    requests = [[workload.texts[place % len(workload.texts)]] for place in range(count)]
    connections = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500, 15_000)
    (result,) = server.load(Stream(requests, connections, rate=wanted))
    answered = time.perf_counter()
    recovered_s = _back_to_normal(server, workload.texts[0], 3 * usual_s) - answered
    served, refused = result.statuses.get("200", 0), result.statuses.get("429", 0)
    rows = [
        ["capacity, single requests, 64 connections", f"{calm.texts_per_second:,.0f}/s"],
        ["offered", f"{count / result.offered_s:,.0f}/s for {result.offered_s:.0f} s"],
        ["answered 200", f"{served:,} ({served / count:.1%}), {served / result.seconds:,.0f}/s"],
        ["answered 429", f"{refused:,} ({refused / count:.1%}); without Retry-After: {result.unnamed_delay}"],
        ["anything else (0: broken, -1: not sent)", str(_others(result.statuses))],
        [
            "p50, p99 of the answers 200",
            ", ".join(milliseconds(result.quantile(q)) for q in (0.5, 0.99)) + " ms",
        ],
        [
            "p50, p99 of the answers 429",
            ", ".join(milliseconds(quantile(result.refusals, q)) for q in (0.5, 0.99)) + " ms",
        ],
        ["last answer after the last request", f"{result.seconds - result.offered_s:.1f} s"],
        ["then until a request takes its usual time (x 3)", f"{recovered_s:.2f} s"],
        ["resident memory after", f"{server.memory()[0]:.0f} MiB"],
    ]
    return table(["", ""], rows)


def _others(statuses: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in statuses.items() if status not in ("200", "429")}


def _back_to_normal(server: Server, text: str, limit_s: float) -> float:
    """Return the time at which a single request was first answered within ``limit_s``."""
    give_up = time.perf_counter() + 60
    while (begin := time.perf_counter()) < give_up:
        with contextlib.suppress(urllib.error.HTTPError):
            server.embed([text])
            if (end := time.perf_counter()) - begin <= limit_s:
                return end
    raise RuntimeError(f"{server.name} did not recover within a minute")


def _batches(server: Server) -> tuple[float, float]:
    """Return seconds and number of all batches so far."""
    found = dict(_BATCHES.findall(server.get("/metrics")))
    return float(found["sum"]), float(found["count"])
