"""What the server counts, in a Prometheus registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from embedsvc.encoder import Timings
from embedsvc.jobs.record import State
from embedsvc.options import Priority
from embedsvc.scheduling.workers import BatchReport, Observer

if TYPE_CHECKING:
    from embedsvc.server.models import ServedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_POWERS_OF_TWO = tuple(2**power for power in range(13))
_TOKENS = tuple(4**power for power in range(2, 11))
_LANES: tuple[Priority, ...] = ("interactive", "bulk")


class Metrics:
    """The metrics of one app; README's table explains each."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "embedsvc_requests",
            "Requests answered; status 499: the client went away.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "embedsvc_request_seconds",
            "Time from the first byte of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter("embedsvc_texts", "Texts encoded.", ["model", "lane"], registry=registry)
        self.tokens = Counter(
            "embedsvc_tokens", "Tokens encoded, without padding.", ["model", "lane"], registry=registry
        )
        self.padding_tokens = Counter(
            "embedsvc_padding_tokens", "Padding the model computed in vain.", ["model"], registry=registry
        )
        self.batch_texts = Histogram(
            "embedsvc_batch_texts",
            "Texts of one batch.",
            ["model"],
            buckets=_POWERS_OF_TWO,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "embedsvc_batch_tokens",
            "Tokens of one batch, padding included.",
            ["model"],
            buckets=_TOKENS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "embedsvc_batch_seconds", "Time of one batch.", ["model"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "embedsvc_stage_seconds",
            "Time of a request in one stage: tokenize, queue, inference.",
            ["model", "lane", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue_texts = Gauge(
            "embedsvc_queue_texts", "Texts waiting for the model.", ["model", "lane"], registry=registry
        )
        self._loaded = Gauge(
            "embedsvc_model_loaded", "1: the model is in memory.", ["model"], registry=registry
        )

        self._restarts = Gauge(
            "embedsvc_model_restarts",
            "Processes of the model started anew since it was loaded.",
            ["model"],
            registry=registry,
        )

        self._jobs = Gauge(
            "embedsvc_jobs_in_state",
            "Jobs in each state; 0 on a server that leaves them to another.",
            ["state"],
            registry=registry,
        )

    def observe_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request by its route template; unknown paths share one label."""
        route = getattr(scope.get("route"), "path", "unknown")
        self._requests.labels(scope["method"], route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observer(self, model: str) -> Observer:
        """Return what a scheduler tells about its batches and requests."""
        return _ModelMetrics(self, model)

    def watch_model(self, model: ServedModel) -> None:
        """Ask the model for its queue depth at every scrape."""
        self._loaded.labels(model.name).set_function(lambda: float(model.is_loaded))
        self._restarts.labels(model.name).set_function(model.restarts)
        for lane in _LANES:
            self._queue_texts.labels(model.name, lane).set_function(partial(model.waiting_texts, lane))

    def watch_jobs(self, state: State, count: Callable[[], int]) -> None:
        """Ask for the number of jobs in a state at every scrape."""
        self._jobs.labels(state).set_function(count)

    def observe_scoring(self, reranker: str, texts: int, tokens: int, timings: Timings) -> None:
        """Count the texts that a reranker scored, and the time of the request."""
        self.texts.labels(reranker, "interactive").inc(texts)
        self.tokens.labels(reranker, "interactive").inc(tokens)
        for stage, seconds in (("queue", timings.queue_s), ("inference", timings.inference_s)):
            self.stage_seconds.labels(reranker, "interactive", stage).observe(seconds)

    def exposition(self) -> bytes:
        """Return the text format that Prometheus scrapes."""
        return generate_latest(self.registry)


class _ModelMetrics(Observer):
    """Labels are looked up once: that costs more than counting."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._padding = metrics.padding_tokens.labels(model)
        self._batch_texts = metrics.batch_texts.labels(model)
        self._batch_tokens = metrics.batch_tokens.labels(model)
        self._batch_seconds = metrics.batch_seconds.labels(model)
        self._texts = {lane: metrics.texts.labels(model, lane) for lane in _LANES}
        self._tokens = {lane: metrics.tokens.labels(model, lane) for lane in _LANES}
        self._stages = {
            (lane, stage): metrics.stage_seconds.labels(model, lane, stage)
            for lane in _LANES
            for stage in ("tokenize", "queue", "inference")
        }

    def on_batch(self, report: BatchReport) -> None:
        """A batch was encoded."""
        self._texts[report.lane].inc(report.texts)
        self._tokens[report.lane].inc(report.tokens)
        self._padding.inc(report.padded_tokens - report.tokens)
        self._batch_texts.observe(report.texts)
        self._batch_tokens.observe(report.padded_tokens)
        self._batch_seconds.observe(report.seconds)

    def on_request(self, lane: Priority, timings: Timings) -> None:
        """A request got its vectors."""
        self._stages[lane, "tokenize"].observe(timings.tokenize_s)
        self._stages[lane, "queue"].observe(timings.queue_s)
        self._stages[lane, "inference"].observe(timings.inference_s)
