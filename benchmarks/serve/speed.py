"""How fast: saturated throughput, the latency of one request, the static model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from embedsvc import Encoder
from serve.in_process import InProcess, Rate
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

    def over_http(name: str) -> Rate:
        server = peers.servers[name]
        cpu_s = server.cpu_seconds()
        answer = server.texts_per_second(requests, shape.connections)
        answers[name].append(answer)
        return Rate(answer.texts_per_second, (server.cpu_seconds() - cpu_s) / texts)

    runs: dict[str, Callable[[], Rate]] = {name: partial(over_http, name) for name in peers.servers}
    runs |= {name: partial(bare.rate, workload.texts[:texts]) for name, bare in peers.bare.items()}
    rates: dict[str, list[Rate]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        rates[name].append(run())
    return _throughput_table(rates, answers)


def _throughput_table(
    rates: Mapping[str, Sequence[Rate]], answers: Mapping[str, Sequence[StreamResult]]
) -> str:
    per_s = {name: [rate.texts_per_s for rate in values] for name, values in rates.items()}
    ours = [name for name in answers if name.startswith("embedsvc")]
    rows = []
    for name, values in per_s.items():
        cpu_s = statistics.median(rate.cpu_s_per_text for rate in rates[name])
        against = [ratios(per_s[our], values) if _comparable(our, name) else "" for our in ours]
        over_http = _http_cells(answers[name]) if name in answers else [""] * 4
        rows.append([name, spread(values), f"{1000 * cpu_s:.2f}", *over_http, *against])
    head = ["", "texts/s", "CPU ms per text", "client's", "p50 ms", "p95 ms", "p99 ms"]
    return table([*head, *(f"{name} / this" for name in ours)], rows)


def _comparable(our: str, name: str) -> bool:
    """True for other servers, and for the runtime of the same precision in process."""
    if name.startswith("in process"):
        return our.removeprefix("embedsvc ") in name
    return name != our


def _http_cells(answers: Sequence[StreamResult]) -> list[str]:
    """Return the client's processor milliseconds per text and the latencies; medians of the rounds."""
    client_s = statistics.median(answer.client_cpu_s / answer.texts for answer in answers)
    latencies = [
        statistics.median(answer.quantile(share) for answer in answers) for share in (0.5, 0.95, 0.99)
    ]
    return [f"{1000 * client_s:.2f}", *map(milliseconds, latencies)]


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
        cells += [ratios(medians[our], medians[name]) if _comparable(our, name) else "" for our in ours]
        rows.append([name, *cells])
    return table(["", "p50 ms", "p95 ms", "p99 ms", *(f"{name} / this" for name in ours)], rows)


def static_model(server: Server, workload: Workload, *, texts: int, rounds: int) -> str:
    """Return sentences per second of the bundled model over HTTP, beside `Encoder.encode` in process."""
    shapes = [Shape(256, 2), Shape(256, 4), Shape(1024, 4)]
    bare = InProcess(None)

    def over_http(shape: Shape) -> float:
        requests = workload.requests(shape.texts_per_request, texts=texts)
        return server.texts_per_second(requests, shape.connections).texts_per_second

    def in_process() -> float:
        return bare.encode_rate(workload.texts[:texts]).texts_per_s

    runs: dict[str, Callable[[], float]] = {"in process": in_process}
    runs |= {f"HTTP, {shape}": partial(over_http, shape) for shape in shapes}
    for shape in shapes:
        over_http(shape)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in in_turns(runs, rounds):
        rates[name].append(run())
    bare_rates = rates["in process"]
    rows = [[name, spread(values), ratios(values, bare_rates)] for name, values in rates.items()]
    return table([workload.name, "sentences/s", "this / in process"], rows)
