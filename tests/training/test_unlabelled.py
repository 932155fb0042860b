"""Runs on unlabelled texts with a momentum queue: they learn, for both students, and resume bit for bit."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder  # noqa: E402
from tests.training.cloned import write_mixed_texts  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.evaluation.tatoeba import accuracies  # noqa: E402
from training.trainer import train  # noqa: E402

RECIPE = """
name = "crops"
seed = 3
[data]
texts = ["mixed.txt"]
held_out_groups = 100
[tokenizer]
vocabulary = 600
[sampling]
token_dropout = 0.1
[model]
{model}
[loss]
kind = "momentum_ranking"
queue = 512
momentum = 0.9
[schedule]
steps = {steps}
batch = 32
learning_rate = {rate}
warmup_steps = 10
checkpoint_every = 20
threads = 1
"""
STATIC = "dimension = 32\nmatryoshka = [16]"
FRESH = "fresh = { layers = 1, hidden = 32, heads = 2, dropout = 0.1 }"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_mixed_texts(folder)
    return folder


def written(folder: Path, model: str, *, steps: int, rate: float) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=model, steps=steps, rate=rate), encoding="utf-8")
    return path


def trained(data: Path, folder: Path, model: str, *, steps: int, rate: float) -> Path:
    recipe = read_recipe(written(folder, model, steps=steps, rate=rate))
    return train(recipe, folder / "model", data, progress=False)


def translations_found(model: Path, data: Path) -> float:
    """Return the percentage of sentences that find their translation, which no text shows."""
    encoder = load_encoder(model)
    lines = [line.split("\t") for line in (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    return min(accuracies(*(encoder.encode(list(side)) for side in zip(*lines, strict=True))))


def test_a_static_student_learns_what_words_mean_from_crops_alone(data: Path, tmp_path: Path) -> None:
    model = trained(data, tmp_path, STATIC, steps=150, rate=0.03)
    assert translations_found(model, data) >= 95
    metrics = [json.loads(line) for line in (model / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["held_out_accuracy"] > 0.5
    report = json.loads((model / "run" / "data.json").read_text())
    assert report["texts"] == 1500
    assert report["languages"] == {"mixed": 1500}
