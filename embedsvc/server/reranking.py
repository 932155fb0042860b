"""The reranker of a server, at work in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence

from embedsvc.encoder import Timings, locate_model
from embedsvc.reranker import Reranker, ScoreOptions, Scoring, opened_reranker
from embedsvc.reranker_folder import open_reranker_folder
from embedsvc.runtime import RuntimeOptions
from embedsvc.server.lanes import Lane
from embedsvc.server.metrics import Metrics
from embedsvc.settings import Settings

_log = logging.getLogger(__name__)
_MOST_REQUESTS = 32  # running or waiting


class Reranking:
    """Score texts without blocking the event loop; one request at a time, the model has all processors."""

    def __init__(self, reranker: Reranker, metrics: Metrics) -> None:
        self.reranker = reranker
        self._metrics = metrics
        self._lane = Lane("the reranker", threads=1, limit=_MOST_REQUESTS)

    async def score(
        self, query: str, texts: Sequence[str], options: ScoreOptions | None = None
    ) -> tuple[Scoring, Timings]:
        """Return `Reranker.score_with_usage` and where the time went; OverloadedError when many wait.

        When the caller is cancelled the work stops after the batch it is at.
        """
        given_up = threading.Event()
        arrived = time.perf_counter()

        def work() -> tuple[Scoring, float]:
            begun = time.perf_counter()
            return self.reranker.score_with_usage(query, texts, options, given_up=given_up.is_set), begun

        try:
            scoring, begun = await self._lane.run(work)
        except asyncio.CancelledError:
            given_up.set()
            raise
        done = time.perf_counter()
        timings = Timings(queue_s=begun - arrived, inference_s=done - begun, total_s=done - arrived)
        self._metrics.observe_scoring(self.reranker.name, len(texts), sum(scoring.tokens), timings)
        return scoring, timings

    def close(self) -> None:
        """Drop what has not begun; do not wait for what has."""
        self._lane.close()


def open_reranker(settings: Settings) -> Reranker | None:
    """Open the reranker of the settings, if they name one; raises EmbedsvcError saying what is wrong.

    Of the models' options device and precision hold for it too, the latter where it has such a file.
    """
    if settings.reranker is None:
        return None
    folder = open_reranker_folder(locate_model(settings.reranker))
    precision = settings.precision
    if precision not in folder.model.onnx_files and precision != "float32":
        _log.warning("the reranker %s has no %s ONNX file: it runs in float32", folder.model.name, precision)
        precision = "float32"
    options = RuntimeOptions(device=settings.device, precision=precision)
    reranker = opened_reranker(folder, options)
    _log.info("reranker %s runs on %s", reranker.name, reranker.runtime.name)
    return reranker
