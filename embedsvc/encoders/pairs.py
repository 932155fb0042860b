"""The input side of cross-encoders, shared by every runtime: query and text as one sequence, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoders.sequence import check_vocabulary, pad_id, sequence_limit
from embedsvc.errors import ModelError, TextTooLongError
from embedsvc.model_folder import read_json
from embedsvc.reranker_folder import RerankerFolder
from embedsvc.tokens import TextTokenizer, Truncate


@dataclass(frozen=True)
class Pair:
    """The tokens of a query and a text as the model sees them, special ones included."""

    ids: list[int]
    types: list[int]  # 0 or 1: of the query or of the text


@dataclass(frozen=True)
class PreparedPairs:
    """A query with each text, cut to the limit, with their true token counts before that."""

    pairs: list[Pair]
    tokens: list[int]
    truncated: list[bool]


@dataclass(frozen=True)
class PairBatch:
    """Pairs padded on the right; each array is (n, t)."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    types: NDArray[np.int64]


class PairRuntime(Protocol):
    """What runs a cross-encoder; one file each."""

    name: str
    batch_tokens: int  # padded-token budget of one batch

    def logits(self, batch: PairBatch) -> NDArray[np.float32]:
        """Return the model's answer to each pair, (n, labels), before the activation."""


class PairInputs:
    """Tokenize pairs for a cross-encoder and pad batches for it."""

    def __init__(self, folder: RerankerFolder) -> None:
        module = folder.model.modules[0]
        config = read_json(module.folder / "config.json")
        tokenizer_file = folder.model.tokenizer_file
        tokenizer_config = read_json(tokenizer_file.parent / "tokenizer_config.json", required=False)
        lowercase = bool(module.config.get("do_lower_case", False))
        self._tokenizer = TextTokenizer(tokenizer_file, lowercase=lowercase)
        self._template = self._tokenizer.pair_template()
        self._folder = folder
        self._rows = config.get("vocab_size")
        self._pad = pad_id(config, tokenizer_config, self._tokenizer)
        self.max_tokens = sequence_limit(module.config, tokenizer_config, config)
        if self.max_tokens is not None and self.max_tokens < self._template.special_tokens + 2:
            raise ModelError(
                f"{folder.path}: {self._template.special_tokens} special tokens leave no room for a query "
                f"and a text in a limit of {self.max_tokens}"
            )

    def prepare(
        self, query: str, texts: Sequence[str], truncate: Truncate, max_text_tokens: int | None
    ) -> PreparedPairs:
        """Tokenize, and cut each text to the room that the query leaves it, or to fewer tokens.

        Raises TextTooLongError for a query that leaves no room, and for a text when it may not be cut.
        """
        first = self._tokenizer.ids([self._folder.query_prompt + query])[0]
        room = self._room(len(first))
        limit = min((most for most in (room, max_text_tokens) if most is not None), default=None)
        second = self._tokenizer.ids(texts)
        overhead = len(first) + self._template.special_tokens
        cut = [limit is not None and len(ids) > limit for ids in second]
        if truncate == "none" and any(cut):
            position = cut.index(True)
            raise TextTooLongError(
                f"texts[{position}] has {len(second[position])} tokens; beside the query the limit is "
                f"{limit} (truncate='end' or 'start' cuts it)",
                param="texts",
            )
        pairs = [Pair(*self._template.join(first, _shortened(ids, limit, truncate))) for ids in second]
        return PreparedPairs(pairs, [len(ids) + overhead for ids in second], cut)

    def _room(self, query_tokens: int) -> int | None:
        """Return the tokens that are left for a text."""
        if self.max_tokens is None:
            return None
        room = self.max_tokens - self._template.special_tokens - query_tokens
        if room < 1:
            raise TextTooLongError(
                f"query has {query_tokens} tokens; the limit is {query_tokens + room - 1}, with room for one "
                "token of a text",
                param="query",
            )
        return room

    def padded(self, batch: Sequence[Pair]) -> PairBatch:
        """Return the pairs as arrays; raise ModelError for a token that the model has no vector for."""
        ids = np.full((len(batch), max(len(pair.ids) for pair in batch)), self._pad, np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, pair in enumerate(batch):
            length = len(pair.ids)
            ids[row, :length] = pair.ids
            mask[row, :length] = 1
            if self._folder.takes_types:
                types[row, :length] = pair.types
        check_vocabulary(ids, self._rows, self._folder.model)
        return PairBatch(ids, mask, types)


def _shortened(ids: list[int], limit: int | None, truncate: Truncate) -> list[int]:
    if limit is None or len(ids) <= limit:
        return ids
    return ids[:limit] if truncate == "end" else ids[len(ids) - limit :]
