from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import open_model_folder
from tests.encoders.tiny_models import WORDS, write_json, write_static
from training.card import CardOptions
from training.export import ExportOptions, export_model

TABLE = np.random.default_rng(2).normal(size=(4 + len(WORDS), 8)).astype(np.float32)
README = "---\nlicense: mit\ntags: [old]\nlanguage: fr\n---\n\n# A model\n\nWith its own words: ümlauts.\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_static(tmp_path / "model", {"embedding.weight": TABLE}, WORDS)


def exported(source: Path, tmp_path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    """The front matter and the text of the card of an export."""
    export_model(source, tmp_path / "out", ExportOptions(overwrite=True, **options))
    _, front, text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def report(model: str, fingerprint: str, mean: float | None) -> dict[str, Any]:
    return {
        "task": "tatoeba",
        "protocol": "Accuracy in percent.",
        "model": model,
        "fingerprint": fingerprint,
        "rows": {"deu": {}, "fra": {}},
        "mean": {"mean": mean, "pairs": 1000.0},
        "mean_intervals": {"mean": [mean and mean - 1, mean and mean + 1]},
        "counts": ["pairs"],
    }


def test_the_card_says_what_was_made_and_how_near_it_is(source: Path, tmp_path: Path) -> None:
    front, text = exported(source, tmp_path, dtype="int8", dimensions=4, force_dimensions=True)
    assert front["library_name"] == "embedsvc"
    assert front["pipeline_tag"] == "sentence-similarity"
    assert {"sentence-similarity", "embedsvc"} <= set(front["tags"])
    assert "# model\n" in text
    assert f"| made from | model (fingerprint `{open_model_folder(source).fingerprint}`) |" in text
    assert "| files | static int8 |\n| dimensions | 4 |\n| size | 0.0 MB |" in text
    assert "| cosine of static int8 to the source | 0.99" in text
    assert "- cut to its first 4 of 8 dimensions" in text


def test_the_sources_own_words_stay_and_ours_are_replaced(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text(README, encoding="utf-8")
    front, _ = exported(source, tmp_path)
    assert (front["license"], front["language"], front["tags"][0]) == ("mit", "fr", "old")
    assert front["library_name"] == "sentence-transformers"
    export_model(
        tmp_path / "out",
        tmp_path / "again",
        ExportOptions(card=CardOptions("apache-2.0", ["deu_Latn", "en"])),
    )
    again = (tmp_path / "again" / "README.md").read_text(encoding="utf-8")
    assert again.count("With its own words: ümlauts.") == again.count("## Export") == 1
    assert "made from | out (fingerprint" in again
    assert yaml.safe_load(again.split("---\n")[1])["license"] == "apache-2.0"
    assert yaml.safe_load(again.split("---\n")[1])["language"] == ["de", "en"]


def test_a_run_brings_its_data_and_its_recipe(source: Path, tmp_path: Path) -> None:
    languages = {"deu_Latn": 30, "kab_Latn": 7} | {f"qa{letter}_Latn": 1 for letter in "abcdefghijklmnopqrst"}
    write_json(source / "run" / "data.json", {"pairs": 12345, "files": ["x"], "languages": languages})
    recipe = {"name": "mine", "model": {"student": "org/base"}, "losses": [{"kind": "koleo"}]}
    write_json(source / "run" / "recipe.json", recipe)
    front, text = exported(source, tmp_path)
    assert front["base_model"] == "org/base"
    assert {"de", "en", "kab"} <= set(front["language"])
    assert "| pairs | 12,345 |" in text
    assert "| pairs of 22 languages | deu_Latn 30, kab_Latn 7, qaa_Latn 1," in text
    assert text.count("_Latn 1") - text.count("_Latn 1,") + text.count(" and 2 more |") == 2
    shown = text.split("```json\n")[1].split("```")[0]
    assert json.loads(shown) == recipe
    assert not (tmp_path / "out" / "run").exists()


def test_figures_are_those_of_this_model(source: Path, tmp_path: Path) -> None:
    ours = open_model_folder(source).fingerprint
    run = {"reports": {"tatoeba": [report("other", "f" * 16, 99.0), report("model", ours, 12.345)]}}
    write_json(tmp_path / "report.json", run)
    _, text = exported(source, tmp_path, dtype="int8", card=CardOptions(figures=[tmp_path / "report.json"]))
    assert "| tatoeba, before the export | mean | 12.35 | 11.35 to 13.35 | 2 |" in text or (
        "| tatoeba, before the export | mean | 12.35 | 11.34 to 13.35 | 2 |" in text
    )
    assert "99.00" not in text
    assert "| pairs |" not in text
    assert "- tatoeba: Accuracy in percent." in text
    own = open_model_folder(tmp_path / "out").fingerprint
    write_json(tmp_path / "own.json", report("out", own, None))
    _, text = exported(source, tmp_path, dtype="int8", card=CardOptions(figures=[tmp_path / "own.json"]))
    assert "| tatoeba | mean | – | – | 2 |" in text


def test_reports_of_other_models_or_of_nothing_are_refused(source: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "other.json", report("other", "f" * 16, 1.0))
    with pytest.raises(
        InvalidInputError, match=r"has figures of other \(f{16}\); this one is \w{16}, made from"
    ):
        exported(source, tmp_path, card=CardOptions(figures=[tmp_path / "other.json"]))
    write_json(tmp_path / "bad.json", {"task": "x", "model": "y"})
    with pytest.raises(InvalidInputError, match="is no report of `embedsvc evaluate`: counts, fingerprint"):
        exported(source, tmp_path, card=CardOptions(figures=[tmp_path / "bad.json"]))
    assert not (tmp_path / "out").exists()
