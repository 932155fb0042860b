"""What a servable model folder holds: the sentence-transformers layout, read without torch.

    modules.json                       the chain of modules, in order
    config_sentence_transformers.json  prompts, default prompt, Matryoshka dimensions, mapped_to
    tokenizer.json                     a `tokenizers` tokenizer
    model.safetensors | onnx/model.onnx | onnx/model_int8.onnx | model.onnx

A folder with a plain transformers model and no modules.json is read as sentence-transformers reads
it: the transformer, then mean pooling.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from embedsvc.errors import ModelError, NotFoundError

Precision = Literal["float32", "int8"]
PRECISION_ALIASES = {"fp32": "float32"}
"""What others call a precision; options take these names too."""

BUNDLED = Path(__file__).parent / "models" / "default"
SAMPLE_FILE = Path(__file__).parent / "models" / "sample" / "documents.jsonl"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
# What may lie beside the model without changing its float32 vectors.
_NOT_MODEL = {"run", "evaluation", "calibration.json"}
# int8: our own, transformers.js and optimum, sentence-transformers (one for each kind of processor).
_ONNX_NAMES: dict[Precision, tuple[str, ...]] = {
    "float32": ("model.onnx",),
    "int8": ("model_int8.onnx", "model_quantized.onnx", "model_qint8_*.onnx", "model_quint8_*.onnx"),
}
_HASHED_SUFFIXES = {".json", ".safetensors", ".onnx", ".bin", ".txt", ".model", ".onnx_data", ".data"}


@dataclass(frozen=True)
class Module:
    """One entry of modules.json: its class name, its folder and its config (empty when it has none)."""

    kind: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFolder:
    """An opened model folder; nothing but its small JSON files has been read.

    ``precision`` is that of the ONNX file that is run, where one is; ``mapped_to`` the fingerprint of the
    model into whose space an export has mapped the vectors, where one has.
    """

    path: Path
    modules: tuple[Module, ...]
    prompts: dict[str, str]
    default_prompt_name: str | None
    matryoshka_dimensions: tuple[int, ...]
    precision: Precision = "float32"
    mapped_to: str | None = None

    @property
    def name(self) -> str:
        path = self.path.resolve()
        if path == BUNDLED.resolve():
            return "embedsvc-default"
        repository = path.parent.parent.name
        if path.parent.name == "snapshots" and repository.startswith("models--"):  # the hub's cache
            return repository.removeprefix("models--").replace("--", "/")
        return path.name

    @property
    def is_static(self) -> bool:
        return self.modules[0].kind == "StaticEmbedding"

    @property
    def head(self) -> tuple[Module, ...]:
        """The modules after the first, without the Normalize at the end: that is postprocessing."""
        end = len(self.modules)
        while end > 1 and self.modules[end - 1].kind == "Normalize":
            end -= 1
        return self.modules[1:end]

    @property
    def tokenizer_file(self) -> Path:
        inner = self.modules[0].folder / "tokenizer.json"
        return inner if inner.is_file() else self.path / "tokenizer.json"

    @property
    def onnx_files(self) -> dict[Precision, Path]:
        """The ONNX file of each precision that there is one of, under the names that exporters give them."""
        folders = (self.path / "onnx", self.path)
        found: dict[Precision, Path] = {}
        for precision, names in _ONNX_NAMES.items():
            files = [path for folder in folders for name in names for path in sorted(folder.glob(name))]
            if files:
                found[precision] = files[0]
        return found

    @property
    def onnx_file(self) -> Path | None:
        """The full-precision ONNX file, if there is one."""
        return self.onnx_files.get("float32")

    @cached_property
    def weight_bytes(self) -> int:
        """The size of the largest file: the weights that are run, near enough."""
        return max((path.stat().st_size for path in self.path.rglob("*") if path.is_file()), default=0)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides the vectors; an index records it.

        They are those of the files, but for an int8 graph beside full weights: the files alone would not
        tell its vectors from the others.
        """
        if self.precision == "float32" or not self._has_full_weights:
            return self.files_fingerprint
        graph = self.onnx_files[self.precision].relative_to(self.path)
        return hashlib.sha256(f"{self.files_fingerprint} {graph.as_posix()}".encode()).hexdigest()[:16]

    def fits(self, fingerprint: str) -> bool:
        """True for vectors of that fingerprint that its own may be compared with.

        They are its own, for an int8 graph those of the full weights, which it rounds, and those of the model
        into whose space they are mapped.
        """
        return fingerprint in (self.fingerprint, self.files_fingerprint, self.mapped_to)

    @property
    def _has_full_weights(self) -> bool:
        first = self.modules[0].folder
        return self.onnx_file is not None or any(any(first.glob(name)) for name in _WEIGHTS)

    @cached_property
    def files_fingerprint(self) -> str:
        """16 hex digits over every file that decides the vectors, whichever of its graphs is run."""
        digest = hashlib.sha256()
        for path in sorted(self.path.rglob("*")):
            relative = path.relative_to(self.path)
            if path.is_file() and path.suffix in _HASHED_SUFFIXES and relative.parts[0] not in _NOT_MODEL:
                digest.update(str(relative).encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def open_model_folder(path: Path) -> ModelFolder:
    """Open a folder and check its structure; raise NotFoundError or ModelError saying what is wrong."""
    if not path.is_dir():
        raise NotFoundError(f"no model folder at {path}")
    general = read_json(path / "config_sentence_transformers.json", required=False)
    transformer = read_json(path / "config.json", required=False)
    if is_cross_encoder(path):
        raise ModelError(
            f"{path} is a reranker (a cross-encoder), not an embedding model: `load_reranker` opens it, and "
            "the server as its --reranker"
        )
    modules = read_modules(path)
    prompts = general.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelError(f"{path / 'config_sentence_transformers.json'}: prompts must map names to texts")
    default = general.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"{path}: default_prompt_name {default!r} is not among its prompts {sorted(prompts)}"
        )
    sizes = general.get("matryoshka_dimensions") or transformer.get("matryoshka_dimensions") or ()
    mapped_to = general.get("mapped_to")
    if mapped_to is not None and not isinstance(mapped_to, str):
        raise ModelError(f"{path / 'config_sentence_transformers.json'}: mapped_to must be a fingerprint")
    dimensions = tuple(sorted(int(size) for size in sizes))
    folder = ModelFolder(path, modules, prompts, default, dimensions, mapped_to=mapped_to)
    _require(folder.tokenizer_file)
    return folder


