"""What breaks under a real server: its model, its files, its memory, too much work. It recovers by itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from embedsvc.model_folder import BUNDLED
from tests.server.conftest import error_of
from tests.server.processes import TestedServer, obedient, small, until
from tests.server_process import MAIN, ROOT, clean_environment

# The wait that is expected is learnt from batches, also from those that died: here it refuses nothing.
PROCESS = ("--isolation", "process", "--batch-timeout-s", "3", "--max-queue-s", "1000")
LARGE = "word " * 200_000  # more than fits between two processes at once
WEIGHTS = "model.safetensors"


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., TestedServer]]:
    with ExitStack() as stack:

        def make(*options: str, limits: dict[int, int] | None = None) -> TestedServer:
            data = ["--data-dir", str(tmp_path / "data")]
            server = TestedServer(*data, *options, variables=obedient(tmp_path), limits=limits)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestedServer]:
    """The model runs in a process of its own; it is well at the end of every test."""
    folder = tmp_path_factory.mktemp("isolated")
    server = TestedServer(*small(folder), *PROCESS, variables=obedient(folder))
    yield server
    pids = server.model_pids()
    status, _, log = server.stop()
    assert status == 0
    assert "internal error" not in log
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestedServer]:
    """The model runs in the server's process, eight words at a time."""
    folder = tmp_path_factory.mktemp("shared")
    limits = ["--batch-tokens", "8", "--max-queue-texts", "256", "--max-batch-texts", "256"]
    server = TestedServer(*small(folder), *limits, variables=obedient(folder))
    yield server
    assert server.stop()[0] == 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return copy_of_bundled(tmp_path / "model")


def copy_of_bundled(path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, path))


def weights_of(folder: Path) -> Path:
    return next(folder.rglob(WEIGHTS))


# The model's process


def test_one_text_that_fails_is_named_and_the_rest_is_served(isolated):
    for word, message in [
        ("fail", "the model failed to encode input[1]"),
        ("eat", "the model failed to encode input[1]"),
        ("nan", "the model gave a vector that is not finite for input[1]"),
        ("die", "the model died on input[1]"),
    ]:
        with ThreadPoolExecutor(8) as pool:
            bad = pool.submit(isolated.embed, "one", word)
            others = list(pool.map(isolated.embed, [f"other {i}" for i in range(7)]))
        error = error_of(bad.result(), 500, "model_failed")
        assert (error["message"], error["param"]) == (message, "input")
        assert {other.status_code for other in others} == {200}
        assert isolated.get("/ready").status_code == 200


RESTARTS = 'embedsvc_model_restarts{model="embedsvc-default"}'


def test_a_model_killed_while_idle_costs_no_request(isolated):
    assert isolated.embed("one").status_code == 200
    before = isolated.metric(RESTARTS)
    isolated.signal_model(signal.SIGKILL)
    assert isolated.embed("one").status_code == 200
    killed = isolated.signal_model(signal.SIGKILL)
    assert isolated.get("/ready").status_code == 200  # which has started it anew
    (pid,) = isolated.model_pids()
    assert pid != killed
    assert isolated.metric(RESTARTS) == before + 2


def test_a_model_killed_while_busy_costs_no_request(isolated):
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(isolated.embed, *["slow"] * 20) for _ in range(2)]
        time.sleep(0.1)
        isolated.signal_model(signal.SIGKILL)
        assert [response.result().status_code for response in busy] == [200, 200]


@pytest.mark.parametrize("text", [pytest.param("one", marks=pytest.mark.slow), LARGE], ids=["small", "large"])
def test_a_stopped_model_is_replaced(isolated, text):
    isolated.signal_model(signal.SIGSTOP)
    error = error_of(isolated.embed(text), 503, "model_lost")
    assert error["message"] == (
        "the model did not finish 1 texts in batch_timeout_s = 3 s; it is started anew"
    )
    assert isolated.embed(text).status_code == 200
    assert isolated.get("/ready").status_code == 200


