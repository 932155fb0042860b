"""How fast: saturated throughput, the latency of one request, the static model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from embedsvc import Encoder
from serve.in_process import InProcess
from serve.load import StreamResult
from serve.report import in_turns, milliseconds, ratios, spread, table
from serve.servers import Server
from serve.texts import Workload

_LEAST_COSINE = 0.9999  # of float32 vectors of different servers


@dataclass(frozen=True)
class Peers:
    """Servers of the same model, and the runtimes of ours without a server, both by name."""

    servers: Mapping[str, Server]
    bare: Mapping[str, InProcess]


@dataclass(frozen=True)
class Shape:
    """How texts are put into requests."""

    texts_per_request: int
    connections: int

    def __str__(self) -> str:
        return f"{self.texts_per_request} per request, {self.connections} connections"


def agreement(servers: Mapping[str, Server], encoder: Encoder, texts: Sequence[str]) -> str:
    """Return each server's least cosine to ``encoder``; raise RuntimeError when it is another model."""
    expected = encoder.encode(texts)
    rows = []
    for name, server in servers.items():
        vectors = server.embed(texts)
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1)
        if "int8" not in name and cosines.min() < _LEAST_COSINE:
            raise RuntimeError(f"{name} gives other vectors: cosine {cosines.min():.4f}")
        rows.append([name, f"{cosines.min():.5f}", f"{cosines.mean():.5f}"])
    return table(["server", "least cosine to float32 in process", "mean"], rows)


def throughput(peers: Peers, workload: Workload, shape: Shape, *, texts: int, rounds: int) -> str:
    """Return texts per second of every server and bare runtime on the same texts."""
    requests = workload.requests(shape.texts_per_request, texts=texts)
    for server in peers.servers.values():
        server.texts_per_second(requests[: max(len(requests) // 8, 1)], shape.connections)
    answers: dict[str, list[StreamResult]] = {name: [] for name in peers.servers}
    rates: dict[str, list[float]] = {name: [] for name in [*peers.servers, *peers.bare]}

    def over_http(name: str) -> float:
        answers[name].append(peers.servers[name].texts_per_second(requests, shape.connections))
        return answers[name][-1].texts_per_second

    flat = workload.texts[:texts]
    runs: dict[str, Callable[[], float]] = {name: partial(over_http, name) for name in peers.servers}
    runs |= {name: partial(bare.texts_per_second, flat) for name, bare in peers.bare.items()}
    for name, run in in_turns(runs, rounds):
        rates[name].append(run())
    ours = [name for name in peers.servers if name.startswith("embedsvc")]
    head = ["", "texts/s", "p50 ms", "p95 ms", "p99 ms", "client CPU", *(f"{name} / this" for name in ours)]
    rows = []
    for name, values in rates.items():
        latency = [
            milliseconds(statistics.median(answer.quantile(share) for answer in answers[name]))
            for share in (0.5, 0.95, 0.99)
            if name in answers
        ]
        busy = (
            [f"{statistics.median(a.client_cpu_s / a.seconds for a in answers[name]):.0%}"] if latency else []
        )
        against = ["" if name == our else ratios(rates[our], values) for our in ours]
        rows.append([name, spread(values), *(latency + busy or [""] * 4), *against])
    return table(head, rows)


def latency(peers: Peers, workload: Workload, *, texts: int, rounds: int) -> str:
    """Return p50 and p99 of single short requests, one at a time."""
    few = workload.texts[:texts]
    one_each = [[text] for text in few]

    def over_http(server: Server) -> list[float]:
        return server.texts_per_second(one_each, 1).latencies

    runs: dict[str, Callable[[], list[float]]] = {
        name: partial(over_http, server) for name, server in peers.servers.items()
    }
    runs |= {name: partial(bare.latencies, few) for name, bare in peers.bare.items()}
    for server in peers.servers.values():
        server.texts_per_second(one_each[:20], 1)
    seconds: dict[str, list[list[float]]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        seconds[name].append(run())
    medians = {name: [statistics.median(values) for values in rounds_] for name, rounds_ in seconds.items()}
    ours = [name for name in peers.servers if name.startswith("embedsvc")]
    rows = []
    for name, values in seconds.items():
        together = sorted(value for values_ in values for value in values_)
        cells = [spread([1000 * value for value in medians[name]], ".2f")]
        cells += [milliseconds(together[int(share * len(together))]) for share in (0.95, 0.99)]
        cells += ["" if name == our else ratios(medians[our], medians[name]) for our in ours]
        rows.append([name, *cells])
    return table(["", "p50 ms", "p95 ms", "p99 ms", *(f"{name} / this" for name in ours)], rows)


def static_model(server: Server, workload: Workload, *, texts: int, rounds: int) -> str:
    """Return sentences per second of the bundled model over HTTP, beside `Encoder.encode` in process."""
    shapes = [Shape(256, 2), Shape(256, 4), Shape(1024, 4)]
    flat = workload.texts[:texts]
    bare = InProcess(None)

    def over_http(shape: Shape) -> float:
        requests = workload.requests(shape.texts_per_request, texts=texts)
        return server.texts_per_second(requests, shape.connections).texts_per_second

    runs: dict[str, Callable[[], float]] = {"in process": partial(bare.texts_per_second, flat)}
    runs |= {f"HTTP, {shape}": partial(over_http, shape) for shape in shapes}
    for shape in shapes:
        over_http(shape)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        rates[name].append(run())
    bare_rates = rates["in process"]
    rows = [[name, spread(values), ratios(values, bare_rates)] for name, values in rates.items()]
    return table([workload.name, "sentences/s", "this / in process"], rows)
