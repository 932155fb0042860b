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
from embedsvc.server.metrics import Metrics
from embedsvc.server.models import ModelSet
from embedsvc.settings import Settings
from tests.collections.conftest import documents, random_texts
from tests.encoders.tiny_models import write_graph_model
from training.export import ExportOptions, export_model
from training.fitted_steps import MapTo
from training.static_export import write_static_folder

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


@pytest.fixture(scope="module")
def mapped(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The tiny model with its dimensions in another order, mapped back by texts of its own."""
    folder = tmp_path_factory.mktemp("mapped")
    table = load_encoder(model_folder).runtime.table  # type: ignore[attr-defined]
    tokenizer = (model_folder / "tokenizer.json").read_text()
    write_static_folder(folder / "new", table[:, ::-1], tokenizer, matryoshka_dimensions=[], dtype="float32")
    (folder / "texts.txt").write_text("\n".join(random_texts(200)))
    steps = [MapTo(folder / "texts.txt", model_folder)]
    export_model(folder / "new", folder / "mapped", ExportOptions(steps=steps))
    return load_encoder(folder / "mapped")


def test_a_mapped_model_searches_and_fills_what_the_old_one_made(
    tmp_path: Path, encoder: Encoder, mapped: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with Collection(tmp_path / "old", encoder) as collection:
        collection.upsert(documents(["east", "north", "w1 w2"]))
    with caplog.at_level(logging.INFO), Collection(tmp_path / "old", mapped) as collection:
        collection.upsert(documents(["w7 w8"], first=3))
        for query, best in (("east", "d0"), ("w1 w2", "d2"), ("w7 w8", "d3")):
            hit = collection.search(query)[0]
            assert (hit.id, hit.score) == (best, pytest.approx(1, abs=1e-3))
        assert collection.fingerprint == encoder.fingerprint != mapped.fingerprint
    assert f"'mapped' (fingerprint {mapped.fingerprint}) is used" in caplog.text
    with Collection(tmp_path / "old", encoder) as collection:
        assert collection.search("w7 w8")[0].id == "d3"


def test_what_a_mapped_model_made_is_its_own(tmp_path: Path, encoder: Encoder, mapped: Encoder) -> None:
    with Collection(tmp_path / "new", mapped) as collection:
        assert collection.fingerprint == mapped.fingerprint
    with pytest.raises(ModelMismatchError, match=f"{mapped.fingerprint}.*{encoder.fingerprint}"):
        Collection(tmp_path / "new", encoder)


def test_a_server_takes_a_collections_own_model_before_one_that_fits(
    tmp_path: Path, encoder: Encoder, mapped: Encoder
) -> None:
    both = (str(mapped.folder.path), str(encoder.folder.path))
    models = ModelSet(Settings(model=both, data_dir=tmp_path), Metrics())
    found = [models.with_fingerprint(of) for of in (encoder.fingerprint, mapped.fingerprint, "0" * 16)]
    assert [model and model.name for model in found] == ["tiny", "mapped", None]
    alone = ModelSet(Settings(model=both[:1], data_dir=tmp_path), Metrics())
    only = alone.with_fingerprint(encoder.fingerprint)
    assert only is not None
    assert only.name == "mapped"
