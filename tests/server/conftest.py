"""An app with its lifespan, called through ASGI without a socket. One event loop per client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.server.app import create_app
from embedsvc.settings import Settings


class AppClient:
    """Synchronous calls of an app; `gather` runs several at the same time."""

    def __init__(self, settings: Settings, encoder: Encoder | None) -> None:
        self.app = create_app(settings, encoder=encoder)
        self._runner = asyncio.Runner()
        self._lifespan = self.app.router.lifespan_context(self.app)
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise

    async def _start(self) -> None:
        await self._lifespan.__aenter__()
        transport = httpx.ASGITransport(self.app)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://app", timeout=30)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._http.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.request("PUT", path, json=body)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    @property
    def http(self) -> httpx.AsyncClient:
        return self._http

    def close(self) -> None:
        async def stop() -> None:
            await self._http.aclose()
            await self._lifespan.__aexit__(None, None, None)

        self._runner.run(stop())
        self._runner.close()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="session")
def client(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """The bundled model with the sample collection; tests make other collections of their own."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        demo=True,
        max_batch_texts=64,
        max_mine_sentences=8,
        max_body_bytes=200_000,
    )
    client = AppClient(settings, encoder)
    yield client
    client.close()


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., AppClient]]:
    """Make a client with settings of its own and an encoder of its own."""
    with ExitStack() as stack:

        def make(encoder: Encoder | None, **options: Any) -> AppClient:
            client = AppClient(Settings(**{"data_dir": tmp_path / "data", **options}), encoder)
            stack.callback(client.close)
            return client

        yield make


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error of an answer, which must have the one shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == code, error
    assert error["message"]
    return error
