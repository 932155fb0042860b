"""A runtime that gives other vectors than the model's authors would get is found out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedsvc.encoder import load_encoder
from embedsvc.errors import ModelError
from embedsvc.self_check import REFERENCE_FILE, check_vectors, write_reference


@pytest.fixture
def with_reference(bert_mean: Path, tmp_path: Path) -> Path:
    """The tiny BERT with mean pooling, its ONNX file, no torch weights, and the vectors that torch gives."""
    folder = tmp_path / "model"
    shutil.copytree(bert_mean, folder)
    write_reference(load_encoder(bert_mean, runtime="torch", device="cpu"), folder / REFERENCE_FILE)
    (folder / "model.safetensors").unlink()
    return folder


def test_a_right_model_agrees_with_its_reference(with_reference):
    assert check_vectors(load_encoder(with_reference)) == pytest.approx(1, abs=1e-5)


def test_other_pooling_than_the_reference_is_refused(with_reference):
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True}
    (with_reference / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(
        ModelError, match=r"the vector of '.*' has cosine -?0\.\d+ to the reference; .*0\.9999"
    ):
        check_vectors(load_encoder(with_reference))


def test_without_a_reference_nothing_is_compared(with_reference):
    (with_reference / REFERENCE_FILE).unlink()
    assert check_vectors(load_encoder(with_reference)) is None
    assert check_vectors(load_encoder()) is None  # a static model is its own reference


def test_a_damaged_reference_is_an_error_naming_the_file(with_reference):
    (with_reference / REFERENCE_FILE).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=f"{REFERENCE_FILE} cannot be read"):
        check_vectors(load_encoder(with_reference))


@pytest.mark.slow
def test_torch_gives_the_reference_once_where_its_weights_are_there(bert_mean, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encoder = load_encoder(bert_mean, runtime="onnx")
    assert check_vectors(encoder) == pytest.approx(1, abs=1e-5)
    (cached,) = (tmp_path / "embedsvc" / "references").iterdir()
    assert cached.name == f"{encoder.fingerprint}.safetensors"
    written = cached.stat().st_mtime_ns
    check_vectors(encoder)
    assert cached.stat().st_mtime_ns == written
