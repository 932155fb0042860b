"""Languages that the command adds to a recipe, and models that a run goes on from."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder
from embedsvc.errors import InvalidInputError
from tests.training.cloned import RECIPE, write_cloned_pairs
from training.config import Recipe, read_recipe
from training.evaluation.tatoeba import accuracies
from training.trainer import train


def write_recipe(path: Path, *, steps: int, model: str = "", data: str = "") -> Path:
    text = RECIPE.format(steps=steps, learning_rate=0.02)
    text = text.replace("[model]\n", f"[model]\n{model}").replace("[data]\n", f"[data]\n{data}")
    path.write_text(text, encoding="utf-8")
    return path


def test_added_languages_stand_behind_the_pairs_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_recipe(tmp_path / "a.toml", steps=1, data='languages = ["de"]\n')
    recipe = read_recipe(path, add_languages=["kk=new/kk.tmx", "yo=a.en,a.yo"])
    added = [(part.files, part.target_files, part.target_language) for part in recipe.data.pairs]
    assert added == [
        ("pairs.tsv", None, None),
        (f"{tmp_path}/new/kk.tmx", None, "kk"),
        (f"{tmp_path}/a.en", f"{tmp_path}/a.yo", "yo"),
    ]
    assert recipe.data.languages == ["de", "kk", "yo"]
    alone = tmp_path / "b.toml"
    alone.write_text('name = "b"\n[schedule]\nsteps = 1\n')
    assert len(read_recipe(alone, add_languages=["kk=kk.tsv"]).data.pairs) == 1


@pytest.mark.parametrize("text", ["pairs.tsv", "=pairs.tsv", "kk=", "kk=a,", "kk=a,b,c"])
def test_an_added_language_that_is_no_such_thing_is_refused(tmp_path: Path, text: str) -> None:
    path = write_recipe(tmp_path / "a.toml", steps=1)
    with pytest.raises(InvalidInputError, match=f"--add-language '{text}': expected xx=FILE"):
        read_recipe(path, add_languages=[text])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows one of the cloned languages, and the pairs of both."""
    folder = tmp_path_factory.mktemp("start")
    write_cloned_pairs(folder / "all.tsv", sentences=700, words=120)
    lines = [line.split("\t") for line in (folder / "all.tsv").read_text(encoding="utf-8").splitlines()]
    english = [lines[row - row % 2][0] for row in range(len(lines))]
    for code, name in (("clone_Latn", "pairs.tsv"), ("klon_Cyrl", "new.tsv")):
        pairs = [f"{x}\t{y}\n" for x, (_, of, y) in zip(english, lines, strict=True) if of == code]
        (folder / name).write_text("".join(pairs), encoding="utf-8")
    # A few sentences of the other language, so that its letters are in the tokenizer.
    few = (folder / "new.tsv").read_text(encoding="utf-8").splitlines(keepends=True)[:60]
    (folder / "few.tsv").write_text("".join(few), encoding="utf-8")
    recipe = write_recipe(folder / "first.toml", steps=60)
    recipe.write_text(recipe.read_text().replace('pairs = ["pairs.tsv"]', ""), encoding="utf-8")
    added = [f"clone_Latn={folder}/pairs.tsv", f"klon_Cyrl={folder}/few.tsv"]
    train(read_recipe(recipe, add_languages=added), folder / "model", folder, progress=False)
    return folder


def sides(folder: Path, name: str) -> tuple[list[str], list[str]]:
    lines = [line.split("\t") for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    distinct = dict(lines)
    return [*distinct], [*distinct.values()]


def continued(folder: Path, *, steps: int, model: str) -> Recipe:
    path = write_recipe(folder / "next.toml", steps=steps, model=model)
    path.write_text(path.read_text().replace('pairs = ["pairs.tsv"]', ""), encoding="utf-8")
    return read_recipe(path, add_languages=[f"klon_Cyrl={folder}/new.tsv"])


def test_a_run_goes_on_from_a_static_model_and_learns_another_language(started: Path, tmp_path: Path) -> None:
    recipe = continued(started, steps=80, model=f'start = "{started}/model"\n')
    before = load_encoder(started / "model")
    after = load_encoder(train(recipe, tmp_path / "model", started, progress=False))
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (
        started / "model" / "tokenizer.json"
    ).read_bytes()
    x, y = sides(started, "new.tsv")
    figures = [
        min(accuracies(*(encoder.encode(texts[:150]) for texts in (x, y)))) for encoder in (before, after)
    ]
    assert figures[0] < 60 < 90 < figures[1]


def test_without_a_step_to_speak_of_the_model_is_the_one_it_started_from(
    started: Path, tmp_path: Path
) -> None:
    recipe = continued(started, steps=1, model=f'start = "{started}/model"\n')
    near = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"learning_rate": 1e-9})})
    model = train(near, tmp_path / "model", started, progress=False)
    texts = sides(started, "pairs.tsv")[1][:20]
    expected = load_encoder(started / "model").encode(texts)
    assert load_encoder(model).encode(texts) == pytest.approx(expected, abs=0.02)
    assert json.loads((model / "run" / "start.json").read_text())["fingerprint"]


def test_a_start_of_another_dimension_is_refused(started: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "a.toml", steps=1, model=f'start = "{started}/model"\n')
    path.write_text(path.read_text().replace("dimension = 32", "dimension = 48"))
    path.write_text(path.read_text().replace('pairs = ["pairs.tsv"]', ""))
    recipe = read_recipe(path, add_languages=[f"klon_Cyrl={started}/new.tsv"])
    with pytest.raises(InvalidInputError, match=r"has 32 dimensions; set model\.dimension = 32, not 48"):
        train(recipe, tmp_path / "model", started, progress=False)


def test_a_run_is_repeated_to_the_same_bytes_from_what_its_folder_holds(
    started: Path, tmp_path: Path
) -> None:
    """The recipe as it was, and the tokenizer, whose training is not repeatable."""
    values = json.loads((started / "model" / "run" / "recipe.json").read_text())
    values["tokenizer"]["file"] = str(started / "model" / "run" / "tokenizer.json")
    (tmp_path / "again.json").write_text(json.dumps(values))
    again = train(read_recipe(tmp_path / "again.json"), tmp_path / "model", started, progress=False)
    assert np.array_equal(
        np.fromfile(again / "model.safetensors", np.uint8),
        np.fromfile(started / "model" / "model.safetensors", np.uint8),
    )
