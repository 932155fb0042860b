"""Served models as encoders for threads: each call has the model loaded, whatever was unloaded meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, Encoding
from embedsvc.errors import UnavailableError
from embedsvc.options import EncodeOptions
from embedsvc.runtime import PreparedText, Runtime
from embedsvc.server.models import ModelSet, ServedModel

Hold = Callable[[], contextlib.AbstractContextManager[ServedModel]]


class EncoderFinder:
    """Finds the served model with a fingerprint; for threads, while the event loop that made it runs."""

    def __init__(self, models: ModelSet, default: Encoder) -> None:
        """``default`` is the default model for threads: it stays loaded."""
        self._models = models
        self._default = default
        self._loop = asyncio.get_running_loop()
        self._encoders: dict[ServedModel, ServedEncoder] = {}
        self._lock = threading.Lock()

    def __call__(self, fingerprint: str) -> Encoder | None:
        """Return the encoder of the model with a fingerprint; None when no model has it."""
        model = self._models.with_fingerprint(fingerprint)
        return None if model is None else self.encoder_of(model)

    def encoder_of(self, model: ServedModel) -> Encoder:
        """Return a model as an encoder; it is loaded. Raises what loading it raises."""
        if model is self._models.default:
            return self._default
        with self._lock:
            found = self._encoders.get(model)
        if found is None:
            found = ServedEncoder(model, lambda: self._held(model))
            with self._lock:
                self._encoders[model] = found
        return found

    @contextlib.contextmanager
    def _held(self, model: ServedModel) -> Iterator[ServedModel]:
        """Load a model and keep it loaded for the block."""
        try:
            asyncio.run_coroutine_threadsafe(model.hold(), self._loop).result()
        except CancelledError as error:
            raise UnavailableError("the server is shutting down") from error
        try:
            yield model
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(model.release)


class ServedEncoder(Encoder):
    """Encode in the bulk lane of a served model's scheduler, loading the model when it is not loaded."""

    def __init__(self, model: ServedModel, hold: Hold) -> None:
        with hold():
            super().__init__(model.folder, _HeldRuntime(model.encoder.runtime, hold))
        self._hold = hold

    def encode_with_usage(
        self,
        texts: Sequence[str],
        options: EncodeOptions | None = None,
        *,
        batch_tokens: int | None = None,  # noqa: ARG002 - the scheduler's own holds
        progress: bool | None = None,  # noqa: ARG002 - nobody watches
    ) -> Encoding:
        """Like `Encoder.encode_with_usage`; batches are the scheduler's, and no progress is shown."""
        with self._hold() as model:
            return model.scheduler.encode_blocking(texts, options or EncodeOptions())


class _HeldRuntime:
    """The runtime of a served model, whichever is loaded when it is called."""

    def __init__(self, loaded: Runtime, hold: Hold) -> None:
        self.name = loaded.name
        self.dimension = loaded.dimension
        self.max_tokens = loaded.max_tokens
        self.special_tokens = loaded.special_tokens
        self.batch_tokens = loaded.batch_tokens
        self.pads = loaded.pads
        self.workers = loaded.workers
        self._hold = hold

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        with self._hold() as model:
            return model.encoder.runtime.tokenize(texts)

    def embed(self, batch: Sequence[PreparedText]) -> NDArray[np.float32]:
        """Return (n, dimension) pooled vectors, before the final normalisation."""
        with self._hold() as model:
            return model.encoder.runtime.embed(batch)

    def embed_tokens(self, batch: Sequence[PreparedText]) -> list[NDArray[np.float32]]:
        """Return (tokens, dim) for each text; raises ModelError when the model has none."""
        with self._hold() as model:
            return model.encoder.runtime.embed_tokens(batch)
