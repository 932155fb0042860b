"""The models of one server: found at the start, loaded when first asked for, unloaded under a budget."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from embedsvc.encoder import Encoder, Encoding, find_folder
from embedsvc.errors import InvalidInputError, OverloadedError, UnavailableError
from embedsvc.model_folder import ModelFolder
from embedsvc.options import EncodeOptions, Priority
from embedsvc.runtime import Runtime, RuntimeOptions
from embedsvc.scheduling.isolated import IsolatedRuntime
from embedsvc.scheduling.layout import open_laid_out
from embedsvc.scheduling.scheduled import ScheduledEncoder
from embedsvc.scheduling.scheduler import Scheduler
from embedsvc.scheduling.workers import Observer, SchedulerOptions
from embedsvc.self_check import check_vectors
from embedsvc.server.errors import ModelNotFoundError
from embedsvc.server.metrics import Metrics
from embedsvc.settings import Settings

_log = logging.getLogger(__name__)
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)")
_LOADED_PER_FILE = 1.5  # memory of a model before it is loaded, as a multiple of its weight files
_FRESH_S = 10.0  # a batch that went well so lately is proof enough that the model works
_PROBE_S = 5.0


@dataclass(eq=False)
class _Loaded:
    encoder: Encoder
    scheduler: Scheduler


class ServedModel:
    """One model under the name that requests use. Belongs to the event loop."""

    def __init__(self, name: str, folder: ModelFolder, models: ModelSet) -> None:
        self.name = name
        self.folder = folder
        self.created = int(folder.path.stat().st_mtime)  # the folder may be away later
        self.last_used = time.monotonic()
        self.agreement: float | None = None  # least cosine to the reference vectors, see self_check
        self._models = models
        self._loaded: _Loaded | None = None
        self._requests = 0

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def is_idle(self) -> bool:
        """True when no request uses the model."""
        return not self._requests and (self._loaded is None or self._loaded.scheduler.idle)

    @property
    def encoder(self) -> Encoder:
        """The encoder of a loaded model; what blocks the event loop, `encode` does better."""
        return self._require().encoder

    @property
    def scheduler(self) -> Scheduler:
        return self._require().scheduler

    def _require(self) -> _Loaded:
        if self._loaded is None:
            raise UnavailableError(f"model {self.name!r} is not loaded")
        return self._loaded

    def restarts(self) -> int:
        """Return how often the model's process had to be started anew since the model was loaded."""
        runtime = self._loaded.encoder.runtime if self._loaded else None
        return runtime.restarts if isinstance(runtime, IsolatedRuntime) else 0

    def waiting_texts(self, lane: Priority) -> int:
        """Return the texts of a lane that no batch has taken yet."""
        return self._loaded.scheduler.waiting_texts(lane) if self._loaded else 0

    async def encode(
        self,
        texts: Sequence[str],
        options: EncodeOptions,
        *,
        priority: Priority | None = None,
        timeout_s: float | None = None,
        client: str = "",
    ) -> Encoding:
        """Return vectors and usage, encoded together with other requests' texts; see `Scheduler.encode`."""
        await self.hold()
        try:
            return await self.scheduler.encode(
                texts, options, priority=priority, timeout_s=timeout_s, client=client
            )
        finally:
            self.release()

    async def hold(self) -> None:
        """Load the model if it is not; it stays loaded until `release`."""
        self._requests += 1
        self.last_used = time.monotonic()
        try:
            await self._models.load(self)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let the model be unloaded again."""
        self._requests -= 1

    async def check_ready(self) -> None:
        """Return when a batch went well lately or one word can be encoded; else raise UnavailableError."""
        runtime = self.encoder.runtime
        lost = isinstance(runtime, IsolatedRuntime) and runtime.lost
        if self.scheduler.worked_within(_FRESH_S) and not lost:
            return
        self.scheduler.replace_hung()
        try:
            await self.scheduler.encode(["ready"], EncodeOptions(), timeout_s=_PROBE_S)
        except Exception as error:
            raise UnavailableError(f"model {self.name!r} does not encode one word: {error}") from error

    def estimated_bytes(self) -> int:
        """Return the memory the model takes: its process's if it has one, else a multiple of its weights."""
        runtime = self._loaded.encoder.runtime if self._loaded else None
        if isinstance(runtime, IsolatedRuntime) and runtime.resident_bytes:
            return runtime.resident_bytes
        return int(self.folder.weight_bytes * _LOADED_PER_FILE)

    def attach(self, encoder: Encoder, scheduler: Scheduler) -> None:
        """Take a loaded model into service."""
        scheduler.start()
        self._loaded = _Loaded(encoder, scheduler)

    def detach(self) -> _Loaded | None:
        """Take the model out of service; the caller closes what is returned."""
        loaded, self._loaded = self._loaded, None
        return loaded


