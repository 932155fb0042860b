"""What a reranker's folder holds: a cross-encoder as sentence-transformers or transformers write it, read
without torch.

    config.json                        a …ForSequenceClassification of one label
    tokenizer.json                     a `tokenizers` tokenizer
    model.safetensors | onnx/model.onnx | onnx/model_int8.onnx | model.onnx
    config_sentence_transformers.json  activation_fn and prompts (before version 5.4: in config.json)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedsvc.errors import ModelError, NotFoundError
from embedsvc.model_folder import ModelFolder, Module, classifies, is_cross_encoder, read_json, read_modules

Activation = Literal["sigmoid", "identity"]
_ACTIVATIONS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
_UNSAID_LABELS = 2  # transformers' default, which it does not write down


@dataclass(frozen=True)
class RerankerFolder:
    """An opened reranker folder; nothing but its small JSON files has been read."""

    model: ModelFolder
    activation: Activation  # makes a score of the logit
    takes_types: bool  # the model tells the query's tokens from the text's by their type
    query_prompt: str  # put before every query

    @property
    def path(self) -> Path:
        return self.model.path


def open_reranker_folder(path: Path) -> RerankerFolder:
    """Open a folder and check its structure; raise NotFoundError or ModelError saying what is wrong."""
    if not path.is_dir():
        raise NotFoundError(f"no reranker folder at {path}")
    config = read_json(path / "config.json", required=False)
    general = read_json(path / "config_sentence_transformers.json", required=False)
    if not classifies(config):
        found = (config.get("architectures") or ["no architecture"])[0]
        raise ModelError(
            f"{path} is not a reranker: its config.json names {found}, not a …ForSequenceClassification"
        )
    if not is_cross_encoder(path):
        raise ModelError(f"{path} is not a reranker but an embedding model: its modules make vectors")
    labels = len(config.get("id2label") or ()) or config.get("num_labels") or _UNSAID_LABELS
    if labels != 1:
        raise ModelError(f"{path} is a classifier with {labels} labels; a reranker has one, the relevance")
    model = ModelFolder(path, _modules(path), general.get("prompts") or {}, None, ())
    if not model.tokenizer_file.is_file():
        raise ModelError(f"the reranker folder is incomplete: {model.tokenizer_file} is missing")
    tokenizer = read_json(model.tokenizer_file.parent / "tokenizer_config.json", required=False)
    return RerankerFolder(
        model,
        _activation(path, config, general),
        _takes_types(config, tokenizer),
        model.prompts.get(general.get("default_prompt_name") or "", ""),
    )


def _modules(path: Path) -> tuple[Module, ...]:
    """Return the one module, the transformer; a chain of several would need its parts to be run, too."""
    if not (path / "modules.json").is_file():
        return (Module("Transformer", path),)
    modules = read_modules(path)
    if len(modules) > 1:
        kinds = ", ".join(module.kind for module in modules)
        raise ModelError(f"{path} has the modules {kinds}; a reranker of one Transformer is expected")
    return modules


def _activation(path: Path, config: dict[str, Any], general: dict[str, Any]) -> Activation:
    """Return the activation in sentence-transformers' order of precedence; without any it is the sigmoid."""
    older, oldest = (
        config.get("sentence_transformers") or {},
        config.get("sbert_ce_default_activation_function"),
    )
    said = general.get("activation_fn") or older.get("activation_fn") or oldest
    name = str(said or "Sigmoid").rsplit(".", 1)[-1]
    if name not in _ACTIVATIONS:
        raise ModelError(f"{path}: activation_fn {said!r} is unknown; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _takes_types(config: dict[str, Any], tokenizer: dict[str, Any]) -> bool:
    """True for models that tell token types apart, unless their tokenizer is told not to give any."""
    # transformers 4 gave types with every generic tokenizer, 5 does not; the models are of its time.
    wanted = tokenizer.get("model_input_names") or ["token_type_ids"]
    return int(config.get("type_vocab_size") or 0) > 1 and "token_type_ids" in wanted
