"""A model in a process of its own, for real: killed, hung, crashing on one text, left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import ModelError, ModelFailedError, ModelLostError
from embedsvc.model_folder import BUNDLED, open_model_folder
from embedsvc.options import EncodeOptions
from embedsvc.runtime import PreparedText, RuntimeOptions
from embedsvc.scheduling.isolated import IsolatedRuntime
from embedsvc.scheduling.scheduler import Scheduler
from embedsvc.scheduling.workers import SchedulerOptions
from tests.server.processes import obedient, small_model, until

STATIC = RuntimeOptions("static")


@pytest.fixture
def make_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., IsolatedRuntime]]:
    for name, value in obedient(tmp_path).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def make(**options: Any) -> IsolatedRuntime:
            runtime = IsolatedRuntime(open_model_folder(BUNDLED), STATIC, **options)
            stack.callback(runtime.close)
            return runtime

        yield make


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedRuntime]:
    """One that several tests share; it is well at the end of each."""
    folder = tmp_path_factory.mktemp("obedient")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in obedient(folder).items():
            patch.setenv(name, value)
        model = open_model_folder(small_model(folder / "model"))
        runtime = IsolatedRuntime(model, STATIC, batch_timeout_s=2)
        yield runtime
        runtime.close()


def texts_of(runtime: IsolatedRuntime, *texts: str) -> list[PreparedText]:
    return [PreparedText(ids) for ids in runtime.tokenize(texts)]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_it_gives_the_same_vectors_and_facts_as_the_runtime_it_holds(make_runtime):
    runtime, own = make_runtime(workers=2), load_encoder()
    texts = ["one", "a longer text of many words", "три"]
    np.testing.assert_array_equal(Encoder(own.folder, runtime).encode(texts), own.encode(texts))
    batch = [PreparedText(ids) for ids in own.runtime.tokenize(texts)]
    for found, expected in zip(runtime.embed_tokens(batch), own.runtime.embed_tokens(batch), strict=True):
        np.testing.assert_array_equal(found, expected)
    for name in ("name", "dimension", "max_tokens", "special_tokens", "batch_tokens", "pads"):
        assert getattr(runtime, name) == getattr(own.runtime, name)
    assert runtime.workers == 2
    assert runtime.resident_bytes > 20_000_000


def test_a_process_killed_at_work_loses_that_batch_and_is_replaced(runtime):
    before = runtime.embed(texts_of(runtime, "one"))
    first, restarts = runtime.pid, runtime.restarts
    with pytest.raises(ModelLostError, match=f"the model's process {first} died"):
        runtime.embed(texts_of(runtime, "die"))
    np.testing.assert_array_equal(runtime.embed(texts_of(runtime, "one")), before)
    assert runtime.pid != first
    assert runtime.restarts == restarts + 1
    assert is_gone(first)


def test_a_process_killed_while_idle_is_replaced_before_the_next_batch(runtime):
    before = runtime.embed(texts_of(runtime, "one"))
    first, restarts = runtime.pid, runtime.restarts
    os.kill(first, signal.SIGKILL)
    until(lambda: runtime.lost)
    np.testing.assert_array_equal(runtime.embed(texts_of(runtime, "one")), before)
    assert runtime.restarts == restarts + 1


def test_a_hung_process_is_killed_and_replaced(runtime):
    first = runtime.pid
    with pytest.raises(ModelLostError, match=r"did not finish 1 texts in batch_timeout_s = 2 s") as caught:
        runtime.embed(texts_of(runtime, "hang"))
    assert caught.value.fatal
    assert runtime.embed(texts_of(runtime, "one")).shape == (1, runtime.dimension)
    assert is_gone(first)


def test_an_exception_in_the_process_is_one_here_and_leaves_it_running(runtime):
    restarts = runtime.restarts
    with pytest.raises(RuntimeError, match="secret details"):
        runtime.embed(texts_of(runtime, "fail"))
    runtime.embed(texts_of(runtime, "one"))
    assert runtime.restarts == restarts


@pytest.mark.slow
def test_only_the_text_that_kills_the_process_gets_an_error(make_runtime):
    runtime = make_runtime(workers=2)
    encoder = Encoder(open_model_folder(BUNDLED), runtime)
    groups = [[f"word {i}", f"other word {i}"] for i in range(8)]
    groups[5][1] = "die"

    async def run() -> list[Any]:
        scheduler = Scheduler(encoder, SchedulerOptions(batch_tokens=64))
        scheduler.start()
        tasks = [asyncio.create_task(scheduler.encode(texts, EncodeOptions())) for texts in groups]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(scheduler.close, 5)
        return outcomes

    outcomes = asyncio.run(run())
    culprit = outcomes.pop(5)
    assert isinstance(culprit, ModelFailedError)
    assert culprit.message == "the model died on input[1]"
    del groups[5]
    own = load_encoder()
    for texts, outcome in zip(groups, outcomes, strict=True):
        np.testing.assert_array_equal(outcome.vectors, own.encode(texts))
    assert 2 <= runtime.restarts <= 8


def test_a_folder_that_cannot_be_opened_is_the_same_error_as_without_a_process(tmp_path):
    folder = open_model_folder(small_model(tmp_path / "broken"))
    runtime = IsolatedRuntime(folder, STATIC)
    weights = next(folder.path.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    os.kill(runtime.pid, signal.SIGKILL)
    with pytest.raises(ModelLostError):
        runtime.embed(texts_of(runtime, "one"))
    with pytest.raises(ModelLostError, match=r"cannot be started: .*cannot be read") as caught:
        runtime.embed(texts_of(runtime, "one"))
    assert isinstance(caught.value.__cause__, ModelError)
    runtime.close()


def test_the_process_ends_with_its_server_even_if_that_is_killed(tmp_path):
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from embedsvc.model_folder import open_model_folder\n"
        "from embedsvc.runtime import RuntimeOptions\n"
        "from embedsvc.scheduling.isolated import IsolatedRuntime\n"
        f"folder = open_model_folder(Path({str(small_model(tmp_path / 'model'))!r}))\n"
        "runtime = IsolatedRuntime(folder, RuntimeOptions('static'))\n"
        "print(runtime.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    assert not is_gone(pid)
    server.kill()
    server.wait()
    server.stdout.close()
    until(lambda: is_gone(pid))
