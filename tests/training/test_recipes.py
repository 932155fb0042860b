"""Every recipe that ships runs as it is printed: only what it learns from, on and how long is another."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from tests.encoders.tiny_models import word_tokenizer  # noqa: E402
from tests.training.cloned_transformer import write_bert  # noqa: E402
from tests.training.resuming import assert_resumed_like_uninterrupted  # noqa: E402
from training.config import Recipe, read_recipe  # noqa: E402
from training.fresh_transformer import write_fresh_folder  # noqa: E402
from training.model_config import FreshConfig  # noqa: E402

WORDS = 20  # w0 … w19 are English, w20 … w39 the same in the clone
SCHEDULE = {"steps": "20", "batch": "16", "warmup_steps": "2", "learning_rate": "3e-3"}
OFTEN = "checkpoint_every = 10\nevaluate_every = 1\nlog_every = 1\nthreads = 1\n"


def said(picks: "np.typing.NDArray[np.int64]", language: int) -> str:
    return " ".join(f"w{word + language * WORDS}" for word in picks)


def write_pairs(folder: Path) -> None:
    generator = np.random.default_rng(1)
    picks = [generator.integers(0, WORDS, size=generator.integers(3, 9)) for _ in range(400)]
    lines = [f"{said(one, 0)}\tswh_Latn\t{said(one, 1)}\n" for one in picks]
    (folder / "pairs-0.tsv").write_text("".join(lines))


def write_texts(folder: Path) -> None:
    """Each text is about three words, said again and again."""
    generator = np.random.default_rng(1)
    (folder / "texts").mkdir()
    for language, name in enumerate(("en", "sw")):
        picks = [generator.choice(WORDS, 3, replace=False)[generator.integers(0, 3, 16)] for _ in range(200)]
        (folder / "texts" / f"{name}.txt").write_text("\n".join(said(one, language) for one in picks))


def write_lists(folder: Path) -> None:
    """Passages share 6 to 0 words with their query, and are scored by how many."""
    generator = np.random.default_rng(1)
    lines = []
    for _ in range(200):
        words = generator.permutation(WORDS)
        picks = [np.concatenate([words[:kept], words[6:][: 6 - kept]]) for kept in range(6, -1, -1)]
        passages = [{"eng": said(one, 0), "deu": said(one, 1)} for one in picks]
        lines.append(
            json.dumps({"query": said(words[:6], 0), "passages": passages, "scores": [*range(7)][::-1]})
        )
    (folder / "lists.jsonl").write_text("\n".join(lines))


def write_student(folder: Path) -> Path:
    """Write a random transformer with a mask token."""
    tokenizer = word_tokenizer([f"w{word}" for word in range(2 * WORDS)], special=False)
    sizes = FreshConfig(layers=2, hidden=32, heads=2, dropout=0.1)
    write_fresh_folder(folder, sizes, tokenizer.to_str(), max_tokens=32, seed=1)
    return folder


def shortened(name: str, folder: Path) -> Recipe:
    """Return a recipe for 20 steps of a tiny student, at a rate for its size."""
    text = (Path("training/recipes") / f"{name}.toml").read_text(encoding="utf-8")
    for key, value in SCHEDULE.items():
        text, found = re.subn(rf"(?m)^{key} = [\d.e-]+", f"{key} = {value}", text)
        assert found == 1, key
    assert re.findall(r"(?m)^\[.*", text)[-1] == "[schedule]"
    fresh = "fresh = { layers = 2, hidden = 16, heads = 2, dropout = 0.3 }"  # as wide as its teacher
    text = re.sub(r"(?m)^fresh = .*", fresh, text)
    (folder / "recipe.toml").write_text(text + OFTEN, encoding="utf-8")
    if "fresh" in text:
        return read_recipe(folder / "recipe.toml", teacher=str(write_bert(folder / "teacher")))
    return read_recipe(folder / "recipe.toml", student=str(write_student(folder / "student")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "better"),
    [
        ("mcontriever", write_texts, "held_out_accuracy"),  # its loss grows with what is in the queue
        ("mexma", write_pairs, "loss.cross_unmasking"),
        ("dap", write_pairs, "loss.representation_translation"),
        ("laser3", write_pairs, "loss.distillation"),
        ("translate_distill", write_lists, "loss"),
    ],
)
def test_a_recipe_teaches_and_goes_on_bit_for_bit(
    name: str, write: Callable[[Path], None], better: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    assert_resumed_like_uninterrupted(shortened(name, tmp_path), tmp_path, tmp_path, monkeypatch)
    lines = (tmp_path / "whole" / "run" / "metrics.jsonl").read_text().splitlines()
    figures = [figure[better] for figure in map(json.loads, lines) if better in figure]
    assert len(figures) == 20
    gained = np.mean(figures[-5:]) - np.mean(figures[:5])
    assert gained > 0.03 if better == "held_out_accuracy" else gained < -0.03
