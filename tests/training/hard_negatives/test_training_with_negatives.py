"""What mined negatives are for: near twins come apart; without the groups, translations would too."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc.encoder import Encoder, load_encoder  # noqa: E402
from embedsvc.errors import EmbedsvcError, InvalidInputError, NotFoundError  # noqa: E402
from tests.training.cloned import RECIPE  # noqa: E402
from tests.training.near_twins import twins  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.hard_negatives.miner import Models, mine_negatives  # noqa: E402
from training.hard_negatives.options import NegativeOptions  # noqa: E402
from training.sampling import Batch, BatchSampler  # noqa: E402
from training.trainer import train  # noqa: E402
from training.translations import Translations  # noqa: E402

NEGATIVES = 'negatives = "negatives.jsonl"'


def write_recipe(path: Path, *, steps: int, negatives: int = 0) -> Path:
    text = RECIPE.format(steps=steps, learning_rate=0.05).replace("batch = 128", "batch = 32")
    text = text.replace("scale = 20.0", "scale = 40.0").replace("margin = 0.3", "margin = 0.0")
    text = text.replace("held_out_groups = 100", "held_out_groups = 10").replace("[8, 16]", "[8]")
    text = text.replace("vocabulary = 1200", "vocabulary = 4000")
    if negatives:
        text = text.replace("[data]", f"[data]\n{NEGATIVES}")
        text = text.replace("[sampling]", f"[sampling]\nnegatives = {negatives}")
    path.write_text(text, encoding="utf-8")
    return path


def taught(folder: Path, name: str, *, steps: int, negatives: int = 0) -> Encoder:
    recipe = read_recipe(write_recipe(folder / f"{name}.toml", steps=steps, negatives=negatives))
    return load_encoder(train(recipe, folder / name, folder, progress=False))


def mine(folder: Path, encoder: Encoder) -> None:
    """Mine the nearest text of any language, which the untaught model puts before the translation or not."""
    options = NegativeOptions(count=1, anchors="both", languages="any", max_share=1.0)
    mine_negatives([folder / "pairs.tsv"], Models(encoder), folder / "negatives.jsonl", options)


@pytest.mark.slow
def test_mined_negatives_separate_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the group ids the nearest negative is a translation, and nothing is gained."""
    corpus = twins(200)
    corpus.write(tmp_path / "pairs.tsv")
    plain = taught(tmp_path, "plain", steps=300)
    mine(tmp_path, plain)
    mined = corpus.errors(taught(tmp_path, "mined", steps=300, negatives=1))
    assert mined < 0.6 * corpus.errors(plain)
    monkeypatch.setattr(Translations, "known", lambda _, english, other: english == other)
    nothing = np.empty(0, np.int64), np.empty(0, np.int64)
    monkeypatch.setattr(Translations, "among", lambda *_: nothing)
    mine(tmp_path, plain)
    assert corpus.errors(taught(tmp_path, "lost", steps=300, negatives=1)) > 1.7 * mined


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    twins(40).write(folder / "pairs.tsv")
    mine(folder, taught(folder, "plain", steps=20))
    return folder


def test_a_stopped_run_with_negatives_goes_on_to_the_same_bytes(small: Path) -> None:
    recipe = read_recipe(write_recipe(small / "recipe.toml", steps=40, negatives=1))
    train(recipe, small / "whole", small, progress=False)
    (small / "part" / "run").mkdir(parents=True)
    shutil.copy(small / "whole" / "run" / "tokenizer.json", small / "part" / "run")
    drawn = BatchSampler.batch

    def stops(sampler: BatchSampler, step: int) -> Batch:
        if step == 30:
            raise EmbedsvcError("stopped")
        return drawn(sampler, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchSampler, "batch", stops)
        with pytest.raises(EmbedsvcError, match="stopped"):
            train(recipe, small / "part", small, progress=False)
    train(recipe, small / "part", small, progress=False)
    assert (small / "part" / "model.safetensors").read_bytes() == (
        small / "whole" / "model.safetensors"
    ).read_bytes()
    facts = json.loads((small / "part" / "run" / "negatives.json").read_text())
    assert facts["pairs_with_negatives"] > 100
    negatives = small / "negatives.jsonl"
    kept = negatives.read_bytes()
    negatives.write_bytes(kept[: kept.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(InvalidInputError, match="holds a run of another file of hard negatives: sha256 was"):
        train(recipe, small / "part", small, progress=False)
    negatives.write_bytes(kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((NEGATIVES, ""), "give both data.negatives, a file, and sampling.negatives"),
        (("negatives = 1", ""), "give both data.negatives, a file, and sampling.negatives"),
        (('kind = "translation_ranking"', 'kind = "alignment"'), "no loss ranks negatives"),
        (
            ('kind = "translation_ranking"', 'kind = "teacher_ranking"\n[teacher]\nmodel = "some"'),
            "only translation_ranking does",
        ),
    ],
)
def test_a_recipe_that_does_not_use_its_negatives_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = write_recipe(tmp_path / "recipe.toml", steps=10, negatives=1)
    text = path.read_text().replace(
        "[loss]\nscale = 40.0\nmargin = 0.0", '[loss]\nkind = "translation_ranking"'
    )
    path.write_text(text.replace(*change))
    with pytest.raises(InvalidInputError, match=message):
        read_recipe(path)


def test_a_missing_file_of_negatives_is_named(small: Path) -> None:
    path = write_recipe(small / "missing.toml", steps=10, negatives=1)
    path.write_text(path.read_text().replace("negatives.jsonl", "nowhere.jsonl"))
    with pytest.raises(NotFoundError, match=r"no file at .*nowhere\.jsonl"):
        train(read_recipe(path), small / "missing", small, progress=False)


@pytest.mark.slow
def test_a_transformer_learns_from_negatives_in_chunks_as_at_once(small: Path) -> None:
    fresh = "fresh = {layers = 1, hidden = 32, heads = 2, dropout = 0.0}\nmatryoshka = [8]"
    path = write_recipe(small / "fresh.toml", steps=3, negatives=1)
    text = path.read_text().replace("dimension = 32\nmatryoshka = [8]", fresh).replace("0.05", "0.001")
    states = []
    for name, more in (("at-once", ""), ("in-chunks", "chunk = 16\n")):
        path.write_text(text.replace("[schedule]\n", f"[schedule]\n{more}"))
        if states:
            (small / name / "run").mkdir(parents=True)
            shutil.copy(small / "at-once" / "run" / "tokenizer.json", small / name / "run")
        train(read_recipe(path), small / name, small, progress=False)
        states.append(torch.load(small / name / "run" / "checkpoint.pt")["model"])
    weights = [name for name in states[0] if name.startswith("weight.")]
    assert max((states[0][name] - states[1][name]).abs().max().item() for name in weights) < 1e-5
