"""What is searched for: the texts and vectors of a request, checked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from embedsvc.collections.request import SearchRequest
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.search import Query, unit_vector
from embedsvc.tokens import check_unicode


def checked_queries(
    texts: Sequence[str] | None,
    vectors: Any,
    request: SearchRequest,
    dimension: int,
    encoder: Callable[[], Encoder],
) -> list[Query]:
    """Return the queries with the vectors that the mode needs; raise InvalidInputError for wrong ones.

    ``encoder`` is asked only where a vector has to be made.
    """
    if isinstance(texts, str):
        raise InvalidInputError("queries must be a list of texts, not one text", param="query")
    if texts is None and vectors is None:
        raise InvalidInputError("give a query or a vector", param="query")
    for position, text in enumerate(texts or ()):
        name = "query" if len(texts or ()) == 1 else f"query[{position}]"
        if not isinstance(text, str) or not text.strip():
            raise InvalidInputError(f"{name} must be a text that is not empty", param="query")
        check_unicode(text, name, param="query")
    if texts is None and (request.mode != "dense" or request.rerank or request.maxsim):
        what = f"mode {request.mode}" if request.mode != "dense" else "rerank and maxsim"
        raise InvalidInputError(f"{what} needs the text of the query, not only its vector", param="query")
    if texts is not None and vectors is not None and len(texts) != len(vectors):
        raise InvalidInputError(
            f"{len(texts)} queries and {len(vectors)} vectors; one for each expected", param="vector"
        )
    if vectors is not None:
        units = [unit_vector(vector, dimension) for vector in vectors]
        return [Query(text, unit) for text, unit in zip(texts or [""] * len(units), units, strict=True)]
    if request.mode == "lexical":
        return [Query(text) for text in texts or ()]
    made = encoder()
    matrix = made.encode(list(texts or ()), prompt_name=made.query_prompt_name)
    return [Query(text, vector) for text, vector in zip(texts or (), matrix, strict=True)]
