"""Is the process alive, can it encode, what has it done; and the page for trying it out."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from embedsvc.server.schemas import Status
from embedsvc.server.state import StateDep

router = APIRouter(tags=["health"])
_PAGE = (Path(__file__).parent.parent / "page.html").read_bytes()
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
}


@router.get("/health")
async def health() -> Status:
    """The process lives."""
    return Status(status="ok")


@router.get("/ready")
async def ready(state: StateDep) -> Status:
    """The default model works: a batch went well lately, or one word is encoded now; 503 otherwise."""
    await state.models.default.check_ready()
    return Status(status="ready")


@router.get("/metrics", response_class=Response)
async def metrics(state: StateDep) -> Response:
    """Counters for Prometheus."""
    return Response(state.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page for searching in the browser."""
    return Response(_PAGE, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)
