"""Blocks and merges as tasks of a Ray cluster. Needs the package ``ray`` (extra ``[ray]``).

Workers read shards and blocks from the files where they see them, and get the rows through Ray's object store
where they do not. A block that was on a machine that failed is computed again on another one. The caller
gets, and writes, one block after the other; if it is killed, the blocks that are written stay.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from indexing.block_lists import Merged, merge_lists
from indexing.errors import IndexingError
from indexing.first_pass import Progress
from indexing.grid import Block, Grid, Side, read_parts
from indexing.neighbour_plan import NeighbourPlan
from indexing.ray_connection import ray_connection
from indexing.ray_tasks import BlockTask, MergeTask, NotSeen, code_fingerprint, compute_block, merge_shard
from indexing.shard_parts import shard_part, stored_rows
from indexing.vector_shards import VectorShards

_RETRIES = 10  # of a task whose machine or process dies
_POLL_SECONDS = 1.0  # between two looks at whether the work is still wanted
_PATIENCE_SECONDS = 300.0  # without any machine for the tasks, once there was one
_SHIPPED_BYTES = 512 << 20  # of shards in the object store for tasks to come
_MOST_THREADS = 4  # per task, unless told otherwise


@contextlib.contextmanager
def ray_engine(address: str | None = None, *, threads: int | None = None) -> Iterator[RayEngine]:
    """Connect to a Ray cluster (see `ray_connection`) and yield the engine that runs there.

    A task takes ``threads`` CPUs; None are as many as the smallest node has, at most 4.

    Raises:
        IndexingError: no connection, or no node has so many CPUs.
    """
    with ray_connection(address):
        found = threads or _default_threads()
        _Demand(found, 0).slots()
        yield RayEngine(found)


@dataclass(frozen=True)
class RayEngine:
    """The cluster that this process is connected to; a task has ``threads`` CPUs."""

    threads: int

    def blocks(
        self, grid: Grid, wanted: Sequence[Block], plan: NeighbourPlan, progress: Progress | None
    ) -> Generator[tuple[Block, bytes]]:
        """Yield the blocks as they are done; at most twice as many are begun as can run, and two.

        Raises:
            IndexingError: a block cannot be computed, or there is no machine left.
        """
        demand = _Demand(self.threads, plan.memory_bytes, int(grid.method.name == "gpu"))
        task = BlockTask(grid.method, grid.k, self.threads, code_fingerprint())
        senders = {"x": _Sender(grid.x), "y": _Sender(grid.y)}
        remote = demand.remote(compute_block)
        waiting, running = deque(wanted), dict[Any, Block]()
        total, done = sum(grid.rows(block) for block in wanted), 0
        try:
            while waiting or running:
                while waiting and len(running) < demand.window():
                    i, j = waiting.popleft()
                    running[remote.remote(senders["x"].shard(i), senders["y"].shard(j), task)] = (i, j)
                for ref in demand.wait(running):
                    block, answer = running[ref], _result(ref)
                    del running[ref]
                    if isinstance(answer, NotSeen):
                        senders[answer.side].ship()
                        waiting.appendleft(block)
                        continue
                    done += grid.rows(block)
                    yield block, answer
                if progress:
                    progress(done, total)
        finally:
            _cancel(running)

    def merges(self, grid: Grid, folder: Path, side: Side) -> Generator[Merged]:
        """Yield the lists; workers merge what they see of ``folder``, this process the rest."""
        task = MergeTask(folder.absolute(), side, grid.kept(side), code_fingerprint())
        remote = _Demand(1, 0).remote(merge_shard)
        ahead = _Demand(1, 0).window()
        shards = range(len(grid.own_and_other(side)[0].hashes))
        parts = [grid.parts(side, number) for number in shards]
        running = deque[Any]()
        begun = iter(parts)
        try:
            for own in parts:
                while len(running) < ahead and (further := next(begun, None)) is not None:
                    running.append(remote.remote(further, task))
                answer = _result(running.popleft())
                if isinstance(answer, NotSeen):
                    answer = merge_lists(read_parts(folder, own, side), task.kept)
                yield answer
        finally:
            _cancel(running)


class _Sender:
    """The shards of a side as workers get them: where to read them or, once a worker cannot, their rows."""

    def __init__(self, shards: VectorShards) -> None:
        self._shards = shards
        self._ships = shards.source.elsewhere() is None
        self._stored: OrderedDict[int, tuple[Any, int]] = OrderedDict()

    def ship(self) -> None:
        """Send rows from now on."""
        self._ships = True

    def shard(self, number: int) -> Any:
        """Return the argument for a task. A machine fetches stored rows once for all its tasks."""
        if not self._ships:
            return shard_part(self._shards, number)
        if number not in self._stored:
            rows = stored_rows(self._shards, number)
            self._stored[number] = ray.put(rows), rows.nbytes
            self._forget()
        self._stored.move_to_end(number)
        return self._stored[number][0]

    def _forget(self) -> None:
        """Let go of shards not used lately, which tasks that were begun still hold."""
        while len(self._stored) > 1 and sum(size for _, size in self._stored.values()) > _SHIPPED_BYTES:
            self._stored.popitem(last=False)


@dataclass
class _Demand:
    """What a task needs of a machine, and how many tasks the cluster has room for."""

    threads: int
    memory_bytes: int
    gpus: int = 0
    _last_room: float = field(default=-_PATIENCE_SECONDS, init=False)

    def remote(self, function: Any) -> Any:
        """Return the function as one that runs on the cluster."""
        return ray.remote(function).options(
            num_cpus=self.threads,
            num_gpus=self.gpus,
            memory=self.memory_bytes or None,
            max_retries=_RETRIES,
        )

    def window(self) -> int:
        """Return how many tasks may be begun and not yet taken back."""
        return 2 * self.slots() + 2

    def slots(self) -> int:
        """Return how many tasks run at once; raise IndexingError where none can, now and for minutes."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        slots = sum(self._fit(machine) for machine in machines)
        if slots:
            self._last_room = time.monotonic()
        elif time.monotonic() > self._last_room + _PATIENCE_SECONDS:
            found = ", ".join(_described(machine) for machine in machines) or "none"
            raise IndexingError(
                f"a task takes {_described(self._needed())}; no node of the Ray cluster has so much: {found}"
            )
        return slots

    def _needed(self) -> dict[str, float]:
        needed = {"CPU": self.threads, "memory": self.memory_bytes, "GPU": self.gpus}
        return {name: float(amount) for name, amount in needed.items() if amount}

    def _fit(self, machine: dict[str, float]) -> int:
        return min(int(machine.get(name, 0) // amount) for name, amount in self._needed().items())

    def wait(self, running: Iterable[Any]) -> list[Any]:
        """Return a task that is done, if one is within a second."""
        done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
        if not done:
            self.slots()
        return list(done)


def _described(machine: dict[str, float]) -> str:
    words = [f"{machine.get('CPU', 0):g} CPUs"]
    if "memory" in machine:
        words.append(f"{int(machine['memory']) >> 20} MiB")
    return " and ".join([*words, *(["a GPU"] if machine.get("GPU") else [])])


def _default_threads() -> int:
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min([_MOST_THREADS, *(count for count in counts if count > 0)])


def _result(ref: Any) -> Any:
    """Return what a task returned; raise IndexingError, in one line, where it failed."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, IndexingError):
            raise error.cause from None
        raise IndexingError(f"a task failed on node {error.ip}: {_last_line(error)}") from error
    except RayError as error:
        raise IndexingError(f"a task was lost on the Ray cluster: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _cancel(running: Iterable[Any]) -> None:
    """End tasks nobody waits for any more; what they do is nowhere but in their memory."""
    for ref in running:
        ray.cancel(ref, force=True)
