from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import open_model_folder
from tests.encoders.tiny_models import WORDS, with_head, word_tokenizer, write_json, write_static
from training.averaging import average_models
from training.export import ExportOptions, export_model

ROWS = 4 + len(WORDS)


def static(folder: Path, value: float, **general: object) -> Path:
    table = np.full((ROWS, 3), value, np.float32)
    table[:, 1] = np.arange(ROWS) * value
    return write_static(folder, {"embedding.weight": table}, WORDS, **general)


def transformer(folder: Path, value: float, *, bias: float = 0.0, layers: int = 2, width: int = 2) -> Path:
    """A folder with weights that nothing runs: what is averaged is files."""
    plain = folder.parent / f"{folder.name}-plain"
    write_json(plain / "config.json", {"num_hidden_layers": layers, "_name_or_path": folder.name})
    word_tokenizer(WORDS, special=True).save(str(plain / "tokenizer.json"))
    tensors = {
        "layer.0.weight": np.full((2, width), value, np.float32),
        "half": np.full(2, value, np.float16),
        "position_ids": np.arange(4),
    }
    save_file(tensors, plain / "model.safetensors")
    dense = {"inputs": 2, "outputs": 2, "activation": "torch.nn.Tanh"}
    with_head(plain, folder, [("Pooling", {"pooling_mode": "mean"}), ("Dense", dense)])
    path = folder / "2_Dense" / "model.safetensors"
    save_file(load_file(path) | {"linear.bias": np.full(2, bias, np.float32)}, path)
    return folder


def average(tmp_path: Path, *folders: Path) -> Path:
    out = Path(tempfile.mkdtemp(dir=tmp_path))
    average_models([open_model_folder(folder) for folder in folders], out)
    return out


def refused(tmp_path: Path, *folders: Path) -> str:
    with pytest.raises(InvalidInputError) as caught:
        average(tmp_path, *folders)
    assert caught.value.param == "average"
    return caught.value.message


def test_the_weights_are_the_mean_of_all(tmp_path: Path) -> None:
    folders = [transformer(tmp_path / f"m{n}", value, bias=value) for n, value in enumerate((1.0, 2.0, 6.0))]
    out = average(tmp_path, *folders)
    tensors = load_file(out / "model.safetensors")
    assert tensors["layer.0.weight"].tolist() == [[3, 3], [3, 3]]
    assert (tensors["half"].tolist(), tensors["half"].dtype) == ([3, 3], np.float16)
    assert (tensors["position_ids"].tolist(), tensors["position_ids"].dtype) == ([0, 1, 2, 3], np.int64)
    dense, first = (load_file(path / "2_Dense" / "model.safetensors") for path in (out, folders[0]))
    assert dense["linear.bias"].tolist() == [3, 3]
    np.testing.assert_array_equal(dense["linear.weight"], first["linear.weight"])


def test_weights_in_several_files_are_averaged_with_those_in_one(tmp_path: Path) -> None:
    whole, split = transformer(tmp_path / "whole", 1.0), transformer(tmp_path / "split", 3.0)
    tensors = load_file(split / "model.safetensors")
    (split / "model.safetensors").unlink()
    for number, name in enumerate(tensors, 1):
        save_file({name: tensors[name]}, split / f"model-0000{number}-of-00003.safetensors")
    (split / "model.safetensors.index.json").write_text("{}")
    for folders in ((whole, split), (split, whole)):
        out = average(tmp_path, *folders)
        assert [path.name for path in out.glob("model*")] == ["model.safetensors"]
        assert load_file(out / "model.safetensors")["layer.0.weight"].tolist() == [[2, 2], [2, 2]]


def test_an_export_takes_the_mean_of_static_models(tmp_path: Path) -> None:
    folders = [static(tmp_path / f"m{n}", value) for n, value in enumerate((1.0, 2.0, 6.0))]
    report = export_model(folders[0], tmp_path / "a", ExportOptions(average=folders[1:]))
    assert report.notes == (f"the mean of 3 models: {', '.join(map(str, folders))}",)
    export_model(None, tmp_path / "b", ExportOptions(average=[str(folder) for folder in folders]))
    for name in ("a", "b"):
        table = load_encoder(tmp_path / name).runtime.table  # type: ignore[attr-defined]
        np.testing.assert_array_equal(table[:, 0], np.full(ROWS, 3.0))
        np.testing.assert_array_equal(table[:, 1], np.arange(ROWS) * 3.0)


def test_models_of_other_shapes_are_refused_by_name(tmp_path: Path) -> None:
    one, other = transformer(tmp_path / "one", 1.0), transformer(tmp_path / "other", 1.0, width=3)
    message = refused(tmp_path, one, other)
    assert f"layer.0.weight is (2, 2) in {one} and (2, 3) in {other}" in message
    tensors = load_file(other / "model.safetensors")
    save_file({"half": tensors["half"], "more": tensors["half"]}, other / "model.safetensors")
    assert "layer.0.weight is (2, 2) in" in refused(tmp_path, one, other)
    assert "no such tensor in" in refused(tmp_path, one, other)


def test_what_differs_beside_the_weights_is_named(tmp_path: Path) -> None:
    one = static(tmp_path / "one", 1.0)
    assert "two has modules other than" in refused(tmp_path, one, transformer(tmp_path / "two", 1.0))
    queries = static(tmp_path / "queries", 1.0, prompts={"query": "w1 "})
    assert f"{queries} has prompts other than {one}" in refused(tmp_path, one, queries)
    words = static(tmp_path / "words", 1.0)
    word_tokenizer([*WORDS[:-1], "other"], special=False).save(str(words / "tokenizer.json"))
    assert f"{words} has a tokenizer other than {one}" in refused(tmp_path, one, words)
    layers = transformer(tmp_path / "layers", 1.0, layers=3)
    assert "layers has a config.json other than" in refused(
        tmp_path, transformer(tmp_path / "x", 1.0), layers
    )
    pooled = transformer(tmp_path / "pooled", 1.0)
    (pooled / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    assert "pooled has settings of modules other than" in refused(
        tmp_path, transformer(tmp_path / "y", 1.0), pooled
    )


def test_one_model_has_no_mean_and_old_weights_are_refused(tmp_path: Path) -> None:
    one = transformer(tmp_path / "one", 1.0)
    assert "two or more models" in refused(tmp_path, one)
    other = transformer(tmp_path / "other", 1.0)
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    assert f"{other} has no safetensors weights; save it again" in refused(tmp_path, one, other)