@pytest.mark.slow
def test_twenty_deaths_under_load_are_survived(isolated):
    statuses: set[tuple[int, str]] = set()
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            response = isolated.embed("one", "two", "slow")
            code = "" if response.status_code == 200 else response.json()["error"]["code"]
            statuses.add((response.status_code, code))

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(load) for _ in range(4)]
        for _ in range(20):
            until(lambda: isolated.embed("one").status_code == 200)
            isolated.signal_model(signal.SIGKILL)
        over.set()
        for worker in workers:
            worker.result()
    assert (200, "") in statuses
    assert statuses <= {(200, ""), (500, "model_failed"), (503, "model_lost")}
    assert isolated.embed("one").status_code == 200
    assert isolated.get("/ready").status_code == 200


@pytest.mark.slow
def test_without_memory_only_the_large_request_fails(isolated):
    isolated.signal_model(signal.SIGKILL)  # a fresh one has no memory to use again
    assert isolated.embed("one").status_code == 200
    (pid,) = isolated.model_pids()
    data = int(Path(f"/proc/{pid}/statm").read_text().split()[5]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_DATA, (data + (1 << 20),) * 2)
    with ThreadPoolExecutor(2) as pool:
        large, small = pool.submit(isolated.embed, LARGE), pool.submit(isolated.embed, "one")
        assert large.result().json()["error"]["code"] in ("model_failed", "model_lost")
        assert small.result().status_code == 200
    if isolated.embed("one").status_code == 200 and isolated.model_pids() == [pid]:
        isolated.signal_model(signal.SIGKILL)
    assert isolated.embed(LARGE).status_code == 200


@pytest.mark.slow
def test_a_model_whose_folder_is_gone_is_unavailable_until_it_is_back(make_server, model):
    server = make_server("--model", str(model), *PROCESS)
    assert server.embed("one").status_code == 200
    (card,) = server.get("/v1/models").json()["data"]
    away = model.rename(model.with_name("away"))
    server.signal_model(signal.SIGKILL)
    error = error_of(server.get("/ready"), 503, "unavailable")
    assert "the model's process cannot be started" in error["message"]
    for _ in range(20):  # at once: a start is not tried for each
        error = error_of(server.embed("one"), 503, "model_lost")
        assert "the model's process cannot be started" in error["message"]
    assert server.get("/health").status_code == 200
    assert server.get("/v1/models").json()["data"][0]["fingerprint"] == card["fingerprint"]
    away.rename(model)
    until(lambda: server.get("/ready").status_code == 200)
    assert server.embed("one").status_code == 200


# The model's files


@pytest.mark.slow
def test_broken_model_folders_stop_the_start_with_one_line(tmp_path):
    def without(name: str) -> Callable[[Path], None]:
        return lambda folder: next(folder.rglob(name)).unlink()

    def cut(folder: Path) -> None:
        weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:100_000])

    def garble(folder: Path) -> None:
        (folder / "modules.json").write_text("[{")

    cases = {
        "weightless": (without(WEIGHTS), "is missing"),
        "half": (cut, "cannot be read: "),
        "garbled": (garble, "cannot be read as JSON: "),
        "wordless": (without("tokenizer.json"), "is missing"),
    }
    starts = {}
    for name, (damage, _) in cases.items():
        damage(copy_of_bundled(tmp_path / name))
        options = ["--port", "0", "--data-dir", str(tmp_path / "data"), "--log-level", "warning"]
        starts[name] = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", "--model", str(tmp_path / name), *options],
            cwd=ROOT,
            env=clean_environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
    for name, (_, message) in cases.items():
        _, errors = starts[name].communicate(timeout=120)
        assert starts[name].returncode == 1
        assert errors.count("\n") == 1, errors
        assert errors.startswith("embedsvc: ")
        assert f"{tmp_path / name}" in errors
        assert message in errors


@pytest.mark.slow
def test_a_second_model_that_is_broken_fails_its_own_callers_until_it_is_repaired(make_server, model):
    weights = weights_of(model)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100_000])
    server = make_server("--model", f"good={BUNDLED}", "--model", f"bad={model}", "--isolation", "process")
    with ThreadPoolExecutor(16) as pool:
        bad = [pool.submit(server.embed, "one", model="bad") for _ in range(8)]
        good = [pool.submit(server.embed, "one", model="good") for _ in range(8)]
        for response in bad:
            assert "cannot be read" in error_of(response.result(), 500, "model_error")["message"]
        assert {response.result().status_code for response in good} == {200}
    assert sum("loading model bad" in line for line in server.log) <= 8
    error = error_of(server.embed("one", model="ugly"), 404, "model_not_found")
    assert error["message"] == "no model 'ugly'; this server has: good, bad"
    weights.write_bytes(whole)
    assert server.embed("one", model="bad").status_code == 200


