"""A byte-pair-encoding tokenizer for many scripts, trained on the run's own data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from embedsvc.errors import InvalidInputError, NotFoundError

UNKNOWN = "[UNK]"
_CONTINUATION = "##"


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, alphabet: int) -> Tokenizer:
    """Return a lower-casing NFKC BPE tokenizer; words are split at spaces and punctuation.

    A piece inside a word starts with ``##``, so that a word and the same letters inside another
    word are different tokens. Characters outside the alphabet become one ``[UNK]``, which is a
    trained row like any other: a text never has an empty bag unless it has no visible character.
    The library breaks ties between equally frequent merges at random, so two trainings on the same
    texts differ a little; a run keeps its tokenizer and uses it again when it is resumed.
    """
    tokenizer = Tokenizer(
        models.BPE(unk_token=UNKNOWN, continuing_subword_prefix=_CONTINUATION, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNKNOWN],
        limit_alphabet=alphabet,
        continuing_subword_prefix=_CONTINUATION,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > vocabulary:
        raise InvalidInputError(
            f"tokenizer.vocabulary = {vocabulary} is less than the {tokenizer.get_vocab_size()} single "
            "characters of the data; raise it or lower tokenizer.alphabet"
        )
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json; raise NotFoundError or InvalidInputError."""
    if not path.is_file():
        raise NotFoundError(f"tokenizer.file: no file at {path}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more particular
        raise InvalidInputError(f"tokenizer.file: {path} is not a tokenizer: {error}") from error
