"""Whole runs on cloned languages: they learn, resume bit for bit, and stop when the loss breaks."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder  # noqa: E402
from embedsvc.errors import EmbedsvcError, InvalidInputError, NotFoundError  # noqa: E402
from tests.training.cloned import RECIPE, write_cloned_pairs  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.evaluation.tatoeba import accuracies  # noqa: E402
from training.static_model import StaticTable  # noqa: E402
from training.trainer import train  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloned")
    write_cloned_pairs(folder / "pairs.tsv")
    write_recipe(folder / "recipe.toml")
    return folder


def write_recipe(path: Path, *, steps: int = 150, learning_rate: float = 0.02, extra: str = "") -> Path:
    path.write_text(RECIPE.format(steps=steps, learning_rate=learning_rate) + extra, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "model"
    return train(read_recipe(data / "recipe.toml"), out, data, progress=False)


def test_a_run_learns_unseen_sentences_of_cloned_languages(trained: Path) -> None:
    metrics = [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = [m["held_out_accuracy"] for m in metrics if "held_out_accuracy" in m]
    losses = [m["loss"] for m in metrics if "loss" in m]
    assert accuracy[-1] > 0.95
    assert losses[-1] < losses[0] / 3


def test_the_server_side_opens_the_folder_and_prefixes_work(trained: Path, data: Path) -> None:
    encoder = load_encoder(trained)
    lines = [line.split("\t") for line in (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    english, clones = [a for a, _, _ in lines if a][:200], [c for a, _, c in lines if a][:200]
    for dimensions in (32, 16):
        x = encoder.encode(english, dimensions=dimensions)
        y = encoder.encode(clones, dimensions=dimensions)
        assert np.linalg.norm(x, axis=1) == pytest.approx(np.ones(200), abs=1e-5)
        assert min(accuracies(x, y)) > 90


def test_a_killed_run_goes_on_to_the_same_bytes(data: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    (out / "run").mkdir(parents=True)
    # The tokenizers library breaks ties between merges at random: both runs start from the same one.
    shutil.copy(trained / "run" / "tokenizer.json", out / "run")
    command = [sys.executable, "-c", _RUN, str(data / "recipe.toml"), str(out), str(data)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    checkpoint = out / "run" / "checkpoint.pt"
    assert 0 < torch.load(checkpoint)["step"] < 150
    train(read_recipe(data / "recipe.toml"), out, data, progress=False)
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


# A run that is killed as soon as its first checkpoint is there.
_RUN = """
import os, signal, sys
from pathlib import Path
from training.config import read_recipe
from training.learner import Learner
from training.trainer import train
save = Learner.checkpoint
def save_and_die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
Learner.checkpoint = save_and_die
train(read_recipe(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), progress=False)
"""


def test_held_out_sentences_are_not_trained_on(tmp_path: Path) -> None:
    """One word each, so that nothing but the sentence itself teaches its translation."""
    write_cloned_pairs(tmp_path / "pairs.tsv", sentences=400, words=400, shortest=1, longest=1, unique=True)
    recipe = read_recipe(write_recipe(tmp_path / "recipe.toml", steps=200))
    metrics = (
        train(recipe, tmp_path / "model", tmp_path, progress=False) / "run" / "metrics.jsonl"
    ).read_text()
    logged = [json.loads(line) for line in metrics.splitlines()]
    assert logged[-1]["held_out_accuracy"] < 0.3
    assert [m["loss"] for m in logged if "loss" in m][-1] < 3


def test_token_weights_are_folded_into_the_table() -> None:
    table = StaticTable(3, 2, seed=1, token_share=np.array([0.5, 0.4, 0.1]))
    expected = table.vector.numpy() * np.exp(table.log_weight.numpy())[:, None]
    assert table.folded() == pytest.approx(expected)
    ratio = np.linalg.norm(table.folded(), axis=1) / np.linalg.norm(table.vector.numpy(), axis=1)
    assert ratio == pytest.approx([0.001 / 0.501, 0.001 / 0.401, 0.001 / 0.101])


@pytest.mark.slow
def test_an_interrupt_saves_the_step_in_work_and_says_where_it_goes_on(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", steps=5000)
    out = tmp_path / "model"
    command = [sys.executable, "-m", "embedsvc", "train", str(recipe), "--data", str(data), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(out / "run" / "checkpoint.pt")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    step = torch.load(out / "run" / "checkpoint.pt")["step"]
    assert process.returncode == 1
    assert error.splitlines()[-1] == f"embedsvc: stopped at step {step} of 5000; the same command goes on"
    assert 0 < step < 5000


def wait_for(path: Path, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("held_out_groups = 100", 'languages = ["clone_Latn", "xx"]', "no pairs of 'xx'"),
        ("vocabulary = 1200", "vocabulary = 10", r"tokenizer\.vocabulary = 10 is less than the \d+ single"),
        ("batch = 128", "batch = 100000", r"schedule\.batch = 100000 is more than the 3000 pairs"),
    ],
)
def test_a_recipe_that_does_not_fit_the_data_is_refused(
    data: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write_recipe(tmp_path / "recipe.toml")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidInputError, match=message):
        train(read_recipe(path), tmp_path / "model", data, progress=False)
    assert not (tmp_path / "model").exists(), "the corrected recipe must be able to use the folder"


def test_another_recipe_does_not_take_over_a_run(data: Path, trained: Path, tmp_path: Path) -> None:
    other = write_recipe(tmp_path / "other.toml", steps=151)
    with pytest.raises(InvalidInputError, match="holds a run of another recipe"):
        train(read_recipe(other), trained, data, progress=False)


def test_other_data_does_not_go_on_with_a_run(trained: Path, tmp_path: Path) -> None:
    write_cloned_pairs(tmp_path / "pairs.tsv", seed=9)
    recipe = read_recipe(write_recipe(tmp_path / "recipe.toml"))
    with pytest.raises(InvalidInputError, match="holds a run of other data"):
        train(recipe, trained, tmp_path, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "wild.toml", learning_rate=1e37)
    with pytest.raises(EmbedsvcError, match=r"the loss of batch \d+ is nan"):
        train(read_recipe(recipe), tmp_path / "model", data, progress=False)
    assert not (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("\nlog_evry = 3\n", r"unknown key 'schedule\.log_evry'; did you mean 'log_every'\?"),
        ("\nevaluate_evry = 3\n[colour]\n", "unknown key 'colour'"),
        ("\nlog_every = 1\n", "not valid TOML"),
        ("[[losses]]\nkind = 'koleo'\n", r"one \[loss\] or several \[\[losses\]\], not both"),
        ("[teacher]\nmodel = 'x'\n", "a teacher is given, but no loss learns from it"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_recipe(write_recipe(tmp_path / "recipe.toml", extra=extra))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            "kind = 'destillation'",
            r"losses\.0\.kind = 'destillation' is unknown; did you mean 'distillation'",
        ),
        ("kind = 'cosine'", r"kind = 'cosine' is unknown; known: translation_ranking, .*koleo"),
        ("weight = 2", r"key 'losses\.0\.kind' is missing"),
        ("kind = 'koleo'\nwieght = 2", r"unknown key 'losses\.0\.wieght'; did you mean 'weight'"),
        ("kind = 'distillation'", r"'distillation' needs a teacher: \[teacher\] .* or --teacher"),
        ("kind = 'koleo'\n[[losses]]\nkind = 'koleo'", "koleo, koleo: each kind once"),
    ],
)
def test_a_wrong_loss_is_named(tmp_path: Path, losses: str, message: str) -> None:
    path = write_recipe(tmp_path / "recipe.toml")
    text = path.read_text().replace("[loss]\nscale = 20.0\nmargin = 0.3\n", "")
    path.write_text(text + "[[losses]]\n" + losses + "\n")
    with pytest.raises(InvalidInputError, match=message):
        read_recipe(path)


def test_the_recipes_that_ship_are_valid() -> None:
    recipes = {path.stem: read_recipe(path) for path in Path("training/recipes").glob("*.toml")}
    assert [loss.kind for loss in recipes["bundled"].objective] == ["translation_ranking", "teacher_ranking"]


def test_a_run_without_data_leaves_nothing_in_the_way_of_a_corrected_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe.toml"))
    with pytest.raises(NotFoundError, match=r"no file matches 'pairs\.tsv'"):
        train(recipe, tmp_path / "model", tmp_path, progress=False)
    assert not (tmp_path / "model").exists()


def test_a_value_out_of_range_is_named(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.toml", steps=0)
    with pytest.raises(InvalidInputError, match=r"schedule\.steps = 0: .*greater than 0"):
        read_recipe(path)


def test_the_row_adam_equals_torch_sparse_adam() -> None:
    share = np.full(6, 1 / 6)
    table = StaticTable(6, 3, seed=1, token_share=share)
    bag = torch.nn.EmbeddingBag.from_pretrained(table.vector.clone(), freeze=False, mode="mean", sparse=True)
    table.log_weight.zero_()
    optimiser = torch.optim.SparseAdam(bag.parameters(), lr=0.01)
    target = torch.randn(2, 3, generator=torch.Generator().manual_seed(2))
    for step, ids in enumerate([[0, 1, 1, 4], [4, 2, 0, 0], [1, 1, 1, 5]], 1):
        optimiser.zero_grad()
        ((bag(torch.tensor(ids), torch.tensor([0, 2])) - target) ** 2).sum().backward()
        optimiser.step()
        tokens, positions = np.unique(ids, return_inverse=True)
        ((table.embed(tokens, positions, np.array([0, 2])) - target) ** 2).sum().backward()
        table.log_weight.zero_()
        table.update(step, 0.01)
        table.log_weight.zero_()  # plain vectors only: torch's bag has no token weights
    assert torch.allclose(table.vector, bag.weight.detach(), atol=1e-6)
