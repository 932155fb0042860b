from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_models import HIDDEN, TEXTS, with_head

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import open_model_folder
from embedsvc.self_check import REFERENCE_FILE
from training import parity
from training.export import ExportOptions, export_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
MEAN = [("Pooling", {"embedding_dimension": HIDDEN, "pooling_mode": "mean"})]
HIDE_TORCH = """
import sys
sys.modules["torch"] = sys.modules["sentence_transformers"] = sys.modules["transformers"] = None
import numpy as np
from embedsvc import load_encoder
np.save(sys.argv[2], load_encoder(sys.argv[1]).encode(["Hello", "Guten Morgen, wie geht es dir?"]))
"""


@pytest.fixture(params=["tiny", pytest.param("minilm", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A model's folder and that of its export; the graph of a model of the usual size takes long."""
    if request.param == "tiny":
        folders: tuple[Path, Path] = request.getfixturevalue("bert_export")
        return folders
    return request.getfixturevalue("minilm"), request.getfixturevalue("minilm_onnx").folder.path


def test_the_export_needs_no_torch(exported: tuple[Path, Path], tmp_path: Path) -> None:
    import subprocess
    import sys

    source, export = exported
    arguments = [str(export), str(tmp_path / "vectors.npy")]
    subprocess.run([sys.executable, "-c", HIDE_TORCH, *arguments], check=True, timeout=120)
    torch_encoder = load_encoder(source, runtime="torch", device="cpu")
    expected = torch_encoder.encode(["Hello", "Guten Morgen, wie geht es dir?"])
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-4)


def test_the_export_holds_what_servers_look_for_and_no_torch_weights(exported: tuple[Path, Path]) -> None:
    source, folder = exported
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"onnx/model.onnx", "config.json", "modules.json", "1_Pooling/config.json"} <= files
    kept = {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md"}
    assert {name for name in kept if (source / name).exists()} <= files
    assert {"tokenizer.json", "README.md"} <= files
    weights = {name for name in files if name.endswith((".safetensors", ".bin", ".data"))}
    assert weights == {REFERENCE_FILE}
    assert "# tiny" in (folder / "README.md").read_text() or "MiniLM" in (folder / "README.md").read_text()
    assert list(folder.parent.iterdir()) == [folder], "no temporary folder stays"


def test_any_batch_and_length_run(exported: tuple[Path, Path]) -> None:
    import onnxruntime

    _, folder = exported
    hidden = json.loads((folder / "config.json").read_text())["hidden_size"]
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    assert {node.name for node in session.get_inputs()} == {"input_ids", "attention_mask"}
    for shape in ((1, 1), (1, 7), (5, 3)):
        ones = np.ones(shape, np.int64)
        (states,) = session.run(["last_hidden_state"], {"input_ids": ones, "attention_mask": ones})
        assert states.shape == (*shape, hidden)


def test_an_export_that_differs_is_not_kept(
    bert_mean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from training import onnx_graph

    def foreign_graph(_: object, path: Path) -> None:
        path.parent.mkdir()
        shutil.copyfile(bert_mean / "onnx" / "model.onnx", path)

    monkeypatch.setattr(onnx_graph, "write_graph", foreign_graph)
    export_model(bert_mean, tmp_path / "good")
    source = tmp_path / "source"
    shutil.copytree(bert_mean, source)
    _nudge(source / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"the export's vectors differ from the source's by .*nothing was written"
    ):
        export_model(source, tmp_path / "bad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "source"]


def _nudge(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("layer.1.output.dense.weight"))
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_plain_transformer_gets_its_modules_written(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from training import onnx_graph

    monkeypatch.setattr(
        onnx_graph, "write_graph", lambda _, path: shutil.copytree(bert / "onnx", path.parent)
    )
    report = export_model(bert, tmp_path / "out")
    assert (report.kind, report.dimension) == ("onnx float32", HIDDEN)
    assert report.parity.max_difference < parity.MAX_DIFFERENCE
    kinds = [
        entry["type"].rsplit(".", 1)[-1] for entry in json.loads((tmp_path / "out/modules.json").read_text())
    ]
    assert kinds == ["Transformer", "Pooling"]
    expected = load_encoder(bert, runtime="onnx").encode(TEXTS, truncate="end")
    np.testing.assert_allclose(
        load_encoder(tmp_path / "out").encode(TEXTS, truncate="end"), expected, atol=1e-6
    )
    assert "# plain" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("option", "value"), [("dtype", "int8"), ("dimensions", 8)])
def test_options_of_static_models_are_refused(
    bert_mean: Path, tmp_path: Path, option: str, value: object
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        export_model(bert_mean, tmp_path / "out", ExportOptions(**{option: value}))  # type: ignore[arg-type]
    assert caught.value.param == option
    assert not (tmp_path / "out").exists()


def test_int8_of_a_folder_that_has_onnx_and_no_torch_weights(
    bert_mean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import shutil

    source = tmp_path / "source"
    shutil.copytree(bert_mean, source, ignore=shutil.ignore_patterns("*.safetensors"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name, *more)
    )
    report = export_model(source, tmp_path / "out", ExportOptions(onnx=["int8"]))
    assert report.kind == "onnx int8"
    assert report.parity is report.parities["int8"]
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == ["model_int8.onnx"]
    both = export_model(source, tmp_path / "both", ExportOptions(onnx=["int8", "float32"], pooled=True))
    assert both.kind == "onnx float32, int8"
    assert both.parity.max_difference < 1e-6
    opened = open_model_folder(tmp_path / "both")
    expected, found = (
        Encoder(opened, OnnxRuntime(opened, precision=precision)).encode(TEXTS, truncate="end")
        for precision in ("float32", "int8")
    )
    assert 0.99 < (expected * found).sum(axis=1).min() < 1
    record = json.loads((tmp_path / "both" / "evaluation" / "onnx.json").read_text())
    assert record["int8"]["min_cosine"] == pytest.approx(both.parities["int8"].min_cosine)
    assert record["int8"]["batch_difference"] < 1e-6


@pytest.mark.parametrize("onnx", [[], ["int4"], ["float32", ""]])
def test_a_wrong_precision_is_refused(bert_mean: Path, tmp_path: Path, onnx: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="choose float32, int8 or both") as caught:
        export_model(bert_mean, tmp_path / "out", ExportOptions(onnx=onnx))  # type: ignore[arg-type]
    assert caught.value.param == "onnx"


def test_the_command_writes_both_and_says_how_near_they_are(bert_mean: Path, tmp_path: Path) -> None:
    import shutil

    from click.testing import CliRunner

    from training.cli import export as command

    source = tmp_path / "source"
    shutil.copytree(bert_mean, source, ignore=shutil.ignore_patterns("*.safetensors"))
    options = ["--onnx", "fp32,int8", "--dimensions", "8", "--force-dimensions", "--pooled-graph"]
    result = CliRunner().invoke(command, [str(source), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert "cut to its first 8 of 16 dimensions" in result.output
    assert "onnx float32, int8, 8 dimensions" in result.output
    expected = load_encoder(source).encode(TEXTS, truncate="end", dimensions=8, force_dimensions=True)
    np.testing.assert_allclose(
        load_encoder(tmp_path / "out").encode(TEXTS, truncate="end"), expected, atol=1e-6
    )
    assert re.search(
        r"cosine to the source, changed as asked, 1\.0+ \(least [01]\.\d+\), int8 0\.99\d+ \(least",
        result.output,
    )
    refused = CliRunner().invoke(command, [str(source), "--out", str(tmp_path / "no"), "--onnx", "int4"])
    assert isinstance(refused.exception, InvalidInputError)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["xlm-roberta", "mpnet", "distilbert"])
def test_other_architectures_export(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers
    from tiny_models import SPECIAL, WORDS, write_transformer

    sizes = {"vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 0}
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            dim=HIDDEN, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=30, **sizes
        )
        kind = transformers.DistilBertModel
    else:
        name = {"xlm-roberta": "XLMRoberta", "mpnet": "MPNet"}[family]
        config = getattr(transformers, f"{name}Config")(
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=30,
            **sizes,
        )
        kind = getattr(transformers, f"{name}Model")
    source = with_head(write_transformer(tmp_path / "plain", config, kind), tmp_path / "source", MEAN)
    # This tokenizer's unknown word is MPNet's padding id, a vector of zeros: the norms blow up rounding.
    monkeypatch.setattr(parity, "MIN_COSINE", 0.97)
    report = export_model(source, tmp_path / "out", ExportOptions(onnx=["float32", "int8"]))
    assert report.parity.max_difference < 1e-5
    assert report.parities["int8"].batch_difference < 1e-6
