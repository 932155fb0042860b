"""The result of a job in another format: written once, when first asked for, by a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from embedsvc.errors import EmbedsvcError, StorageError
from embedsvc.jobs.record import Failure
from embedsvc.jobs.store import RESULT, RESULT_LINES

_NICENESS = 10  # somebody waits for it, but not as for a search


class ExportError(EmbedsvcError):
    """The other process could not write the file; status and code are those of its error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, param=failure.param)
        self.status, self.code = failure.status, failure.code


class Exports:
    """The exports of a server, one at a time. Belongs to the event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._tasks: dict[Path, asyncio.Task[None]] = {}

    async def file(self, job: Path, format: str, languages: tuple[str | None, str | None]) -> Path:
        """Return the result of the job in a folder as a file of a format; raise ExportError.

        All who wait for one file share one attempt, which goes on when they give up.
        """
        path = job / RESULT / f"result.{format}"
        if not path.exists():
            if path not in self._tasks:
                self._tasks[path] = asyncio.create_task(self._export(job, path, languages))
                self._tasks[path].add_done_callback(lambda done: self._forget(path, done))
            await asyncio.shield(self._tasks[path])
        return path

    def _forget(self, path: Path, done: asyncio.Task[None]) -> None:
        del self._tasks[path]
        if not done.cancelled():
            done.exception()  # who waits has it

    async def _export(self, job: Path, path: Path, languages: tuple[str | None, str | None]) -> None:
        told = json.dumps([str(job / RESULT_LINES), str(path), *languages])
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _MAIN, told),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
            try:
                answer, _ = await process.communicate()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise
        if answer:
            raise ExportError(Failure.model_validate_json(answer))
        if process.returncode:
            code = process.returncode
            raise StorageError(f"{path.name} could not be written: the process ended with code {code}")

    async def close(self) -> None:
        """End what is being written."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_MAIN = "from embedsvc.jobs.export import main; main()"


def main() -> None:
    """Write the file told; on standard output say what went wrong."""
    from embedsvc.mining.outputs import OutputInfo, read_pairs, write_pairs

    os.nice(_NICENESS)
    told: list[Any] = json.loads(sys.argv[1])
    source, path, languages = Path(told[0]), Path(told[1]), told[2:]
    try:
        write_pairs(path, read_pairs(source), OutputInfo(*languages))
    except EmbedsvcError as error:
        failure = Failure(status=error.status, code=error.code, message=error.message, param=error.param)
        print(failure.model_dump_json())