class ModelSet:
    """All models of a server by name; the first is the default one and stays loaded."""

    def __init__(self, settings: Settings, metrics: Metrics, encoder: Encoder | None = None) -> None:
        """Find the models of the settings, or serve the one ``encoder`` given.

        Raises NotFoundError, ModelError, or InvalidInputError for two models of the same name.
        """
        self._settings = settings
        self._metrics = metrics
        self._given = encoder
        self._models: dict[str, ServedModel] = {}
        self._aliases: dict[str, str] = {}
        self._loading = asyncio.Lock()
        self._loads: dict[ServedModel, asyncio.Task[None]] = {}
        for entry in settings.model if encoder is None else ():
            self._add(entry)
        if not self._models:
            folder = encoder.folder if encoder else find_folder(None, self._runtime_options())
            self._models[folder.name] = ServedModel(folder.name, folder, self)

    def _add(self, entry: str) -> None:
        named = _NAMED.fullmatch(entry)
        location = named[2] if named and not Path(entry).exists() else entry
        options = self._runtime_options()
        folder = find_folder(location, options, self._settings.revision)
        name = named[1] if named and location == named[2] else folder.name
        if name in self._models:
            raise InvalidInputError(
                f"two models have the name {name!r}; give one another name: --model NAME={location}",
                param="model",
            )
        self._models[name] = ServedModel(name, folder, self)
        self._aliases[location] = name

    @property
    def all(self) -> list[ServedModel]:
        return list(self._models.values())

    @property
    def default(self) -> ServedModel:
        """The first model: collections, mining and requests without a model name use it."""
        return self.all[0]

    def find(self, name: str | None) -> ServedModel:
        """Return a model by name, path or hub id, loaded or not; raise ModelNotFoundError."""
        if name is None:
            return self.default
        found = self._models.get(self._aliases.get(name, name))
        if found is None:
            known = ", ".join(self._models)
            raise ModelNotFoundError(f"no model {name!r}; this server has: {known}", param="model")
        return found

    def with_fingerprint(self, fingerprint: str) -> ServedModel | None:
        """Return the model that makes vectors of this fingerprint, else the first whose own fit them.

        Reads weights, once: for threads.
        """
        own = (model for model in self.all if model.folder.fingerprint == fingerprint)
        fitting = (model for model in self.all if model.folder.fits(fingerprint))
        return next(chain(own, fitting), None)

    async def get(self, name: str | None) -> ServedModel:
        """Return a loaded model, the default one for None; raise ModelNotFoundError listing the names."""
        model = self.find(name)
        model.last_used = time.monotonic()
        await self.load(model)
        return model

    def overload(self) -> OverloadedError | None:
        """Return why no loaded model would take one more interactive text now; None when one would."""
        refusals = [model.scheduler.overload() for model in self.all if model.is_loaded]
        return next(iter(refusals), None) if all(refusals) else None

    async def load(self, model: ServedModel) -> None:
        """Load a model if it is not; unload others where the budget asks for it.

        All who wait share one attempt, which goes on when they give up.
        """
        if model.is_loaded:
            return
        if model not in self._loads:
            self._loads[model] = asyncio.create_task(self._load(model))
            self._loads[model].add_done_callback(lambda done: self._loaded(model, done))
        await asyncio.shield(self._loads[model])

    def _loaded(self, model: ServedModel, done: asyncio.Task[None]) -> None:
        del self._loads[model]
        if not done.cancelled():
            done.exception()  # who waits has it; if nobody does, the next caller tries again

    async def _load(self, model: ServedModel) -> None:
        async with self._loading:
            await self._make_room(model)
            _log.info("loading model %s", model.name)
            encoder = await asyncio.to_thread(self._open, model)
            limits = SchedulerOptions(
                max_queue_texts=self._settings.max_queue_texts,
                max_queue_s=self._settings.max_queue_s,
                interactive_texts=self._settings.interactive_texts,
                batch_tokens=self._settings.batch_tokens,
                batch_timeout_s=self._settings.batch_timeout_s,
            )
            observer: Observer = self._metrics.observer(model.name)
            model.attach(encoder, Scheduler(encoder, limits, observer))
            self._metrics.watch_model(model)

    async def close(self, grace_s: float) -> None:
        """Finish what waits, at most ``grace_s`` seconds long, and end the models' processes."""
        for load in self._loads.values():
            load.cancel()
        await asyncio.gather(*(self._unload(model, grace_s) for model in self.all))

    def bulk_encoder(self) -> ScheduledEncoder:
        """Return the default model as an encoder for threads."""
        return ScheduledEncoder(self.default.encoder, self.default.scheduler)

    async def _make_room(self, wanted: ServedModel) -> None:
        budget = self._settings.max_model_bytes
        if budget is None:
            return
        need = wanted.estimated_bytes()
        while (used := sum(model.estimated_bytes() for model in self.all if model.is_loaded)) + need > budget:
            unused = [m for m in self.all if m.is_loaded and m.is_idle and m is not self.default]
            if not unused:
                raise UnavailableError(
                    f"model {wanted.name!r} needs about {need:,} bytes beside the {used:,} in use; "
                    f"max_model_bytes = {budget:,}"
                )
            oldest = min(unused, key=lambda model: model.last_used)
            _log.info("unloading model %s to make room for %s", oldest.name, wanted.name)
            await self._unload(oldest, grace_s=0.0)

    async def _unload(self, model: ServedModel, grace_s: float) -> None:
        loaded = model.detach()
        if loaded is None:
            return
        await asyncio.to_thread(loaded.scheduler.close, grace_s)
        await asyncio.to_thread(_end, loaded.encoder)

    def _runtime_options(self) -> RuntimeOptions:
        settings = self._settings
        return RuntimeOptions(settings.runtime, settings.device, settings.precision)

    def _open(self, model: ServedModel) -> Encoder:
        encoder = self._given or Encoder(model.folder, self._open_runtime(model.folder))
        try:
            encoder.encode(["ready"], progress=False)
            if self._settings.self_check:
                model.agreement = check_vectors(encoder, self._settings.precision)
        except BaseException:
            _end(encoder)
            raise
        return encoder

    def _open_runtime(self, folder: ModelFolder) -> Runtime:
        settings, options = self._settings, self._runtime_options()
        shared = settings.isolation == "auto" and folder.is_static
        if settings.isolation == "thread" or shared:
            return open_laid_out(folder, options, settings.workers)
        return IsolatedRuntime(
            folder, options, workers=settings.workers, batch_timeout_s=settings.batch_timeout_s
        )


def _end(encoder: Encoder) -> None:
    """End the model's process if it has one."""
    if isinstance(encoder.runtime, IsolatedRuntime):
        encoder.runtime.close()
