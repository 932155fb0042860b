"""Two processes, started by torchrun, learn what one learns; they stop together and one can go on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder  # noqa: E402
from tests.training.cloned import RECIPE, write_cloned_pairs  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.processes import average_rows  # noqa: E402
from training.trainer import train  # noqa: E402

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "training"]
STATIC = "dimension = 32\nmatryoshka = [8]\nngrams = 2"
FRESH = "fresh = {layers = 1, hidden = 32, heads = 2, dropout = 0.0}\nmatryoshka = [8]"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_cloned_pairs(tmp_path / "pairs.tsv", sentences=300)
    return tmp_path


def write_recipe(data: Path, *, model: str, steps: int, learning_rate: float, batch: int = 64) -> Path:
    text = RECIPE.format(steps=steps, learning_rate=learning_rate).replace("batch = 128", f"batch = {batch}")
    text = text.replace("dimension = 32\nmatryoshka = [8, 16]", model)
    text = text.replace("held_out_groups = 100", "held_out_groups = 20")
    text = text.replace("token_dropout = 0.1", 'token_dropout = 0.1\npositives = "group"')
    (data / "recipe.toml").write_text(text)
    return data / "recipe.toml"


def share_tokenizer(one: Path, other: Path) -> None:
    """Two trainings of a tokenizer differ a little."""
    (other / "run").mkdir(parents=True)
    shutil.copy(one / "run" / "tokenizer.json", other / "run")


def vectors(out: Path, data: Path) -> NDArray[np.float32]:
    """Adam makes a step of any gradient, be it rounding: weights that change no vector may differ."""
    lines = (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()[:200]
    return load_encoder(out).encode([line.split("\t")[2] for line in lines])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "learning_rate"), [(STATIC, 0.02), (FRESH, 0.002)])
def test_two_processes_learn_what_one_learns(data: Path, model: str, learning_rate: float) -> None:
    path = write_recipe(data, model=model, steps=4, learning_rate=learning_rate)
    train(read_recipe(path), data / "one", data, progress=False)
    share_tokenizer(data / "one", data / "two")
    command = [*TORCHRUN, str(path), "--out", str(data / "two"), "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert (done.stdout + done.stderr).count("wrote ") == 1, "one process speaks for both"
    share_tokenizer(data / "one", data / "half")
    half = write_recipe(data, model=model, steps=4, learning_rate=learning_rate, batch=32)
    train(read_recipe(half), data / "half", data, progress=False)
    one, two, other = (vectors(data / name, data) for name in ("one", "two", "half"))
    assert np.abs(one - two).max() < 1e-3
    assert np.abs(one - other).max() > 1e-2, "the comparison can fail"


@pytest.mark.slow
def test_processes_stop_together_and_one_goes_on(data: Path) -> None:
    path = write_recipe(data, model=STATIC, steps=400, learning_rate=0.02)
    command = [*TORCHRUN, str(path), "--out", str(data / "two"), "--no-progress"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoint = data / "two" / "run" / "checkpoint.pt"
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    step = torch.load(checkpoint)["step"]
    assert process.returncode != 0
    assert 20 <= step < 400
    assert f"embedsvc: stopped at step {step} of 400; the same command goes on" in output
    train(read_recipe(path), data / "two", data, progress=False)
    lines = [json.loads(line) for line in (data / "two/run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == sorted({*range(10, 401, 10)})
    assert lines[-1]["held_out_accuracy"] > 0.9


def test_rows_of_one_process_stay_as_they_are() -> None:
    rows, gradients = torch.tensor([3, 5]), {"vector": torch.ones(2, 4)}
    assert average_rows(rows, gradients) == (rows, gradients)
