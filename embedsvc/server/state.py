"""What a running server holds: models, collections, jobs, threads. Made and closed by the lifespan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from embedsvc.collections.backends import AnyCollectionSet, open_collection_set
from embedsvc.encoder import Encoder
from embedsvc.errors import StorageError
from embedsvc.reranker import Reranker
from embedsvc.server.events import Listeners
from embedsvc.server.jobs import Jobs
from embedsvc.server.lanes import Lane
from embedsvc.server.metrics import Metrics
from embedsvc.server.models import ModelSet
from embedsvc.server.reranking import Reranking, open_reranker
from embedsvc.server.sample import load_sample
from embedsvc.server.served_encoder import EncoderFinder
from embedsvc.settings import Settings

_CLOSE_S = 1.0  # nobody waits for the answer any more when the lifespan ends


@dataclass(frozen=True)
class ServerState:
    """Everything a route needs."""

    settings: Settings
    metrics: Metrics
    models: ModelSet
    encoder: Encoder  # the default model for threads, scheduled as bulk work
    encoders: EncoderFinder  # every model for threads, by its fingerprint
    collections: AnyCollectionSet
    storage: Lane
    writes: Lane
    checks: Lane
    mining: Lane
    token_vectors: Lane
    reranking: Reranking | None
    jobs: Jobs
    listeners: Listeners

    @property
    def reranker(self) -> Reranker | None:
        """The cross-encoder, for threads; the event loop asks `reranking`."""
        return self.reranking.reranker if self.reranking else None

    @classmethod
    async def open(cls, settings: Settings, metrics: Metrics, encoder: Encoder | None) -> ServerState:
        """Load the default model and open the collections; raises EmbedsvcError saying what is wrong."""
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"data_dir {settings.data_dir} cannot be used: {error.strerror}") from error
        reranker = await asyncio.to_thread(open_reranker, settings)
        models = await asyncio.to_thread(ModelSet, settings, metrics, encoder)
        await models.get(None)
        bulk = models.bulk_encoder()
        encoders = EncoderFinder(models, bulk)
        try:
            collections = await asyncio.to_thread(
                open_collection_set, settings, bulk, find_encoder=encoders, reranker=reranker
            )
        except BaseException:
            await models.close(0.0)
            raise
        try:
            if settings.demo:
                await asyncio.to_thread(load_sample, collections, bulk)
            jobs = await asyncio.to_thread(Jobs, settings, models, metrics)
        except BaseException:
            collections.close()
            await models.close(0.0)
            raise
        return cls(
            settings,
            metrics,
            models,
            bulk,
            encoders,
            collections,
            storage=Lane("storage", threads=4, limit=256),
            writes=Lane("writing documents", threads=2, limit=64),
            checks=Lane("verification", threads=1, limit=8),
            mining=Lane("mining", threads=1, limit=8),
            token_vectors=Lane("token vectors", threads=1, limit=32),
            reranking=Reranking(reranker, metrics) if reranker else None,
            jobs=jobs,
            listeners=Listeners(),
        )

    async def close(self) -> None:
        """End running jobs, finish what the models hold, drop what has not begun, close the collections."""
        await self.jobs.close()
        await self.models.close(_CLOSE_S)
        for lane in (self.storage, self.writes, self.checks, self.mining, self.token_vectors):
            lane.close()
        if self.reranking:
            self.reranking.close()
        await asyncio.to_thread(self.collections.close)


async def _state(request: Request) -> ServerState:  # FastAPI gives a plain function a thread, 0.2 ms
    state: ServerState = request.app.state.server
    return state


StateDep = Annotated[ServerState, Depends(_state)]
