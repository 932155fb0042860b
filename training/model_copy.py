"""A model folder written anew: whole or not at all, with everything of its source but the weights."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import ModelFolder, read_json
from embedsvc.textfiles import write_json
from training.static_export import TableDtype, write_static_folder

# What another server or library may look for beside the modules' own folders. Never the weights.
_KEPT_FILES = (
    *("README.md", "LICENSE", "LICENSE.txt", "NOTICE"),
    *("config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
    *("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "chat_template.jinja"),
)
_MODULE = "sentence_transformers.models"


@contextlib.contextmanager
def new_folder(out: Path, sources: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that takes its place when the block succeeds.

    Raises InvalidInputError when ``out`` overlaps a source, or holds what may not be overwritten.
    """
    out = out.absolute()
    _require_replaceable(out, sources, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        yield fresh
        for path in fresh.rglob("*"):  # safetensors writes files that only their owner can read
            path.chmod(path.stat().st_mode | fresh.stat().st_mode & (0o777 if path.is_dir() else 0o666))
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_replaceable(out: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    here = out.resolve()
    for source in sources:
        there = source.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise InvalidInputError(
                f"{out} overlaps the model's own folder {source}; choose another", param="out"
            )
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} exists and is not a folder", param="out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise InvalidInputError(f"{out} is not empty; overwrite it with --overwrite", param="out")
    if not (out / "modules.json").is_file():
        raise InvalidInputError(f"{out} is not a model folder; it will not be overwritten", param="out")


def copy_plain(source: ModelFolder, folder: Path) -> None:
    """Copy configs, tokenizer and the small modules; write modules.json where the source has none."""
    first = source.modules[0].folder
    for origin in {source.path, first}:
        target = folder / origin.relative_to(source.path)
        target.mkdir(parents=True, exist_ok=True)
        for name in _KEPT_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, target / name)
    if (source.path / "modules.json").is_file():
        for module in source.modules[1:]:
            if module.folder.is_dir() and module.folder not in (source.path, first):
                shutil.copytree(module.folder, folder / module.folder.relative_to(source.path))
    else:
        _write_modules(source, folder)


def copy_weights(source: ModelFolder, folder: Path) -> None:
    """Copy the weights of the transformer, which `copy_plain` leaves out: torch's, else the float32 graph."""
    graph = source.onnx_file
    files = weight_files(source)
    if not files and graph is not None:
        files = sorted(graph.parent.glob(f"{graph.name}*"))  # its weights may lie beside it
    for path in files:
        target = folder / path.relative_to(source.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def is_adapter(path: Path) -> bool:
    """True for a folder with an adapter of the peft library, and not the weights of a whole model."""
    return (path / "adapter_config.json").is_file() and not any(path.glob("model*.safetensors"))


def weight_files(source: ModelFolder) -> list[Path]:
    """Return the files of the first module's torch weights: safetensors and their index, else others."""
    first = source.modules[0].folder
    for name in ("model*.safetensors*", "pytorch_model*.bin*"):
        if files := sorted(first.glob(name)):
            return files
    return []


def _write_modules(source: ModelFolder, folder: Path) -> None:
    pooling = source.modules[1].config | {
        "embedding_dimension": read_json(source.path / "config.json")["hidden_size"]
    }
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{_MODULE}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_MODULE}.Pooling"},
    ]
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "modules.json", modules)


def write_static_copy(
    source: ModelFolder,
    folder: Path,
    table: NDArray[np.float32],
    *,
    dtype: TableDtype = "float32",
    tokenizer_json: str | None = None,
) -> None:
    """Write a static model with another table (rows, dim), and maybe another tokenizer, than its source."""
    if tokenizer_json is None:
        tokenizer_json = source.tokenizer_file.read_text(encoding="utf-8")
    card = source.path / "README.md"
    write_static_folder(
        folder,
        table,
        tokenizer_json,
        matryoshka_dimensions=[size for size in source.matryoshka_dimensions if size <= table.shape[1]],
        dtype=dtype,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )
    path = folder / "config_sentence_transformers.json"
    kept: dict[str, Any] = {"prompts": source.prompts, "default_prompt_name": source.default_prompt_name}
    if source.mapped_to is not None:
        kept["mapped_to"] = source.mapped_to
    write_json(path, read_json(path) | kept)
