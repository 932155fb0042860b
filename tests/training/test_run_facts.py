"""What a run folder says of a run, and what it refuses to go on with, by name."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import BUNDLED
from training import run_facts
from training.config import Recipe, read_recipe
from training.preparation import prepare
from training.run_facts import check_files, environment, keep_environment, keep_facts, keep_recipe


def recipe(**sections: Any) -> Recipe:
    values = {"name": "a", "data": {"pairs": ["a.tsv"]}, "schedule": {"steps": 10}, **sections}
    return Recipe.model_validate(values)


def facts(**sizes: int) -> list[dict[str, Any]]:
    return [{"name": name, "size_bytes": size, "sha256": str(size)} for name, size in sizes.items()]


def test_another_recipe_is_refused_by_the_keys_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "model" / "run" / "recipe.json"
    keep_recipe(recipe(), path)
    keep_recipe(recipe(), path)
    other = recipe(schedule={"steps": 20}, sampling={"batches": "one_language"})
    with pytest.raises(
        InvalidInputError,
        match=r"model holds a run of another recipe: sampling\.batches was 'mixed', now 'one_language', "
        r"schedule\.steps was 10, now 20; choose another --out",
    ):
        keep_recipe(other, path)
    assert read_recipe(path) == recipe(), "embedsvc train reads the recipe of a run"


def test_keys_that_are_newer_than_the_run_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    old = {"name": "a", "seed": 1, "data": {"pairs": ["a.tsv"]}, "schedule": {"steps": 10}}
    path.write_text(json.dumps(old))
    keep_recipe(recipe(), path)
    path.write_text(json.dumps({**old, "colour": 1}))
    with pytest.raises(InvalidInputError, match="another recipe: it cannot be read by this version"):
        keep_recipe(recipe(), path)


def test_changed_missing_and_new_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model" / "run" / "data.json"
    check_files(facts(a=1), path)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"files": facts(a=1, b=2, c=3)}))
    check_files(facts(c=3, b=2, a=1), path)
    with pytest.raises(InvalidInputError, match="of other data: b changed, a is no longer there, d is new;"):
        check_files(facts(b=5, c=3, d=4), path)


def test_other_facts_are_named_with_both_values(tmp_path: Path) -> None:
    keep_facts("teacher", {"fingerprint": "x"}, tmp_path / "teacher.json")
    with pytest.raises(InvalidInputError, match="of another teacher: fingerprint was 'x', now 'y'"):
        keep_facts("teacher", {"fingerprint": "y"}, tmp_path / "teacher.json")


def test_an_environment_is_added_when_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "environment.json"
    keep_environment(path)
    keep_environment(path)
    monkeypatch.setattr(run_facts, "environment", lambda: {"python": "4.0"})
    keep_environment(path)
    first, second = json.loads(path.read_text())
    assert second == {"python": "4.0"}
    assert {"torch", "numpy", "tokenizers"} <= first["packages"].keys()
    assert first["threads"] >= 1
    assert set(first) == set(environment())


def test_an_english_teacher_is_not_given_texts_of_other_languages(tmp_path: Path) -> None:
    lines = ["Yes\tJa\ten\tde", "Ja\tOui\tde\tfr", "No\tNon\ten\tfr"]
    header = "src\ttgt\tsrc_lang\ttgt_lang\n"
    (tmp_path / "a.tsv").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    taught = recipe(
        schedule={"steps": 1, "batch": 2},
        losses=[{"kind": "distillation"}],
        teacher={"model": str(BUNDLED), "projection": "learned"},
    )
    with pytest.raises(InvalidInputError, match=r"no English one: de-fr 1; set teacher\.multilingual = true"):
        prepare(taught, tmp_path / "run", tmp_path, progress=False)
