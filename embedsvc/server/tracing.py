"""OpenTelemetry: a span per request, sent to a collector. Needs the [otel] extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from embedsvc import __version__
from embedsvc.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_NOT_TRACED = "/health,/ready,/metrics"
_SHOWN_HEADERS = ["x-request-id", "server-timing", "x-.*-time", "x-.*-ms"]


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Return what sends spans to the collector at ``endpoint``; raise MissingExtraError without [otel]."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingExtraError("otlp_endpoint", "otel") from error
    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)


def tracer_provider(exporter: SpanExporter) -> TracerProvider:
    """Return what makes spans and hands them to the exporter, in batches, in a thread of its own.

    It is not set for the whole process, so that several apps can live in one.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "embedsvc", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def trace_requests(app: FastAPI, provider: TracerProvider) -> None:
    """Make a span of every request, named by its route."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.metrics import NoOpMeterProvider

    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        meter_provider=NoOpMeterProvider(),
        excluded_urls=_NOT_TRACED,
        http_capture_headers_server_response=_SHOWN_HEADERS,
        exclude_spans=["receive", "send"],
    )
