"""What is measured while a run goes on, and which model is kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc import load_encoder
from embedsvc.errors import NotFoundError
from tests.training.cloned import RECIPE, write_cloned_pairs
from tests.training.evaluation.fakes import unit_rows
from training.config import read_recipe
from training.data import TokenBags
from training.evaluation.during_training import RunEvaluation, check_test_sets
from training.evaluation_config import EvaluationConfig
from training.held_out import HeldOut
from training.static_export import write_static_folder

N = 20
WORDS = [f"{side}{chr(97 + n)}" for side in ("eng", "deu") for n in range(N)]


class Student:
    """A table of words of which the first ``right`` have the vector of their translation."""

    def __init__(self, right: int) -> None:
        english = unit_rows(0, N, 16)
        german = np.concatenate([english[:right], unit_rows(1, N - right, 16)])
        self.table = np.concatenate([np.zeros((1, 16)), english, german]).astype(np.float32)

    def vectors(self, texts: TokenBags) -> np.ndarray:
        return self.table[texts.ids]

    def write(self, folder: Path) -> None:
        vocabulary = {"[UNK]": 0} | {word: n + 1 for n, word in enumerate(WORDS)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        write_static_folder(
            folder, self.table, tokenizer.to_str(), matryoshka_dimensions=[16], dtype="float32"
        )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    sets = tmp_path / "data" / "sets"
    (sets / "flores" / "text").mkdir(parents=True)
    for side, words in (("eng", WORDS[:N]), ("deu", WORDS[N:])):
        text = "".join(f"{word}\n" for word in words)
        (sets / f"tatoeba.deu-eng.{side}").write_text(text)
        (sets / "flores" / "text" / f"{side}_Latn.txt").write_text(text)
    return tmp_path / "data"


def evaluation(data: Path, run: Path, **config: Any) -> RunEvaluation:
    ids = np.arange(1, N + 1, dtype=np.int32)
    bags = [TokenBags(ids + shift, np.arange(N + 1)) for shift in (0, N)]
    held_out = HeldOut(bags[0], bags[1], np.zeros(0, bool))
    return RunEvaluation(EvaluationConfig(data="sets", **config), held_out, data, run)


def measured(of: RunEvaluation, right: Sequence[int]) -> list[dict[str, float]]:
    """Return the figures of students with so many words right, at steps 1, 2, ..."""
    return [
        of.figures(cast(Any, Student(n)), step, last=step == len(right)) for step, n in enumerate(right, 1)
    ]


def test_quick_tasks_are_measured_always_and_the_others_at_the_end(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "model" / "run"
    first, last = measured(evaluation(data, run, tasks=["xsim"], during=["tatoeba"]), [N // 2, N])
    assert 0.4 < first["held_out_accuracy"] < 0.8
    assert first["tatoeba.mean"] == pytest.approx(100 * first["held_out_accuracy"])
    assert "xsim.error" not in first
    assert (last["held_out_accuracy"], last["tatoeba.mean"], last["xsim.error"]) == (1.0, 100.0, 0.0)
    assert "tatoeba.pairs" not in last
    written = json.loads((run / "evaluation" / "tatoeba.model.json").read_text())
    assert written["rows"]["deu"]["mean"] == 100.0
    assert sorted(path.name for path in run.iterdir()) == [
        "evaluation"
    ]  # the model that was measured is gone


@pytest.mark.parametrize("best", ["held_out_accuracy", "tatoeba", "xsim"])
def test_the_model_with_the_best_figure_is_kept(best: str, data: Path, tmp_path: Path) -> None:
    during = [] if best == "held_out_accuracy" else [best]
    measured(evaluation(data, tmp_path / "run", during=during, best=best), [5, N, 10])
    chosen = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert chosen == {"figure": best, "value": {"tatoeba": 100.0, "xsim": 0.0}.get(best, 1.0), "step": 2}
    vectors = load_encoder(tmp_path / "run" / "best").encode(WORDS)
    assert (vectors[:N] * vectors[N:]).sum(axis=1) == pytest.approx(np.ones(N), abs=1e-6)


def test_a_later_call_goes_on_from_the_best_so_far(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    measured(evaluation(data, run, best="held_out_accuracy"), [10])
    (run / "best").rename(run / "best.replaced")  # killed before the better one was in its place
    measured(evaluation(data, run, best="held_out_accuracy"), [5])
    assert json.loads((run / "best" / "best.json").read_text())["value"] >= 0.5
    assert sorted(path.name for path in run.iterdir()) == ["best"]


def test_missing_test_sets_are_named_before_anything_is_read(data: Path) -> None:
    config = EvaluationConfig(data="sets", tasks=["tatoeba", "bucc"])
    with pytest.raises(NotFoundError, match=r"^bucc: neither <xx>-en\.test\.<xx>"):
        check_test_sets(config, data)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"tasks": ["tatoba"]}, "task 'tatoba' is unknown; did you mean 'tatoeba'"),
        (
            {"tasks": ["sts"], "best": "sts"},
            "best = 'sts' is measured nowhere: expected 'held_out_accuracy' or",
        ),
        ({}, "neither tasks nor during nor best is given"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig(data="sets", **section)


def test_a_run_logs_its_tasks_and_keeps_its_best_model(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the [train] extra")
    from training.trainer import train

    write_cloned_pairs(tmp_path / "pairs.tsv")
    lines = [line.split("\t") for line in (tmp_path / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    for side, column in (("eng", 0), ("clo", 2)):
        texts = [line[column] for line in lines if line[0]][:50]
        (tmp_path / f"tatoeba.clo-eng.{side}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    section = '[evaluation]\ndata = "."\nduring = ["tatoeba"]\nbest = "tatoeba"\n'
    recipe = RECIPE.format(steps=40, learning_rate=0.02).replace(
        "evaluate_every = 1000", "evaluate_every = 20"
    )
    (tmp_path / "recipe.toml").write_text(recipe + section, encoding="utf-8")
    out = train(read_recipe(tmp_path / "recipe.toml"), tmp_path / "model", tmp_path, progress=False)
    metrics = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = {m["step"]: m["tatoeba.mean"] for m in metrics if "tatoeba.mean" in m}
    assert sorted(figures) == [20, 40]
    assert figures[40] > figures[20] > 4  # 2 by chance
    assert json.loads((out / "run" / "best" / "best.json").read_text())["value"] == max(figures.values())
    assert (out / "run" / "evaluation" / "tatoeba.model.md").is_file()
