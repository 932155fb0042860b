from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from embedsvc.cli.options import PrecisionChoice
from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import open_model_folder
from tests.encoders.tiny_models import WORDS, write_graph_model, write_static
from training.cli import export

TABLE = np.random.default_rng(3).normal(size=(4 + len(WORDS), 8)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_static(tmp_path / "model", {"embedding.weight": TABLE}, WORDS, matryoshka_dimensions=[4])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(f"{a} {b}" for a in WORDS[3:12] for b in WORDS[12:20]))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


def test_every_option_reaches_the_export(source: Path, corpus: Path, tmp_path: Path) -> None:
    other = write_static(
        tmp_path / "other", {"embedding.weight": -3 * TABLE}, WORDS, matryoshka_dimensions=[4]
    )
    options = ["--average", other, "--trim-vocabulary", corpus, "--keep", 9, "--dtype", "fp32"]
    options += ["--license", "mit", "--language", "de", "--texts", corpus, "--pca", "--dimensions", 3]
    result = run(source, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    notes = result.output.split("\n")
    assert notes[0] == f"the mean of 2 models: {source}, {other}"
    assert notes[1].startswith("11 of 47 pieces kept")
    assert notes[2] == "turned to its principal axes, 3 of 8 dimensions, fitted on 72 texts"
    assert notes[3].startswith(f"wrote {tmp_path / 'out'}: static float32, 3 dimensions")
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    assert load_encoder(tmp_path / "out").runtime.table.shape == (11, 3)  # type: ignore[attr-defined]


def test_a_map_and_figures_reach_it_too(source: Path, corpus: Path, tmp_path: Path) -> None:
    old = write_static(tmp_path / "old", {"embedding.weight": TABLE[:, ::-1].copy()}, WORDS)
    report = {
        "task": "sts",
        "protocol": "Spearman.",
        "model": "model",
        "fingerprint": open_model_folder(source).fingerprint,
        "rows": {},
        "mean": {"spearman": 50.0},
        "mean_intervals": {},
        "counts": [],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    options = [
        "--texts",
        corpus,
        "--map-to",
        old,
        "--map-kind",
        "ridge",
        "--figures",
        tmp_path / "report.json",
    ]
    result = run(source, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "mapped into the space of old" in result.output
    assert "by ridge, fitted on 65 texts; on 7 texts held out: cosine 1.0000" in result.output
    assert (
        "| sts, before the export | spearman | 50.00 | – | 0 |"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_options_that_need_others_say_so(source: Path, corpus: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    assert "--keep goes with --trim-vocabulary" in run(source, *out, "--keep", 3).output
    caught = run(source, *out, "--whiten").exception
    assert isinstance(caught, InvalidInputError)
    assert "give --texts FILE" in caught.message
    graph = write_graph_model(tmp_path / "graph", inputs=["input_ids", "attention_mask"])
    caught = run(graph, *out, "--trim-vocabulary", corpus).exception
    assert isinstance(caught, InvalidInputError)
    assert "has no torch weights; trim the model that it was exported from" in caught.message
    caught = run(graph, *out, "--torch").exception
    assert isinstance(caught, InvalidInputError)
    assert "has no torch weights to keep" in caught.message
    assert not (tmp_path / "out").exists()


def test_fp32_is_float32() -> None:
    choice = PrecisionChoice(["float32", "int8"])
    assert choice.convert("fp32", None, None) == choice.convert("float32", None, None) == "float32"
    with pytest.raises(click.BadParameter, match="'fp16' is not one of 'float32', 'int8'"):
        choice.convert("fp16", None, None)
