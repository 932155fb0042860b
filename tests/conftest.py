"""Shared fixtures. Nothing here needs the network; data that may be absent skips with a message."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Set before any library reads them: tests never talk to a hub, and threads do not fight over two cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"


_MEMORY_FOLDER = Path("/dev/shm")
_LONG_FILES_FIRST = ("encoders", "server", "cli", "training", "scheduling", "mining")
_KEPT_TOGETHER = "tests/encoders/"
_ROOM_BYTES = 4 * 2**30  # a run needs about a tenth


def pytest_configure(config: pytest.Config) -> None:
    """Let temporary folders lie in memory where there is plenty: thousands of fsyncs then cost nothing."""
    if config.option.basetemp is None and "PYTEST_DEBUG_TEMPROOT" not in os.environ and _has_room():
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_MEMORY_FOLDER)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let folders with long files come first: a long file at the end leaves the other workers idle."""
    places = {name: place for place, name in enumerate(_LONG_FILES_FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("/")[1], len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of encoders with one worker, as a file is: they share ONNX exports."""
    from xdist.scheduler import LoadFileScheduling

    class KeptTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _KEPT_TOGETHER if nodeid.startswith(_KEPT_TOGETHER) else super()._split_scope(nodeid)

    return KeptTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def _has_room() -> bool:
    try:
        state = os.statvfs(_MEMORY_FOLDER)
        memory = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
    except OSError:
        return False
    free = min(state.f_bavail * state.f_frsize, int(memory[0]) * 1024 if memory else 0)
    usable = os.access(_MEMORY_FOLDER, os.W_OK) and not state.f_flag & os.ST_NOEXEC
    return usable and free >= _ROOM_BYTES


@pytest.fixture(autouse=True, scope="session")
def _the_bundled_tokenizer_is_parsed_once() -> Iterator[None]:
    """It takes most of the time to open the bundled model, which hundreds of tests do."""
    from tokenizers import Tokenizer

    from embedsvc import tokens
    from embedsvc.model_folder import BUNDLED

    bundled = str(BUNDLED / "tokenizer.json")
    parsed: list[Tokenizer] = []

    def from_file(path: str) -> Tokenizer:
        if path != bundled:
            return Tokenizer.from_file(path)
        if not parsed:
            parsed.append(Tokenizer.from_file(path))
        return parsed[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "Tokenizer", SimpleNamespace(from_file=from_file))
        yield


@pytest.fixture(autouse=True, scope="session")
def _the_bundled_table_is_unpacked_once() -> Iterator[None]:
    """The other half of the time to open the bundled model; nobody writes into a table."""
    from embedsvc.encoders import static_table
    from embedsvc.model_folder import BUNDLED

    read, unpacked = static_table.read_table, []

    def read_table(folder: Path) -> object:
        if folder != BUNDLED:
            return read(folder)
        if not unpacked:
            unpacked.append(read(folder))
        return unpacked[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_table, "read_table", read_table)
        yield


@pytest.fixture(scope="session")
def evaluation_data() -> Path:
    """The folder with the unpacked evaluation sets (tatoeba/, flores/ …), named by $EVALUATION_DATA."""
    folder = os.environ.get("EVALUATION_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set EVALUATION_DATA to the folder of the unpacked evaluation sets to run this test")
    return Path(folder)
