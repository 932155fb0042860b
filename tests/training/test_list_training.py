"""Runs on scored passages: a reranker's order is learnt in every language, and they resume bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc.errors import InvalidInputError  # noqa: E402
from tests.encoders.tiny_models import word_tokenizer  # noqa: E402
from tests.tiny_rerankers import counted_logit, write_counting_reranker  # noqa: E402
from tests.training.cloned import cloned_lexicons  # noqa: E402
from tests.training.resuming import assert_resumed_like_uninterrupted  # noqa: E402
from training.config import read_recipe  # noqa: E402
from training.list_preparation import prepare_lists  # noqa: E402
from training.score_cache import ScoreCache  # noqa: E402
from training.trainer import train  # noqa: E402

RECIPE = """
name = "lists"
seed = 3
[data]
lists = ["lists.jsonl"]
held_out_groups = 30
[tokenizer]
file = "words.json"
[sampling]
passages = 4
mixing = "round_robin"
[model]
dimension = 32
matryoshka = [16]
[loss]
kind = "score_distillation"
teacher_scale = 2.0
language_weight = 0.1
[schedule]
steps = {steps}
batch = 64
learning_rate = 0.05
warmup_steps = 5
checkpoint_every = 4
threads = 1
"""


def write_lists(path: Path, *, right: bool = True, scored: bool = True) -> None:
    """Write queries of five words and passages that share 5, 3, 2, 1 and 0 of them, scored by how many."""
    generator = np.random.default_rng(0)
    lexicons = cloned_lexicons(60, generator)
    # Whole words: the tokenizers library breaks ties between merges at random.
    word_tokenizer([word for lexicon in lexicons for word in lexicon], special=False).save(
        str(path.with_name("words.json"))
    )
    english, *clones = lexicons

    def said(words: NDArray[np.int64], lexicon: list[str]) -> str:
        return " ".join(lexicon[word] for word in generator.permutation(words))

    lines = []
    for _ in range(400):
        words = generator.permutation(60)
        passages = []
        for number, kept in enumerate(SHARED):
            pick = np.concatenate([words[:kept], words[5 * number + 5 :][: 5 - kept]])
            passages.append({code: said(pick, lexicon) for code, lexicon in enumerate(clones)})
        line: dict[str, Any] = {"query": said(words[:5], english), "passages": passages}
        if scored:
            line["scores"] = list(SHARED) if right else generator.permutation(SHARED).tolist()
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines), encoding="utf-8")


SHARED = (5, 3, 2, 1, 0)
LOSS = 'kind = "score_distillation"\nteacher_scale = 2.0\nlanguage_weight = 0.1'


def written(folder: Path, *, steps: int, **options: bool) -> Path:
    write_lists(folder / "lists.jsonl", **options)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps), encoding="utf-8")
    return path


def found(folder: Path, *, right: bool) -> float:
    """Return how many held-out queries find their best passage among those of all."""
    recipe = read_recipe(written(folder, steps=200, right=right))
    out = train(recipe, folder / "model", folder, progress=False)
    lines = (out / "run" / "metrics.jsonl").read_text().splitlines()
    accuracy: float = json.loads(lines[-1])["held_out_accuracy"]
    return accuracy


def test_the_teachers_order_is_learnt_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    assert found(tmp_path / "right", right=True) >= 0.85
    assert found(tmp_path / "wrong", right=False) < 0.2


def test_a_run_on_lists_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(written(tmp_path, steps=8))
    assert_resumed_like_uninterrupted(recipe, tmp_path, tmp_path, monkeypatch)


def test_a_reranker_scores_passages_in_their_first_language_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reranker = write_counting_reranker(tmp_path / "reranker")
    queries = [f"w{number} w{number + 1}" for number in range(20)]
    texts = ["w30 w3", "w31", "w32 w33 w1"]
    passages = [{"first": text, "second": "w9 " * 3} for text in texts]
    recipe = written(tmp_path, steps=8, scored=False)
    lines = [json.dumps({"query": query, "passages": passages}) for query in queries]
    (tmp_path / "lists.jsonl").write_text("\n".join(lines))
    small = recipe.read_text().replace("batch = 64", "batch = 16").replace("passages = 4", "passages = 3")
    recipe.write_text(small + f'[reranker]\nmodel = "{reranker}"\n')
    for run in ("a", "b"):
        prepared = prepare_lists(read_recipe(recipe), tmp_path / run, tmp_path, progress=False)
        batch = prepared.sampler.batch(0)
        assert batch.scored is not None
        for query, scores in zip(batch.pairs, batch.scored.scores, strict=True):
            counted = [counted_logit(queries[query].split(), text.split()) for text in texts]
            assert scores == pytest.approx(sorted(counted, reverse=True), abs=1e-4)
        monkeypatch.setattr(ScoreCache, "_score", None)  # the second run has nothing to ask


def test_passages_without_scores_want_a_reranker(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, steps=8, scored=False))
    with pytest.raises(InvalidInputError, match=r"query '.*' has no scores; give them, or a \[reranker\]"):
        train(recipe, tmp_path / "model", tmp_path, progress=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('mixing = "round_robin"', "", 'needs sampling.mixing = "round_robin"'),
        ("lists = [", "texts = [", "learns from data.lists"),
        (
            'kind = "score_distillation"\nteacher_scale = 2.0\nlanguage_weight = 0.1',
            "",
            "learns from data.lists",
        ),
        ("batch = 64", "batch = 6400", "is more than the 400 queries"),
        ("passages = 4", "passages = 6", "at least 6 passages"),
    ],
)
def test_a_recipe_of_lists_is_checked(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, steps=8)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidInputError, match=message):
        train(read_recipe(path), tmp_path / "model", tmp_path, progress=False)
