"""What is decided when a collection is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from embedsvc.errors import InvalidInputError

DebiasMethod = Literal["none", "center", "lir", "shift"]
_MAX_DIMENSION = 65_536
_MAX_TOKENS = 1_000_000


@dataclass(frozen=True)
class CollectionOptions:
    """Options of a collection.

    dimension: the width of the vectors of a collection without a model, whose documents and queries
    bring their own. debias: what is taken out of the vectors so that languages mix, see `indexing.debias`.
    debias_pairs: the metadata field whose equal values mark translations, from which "shift" learns.
    token_vectors: keep the vectors of tokens too, for rescoring with ``maxsim``. chunk_tokens: longest
    passage that a text is split into; None is the model's limit. chunk_overlap: tokens that neighbouring
    passages share at most. recall: share of the true 10 nearest that the index finds, in every language.
    """

    dimension: int | None = None
    debias: DebiasMethod = "none"
    debias_pairs: str | None = None
    token_vectors: bool = False
    chunk_tokens: int | None = None
    chunk_overlap: int = 32
    recall: float = 0.95

    def __post_init__(self) -> None:
        _check_integer("dimension", self.dimension, 1, _MAX_DIMENSION)
        _check_integer("chunk_tokens", self.chunk_tokens, 8, _MAX_TOKENS)
        _check_integer("chunk_overlap", self.chunk_overlap, 0, _MAX_TOKENS)
        if self.debias not in get_args(DebiasMethod):
            raise InvalidInputError(
                f"debias is {self.debias!r}; expected one of {', '.join(get_args(DebiasMethod))}",
                param="debias",
            )
        _check_pairs(self.debias, self.debias_pairs)
        if not isinstance(self.token_vectors, bool):
            raise InvalidInputError(
                f"token_vectors is {self.token_vectors!r}; expected true or false", param="token_vectors"
            )
        if self.token_vectors and self.dimension is not None:
            raise InvalidInputError(
                "token_vectors needs a model; a collection with a dimension has none", param="token_vectors"
            )
        recall = self.recall
        if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0.5 <= recall <= 1:
            raise InvalidInputError(f"recall is {recall!r}; a number from 0.5 to 1 expected", param="recall")
        if self.chunk_tokens is not None and self.chunk_overlap * 2 > self.chunk_tokens:
            raise InvalidInputError(
                f"chunk_overlap = {self.chunk_overlap}; at most half of chunk_tokens = {self.chunk_tokens}",
                param="chunk_overlap",
            )


def _check_pairs(method: str, pairs: object) -> None:
    if pairs is not None and (not isinstance(pairs, str) or not pairs):
        raise InvalidInputError(
            f"debias_pairs is {pairs!r}; the name of a metadata field expected", param="debias_pairs"
        )
    if (method == "shift") != (pairs is not None):
        need = (
            "needs debias_pairs, the metadata field that marks translations"
            if pairs is None
            else ("takes no debias_pairs")
        )
        raise InvalidInputError(f"debias {method!r} {need}", param="debias_pairs")


def _check_integer(name: str, value: Any, least: int, most: int) -> None:
    if value is None and name != "chunk_overlap":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInputError(
            f"{name} is {value!r}; an integer from {least} to {most} expected", param=name
        )
