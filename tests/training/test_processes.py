"""Two processes, started by torchrun, learn what one learns; they stop together and one can go on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from tests.training.cloned import RECIPE, write_cloned_pairs  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.processes import average_rows  # noqa: E402
from training.trainer import train  # noqa: E402

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "training"]
FRESH = 'fresh = {layers = 1, hidden = 32, heads = 2, dropout = 0.0}\nmatryoshka = [8]\npooling = "cls"'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_cloned_pairs(tmp_path / "pairs.tsv", sentences=300)
    return tmp_path


def write_recipe(data: Path, *, model: str, steps: int, learning_rate: float) -> Path:
    text = RECIPE.format(steps=steps, learning_rate=learning_rate).replace("batch = 128", "batch = 64")
    text = text.replace("dimension = 32\nmatryoshka = [8, 16]", model)
    text = text.replace("held_out_groups = 100", "held_out_groups = 20")
    text = text.replace("token_dropout = 0.1", 'token_dropout = 0.1\npositives = "group"')
    (data / "recipe.toml").write_text(text + "\n" + "[[losses]]\nkind = 'koleo'\nweight = 0.1\n")
    (data / "recipe.toml").write_text(
        (data / "recipe.toml").read_text().replace("[loss]", "[[losses]]\nkind = 'translation_ranking'")
    )
    return data / "recipe.toml"


def share_tokenizer(one: Path, other: Path) -> None:
    """Two trainings of a tokenizer differ a little."""
    (other / "run").mkdir(parents=True)
    shutil.copy(one / "run" / "tokenizer.json", other / "run")


def state(out: Path) -> dict[str, "torch.Tensor"]:
    loaded: dict[str, torch.Tensor] = torch.load(out / "run" / "checkpoint.pt")["model"]
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "learning_rate"), [("dimension = 32\nmatryoshka = [8]", 0.02), (FRESH, 0.002)]
)
def test_two_processes_learn_what_one_learns(data: Path, model: str, learning_rate: float) -> None:
    path = write_recipe(data, model=model, steps=8, learning_rate=learning_rate)
    train(read_recipe(path), data / "one", data, progress=False)
    share_tokenizer(data / "one", data / "two")
    command = [*TORCHRUN, str(path), "--out", str(data / "two"), "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    assert (done.stdout + done.stderr).count("wrote ") == 1, "one process speaks for both"
    one, two = state(data / "one"), state(data / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=1e-3, atol=2e-5), name
    lines = [(data / name / "run" / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[json.loads(line).get("held_out_accuracy") for line in each] for each in lines]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_processes_stop_together_and_one_goes_on(data: Path) -> None:
    path = write_recipe(data, model=FRESH, steps=60, learning_rate=0.002)
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
    assert 20 <= step < 60
    assert f"embedsvc: stopped at step {step} of 60; the same command goes on" in output
    share_tokenizer(data / "two", data / "one")
    train(read_recipe(path), data / "two", data, progress=False)
    train(read_recipe(path), data / "one", data, progress=False)
    one, two = state(data / "one"), state(data / "two")
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 2e-3


def test_rows_of_one_process_stay_as_they_are() -> None:
    rows, gradients = torch.tensor([3, 5]), {"vector": torch.ones(2, 4)}
    assert average_rows(rows, gradients) == (rows, gradients)
