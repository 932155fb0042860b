"""A collection may be opened with other models than its own: those whose vectors are in the same space."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the train extra to make ONNX graphs")

from embedsvc.collections.collection import Collection
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import ModelMismatchError
from tests.collections.conftest import documents
from tests.encoders.tiny_models import write_graph_model

PLAIN = ("input_ids", "attention_mask")


@pytest.fixture
def graphs(tmp_path: Path) -> tuple[Encoder, Encoder]:
    """The float32 and the int8 graph of one folder; the latter gives the length of a text more weight."""
    folder = write_graph_model(tmp_path / "graphs", inputs=PLAIN)
    other = write_graph_model(tmp_path / "other", inputs=(*PLAIN, "token_type_ids"))
    shutil.copy(other / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx")
    return load_encoder(folder), load_encoder(folder, precision="int8")


def test_the_int8_graph_searches_what_the_float32_one_made_and_says_so_once(
    tmp_path: Path, graphs: tuple[Encoder, Encoder], caplog: pytest.LogCaptureFixture
) -> None:
    full, rounded = graphs
    with Collection(tmp_path / "made-in-full", full) as collection:
        collection.upsert(documents(["w1 w2", "w30"]))
    with caplog.at_level(logging.INFO), Collection(tmp_path / "made-in-full", rounded) as collection:
        assert [collection.search("w30")[0].id for _ in range(2)] == ["d1", "d1"]
        assert collection.encoder is rounded
        assert collection.fingerprint == full.fingerprint
    assert [record.getMessage() for record in caplog.records if "same space" in record.getMessage()] == [
        f"collection 'made-in-full' was made with model 'graphs' (fingerprint {full.fingerprint}); 'graphs' "
        f"in int8 (fingerprint {rounded.fingerprint}) is used, whose vectors are in the same space"
    ]


def test_what_the_int8_graph_made_is_not_taken_for_the_float32_ones(
    tmp_path: Path, graphs: tuple[Encoder, Encoder]
) -> None:
    full, rounded = graphs
    with Collection(tmp_path / "made-in-int8", rounded) as collection:
        assert collection.fingerprint == rounded.fingerprint
    with pytest.raises(ModelMismatchError, match=f"{rounded.fingerprint}.*{full.fingerprint}"):
        Collection(tmp_path / "made-in-int8", full)
    found = {rounded.fingerprint: rounded}.get
    with Collection(tmp_path / "made-in-int8", full, find_encoder=found) as collection:
        assert collection.encoder is rounded
