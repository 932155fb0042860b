from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedsvc.errors import ModelError, NotFoundError
from embedsvc.model_folder import BUNDLED, ModelFolder, Precision, open_model_folder, read_json

PREFIX = "sentence_transformers.models."


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def folder(path: Path, *kinds: str, **general: Any) -> Path:
    """Write the JSON files of a model folder, nothing more."""
    entries = [
        {"type": PREFIX + kind, "path": "" if number == 0 else f"{number}_{kind}"}
        for number, kind in enumerate(kinds)
    ]
    write(path / "modules.json", entries)
    write(path / "tokenizer.json", {})
    write(path / "config_sentence_transformers.json", general)
    return path


def test_the_modules_are_read_in_order_with_their_configs(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling", "Normalize", "Dense", "Normalize")
    write(path / "sentence_bert_config.json", {"max_seq_length": 7})
    write(path / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    opened = open_model_folder(path)
    assert [module.kind for module in opened.modules] == [
        "Transformer",
        "Pooling",
        "Normalize",
        "Dense",
        "Normalize",
    ]
    assert opened.modules[0].config == {"max_seq_length": 7}
    assert opened.modules[1].config == {"pooling_mode": "cls"}
    assert [module.kind for module in opened.head] == ["Pooling", "Normalize", "Dense"]
    assert (opened.is_static, opened.onnx_file, opened.name) == (False, None, "m")


def test_the_new_class_paths_of_sentence_transformers_are_understood(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer")
    kind = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    write(path / "modules.json", [{"type": kind, "path": ""}])
    assert open_model_folder(path).is_static


def test_prompts_and_dimensions_are_read(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": ""}
    general = {"prompts": prompts, "default_prompt_name": "query", "matryoshka_dimensions": [64, 32]}
    opened = open_model_folder(folder(tmp_path / "m", "StaticEmbedding", **general))
    assert opened.prompts == prompts
    assert opened.default_prompt_name == "query"
    assert opened.matryoshka_dimensions == (32, 64)


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({}, "mean"),
        ({"architectures": ["BertModel"]}, "mean"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "lasttoken"),
        ({"architectures": ["Qwen3ForCausalLM"], "is_causal": False}, "mean"),
    ],
)
def test_a_plain_transformer_is_read_as_sentence_transformers_reads_it(
    tmp_path: Path, config: dict[str, Any], mode: str
) -> None:
    write(tmp_path / "config.json", config)
    write(tmp_path / "tokenizer.json", {})
    modules = open_model_folder(tmp_path).modules
    assert [module.kind for module in modules] == ["Transformer", "Pooling"]
    assert modules[1].config == {"pooling_mode": mode}


def test_an_old_name_of_the_transformer_config_is_found(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling")
    write(path / "sentence_roberta_config.json", {"max_seq_length": 9})
    assert open_model_folder(path).modules[0].config == {"max_seq_length": 9}


def test_a_transformer_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer")
    write(path / "modules.json", [{"type": PREFIX + "Transformer", "path": "0_Transformer"}])
    (path / "0_Transformer").mkdir()
    (path / "tokenizer.json").rename(path / "0_Transformer" / "tokenizer.json")
    assert open_model_folder(path).tokenizer_file == path / "0_Transformer" / "tokenizer.json"


def test_the_full_precision_onnx_file_is_found_in_both_places(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling")
    write(path / "onnx" / "model_quantized.onnx", "")
    assert open_model_folder(path).onnx_file is None
    write(path / "model.onnx", "")
    assert open_model_folder(path).onnx_file == path / "model.onnx"
    write(path / "onnx" / "model.onnx", "")
    assert open_model_folder(path).onnx_file == path / "onnx" / "model.onnx"


def test_names_people_recognise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models--acme--multi-base" / "snapshots" / "0a1b2c"
    assert open_model_folder(folder(cached, "StaticEmbedding")).name == "acme/multi-base"
    folder(tmp_path / "mine", "StaticEmbedding")
    monkeypatch.chdir(tmp_path / "mine")
    assert open_model_folder(Path()).name == "mine"
    if (BUNDLED / "modules.json").is_file():
        assert open_model_folder(BUNDLED).name == "embedsvc-default"


def test_the_fingerprint_follows_every_file_that_decides_the_vectors(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "StaticEmbedding")
    seen = {open_model_folder(path).fingerprint}
    assert len(next(iter(seen))) == 16
    for name in ("model.safetensors", "1_Dense/model.safetensors", "onnx/model.onnx", "onnx/model.onnx.data"):
        write(path / name, name)
        seen.add(open_model_folder(path).fingerprint)
    write(path / "model.safetensors", "another")
    seen.add(open_model_folder(path).fingerprint)
    assert len(seen) == 6
    write(path / "README.md", "text")
    assert open_model_folder(path).fingerprint in seen


def opened(path: Path, precision: Precision) -> ModelFolder:
    return replace(open_model_folder(path), precision=precision)


@pytest.mark.parametrize("full", ["onnx/model.onnx", "model.safetensors", "pytorch_model.bin"])
def test_an_int8_graph_beside_full_weights_has_a_fingerprint_of_its_own(tmp_path: Path, full: str) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling")
    write(path / full, "full")
    write(path / "onnx" / "model_int8.onnx", "rounded")
    full_weights, rounded = opened(path, "float32"), opened(path, "int8")
    files = full_weights.files_fingerprint
    assert full_weights.fingerprint == rounded.files_fingerprint == files
    assert rounded.fingerprint == hashlib.sha256(f"{files} onnx/model_int8.onnx".encode()).hexdigest()[:16]
    assert [rounded.fits(files), rounded.fits(rounded.fingerprint)] == [True, True]
    assert [full_weights.fits(files), full_weights.fits(rounded.fingerprint)] == [True, False]
    write(path / "onnx" / "model_int8.onnx", "rounded otherwise")
    assert opened(path, "int8").fingerprint != rounded.fingerprint


def test_an_int8_graph_that_is_all_there_is_has_the_fingerprint_of_the_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling")
    write(path / "onnx" / "model_quantized.onnx", "rounded")
    write(path / "1_Pooling" / "model.safetensors", "no weights of the transformer")
    assert opened(path, "int8").fingerprint == open_model_folder(path).files_fingerprint


def test_a_mapped_model_fits_the_vectors_of_the_model_whose_space_it_is_in(tmp_path: Path) -> None:
    mapped = open_model_folder(folder(tmp_path / "m", "StaticEmbedding", mapped_to="0123456789abcdef"))
    assert [mapped.fits("0123456789abcdef"), mapped.fits(mapped.fingerprint)] == [True, True]
    assert not mapped.fits("fedcba9876543210")
    with pytest.raises(ModelError, match="mapped_to must be a fingerprint"):
        open_model_folder(folder(tmp_path / "bad", "StaticEmbedding", mapped_to=7))


def test_the_same_files_elsewhere_have_the_same_fingerprint(tmp_path: Path) -> None:
    first = open_model_folder(folder(tmp_path / "a", "StaticEmbedding"))
    second = open_model_folder(folder(tmp_path / "b", "StaticEmbedding"))
    assert first.fingerprint == second.fingerprint


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model folder at"):
        open_model_folder(tmp_path / "none")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither modules\.json nor config\.json"):
        open_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{", r"modules\.json cannot be read as JSON"),
        ("modules.json", "\udcff", r"modules\.json cannot be read as JSON"),
        ("modules.json", "[]", r"modules\.json does not list any module"),
        ("modules.json", '{"a": 1}', r"modules\.json does not list any module"),
        ("modules.json", '[{"type": "x"}]', "entry 0 has no 'type' or 'path'"),
        (
            "modules.json",
            '[{"type": "a.Pooling", "path": ""}]',
            "the first module is Pooling; Transformer or",
        ),
        ("modules.json", '[{"type": "a.WordEmbeddings", "path": ""}]', "the first module is WordEmbeddings"),
        ("config.json", "[1]", r"config\.json must hold a JSON object, not list"),
        ("config_sentence_transformers.json", '"x"', "must hold a JSON object, not str"),
        ("config_sentence_transformers.json", '{"prompts": [1]}', "prompts must map names to texts"),
        ("config_sentence_transformers.json", '{"prompts": {"q": 1}}', "prompts must map names to texts"),
        (
            "config_sentence_transformers.json",
            '{"prompts": {"q": "?"}, "default_prompt_name": "query"}',
            r"default_prompt_name 'query' is not among its prompts \['q'\]",
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = folder(tmp_path / "m", "Transformer", "Pooling")
    (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=message):
        open_model_folder(path)


@pytest.mark.parametrize("kind", ["Transformer", "StaticEmbedding"])
def test_a_missing_tokenizer_is_named(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path / "m", kind)
    (path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"incomplete: .*tokenizer\.json is missing"):
        open_model_folder(path)


def test_a_missing_file_is_empty_only_when_it_is_optional(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json", required=False) == {}
    with pytest.raises(ModelError, match=r"none\.json is missing"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], {}),
        (["model.onnx"], {"float32": "model.onnx"}),
        (["model.onnx", "onnx/model.onnx"], {"float32": "onnx/model.onnx"}),
        (["onnx/model_quantized.onnx"], {"int8": "onnx/model_quantized.onnx"}),
        (["model_quantized.onnx", "model.onnx"], {"int8": "model_quantized.onnx", "float32": "model.onnx"}),
        (
            ["onnx/model_qint8_avx512_vnni.onnx", "onnx/model_O3.onnx"],
            {"int8": "onnx/model_qint8_avx512_vnni.onnx"},
        ),
        (["onnx/model_quint8_avx2.onnx", "onnx/model_int8.onnx"], {"int8": "onnx/model_int8.onnx"}),
    ],
)
def test_onnx_files_are_found_under_the_names_that_exporters_give(
    tmp_path: Path, files: list[str], expected: dict[str, str]
) -> None:
    root = folder(tmp_path / "m", "Transformer", "Pooling")
    for name in files:
        write(root / name, "")
    opened = open_model_folder(root)
    assert opened.onnx_files == {precision: root / name for precision, name in expected.items()}
    assert opened.onnx_file == opened.onnx_files.get("float32")
