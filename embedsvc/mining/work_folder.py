"""The work folder of a mining job: one process at a time, one job for its whole life."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.textfiles import write_json

_JOB = "job.json"
_FORMAT = 1


@contextlib.contextmanager
def work_folder(folder: Path | None, out: Path) -> Iterator[Path]:
    """Lock and yield the folder; None makes one beside ``out`` that is gone at the end.

    Raises InvalidInputError when another process has it or it holds files of something else.
    """
    if folder is None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.work-", dir=out.parent) as temporary:
            yield Path(temporary)
        return
    _make(folder)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError(
                f"work folder {folder} is in use by another process", param="work"
            ) from error
        yield folder


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"work folder {folder} is a file", param="work")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _JOB).exists() and any(path.name != "lock" for path in folder.iterdir()):
        raise InvalidInputError(
            f"work folder {folder} holds other files; name a new or empty folder", param="work"
        )


def check_job(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down what the folder's contents depend on, or compare with what is written.

    Raises InvalidInputError naming what differs, StorageError when the file is damaged.
    """
    wanted = json.loads(json.dumps({"format": _FORMAT, **facts}))
    path = folder / _JOB
    if not path.exists():
        write_json(path, wanted)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in wanted if found.get(name) != wanted[name]]
    except (ValueError, AttributeError) as error:
        raise StorageError(f"{path} is damaged; remove the folder and start anew") from error
    if differing:
        name = differing[0]
        raise InvalidInputError(
            f"work folder {folder} was begun with {name} = {found.get(name)!r}, now it is {wanted[name]!r}; "
            "take another --work, or remove this one",
            param="work",
        )


def remove(folder: Path) -> None:
    """Remove what an earlier, different run left under this name."""
    shutil.rmtree(folder, ignore_errors=True)
