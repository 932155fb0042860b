"""Teach a byte-pair tokenizer characters that it does not know; what it knew is tokenized as before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from tokenizers import Tokenizer, models, trainers

from embedsvc.errors import InvalidInputError

_LONGEST_PIECE = 24  # characters
Piece = tuple[str, tuple[str, str] | None]
"""A piece and the two that are merged into it; None for a single character."""


def extended_tokenizer(tokenizer: Tokenizer, texts: Iterable[str], *, pieces: int) -> Tokenizer:
    """Return the tokenizer with at most that many pieces more, learnt from words with unknown characters.

    Every new piece has a character that was unknown, so that a text without one has the same ids as before;
    the ids of the new pieces are above all others. The library breaks ties at random (`train_tokenizer`).
    Raises InvalidInputError for a tokenizer that is not byte-pair encoding.
    """
    described = json.loads(tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise InvalidInputError(
            f"tokenizer.extend: the tokenizer to start from is {model['type']}; only BPE can be extended"
        )
    prefix = model["continuing_subword_prefix"] or ""
    known = {character for piece in model["vocab"] for character in piece.removeprefix(prefix)}
    learnt = _learnt(tokenizer, model, _unknown_words(tokenizer, texts, known), pieces)
    first = tokenizer.get_vocab_size()
    for number, (piece, merged) in enumerate(islice(_new_pieces(learnt, model, known), pieces), first):
        model["vocab"][piece] = number
        model["merges"] += [] if merged is None else [list(merged)]
    return Tokenizer.from_str(json.dumps(described))


def _unknown_words(tokenizer: Tokenizer, texts: Iterable[str], known: set[str]) -> Iterator[str]:
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        if known.issuperset(normal):
            continue
        words = [normal]
        if tokenizer.pre_tokenizer:
            words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
        yield from (word for word in words if not known.issuperset(word))


def _learnt(
    tokenizer: Tokenizer, model: Mapping[str, Any], words: Iterable[str], pieces: int
) -> dict[str, Any]:
    """Train a tokenizer of the same shape on the words; return its model."""
    trained = Tokenizer(
        models.BPE(
            unk_token=model["unk_token"],
            continuing_subword_prefix=model["continuing_subword_prefix"] or "",
            end_of_word_suffix=model["end_of_word_suffix"] or "",
        )
    )
    trained.pre_tokenizer = tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(model["vocab"]) + pieces,  # known characters take some of them
        continuing_subword_prefix=model["continuing_subword_prefix"] or "",
        end_of_word_suffix=model["end_of_word_suffix"] or "",
        max_token_length=_LONGEST_PIECE,
        show_progress=False,
    )
    trained.train_from_iterator(words, trainer)
    found: dict[str, Any] = json.loads(trained.to_str())["model"]
    return found


def _new_pieces(learnt: Mapping[str, Any], model: Mapping[str, Any], known: set[str]) -> Iterator[Piece]:
    """Yield the unknown characters, then what they are merged into, in the order learnt."""
    prefix = model["continuing_subword_prefix"] or ""
    there = set(model["vocab"])
    for piece in learnt["vocab"]:
        if len(piece.removeprefix(prefix)) == 1 and not known.issuperset(piece.removeprefix(prefix)):
            there.add(piece)
            yield piece, None
    for left, right in learnt["merges"]:
        piece = left + right.removeprefix(prefix)
        new = not known.issuperset(piece.removeprefix(prefix))
        if new and left in there and right in there and piece not in there:
            there.add(piece)
            yield piece, (left, right)
