"""Text to token ids with a `tokenizers` tokenizer; limits are enforced or reported, never silent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from embedsvc.errors import InvalidInputError, ModelError, TextTooLongError

Truncate = Literal["none", "start", "end"]


class TextTokenizer:
    """Token ids of texts without special tokens, and the special tokens that the model wants around them."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        probe = self._tokenizer.encode("a")
        special = probe.special_tokens_mask
        lead = next((i for i, flag in enumerate(special) if not flag), len(special))
        tail = next((i for i, flag in enumerate(reversed(special)) if not flag), 0)
        self.prefix: list[int] = probe.ids[:lead]
        self.suffix: list[int] = probe.ids[len(probe.ids) - tail :]

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens and without any limit."""
        try:
            encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            raise _bad_text(texts) from error
        return [encoding.ids for encoding in encoded]


def _bad_text(texts: Sequence[str]) -> InvalidInputError:
    for position, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return InvalidInputError(
                f"input[{position}] holds a lone surrogate at character {error.start}; it is not valid Unicode text"
            )
    return InvalidInputError("the input is not valid Unicode text")


def fit_tokens(ids: list[int], limit: int, truncate: Truncate, position: int) -> list[int]:
    """Return at most ``limit`` ids; raise TextTooLongError when cutting was not asked for."""
    if len(ids) <= limit:
        return ids
    if truncate == "none":
        raise TextTooLongError(
            f"input[{position}] has {len(ids)} tokens; the limit is {limit} "
            "(truncate='end' or 'start' cuts it)"
        )
    return ids[:limit] if truncate == "end" else ids[len(ids) - limit :]
