"""Runs on unlabelled texts with a momentum queue: they learn, for both students, and resume bit for bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder  # noqa: E402
from embedsvc.errors import InvalidInputError  # noqa: E402
from tests.training.cloned import write_mixed_texts  # noqa: E402
from tests.training.resuming import assert_resumed_like_uninterrupted  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.evaluation.tatoeba import accuracies  # noqa: E402
from training.losses.pairs import MomentumKeys  # noqa: E402
from training.momentum import MomentumQueue  # noqa: E402
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
momentum = 0.5
[schedule]
steps = {steps}
batch = 64
learning_rate = {rate}
warmup_steps = 10
checkpoint_every = 4
threads = 1
"""
STATIC = "dimension = 32\nmatryoshka = [16]"
FRESH = "fresh = { layers = 1, hidden = 32, heads = 2, dropout = 0.1 }"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_mixed_texts(folder, words=80, about=4, length=80)
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
    model = trained(data, tmp_path, STATIC, steps=150, rate=0.1)
    assert translations_found(model, data) >= 95
    metrics = [json.loads(line) for line in (model / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["held_out_accuracy"] > 0.5
    report = json.loads((model / "run" / "data.json").read_text())
    assert report["texts"] == 1500
    assert report["languages"] == {"mixed": 1500}


def test_without_negatives_nothing_is_learnt(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = MomentumQueue.ranked

    def without_negatives(queue: MomentumQueue, *inputs: Any) -> MomentumKeys:
        keys = ranked(queue, *inputs)
        return replace(keys, relations=keys.relations.clamp(min=0))

    monkeypatch.setattr(MomentumQueue, "ranked", without_negatives)
    assert translations_found(trained(data, tmp_path, STATIC, steps=100, rate=0.1), data) < 5


@pytest.mark.slow
def test_a_transformer_learns_from_crops_too(data: Path, tmp_path: Path) -> None:
    assert translations_found(trained(data, tmp_path, FRESH, steps=300, rate=0.003), data) >= 90


@pytest.mark.parametrize("model", [STATIC, pytest.param(FRESH, marks=pytest.mark.slow)])
def test_queue_and_copy_go_on_bit_for_bit(
    data: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(written(tmp_path, model, steps=8, rate=0.01))
    state = assert_resumed_like_uninterrupted(recipe, data, tmp_path, monkeypatch)["objective"]
    assert int(state["momentum.place"]) == 8 * 64 % 512
    assert (state["momentum.keys"] >= 0).all()
    assert any(name.startswith("momentum.copy.") for name in state)


def test_a_recipe_of_texts_is_checked(data: Path, tmp_path: Path) -> None:
    path = written(tmp_path, STATIC, steps=5, rate=0.1)
    text = path.read_text()
    for old, new, message in (
        ("held_out_groups", 'pairs = ["x.tsv"]\nheld_out_groups', "give pairs, texts or lists"),
        ("token_dropout = 0.1", "crops = [0.5, 0.1]", r"crops = \[0\.5, 0\.1\]"),
        ("[schedule]", "[teacher]\nmodel = 'x'\n[schedule]", "needs data.pairs"),
        ("batch = 64", "batch = 6400", "is more than the 1500 texts"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(InvalidInputError, match=message):
            train(read_recipe(path), tmp_path / "model", data, progress=False)