@pytest.mark.slow
def test_a_load_goes_on_when_its_caller_gives_up(make_server):
    server = make_server("--model", f"a={BUNDLED}", "--model", f"b={BUNDLED}", *PROCESS)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.url}/v1/embeddings", json={"input": "one", "model": "b"}, timeout=0.1)
    until(lambda: server.metric('embedsvc_model_loaded{model="b"}') == 1)
    assert sum("loading model b" in line for line in server.log) == 1


# The machine's limits


@pytest.mark.slow
def test_without_file_descriptors_those_who_are_connected_are_served(make_server):
    server = make_server(*PROCESS, limits={resource.RLIMIT_NOFILE: 64})
    assert server.embed("one").status_code == 200
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect())
        until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) == 64)  # noqa: PTH208
        assert server.embed("one").status_code == 200
        server.signal_model(signal.SIGKILL)
        assert "Too many open files" in error_of(server.embed("one"), 503, "model_lost")["message"]
        assert server.get("/ready").status_code == 503
    until(lambda: server.get("/ready").status_code == 200)
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.embed("one").status_code == 200


def test_a_full_disk_is_an_error_and_leaves_the_stored_documents(shared):
    server = shared
    url = f"{server.url}/v1/collections/notes/documents"

    def put(number: int) -> httpx.Response:
        documents = [{"id": f"{number}-{i}", "text": f"word {i} " * 50} for i in range(100)]
        return httpx.put(url, json={"documents": documents}, timeout=60)

    assert put(1).json() == {"inserted": 100, "updated": 0}
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (10_000, hard))
    error_of(put(2), 500, "storage_error")
    assert server.embed("one").status_code == 200
    card = httpx.get(f"{server.url}/v1/collections/notes").json()
    assert (card["documents"], card["problem"]) == (100, None)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert put(2).json() == {"inserted": 100, "updated": 0}


# Too much work


@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_ten_times_too_much_work_is_refused_at_once_and_leaves_no_trace(shared, seconds):
    server = shared
    texts = ["slow"] * 128  # more than a second of work, from twenty clients
    end = time.monotonic() + seconds
    answers: list[tuple[int, float]] = []

    def overload() -> None:
        while time.monotonic() < end:
            begin = time.monotonic()
            response = server.embed(*texts)
            answers.append((response.status_code, time.monotonic() - begin))
            if response.status_code == 429:
                assert error_of(response, 429, "overloaded")
                assert 1 <= int(response.headers["retry-after"]) <= 60
                time.sleep(0.05)

    with ThreadPoolExecutor(20) as pool:
        for client in [pool.submit(overload) for _ in range(20)]:
            client.result()
    assert {status for status, _ in answers} == {200, 429}
    refused = sorted(waited for status, waited in answers if status == 429)
    served = sorted(waited for status, waited in answers if status == 200)
    assert refused[len(refused) // 2] < served[len(served) // 2]
    assert server.embed("one").status_code == 200
    for lane in ("interactive", "bulk"):
        assert server.metric(f'embedsvc_queue_texts{{lane="{lane}",model="embedsvc-default"}}') == 0
    assert server.get("/ready").status_code == 200


def test_interactive_requests_wait_for_three_batches_of_bulk_work_at_most(shared):
    server = shared
    count = 'embedsvc_batch_seconds_count{model="embedsvc-default"}'
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(server.embed, *["slow"] * 240)  # 30 batches
        begun = server.metric(count)
        until(lambda: server.metric(count) > begun)
        waited = []
        for _ in range(3):
            before = server.metric(count)
            assert server.embed("one").status_code == 200
            waited.append(server.metric(count) - before)
        assert not bulk.done()
        assert sorted(waited)[1] <= 4  # batches go on while the metrics are asked for
        assert bulk.result().status_code == 200
