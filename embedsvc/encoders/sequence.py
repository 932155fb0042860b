"""The input side of transformer models, shared by every runtime: limits, special tokens, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, read_json
from embedsvc.runtime import PreparedText
from embedsvc.tokens import TextTokenizer

_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids of a batch, padded on the right, special tokens included."""

    ids: NDArray[np.int64]  # (n, t)
    mask: NDArray[np.int64]  # (n, t)
    prompt: NDArray[np.int64]  # (n,) leading tokens that belong to the prompt, special ones included


class SequenceInputs:
    """Tokenize for a transformer and pad batches for it."""

    def __init__(self, folder: ModelFolder) -> None:
        module = folder.modules[0]
        _require_plain_text(folder, module.config)
        config = read_json(module.folder / "config.json")
        tokenizer_config = read_json(folder.tokenizer_file.parent / "tokenizer_config.json", required=False)
        lowercase = bool(module.config.get("do_lower_case", False))
        self._tokenizer = TextTokenizer(folder.tokenizer_file, lowercase=lowercase)
        self._folder = folder
        self._rows = config.get("vocab_size")
        self.pad = pad_id(config, tokenizer_config, self._tokenizer)
        self.prefix, self.suffix = self._tokenizer.prefix, self._tokenizer.suffix
        self.special_tokens = len(self.prefix) + len(self.suffix)
        limit = sequence_limit(module.config, tokenizer_config, config)
        self.max_tokens = None if limit is None else limit - self.special_tokens
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ModelError(
                f"{folder.path}: {self.special_tokens} special tokens leave no room in a limit of {limit}"
            )

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        return self._tokenizer.ids(texts)

    def padded(self, batch: Sequence[PreparedText]) -> PaddedBatch:
        """Return the batch as arrays; raise ModelError for a token that the model has no vector for."""
        width = max(1, max(len(text.ids) for text in batch) + self.special_tokens)
        ids = np.full((len(batch), width), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(batch):
            length = len(text.ids) + self.special_tokens
            ids[row, :length] = self.prefix + text.ids + self.suffix
            mask[row, :length] = 1
        check_vocabulary(ids, self._rows, self._folder)
        prompt = [len(self.prefix) + text.prompt_tokens if text.prompt_tokens else 0 for text in batch]
        return PaddedBatch(ids, mask, np.array(prompt, np.int64))


def check_vocabulary(ids: NDArray[np.int64], rows: int | None, folder: ModelFolder) -> None:
    """Raise ModelError for a token id that the model, with vectors for ``rows`` of them, has none for."""
    if rows is not None and int(ids.max()) >= rows:
        raise ModelError(
            f"{folder.path}: the tokenizer made token id {int(ids.max())}, "
            f"but config.json says vocab_size {rows}"
        )


def _require_plain_text(folder: ModelFolder, config: dict[str, Any]) -> None:
    task = config.get("transformer_task", "feature-extraction")
    modalities = config.get("modality_config") or {"text": {}}
    if task != "feature-extraction" or "text" not in modalities:
        raise ModelError(
            f"{folder.path}: a {task} model for {', '.join(modalities)} cannot be served as a text encoder"
        )


def sequence_limit(
    module: dict[str, Any], tokenizer: dict[str, Any], transformer: dict[str, Any]
) -> int | None:
    """Return the longest sequence, special tokens included, in sentence-transformers' order of precedence."""
    processor = module.get("processor_kwargs") or module.get("tokenizer_args") or {}
    call = (module.get("processing_kwargs") or {}).get("text") or {}
    for said in (call.get("max_length"), processor.get("model_max_length"), module.get("max_seq_length")):
        if said is not None:
            return int(said)
    limits = [tokenizer.get("model_max_length"), _positions(transformer)]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit <= _NO_LIMIT]
    return min(known, default=None)


def _positions(config: dict[str, Any]) -> int | None:
    """Return the usable positions; the RoBERTa family starts counting after its padding id."""
    positions = config.get("max_position_embeddings")
    if positions is None:
        return None
    family = str(config.get("model_type", ""))
    late = "roberta" in family or family in ("camembert", "mpnet", "longformer", "xmod", "data2vec-text")
    return int(positions) - (int(config.get("pad_token_id") or 0) + 1 if late else 0)


def pad_id(config: dict[str, Any], tokenizer_config: dict[str, Any], tokenizer: TextTokenizer) -> int:
    """Return the token that fills up a batch: the model's, else the tokenizer's, else 0."""
    if config.get("pad_token_id") is not None:
        return int(config["pad_token_id"])
    token = tokenizer_config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    return (tokenizer.token_id(token) if token else None) or 0
