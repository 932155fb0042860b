"""An encoder for the server's own work: what collections and mining encode goes through the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from embedsvc.encoder import Encoder, Encoding
from embedsvc.options import EncodeOptions
from embedsvc.scheduling.scheduler import Scheduler


class ScheduledEncoder(Encoder):
    """Encode in the bulk lane of a scheduler; for threads, not for the event loop."""

    def __init__(self, encoder: Encoder, scheduler: Scheduler) -> None:
        super().__init__(encoder.folder, encoder.runtime)
        self._scheduler = scheduler

    def encode_with_usage(
        self,
        texts: Sequence[str],
        options: EncodeOptions | None = None,
        *,
        batch_tokens: int | None = None,  # noqa: ARG002 - the scheduler's own holds
        progress: bool | None = None,  # noqa: ARG002 - nobody watches
    ) -> Encoding:
        """Like `Encoder.encode_with_usage`; batches are the scheduler's, and no progress is shown."""
        return self._scheduler.encode_blocking(texts, options or EncodeOptions())
