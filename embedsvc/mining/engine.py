"""Where the search for neighbours runs: here, or on the machines of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

from embedsvc.errors import InvalidInputError, MissingExtraError
from indexing import IndexingError
from indexing.engines import Engine, LocalEngine

EngineName = Literal["local", "ray"]
ENGINES: tuple[str, ...] = get_args(EngineName)


@contextlib.contextmanager
def open_engine(name: EngineName, address: str | None, threads: int | None) -> Iterator[Engine]:
    """Yield the engine; for Ray be connected to the cluster at ``address`` meanwhile (`ray_engine`).

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidInputError: the cluster cannot be reached, or no node has so many CPUs.
    """
    if name == "local":
        yield LocalEngine()
        return
    try:
        from indexing.ray_engine import ray_engine
    except ImportError as error:
        raise MissingExtraError("engine ray", "ray") from error
    with contextlib.ExitStack() as stack:
        try:
            engine: Engine = stack.enter_context(ray_engine(address, threads=threads))
        except IndexingError as error:
            raise InvalidInputError(str(error), param="ray_address" if address else "engine") from error
        yield engine
