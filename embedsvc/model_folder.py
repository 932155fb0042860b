"""What a servable model folder holds: the sentence-transformers layout, read without torch.

    modules.json                       the chain of modules, in order
    config_sentence_transformers.json  prompts, default prompt, Matryoshka dimensions
    tokenizer.json                     a `tokenizers` tokenizer
    model.safetensors | onnx/model.onnx | model.onnx

A folder with a plain transformers model and no modules.json is read as sentence-transformers reads
it: the transformer, then mean pooling.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from embedsvc.errors import ModelError, NotFoundError

BUNDLED = Path(__file__).parent / "models" / "default"
_HASHED_SUFFIXES = {".json", ".safetensors", ".onnx", ".bin", ".txt", ".model", ".onnx_data"}


@dataclass(frozen=True)
class Module:
    """One entry of modules.json: its class name, its folder and its config (empty when it has none)."""

    kind: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFolder:
    """An opened model folder; nothing but its small JSON files has been read."""

    path: Path
    modules: tuple[Module, ...]
    prompts: dict[str, str]
    default_prompt_name: str | None
    matryoshka_dimensions: tuple[int, ...]

    @property
    def name(self) -> str:
        return "embedsvc-default" if self.path == BUNDLED else self.path.name

    @property
    def is_static(self) -> bool:
        return self.modules[0].kind == "StaticEmbedding"

    @property
    def onnx_file(self) -> Path | None:
        """The full-precision ONNX file, if there is one."""
        candidates = (self.path / "onnx" / "model.onnx", self.path / "model.onnx")
        return next((path for path in candidates if path.is_file()), None)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over every file that decides the vectors; an index records it."""
        digest = hashlib.sha256()
        for path in sorted(self.path.rglob("*")):
            relative = path.relative_to(self.path)
            if path.is_file() and path.suffix in _HASHED_SUFFIXES and relative.parts[0] != "run":
                digest.update(str(relative).encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def open_model_folder(path: Path) -> ModelFolder:
    """Open a folder and check its structure; raise NotFoundError or ModelError saying what is wrong."""
    if not path.is_dir():
        raise NotFoundError(f"no model folder at {path}")
    general = _read_json(path / "config_sentence_transformers.json", required=False)
    transformer = _read_json(path / "config.json", required=False)
    modules = _read_modules(path)
    _require(path / "tokenizer.json" if modules[0].kind != "Transformer" else _tokenizer_path(path, modules))
    prompts = general.get("prompts") or {}
    default = general.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(f"{path}: default_prompt_name {default!r} is not among its prompts {sorted(prompts)}")
    sizes = general.get("matryoshka_dimensions") or transformer.get("matryoshka_dimensions") or ()
    return ModelFolder(path, modules, prompts, default, tuple(sorted(int(size) for size in sizes)))


def _read_modules(path: Path) -> tuple[Module, ...]:
    listing = path / "modules.json"
    if not listing.is_file():
        if (path / "config.json").is_file():
            return Module("Transformer", path), Module("Pooling", path, {"pooling_mode": "mean"})
        raise ModelError(f"{path} is not a model folder: it has neither modules.json nor config.json")
    entries = _read_json(listing)
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{listing} does not list any module")
    modules = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or "type" not in entry or "path" not in entry:
            raise ModelError(f"{listing}: entry {position} has no 'type' or 'path'")
        folder = path / entry["path"]
        kind = str(entry["type"]).rsplit(".", 1)[-1]
        name = "sentence_bert_config.json" if kind == "Transformer" else "config.json"
        config = {} if kind == "StaticEmbedding" else _read_json(folder / name, required=False)
        modules.append(Module(kind, folder, config))
    if modules[0].kind not in ("Transformer", "StaticEmbedding"):
        raise ModelError(f"{listing}: the first module is {modules[0].kind}; Transformer or StaticEmbedding expected")
    return tuple(modules)


def _tokenizer_path(path: Path, modules: tuple[Module, ...]) -> Path:
    inner = modules[0].folder / "tokenizer.json"
    return inner if inner.is_file() else path / "tokenizer.json"


def _require(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"the model folder is incomplete: {path} is missing")


def _read_json(path: Path, *, required: bool = True) -> Any:
    if not path.is_file():
        if required:
            raise ModelError(f"the model folder is incomplete: {path} is missing")
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
