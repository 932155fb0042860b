"""What a running server holds: model, batcher, collections, threads. Made and closed by the lifespan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from embedsvc.collections.collection_set import CollectionSet
from embedsvc.encoder import Encoder
from embedsvc.errors import StorageError, UnavailableError
from embedsvc.scheduling.batcher import Batcher
from embedsvc.server.errors import ModelNotFoundError
from embedsvc.server.lanes import Lane
from embedsvc.server.metrics import Metrics
from embedsvc.server.sample import load_sample
from embedsvc.settings import Settings

_CLOSE_S = 1.0  # nobody waits for the answer any more when the lifespan ends
_PROBE_S = 10.0  # a model that does not encode one word in this time is not ready


@dataclass(frozen=True)
class ServerState:
    """Everything a route needs."""

    settings: Settings
    metrics: Metrics
    encoder: Encoder
    batcher: Batcher
    collections: CollectionSet
    storage: Lane
    mining: Lane
    probe: Lane

    @classmethod
    async def open(cls, settings: Settings, metrics: Metrics, encoder: Encoder) -> ServerState:
        """Open the collections and start the batcher; raises EmbedsvcError saying what is wrong."""
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"data_dir {settings.data_dir} cannot be used: {error.strerror}") from error
        collections = CollectionSet(settings.data_dir, encoder)
        await asyncio.to_thread(encoder.encode, ["ready"], progress=False)
        if settings.demo:
            try:
                await asyncio.to_thread(load_sample, collections, encoder)
            except BaseException:
                collections.close()
                raise
        batcher = Batcher(
            encoder,
            max_queue_texts=settings.max_queue_texts,
            batch_tokens=settings.batch_tokens,
            on_round=metrics.observe_round,
        )
        batcher.start()
        metrics.watch_queue(lambda: batcher.waiting_texts)
        return cls(
            settings,
            metrics,
            encoder,
            batcher,
            collections,
            storage=Lane("storage", threads=4, limit=256),
            mining=Lane("mining", threads=1, limit=8),
            probe=Lane("probe", threads=1, limit=8),
        )

    async def close(self) -> None:
        """Finish what the batcher holds, drop what has not begun, close the collections."""
        await self.batcher.close(grace_s=_CLOSE_S)
        for lane in (self.storage, self.mining, self.probe):
            lane.close()
        await asyncio.to_thread(self.collections.close)

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFoundError unless ``name`` is the served model, or not given."""
        if name is not None and name not in (self.encoder.name, *self.settings.model):
            raise ModelNotFoundError(
                f"no model {name!r}; this server has: {self.encoder.name}", param="model"
            )

    async def check_ready(self) -> None:
        """Encode one word; raise UnavailableError when the model does not answer."""
        if self.batcher.round_s > self.settings.request_timeout_s:
            raise UnavailableError(f"the model has been busy with one batch for {self.batcher.round_s:.1f} s")
        try:
            async with asyncio.timeout(_PROBE_S):
                await self.probe.run(self.encoder.encode, ["ready"], progress=False)
        except TimeoutError as error:
            raise UnavailableError(f"the model did not encode one word in {_PROBE_S:g} s") from error
        except Exception as error:
            raise UnavailableError("the model fails to encode") from error


def _state(request: Request) -> ServerState:
    state: ServerState = request.app.state.server
    return state


StateDep = Annotated[ServerState, Depends(_state)]
