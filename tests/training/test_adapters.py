from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError, ModelError, NotFoundError
from tests.encoders.tiny_models import HIDDEN, TEXTS, with_head, write_bert
from training.export import ExportOptions, export_model

pytest.importorskip("sentence_transformers", reason="needs the torch extra")
peft = pytest.importorskip("peft", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
MEAN = ("Pooling", {"embedding_dimension": HIDDEN, "pooling_mode": "mean"})
CLS = ("Pooling", {"embedding_dimension": HIDDEN, "pooling_mode": "cls"})


def adapted(base: Path, folder: Path, **config: Any) -> np.ndarray:
    """Write a random adapter of the base; return the mean-pooled unit vectors of the model with it."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(base), device="cpu", local_files_only=True)
    torch.manual_seed(6)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": ["query", "value"], "init_lora_weights": False}
    lora = peft.get_peft_model(model[0].auto_model, peft.LoraConfig(**settings | config))
    lora.save_pretrained(folder)
    vectors: np.ndarray = model.encode(TEXTS, normalize_embeddings=True)
    return vectors


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A base, an adapter of it, and the vectors with it."""
    root = tmp_path_factory.mktemp("adapters")
    base = with_head(write_bert(root / "plain"), root / "base", [MEAN])
    return base, root / "adapter", adapted(base, root / "adapter")


def merged(adapter: Path, out: Path, **options: Any) -> np.ndarray:
    export_model(adapter, out, ExportOptions(torch=True, **options))
    vectors: np.ndarray = load_encoder(out, runtime="torch", device="cpu").encode(TEXTS, truncate="end")
    return vectors


def test_the_merged_model_gives_the_vectors_with_the_adapter(
    folders: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    base, adapter, expected = folders
    plain = load_encoder(base, runtime="torch", device="cpu").encode(TEXTS, truncate="end")
    assert np.abs(expected - plain).max() > 0.05, "the adapter changes something"
    np.testing.assert_allclose(merged(adapter, tmp_path / "out"), expected, atol=1e-5)
    assert not list((tmp_path / "out").glob("adapter*"))
    assert f"the adapter {adapter} merged into base" in (tmp_path / "out" / "README.md").read_text()


def test_the_adapters_own_modules_and_another_base_are_taken(
    folders: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    base, adapter, expected = folders
    own = with_head(adapter, tmp_path / "own", [CLS])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, own)
    said = json.loads((own / "adapter_config.json").read_text()) | {"base_model_name_or_path": "/gone"}
    (own / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(NotFoundError, match="no model folder at /gone"):
        merged(own, tmp_path / "out")
    found = merged(own, tmp_path / "out", base=base)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() > 0.05, "pooled otherwise"
    whole = with_head(tmp_path / "out", tmp_path / "whole", [MEAN])
    again = load_encoder(whole, runtime="torch", device="cpu").encode(TEXTS, truncate="end")
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_an_adapter_that_does_not_fit_is_refused(
    folders: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    _, adapter, _ = folders
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    tensors = load_file(other / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[2:]), other / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit BertModel: .*missing adapter keys"):
        merged(other, tmp_path / "out")
    said = json.loads((other / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (other / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(InvalidInputError, match="names no base model: give --base"):
        merged(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
