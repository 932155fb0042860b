from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_models import SPECIAL, WORDS, word_tokenizer, write_json, write_static
from tokenizers import Tokenizer, normalizers

from embedsvc.encoder import load_encoder
from embedsvc.encoders import static_table
from embedsvc.encoders.static_table import mean_rows, read_table
from embedsvc.errors import ModelError

ROWS = len(SPECIAL) + len(WORDS)
NAME = "embedding.weight"


def table(dimension: int = 6, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, dimension)).astype(np.float32)


def word(number: int) -> int:
    return 7 + number


def test_a_text_is_the_mean_of_its_tokens_rows(tmp_path: Path) -> None:
    rows = table()
    encoder = load_encoder(write_static(tmp_path / "m", {NAME: rows}, WORDS))
    found = encoder.encode(["w0", "w1 w2 w2", "w3 nobody"], normalize=False)
    expected = [
        rows[word(0)],
        (rows[word(1)] + 2 * rows[word(2)]) / 3,
        (rows[word(3)] + rows[SPECIAL.index("[UNK]")]) / 2,
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encoder.encode_with_usage(["w1 w2 w2"]).tokens == [3]


@pytest.mark.parametrize("gather", [1, 7, 100_000])
def test_means_equal_brute_force_however_they_are_cut(gather: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_table, "_GATHER_TOKENS", gather)
    generator = np.random.default_rng(2)
    lengths = generator.integers(0, 12, size=50)
    ids = generator.integers(0, ROWS, size=lengths.sum())
    rows = table()
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    expected = [rows[part].mean(axis=0) if len(part) else np.zeros(6) for part in parts]
    np.testing.assert_allclose(mean_rows(rows, ids, lengths), expected, atol=1e-5)


def test_no_texts_give_no_means() -> None:
    assert mean_rows(table(), np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0, 6)


def test_a_text_without_any_token_is_zero_and_spoils_nothing(tmp_path: Path) -> None:
    path = write_static(tmp_path / "m", {NAME: table()}, WORDS)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace("!", "")
    tokenizer.save(str(path / "tokenizer.json"))
    found = load_encoder(path).encode_with_usage(["w1", "!!", "w2", "!"])
    assert found.tokens == [1, 0, 1, 0]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), [1, 0, 1, 0], atol=1e-6)


def test_int8_rows_are_scaled_one_by_one(tmp_path: Path) -> None:
    rows = np.zeros((ROWS, 2), np.int8)
    rows[word(0)], rows[word(1)] = [127, -127], [10, 20]
    scale = np.ones(ROWS, np.float32)
    scale[word(0)], scale[word(1)] = 0.5, 0.25
    folder = write_static(tmp_path / "m", {NAME: rows, "embedding.scale": scale}, WORDS)
    found = load_encoder(folder).encode(["w0", "w1", "w0 w1"], normalize=False)
    np.testing.assert_allclose(found, [[63.5, -63.5], [2.5, 5.0], [33.0, -29.25]])


def test_four_bits_choose_one_of_sixteen_levels(tmp_path: Path) -> None:
    codes = np.zeros((ROWS, 2), np.uint8)
    codes[word(0)], codes[word(1)] = [0x21, 0xF0], [0x00, 0x43]  # the low four bits come first
    levels, scale = np.arange(16, dtype=np.float32) - 8, np.full(ROWS, 0.5, np.float16)
    tensors = {NAME: codes, "embedding.levels": levels, "embedding.scale": scale}
    found = load_encoder(write_static(tmp_path / "m", tensors, WORDS)).encode(["w0", "w1"], normalize=False)
    np.testing.assert_allclose(found, [[-3.5, -3.0, -4.0, 3.5], [-4.0, -4.0, -2.5, -2.0]])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table().astype(np.float16)}, WORDS)
    found = load_encoder(folder).encode(["w5"], normalize=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], table().astype(np.float16)[word(5)].astype(np.float32))


def test_model2vec_names_mapping_and_weights_are_read(tmp_path: Path) -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    mapping = np.zeros(ROWS, np.int64)
    mapping[word(1)] = 1
    weights = np.ones(ROWS, np.float32)
    weights[word(0)] = 3.0
    tensors = {"embeddings": rows, "mapping": mapping, "weights": weights}
    folder = write_static(tmp_path / "m", tensors, WORDS)
    found = load_encoder(folder).encode(["w0", "w1", "w0 w1"], normalize=False)
    np.testing.assert_allclose(found, [[3, 0], [0, 2], [1.5, 1]])


def test_the_model_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table()}, WORDS)
    (folder / "0_StaticEmbedding").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).rename(folder / "0_StaticEmbedding" / name)
    write_json(folder / "modules.json", [{"type": "x.StaticEmbedding", "path": "0_StaticEmbedding"}])
    found = load_encoder(folder).encode(["w4"], normalize=False)
    np.testing.assert_allclose(found[0], table()[word(4)])


def test_a_vocabulary_larger_than_the_table_is_refused(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table()[:-1]}, WORDS)
    with pytest.raises(ModelError, match=f"the tokenizer has {ROWS} tokens, the table only {ROWS - 1} rows"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weights": table()}, r"has no tensor 'embedding\.weight'; it has \['weights'\]"),
        ({NAME: table()[0]}, r"'embedding\.weight' has shape \(6,\); \(vocabulary, dimension\) expected"),
        ({NAME: table().astype(np.uint8)}, r"is uint8 but 'embedding\.levels' is missing"),
        ({NAME: table().astype(np.int8)}, r"is int8 but 'embedding\.scale' is missing"),
        ({NAME: table().astype(np.int8), "embedding.scale": np.ones(3)}, "do not fit each other"),
        ({"embeddings": table(), "mapping": np.full(ROWS, ROWS)}, "do not fit each other"),
        ({"embeddings": table(), "weights": np.ones(2)}, "do not fit each other"),
    ],
)
def test_wrong_tensors_are_one_clear_error(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_table(write_static(tmp_path / "m", tensors, WORDS))
    assert str(tmp_path / "m" / "model.safetensors") in caught.value.message


@pytest.mark.parametrize("keep", [0, 4, 200, -10])
def test_a_truncated_safetensors_file_is_one_clear_error(tmp_path: Path, keep: int) -> None:
    path = write_static(tmp_path / "m", {NAME: table()}, WORDS) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        load_encoder(path.parent)


def test_a_bfloat16_table_is_widened(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    folder = write_static(tmp_path / "m", {NAME: table()}, WORDS)
    rows = torch.from_numpy(table()).bfloat16()
    save_torch({NAME: rows}, folder / "model.safetensors")
    np.testing.assert_array_equal(read_table(folder), rows.float().numpy())


def test_a_table_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table().astype(np.uint16)}, WORDS)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: tensors of type U16"):
        load_encoder(folder)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table()}, WORDS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"incomplete: .*model\.safetensors is missing"):
        load_encoder(folder)


def test_a_module_after_the_table_is_refused(tmp_path: Path) -> None:
    folder = write_static(tmp_path / "m", {NAME: table()}, WORDS)
    modules = [{"type": "x.StaticEmbedding", "path": ""}, {"type": "x.Dense", "path": "1_Dense"}]
    write_json(folder / "modules.json", modules)
    with pytest.raises(ModelError, match="a static model cannot be followed by Dense"):
        load_encoder(folder)


def test_runtime_static_is_only_for_static_models(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_json(folder / "config.json", {})
    word_tokenizer(WORDS, special=True).save(str(folder / "tokenizer.json"))
    save_file({NAME: table()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="is not a static model; use runtime onnx or torch"):
        load_encoder(folder, runtime="static")
