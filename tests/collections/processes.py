"""Real processes for tests of faults, forked from one that has imported all they need."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # at once: a user without rights may not be able to read it later
import pytest
from numpy.typing import NDArray

from embedsvc.collections.collection import Collection, CollectionOptions
from embedsvc.collections.verify import verify

os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))  # the server imports by it
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.collections.conftest",
        *(
            f"tests.collections.test_{name}"
            for name in ("faults", "store", "reindex", "transfer", "migration")
        ),
    ]
)
WIDTH = 16
BARE = CollectionOptions(dimension=WIDTH)
LANGUAGES = ("en", "de", "sw")


def start(job: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Run a function of a test module in a process of its own."""
    process = _CONTEXT.Process(target=job, args=arguments, daemon=True)
    process.start()
    return process


def received(connection: Any, seconds: float = 30) -> Any:
    """Return what another process sends, or fail: it may be dead."""
    assert connection.poll(seconds), f"nothing came within {seconds} s"
    return connection.recv()


def exit_code(process: BaseProcess, seconds: float = 60) -> int | None:
    """Wait for a process; one that takes too long is killed."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        pytest.fail(f"process did not end within {seconds} s")
    return process.exitcode


def run(job: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a process of its own, which must end well."""
    assert exit_code(start(job, *arguments)) == 0


def run_until_killed(job: Callable[..., None], *arguments: Any) -> None:
    """Run a function in a process of its own, which must kill itself."""
    assert exit_code(start(job, *arguments)) == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: Any, name: str, when: str = "before", call: int = 1) -> None:
    """Let this process kill itself before or after the given call of a function or method."""
    original = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        own = calls
        if own == call and when == "before":
            die()
        result = original(*arguments, **keywords)
        if own == call:
            die()
        return result

    setattr(owner, name, deadly)


def vector_of(number: int) -> NDArray[np.float32]:
    """A unit vector (16,)."""
    vector = np.random.default_rng(number).standard_normal(WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


def numbered(number: int, version: int = 0) -> dict[str, Any]:
    """The document of a number, in one of its versions, with a vector that no other has."""
    return {
        "id": f"d{number}",
        "text": f"w{number} v{version}",
        "language": LANGUAGES[number % len(LANGUAGES)],
        "metadata": {"number": number, "version": version},
        "vector": vector_of(number * 1000 + version),
    }


def check(collection: Collection, expected: dict[int, int]) -> None:
    """Check that a collection holds these documents (versions by number), found by their own vectors."""
    assert {document.id for document in collection.documents()} == {f"d{number}" for number in expected}
    if not expected:
        return
    vectors = np.stack([vector_of(number * 1000 + version) for number, version in expected.items()])
    step = len(vectors) // 100 + 1
    sample = list(expected.items())[::step]
    for (number, version), result in zip(sample, collection.query(vectors=vectors[::step]), strict=True):
        best, wanted = result.hits[0], numbered(number, version)
        assert (best.id, best.text, best.metadata) == (wanted["id"], wanted["text"], wanted["metadata"])
        assert best.score == pytest.approx(1, abs=1e-3)
    some = vectors[:: max(1, len(vectors) // 7)]
    truth = -np.sort(-(some @ vectors.T), axis=1)[:, :10]
    for result, scores in zip(collection.query(vectors=some), truth, strict=True):
        assert [hit.score for hit in result.hits] == pytest.approx(scores, abs=2e-3)
    assert verify(collection).problems == []


def filled(path: Path, count: int, *, index: bool = True) -> dict[int, int]:
    """Make a collection of ``count`` documents; return what `check` expects."""
    with Collection(path, options=BARE) as collection:
        collection.upsert([numbered(number) for number in range(count)])
        if index:
            collection.build_index()
    return dict.fromkeys(range(count), 0)


def is_served_from_disk(collection: Collection) -> bool:
    """Whether a search uses a saved index, and nothing but it."""
    with collection._index.current() as (_, state):
        return state.base.is_saved


def index_folders(path: Path) -> list[str]:
    """The names of what lies in the folder of saved indexes."""
    return sorted(entry.name for entry in (path / "index").iterdir())
