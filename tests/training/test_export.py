from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError, MissingExtraError, ModelError, NotFoundError
from embedsvc.self_check import probe_texts
from training import export
from training.export import ExportOptions, export_model
from training.static_export import pack_rows, quantise_rows, turned_within, write_static_folder

WORDS = ["[UNK]", "the", "Hello", *(f"w{number}" for number in range(60))]
TABLE = np.random.default_rng(9).normal(size=(len(WORDS), 32)).astype(np.float32)
TEXTS = ["w1", "w2 w3 w4 nobody", "the " * 50, "Hello w5 w6"]
README = "# A model\n\nmade for tests, with ümlauts\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    write_static_folder(
        path, TABLE, tokenizer.to_str(), matryoshka_dimensions=[8, 16], dtype="float32", card=README
    )
    return path


@pytest.mark.parametrize("dimensions", [None, 16])
def test_float32_gives_the_very_same_vectors(source: Path, tmp_path: Path, dimensions: int | None) -> None:
    report = export_model(source, tmp_path / "out", ExportOptions(dimensions=dimensions))
    assert (report.kind, report.dimension) == ("static float32", dimensions or 32)
    expected = load_encoder(source).encode(TEXTS, dimensions=dimensions)
    np.testing.assert_array_equal(load_encoder(tmp_path / "out").encode(TEXTS), expected)
    np.testing.assert_array_equal(
        load_file(tmp_path / "out" / "model.safetensors")["embedding.weight"], TABLE[:, :dimensions]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_float32_opens_in_sentence_transformers(source: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    export_model(source, tmp_path / "int8", ExportOptions(dtype="int8"))
    export_model(tmp_path / "int8", tmp_path / "float32", ExportOptions(dimensions=16))
    model = library.SentenceTransformer(str(tmp_path / "float32"), device="cpu", local_files_only=True)
    expected = load_encoder(tmp_path / "int8").encode(TEXTS, dimensions=16)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)


def test_int8_is_close_and_a_quarter_of_the_size(source: Path, tmp_path: Path) -> None:
    report = export_model(source, tmp_path / "out", ExportOptions(dtype="int8"))
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert report.kind == "static int8"
    assert tensors["embedding.weight"].dtype == np.int8
    assert 0.99 < report.parity.min_cosine < 1
    cosines = (load_encoder(tmp_path / "out").encode(TEXTS) * load_encoder(source).encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.999


def test_int8_there_and_back_loses_nothing_more(source: Path, tmp_path: Path) -> None:
    export_model(source, tmp_path / "int8", ExportOptions(dtype="int8"))
    export_model(tmp_path / "int8", tmp_path / "float32")
    export_model(tmp_path / "float32", tmp_path / "again", ExportOptions(dtype="int8"))
    first, last = (load_file(tmp_path / name / "model.safetensors") for name in ("int8", "again"))
    np.testing.assert_array_equal(first["embedding.weight"], last["embedding.weight"])
    np.testing.assert_allclose(first["embedding.scale"], last["embedding.scale"], rtol=1e-6)


def test_one_row_quantised_by_hand() -> None:
    rows, scale = quantise_rows(np.array([[1.27, -0.64, 0.0], [0, 0, 0]], np.float32))
    assert rows.tolist() == [[127, -64, 0], [0, 0, 0]]
    assert scale[0] == pytest.approx(0.01)


def test_four_bits_keep_the_direction_of_every_row() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(500, 64)).astype(np.float32) * generator.uniform(0.01, 9, (500, 1))
    codes, scale, levels = pack_rows(rows.astype(np.float32))
    assert (codes.shape, len(levels)) == ((500, 32), 16)
    chosen = levels[np.stack([codes & 15, codes >> 4], axis=2).reshape(500, 64)]
    # Least squares: the error of each row is orthogonal to what stands for it.
    np.testing.assert_allclose(((rows - chosen * scale[:, None]) * chosen).sum(axis=1), 0, atol=1e-3)
    cosine = (rows * chosen).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(chosen, axis=1)
    # The best 16 levels for normal numbers leave 0.95 % of their variance (Max 1960): cos = sqrt(1 - 0.0095).
    assert cosine.mean() == pytest.approx(0.99524, abs=0.001)


def test_an_odd_dimension_has_no_four_bit_table() -> None:
    with pytest.raises(InvalidInputError, match="dimension 3 is odd"):
        pack_rows(np.ones((2, 3), np.float32))


def test_readme_prompts_and_dimensions_are_kept(source: Path, tmp_path: Path) -> None:
    config = source / "config_sentence_transformers.json"
    prompts = {"query": "w1 ", "document": ""}
    general = json.loads(config.read_text()) | {"prompts": prompts, "default_prompt_name": "query"}
    config.write_text(json.dumps(general))
    export_model(source, tmp_path / "out", ExportOptions(dimensions=16))
    opened = load_encoder(tmp_path / "out").folder
    assert (opened.prompts, opened.default_prompt_name) == (prompts, "query")
    assert opened.matryoshka_dimensions == (8, 16)
    assert README.strip() in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    (source / "README.md").unlink()
    export_model(source, tmp_path / "other")
    assert "# source" in (tmp_path / "other" / "README.md").read_text()


def test_every_file_can_be_read_by_others(source: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    export_model(source, tmp_path / "out")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {probe.stat().st_mode & 0o777}


def refused(source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        export_model(source, out, ExportOptions(**options))
    assert caught.value.param == "out"
    return caught.value.message


def test_a_folder_with_something_in_it_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "keep.txt").write_text("mine")
    assert "is not empty; overwrite it with --overwrite" in refused(source, out)
    assert "is not a model folder; it will not be overwritten" in refused(source, out, overwrite=True)
    assert (out / "keep.txt").read_text() == "mine"


def test_overwriting_replaces_the_whole_folder(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(source, out)
    (out / "old.json").write_text("{}")
    export_model(source, out, ExportOptions(dtype="int8", overwrite=True))
    assert not (out / "old.json").exists()
    assert "embedding.scale" in load_file(out / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_an_empty_folder_is_filled(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_model(source, tmp_path / "out")
    assert load_encoder(tmp_path / "out").dimension == 32


def test_the_source_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    for out in (source, source / "inner", tmp_path, source / ".." / "source"):
        assert "overlaps the model's own folder" in refused(source, out, overwrite=True)
    assert load_encoder(source).dimension == 32


def test_a_file_in_the_way_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "exists and is not a folder" in refused(source, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_check_leaves_everything_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    if existing:
        export_model(source, tmp_path / "out")
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(export, "read_table", lambda _: TABLE + np.float32(0.5))
    with pytest.raises(ModelError, match=r"vectors differ from the source's by .*nothing was written"):
        export_model(source, tmp_path / "out", ExportOptions(overwrite=True))
    with pytest.raises(ModelError, match=r"cosine to its source falls to .*nothing was written"):
        export_model(source, tmp_path / "out", ExportOptions(dtype="int8", overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if existing:
        np.testing.assert_array_equal(
            load_file(tmp_path / "out" / "model.safetensors")["embedding.weight"], TABLE
        )


def test_wrong_requests_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="dimensions = 33; model 'source' has 1 to 32"):
        export_model(source, tmp_path / "out", ExportOptions(dimensions=33))
    with pytest.raises(InvalidInputError, match=r"onnx is for transformers; .*source is static: use dtype"):
        export_model(source, tmp_path / "out", ExportOptions(onnx=["int8"]))
    with pytest.raises(NotFoundError, match="no model folder at"):
        export_model(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_train_extra_onnx_export_names_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import shutil

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    shutil.copy(source / "tokenizer.json", tmp_path / "m")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"exporting to ONNX needs the \[train\] extra"):
        export_model(tmp_path / "m", tmp_path / "out")


def test_the_long_probe_is_longer_than_the_limit(source: Path) -> None:
    encoder = load_encoder(source)
    assert len(encoder.runtime.tokenize([probe_texts(encoder)[-1]])[0]) > 600


def test_turning_columns_within_blocks_keeps_products_and_evens_them_out() -> None:
    sizes = [32, 64, 128]
    table = np.random.default_rng(4).normal(size=(50, 128)) * np.geomspace(2.0, 0.01, 128)
    turned = turned_within(table.astype(np.float32), sizes, seed=1)
    for size in sizes:
        first, expected = turned[:, :size], table[:, :size]
        np.testing.assert_allclose(first @ first.T, expected @ expected.T, atol=1e-3)
    before, after = (np.sqrt((rows**2).mean(axis=0)) for rows in (table, turned))
    for block in (slice(32), slice(32, 64), slice(64, 128)):
        assert np.ptp(after[block]) < np.ptp(before[block]) / 2
    assert not np.allclose(turned, turned_within(table.astype(np.float32), sizes, seed=2), atol=0.1)
