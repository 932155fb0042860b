"""A load client in a process of its own: keep-alive HTTP/1.1, bodies made beforehand, answers only counted.

    python load.py PLAN        (JSON; prints a JSON list with one result per stream)

It shares the processors with the server it drives, which is the same for every server.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Stream:
    """Requests of one kind. Without a rate: each connection sends when it has its answer.

    rate is in requests per second, sent whatever the answers do. ``endless`` starts over at the end and
    stops with the last stream that is not.
    """

    requests: Sequence[Sequence[str]]
    connections: int
    rate: float | None = None
    endless: bool = False


@dataclass(frozen=True)
class StreamResult:
    """What came back: latencies in seconds of the answers with status 200, in order of arrival."""

    statuses: dict[str, int]  # 0: the connection broke; -1: no connection was free to send it
    seconds: float  # first request sent to last answer
    offered_s: float  # first request sent to last request sent
    latencies: list[float]
    refusals: list[float]  # seconds until an answer 429
    texts: int  # of the answers with status 200
    unnamed_delay: int  # answers 429 without Retry-After
    client_cpu_s: float  # of the whole client, while this stream ran

    @property
    def texts_per_second(self) -> float:
        return self.texts / self.seconds

    @property
    def errors(self) -> int:
        return sum(self.statuses.values()) - self.statuses.get("200", 0)

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies in seconds; NaN when nothing was answered."""
        return quantile(self.latencies, share)


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def run_load(port: int, path: str, streams: Sequence[Stream]) -> list[StreamResult]:
    """Run the client against 127.0.0.1 and return one result per stream."""
    plan = {"port": port, "path": path, "streams": [asdict(stream) for stream in streams]}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "plan.json"
        file.write_text(json.dumps(plan), encoding="utf-8")
        done = subprocess.run([sys.executable, __file__, file], check=True, stdout=subprocess.PIPE)
    return [StreamResult(**result) for result in json.loads(done.stdout)]


class _Connection(asyncio.Protocol):
    """One keep-alive connection; the answer's body is counted, not kept."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = -1  # bytes of the body still to come; -1: the head has not ended
        self._status = 0
        self._answer: asyncio.Future[tuple[int, bool]] | None = None
        self._delay_named = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    async def ask(self, request: bytes) -> tuple[int, bool]:
        """Return the status and whether Retry-After was there; status 0 when the connection breaks."""
        if self.closed:
            return 0, False
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        async with asyncio.timeout(_PATIENCE_S):
            return await self._answer

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = bytes(self._head[:end]).lower().split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines[1:])
            self._status = int(lines[0].split(b" ")[1])
            self._delay_named = b"retry-after" in headers
            self._left = int(headers[b"content-length"]) - (len(self._head) - end - 4)
            self._head.clear()
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self._resolve(self._status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        self._resolve(0)

    def _resolve(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, self._delay_named))


@dataclass
class _Run:
    """One stream while it runs."""

    port: int
    requests: list[bytes]
    texts: list[int]
    connections: int
    rate: float | None
    endless: bool
    free: list[_Connection] = field(default_factory=list)
    open: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    answered_texts: int = 0
    unnamed_delay: int = 0
    begin: float = 0.0
    cpu_begin: float = 0.0
    last_sent: float = 0.0
    end: float = 0.0
    stop: bool = False

    def positions(self) -> Iterator[int]:
        while True:
            for position in range(len(self.requests)):
                if self.stop:
                    return
                yield position
            if not self.endless:
                return

    async def connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, "127.0.0.1", self.port
        )
        return connection

    async def run(self) -> None:
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()
        await (self.run_closed() if self.rate is None else self.run_open(self.rate))

    async def run_closed(self) -> None:
        positions = self.positions()

        async def one() -> None:
            connection = await self.connect()
            for position in positions:
                if connection.closed:
                    connection = await self.connect()
                await self.ask(connection, position)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(one())

    async def run_open(self, rate: float) -> None:
        async with asyncio.TaskGroup() as group:
            for count, position in enumerate(self.positions()):
                ahead = self.begin + count / rate - time.perf_counter()
                if ahead > 0 or count % 64 == 0:  # a client that is late still lets answers in
                    await asyncio.sleep(max(ahead, 0))
                group.create_task(self.ask_any(position))

    async def ask_any(self, position: int) -> None:
        while self.free and self.free[-1].closed:
            self.free.pop()
            self.open -= 1
        if self.free:
            connection = self.free.pop()
        elif self.open == self.connections:
            self.statuses[-1] += 1
            return
        else:
            self.open += 1
            connection = await self.connect()
        await self.ask(connection, position)
        self.free.append(connection)

    async def ask(self, connection: _Connection, position: int) -> None:
        self.last_sent = sent = time.perf_counter()
        status, delay_named = await connection.ask(self.requests[position])
        self.end = time.perf_counter()
        self.statuses[status] += 1
        self.unnamed_delay += status == 429 and not delay_named
        if status == 429:
            self.refusals.append(self.end - sent)
        if status == 200:
            self.latencies.append(self.end - sent)
            self.answered_texts += self.texts[position]

    def result(self) -> StreamResult:
        return StreamResult(
            {str(status): count for status, count in self.statuses.items()},
            self.end - self.begin,
            self.last_sent - self.begin,
            self.latencies,
            self.refusals,
            self.answered_texts,
            self.unnamed_delay,
            time.process_time() - self.cpu_begin,
        )


def _http_request(path: str, texts: Sequence[str]) -> bytes:
    body = json.dumps({"input": texts, "encoding_format": "base64"}, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _main(file: Path) -> None:
    plan = json.loads(file.read_text(encoding="utf-8"))
    runs = [
        _Run(
            plan["port"],
            [_http_request(plan["path"], texts) for texts in stream["requests"]],
            [len(texts) for texts in stream["requests"]],
            stream["connections"],
            stream["rate"],
            stream["endless"],
        )
        for stream in plan["streams"]
    ]
    del plan
    endless = [asyncio.create_task(run.run()) for run in runs if run.endless]
    await asyncio.gather(*(run.run() for run in runs if not run.endless))
    for run in runs:
        run.stop = True
    await asyncio.gather(*endless)
    print(json.dumps([asdict(run.result()) for run in runs]))


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
