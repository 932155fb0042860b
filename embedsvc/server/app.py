"""`create_app` puts the server together; nothing is global, so that several apps can live in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from embedsvc import __version__
from embedsvc.encoder import Encoder
from embedsvc.errors import EmbedsvcError
from embedsvc.server.errors import install_error_handlers
from embedsvc.server.metrics import Metrics
from embedsvc.server.middleware import RequestGuard
from embedsvc.server.routes import bitext, cohere, collections, embeddings, health, stream, tei
from embedsvc.server.schemas import ErrorBody
from embedsvc.server.state import ServerState
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

    app = FastAPI(
        title="embedsvc",
        version=__version__,
        description="Multilingual embeddings: encode, search and mine across languages.",
        lifespan=lifespan,
        redirect_slashes=False,
        responses=_ERRORS,
    )
    install_error_handlers(app)
    app.add_middleware(
        RequestGuard,
        max_body_bytes=settings.max_body_bytes,
        timeout_s=settings.request_timeout_s,
        metrics=metrics,
    )
    for routes in (embeddings, stream, collections, bitext, tei, cohere, health):
        app.include_router(routes.router)
    return app
