from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import SPECIAL, WORDS, with_head, write_json, write_static

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError, MissingExtraError, ModelError

pytest.importorskip("sentence_transformers", reason="needs the torch extra")
ROWS = len(SPECIAL) + len(WORDS)
TEXTS = ["w1", "w2 w3 w4 w5", "nobody", "w6 w6 w7"]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_static_model_gives_the_same_vectors_in_torch(tmp_path: Path, dtype: str) -> None:
    table = np.random.default_rng(0).normal(size=(ROWS, 5)) * 20
    tensors = {"embedding.weight": table.astype(dtype)}
    if dtype == "int8":
        tensors["embedding.scale"] = np.linspace(0.1, 2, ROWS).astype(np.float32)
    folder = write_static(tmp_path / "m", tensors, WORDS)
    in_torch = load_encoder(folder, runtime="torch", device="cpu")
    assert (in_torch.runtime.name, in_torch.dimension, in_torch.runtime.max_tokens) == ("torch", 5, None)
    for normalize in (True, False):
        expected = load_encoder(folder).encode(TEXTS, normalize=normalize)
        np.testing.assert_allclose(in_torch.encode(TEXTS, normalize=normalize), expected, atol=1e-5)


def test_a_static_text_without_tokens_is_zero_in_torch_too(tmp_path: Path) -> None:
    from embedsvc.encoder import PreparedText

    folder = write_static(tmp_path / "m", {"embedding.weight": np.ones((ROWS, 2), np.float32)}, WORDS)
    found = load_encoder(folder, runtime="torch", device="cpu").runtime.embed(
        [PreparedText([]), PreparedText([7]), PreparedText([])]
    )
    assert found.tolist() == [[0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_an_unusable_device_is_refused_by_name(tmp_path: Path, device: str) -> None:
    folder = write_static(tmp_path / "m", {"embedding.weight": np.ones((ROWS, 2), np.float32)}, WORDS)
    with pytest.raises(InvalidInputError, match=f"device '{device}' cannot be used") as caught:
        load_encoder(folder, runtime="torch", device=device)
    assert caught.value.param == "device"


def test_without_torch_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_static(tmp_path / "m", {"embedding.weight": np.ones((ROWS, 2), np.float32)}, WORDS)
    monkeypatch.delitem(sys.modules, "embedsvc.encoders.pytorch", raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[torch\]'"):
        load_encoder(folder, runtime="torch")


def test_damaged_weights_are_one_clear_error(bert: Path, tmp_path: Path) -> None:
    path = with_head(bert, tmp_path / "m", [("Pooling", {"embedding_dimension": 16, "pooling_mode": "mean"})])
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be opened by sentence-transformers"):
        load_encoder(path, runtime="torch", device="cpu")


def test_half_precision_weights_run_in_float32(bert: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = with_head(bert, tmp_path / "m", [("Pooling", {"embedding_dimension": 16, "pooling_mode": "mean"})])
    weights = {name: value.bfloat16() for name, value in load_file(path / "model.safetensors").items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    write_json(path / "config.json", config | {"dtype": "bfloat16"})
    encoder = load_encoder(path, runtime="torch", device="cpu")
    assert {parameter.dtype for parameter in encoder.runtime._core._modules[0].parameters()} == {
        torch.float32
    }  # type: ignore[attr-defined]
    assert encoder.encode(TEXTS).dtype == np.float32


def test_remote_code_is_never_run(bert: Path, tmp_path: Path) -> None:
    path = with_head(bert, tmp_path / "m", [("Pooling", {"embedding_dimension": 16, "pooling_mode": "mean"})])
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "", "idx": 0, "name": "0"}]
    modules.append({"type": "evil.Module", "path": "1_Evil", "idx": 1, "name": "1"})
    write_json(path / "modules.json", modules)
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError):
        load_encoder(path, runtime="torch", device="cpu")
    assert not (tmp_path / "ran").exists()
