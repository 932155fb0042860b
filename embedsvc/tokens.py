"""Text to token ids with a `tokenizers` tokenizer; limits are enforced or reported, never silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer, decoders, normalizers

from embedsvc.errors import InvalidInputError, ModelError, TextTooLongError

Truncate = Literal["none", "start", "end"]


@dataclass(frozen=True)
class Token:
    """One token of a text; begin and end count its characters."""

    id: int
    text: str
    special: bool
    begin: int
    end: int


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens that a model wants around two texts, and the types of all tokens (segment ids)."""

    parts: tuple[list[int], list[int], list[int]]  # before the first text, between the two, at the end
    part_types: tuple[list[int], list[int], list[int]]
    text_types: tuple[int, int]  # of the first text's tokens and of the second's

    @property
    def special_tokens(self) -> int:
        return sum(map(len, self.parts))

    def join(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Return the ids of both texts as one sequence, and the types of its tokens."""
        (before, between, after), types = self.parts, self.part_types
        one, other = self.text_types
        return (
            before + first + between + second + after,
            types[0] + [one] * len(first) + types[1] + [other] * len(second) + types[2],
        )


class TextTokenizer:
    """Token ids of texts without special tokens, and the special tokens that the model wants around them."""

    def __init__(self, path: Path, *, lowercase: bool = False) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if lowercase:
            rest = [self._tokenizer.normalizer] if self._tokenizer.normalizer is not None else []
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
        self.prefix, self.suffix = self._special_tokens()
        mark = getattr(self._tokenizer.model, "continuing_subword_prefix", None)
        if self._tokenizer.decoder is None and mark:
            self._tokenizer.decoder = decoders.WordPiece(mark)

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """Return the ids put before and after every text, seen on the first text that has a token."""
        if self._tokenizer.num_special_tokens_to_add(False) == 0:
            return [], []
        for text in chain(["a"], self._tokenizer.get_vocab()):
            probe = self._tokenizer.encode(text)
            inner = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
            if inner:
                return probe.ids[: inner[0]], probe.ids[inner[-1] + 1 :]
        raise ModelError("the tokenizer has special tokens but no ordinary ones")

    def pair_template(self) -> PairTemplate:
        """Return what is put around two texts, seen on the first text that has a token."""
        for text in chain(["a"], self._tokenizer.get_vocab()):
            probe = self._tokenizer.encode(text, text)
            first = [place for place, of in enumerate(probe.sequence_ids) if of == 0]
            second = [place for place, of in enumerate(probe.sequence_ids) if of == 1]
            if first and second:
                ids, types = probe.ids, probe.type_ids
                begin, between, end = first[0], (first[-1] + 1, second[0]), second[-1] + 1
                return PairTemplate(
                    (ids[:begin], ids[slice(*between)], ids[end:]),
                    (types[:begin], types[slice(*between)], types[end:]),
                    (types[first[0]], types[second[0]]),
                )
        raise ModelError("the tokenizer makes no tokens of any text")

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def token_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text (valid Unicode), without special tokens and without any limit."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """Return where the tokens of each text (valid Unicode) end, in characters; as many as it has ids."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[end for _, end in encoding.offsets] for encoding in encoded]

    def tokens(self, text: str, *, special_tokens: bool = True) -> list[Token]:
        """Return the tokens of a text (valid Unicode), with or without the model's special ones."""
        encoded = self._tokenizer.encode(text, add_special_tokens=special_tokens)
        return [
            Token(id_, piece, bool(special), *span)
            for id_, piece, special, span in zip(
                encoded.ids, encoded.tokens, encoded.special_tokens_mask, encoded.offsets, strict=True
            )
        ]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text that tokens stand for; raise InvalidInputError for an unknown id."""
        for position, id_ in enumerate(ids):
            if self._tokenizer.id_to_token(id_) is None:
                raise InvalidInputError(f"token id {id_} at position {position} is not in the vocabulary")
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def check_unicode(text: str, name: str, *, param: str | None = None) -> None:
    """Raise InvalidInputError for a lone surrogate: no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds a lone surrogate at character {error.start}; it is not valid Unicode text",
            param=param or name,
        ) from error


def fit_tokens(ids: list[int], limit: int, truncate: Truncate, position: int, *, keep: int = 0) -> list[int]:
    """Return at most ``limit`` ids; raise TextTooLongError when cutting was not asked for.

    The first ``keep`` ids, the prompt's, stay whichever end is cut.
    """
    if len(ids) <= limit:
        return ids
    if truncate == "none":
        raise TextTooLongError(
            f"input[{position}] has {len(ids)} tokens; the limit is {limit} "
            "(truncate='end' or 'start' cuts it)"
        )
    return ids[:limit] if truncate == "end" else ids[:keep] + ids[len(ids) - limit + keep :]
