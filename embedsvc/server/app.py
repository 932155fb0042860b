"""`create_app` puts the server together; nothing is global, so that several apps can live in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from embedsvc import __version__
from embedsvc.encoder import Encoder
from embedsvc.errors import EmbedsvcError
from embedsvc.server.auth import KeyCheck, KeyRing
from embedsvc.server.docs import install_docs
from embedsvc.server.errors import install_error_handlers
from embedsvc.server.logs import RequestLog
from embedsvc.server.metrics import Metrics
from embedsvc.server.middleware import RequestGuard, WholeBody
from embedsvc.server.routes import (
    bitext,
    cohere,
    collections,
    documents,
    embeddings,
    health,
    jobs,
    search,
    stream,
    tei,
)
from embedsvc.server.schemas import ErrorBody
from embedsvc.server.state import ServerState
from embedsvc.server.tracing import otlp_exporter, trace_requests, tracer_provider
from embedsvc.settings import Settings, load_settings

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is wrong, or the server is full (429)."},
    "5XX": {"model": ErrorBody, "description": "The server failed, or is not ready (503)."},
}


def create_app(settings: Settings | None = None, *, encoder: Encoder | None = None) -> FastAPI:
    """Return the ASGI app; its lifespan loads the model, unless an ``encoder`` is given.

    Without settings they come from the environment. When the lifespan cannot start,
    ``app.state.startup_error`` holds the EmbedsvcError.
    """
    settings = settings or load_settings()
    metrics = Metrics()
    keys = KeyRing(settings.keys_file) if settings.keys_file else None
    tracing = tracer_provider(otlp_exporter(settings.otlp_endpoint)) if settings.otlp_endpoint else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.server = await ServerState.open(settings, metrics, encoder)
        except EmbedsvcError as error:
            app.state.startup_error = error
            raise
        try:
            yield
        finally:
            await app.state.server.close()
            if tracing:
                await asyncio.to_thread(tracing.shutdown)  # sends the last spans

    app = FastAPI(
        title="embedsvc",
        version=__version__,
        description="Multilingual embeddings: encode, search and mine across languages.",
        lifespan=lifespan,
        redirect_slashes=False,
        responses=_ERRORS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.draining = False
    install_error_handlers(app)
    _add_layers(app, settings, keys, metrics)
    needs_key = [Depends(HTTPBearer(auto_error=False))] if keys else []  # for /docs; KeyCheck checks
    for routes in (embeddings, stream, collections, documents, search, bitext, jobs, tei, cohere):
        app.include_router(routes.router, dependencies=needs_key)
    app.include_router(health.router)
    install_docs(app)
    if tracing:
        trace_requests(app, tracing)
    return app


def _add_layers(app: FastAPI, settings: Settings, keys: KeyRing | None, metrics: Metrics) -> None:
    """Wrap the routes; the layer added last is the outermost."""
    app.add_middleware(WholeBody, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(RequestGuard, timeout_s=settings.request_timeout_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    access_level = logging.INFO if settings.log_format == "json" else logging.DEBUG
    app.add_middleware(RequestLog, metrics=metrics, level=access_level)
