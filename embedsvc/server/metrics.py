"""What the server counts, in a Prometheus registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from embedsvc.scheduling.batcher import Round

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS_OF_TWO = tuple(2**power for power in range(13))


class Metrics:
    """The metrics of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "embedsvc_requests",
            "Requests answered; status 499: the client went away.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "embedsvc_request_seconds",
            "Time from the first byte of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._texts = Counter("embedsvc_texts", "Texts encoded for requests.", registry=self.registry)
        self._tokens = Counter("embedsvc_tokens", "Tokens encoded for requests.", registry=self.registry)
        self._batch_texts = Histogram(
            "embedsvc_batch_texts",
            "Texts encoded together.",
            buckets=_POWERS_OF_TWO,
            registry=self.registry,
        )
        self._batch_requests = Histogram(
            "embedsvc_batch_requests",
            "Requests encoded together.",
            buckets=_POWERS_OF_TWO,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "embedsvc_batch_seconds", "Time of encoding together.", buckets=_SECONDS, registry=self.registry
        )
        self._queue_texts = Gauge(
            "embedsvc_queue_texts", "Texts waiting for the model.", registry=self.registry
        )

    def observe_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request by its route template; unknown paths share one label."""
        route = getattr(scope.get("route"), "path", "unknown")
        self._requests.labels(scope["method"], route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_round(self, done: Round) -> None:
        """Count what the batcher encoded at once."""
        self._texts.inc(done.texts)
        self._tokens.inc(done.tokens)
        self._batch_texts.observe(done.texts)
        self._batch_requests.observe(done.requests)
        self._batch_seconds.observe(done.seconds)

    def watch_queue(self, waiting_texts: Callable[[], int]) -> None:
        """Ask ``waiting_texts`` for the queue depth at every scrape."""
        self._queue_texts.set_function(waiting_texts)

    def exposition(self) -> bytes:
        """Return the text format that Prometheus scrapes."""
        return generate_latest(self.registry)
