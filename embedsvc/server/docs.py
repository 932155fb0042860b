"""GET /docs: Swagger UI, served from an installed package so that it works without the internet."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_FILES = "docs/files"  # relative, so that a proxy may serve all this under a prefix


def install_docs(app: FastAPI) -> None:
    """Add the page and its files."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="embedsvc API",
        swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{_FILES}/favicon-32x32.png",
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page

    app.mount(f"/{_FILES}", StaticFiles(packages=[("fastapi_swagger", "resources")]))