def is_cross_encoder(path: Path) -> bool:
    """True when a folder is said to hold a reranker, or holds a bare transformer that classifies."""
    general = read_json(path / "config_sentence_transformers.json", required=False)
    if general.get("model_type") is not None:  # written since sentence-transformers 5
        return bool(general["model_type"] == "CrossEncoder")
    return not (path / "modules.json").is_file() and classifies(
        read_json(path / "config.json", required=False)
    )


def classifies(config: dict[str, Any]) -> bool:
    """True when a config.json is that of a transformer with a classifier on top."""
    return str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")


def read_modules(path: Path) -> tuple[Module, ...]:
    """Return the chain of modules that modules.json lists, or what stands for it; raise ModelError."""
    listing = path / "modules.json"
    if not listing.is_file():
        if (path / "config.json").is_file():
            pooling = {"pooling_mode": _usual_pooling(read_json(path / "config.json"))}
            return Module("Transformer", path, _transformer_config(path)), Module("Pooling", path, pooling)
        raise ModelError(f"{path} is not a model folder: it has neither modules.json nor config.json")
    entries = _parse_json(listing)
    if not isinstance(entries, list) or not entries:
        raise ModelError(f"{listing} does not list any module")
    modules = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or "type" not in entry or "path" not in entry:
            raise ModelError(f"{listing}: entry {position} has no 'type' or 'path'")
        folder = path / entry["path"]
        kind = str(entry["type"]).rsplit(".", 1)[-1]
        modules.append(Module(kind, folder, _module_config(kind, folder)))
    if modules[0].kind not in ("Transformer", "StaticEmbedding"):
        raise ModelError(
            f"{listing}: the first module is {modules[0].kind}; Transformer or StaticEmbedding expected"
        )
    return tuple(modules)


def _module_config(kind: str, folder: Path) -> dict[str, Any]:
    if kind == "StaticEmbedding":
        return {}
    return (
        _transformer_config(folder)
        if kind == "Transformer"
        else read_json(folder / "config.json", required=False)
    )


def _transformer_config(folder: Path) -> dict[str, Any]:
    """Read sentence_bert_config.json; very old models name it after their architecture."""
    found = sorted(
        folder.glob("sentence_*_config.json"), key=lambda path: path.name != "sentence_bert_config.json"
    )
    return read_json(found[0]) if found else {}


def _usual_pooling(config: dict[str, Any]) -> str:
    """Return what sentence-transformers pools a bare transformer with."""
    architecture = (config.get("architectures") or [""])[0]
    causal = architecture.endswith("ForCausalLM") and config.get("is_causal") is not False
    return "lasttoken" if causal else "mean"


def _require(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"the model folder is incomplete: {path} is missing")


def read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """Return the object in a JSON file; a missing file is an empty one unless it is required."""
    if not required and not path.is_file():
        return {}
    _require(path)
    value = _parse_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file, bfloat16 widened to float32; raise ModelError naming it."""
    _require(path)
    try:
        return {name: _array(**tensor) for name, tensor in deserialize(path.read_bytes())}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I8": "i1",
    "U8": "u1",
}


def _array(dtype: str, shape: list[int], data: bytes) -> NDArray[Any]:
    if dtype not in _DTYPES:
        raise ValueError(f"tensors of type {dtype} are not supported")
    values: NDArray[Any] = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
