"""What a document is, and what makes one acceptable."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.collections.metadata import shown
from embedsvc.collections.vectors import decode_vector
from embedsvc.errors import InvalidInputError
from embedsvc.languages import detect_language, normalize_language

MAX_ID_CHARACTERS = 512
MAX_TEXT_CHARACTERS = 1_000_000
MAX_METADATA_BYTES = 64 * 1024
MAX_KEY_CHARACTERS = 256
MAX_METADATA_DEPTH = 32


@dataclass(frozen=True)
class Document:
    """A text with an id of the caller's choice; ``language`` None means: detect it.

    ``vector`` (dim,) stands instead of the model's; with it the text may be "".
    """

    id: str
    text: str
    language: str | None = None
    metadata: dict[str, Any] | None = None
    vector: NDArray[np.float32] | None = field(default=None, compare=False)  # arrays have no plain ==


_FIELDS = tuple(known.name for known in fields(Document))


def check_documents(documents: Iterable[Document | Mapping[str, Any]]) -> list[Document]:
    """Return the documents with canonical languages, detected where missing.

    Raises InvalidInputError naming the position and the field of the first bad one; an id may stand
    in a batch only once.
    """
    if isinstance(documents, str | Mapping | Document):
        raise InvalidInputError("documents must be a list of documents", param="documents")
    checked: list[Document] = []
    positions: dict[str, int] = {}
    for position, given in enumerate(documents):
        document = check_document(given, f"documents[{position}]")
        first = positions.setdefault(document.id, position)
        if first != position:
            raise _bad(f"documents[{first}] and documents[{position}] have the same id {document.id!r}")
        checked.append(document)
    return [_with_language(document) for document in checked]


def check_document(given: Document | Mapping[str, Any], where: str) -> Document:
    """Return the document with a canonical language, if it has one; ``where`` is what errors call it."""
    document = given if isinstance(given, Document) else _from_mapping(given, where)
    _check_text(document.id, f"{where}.id", MAX_ID_CHARACTERS)
    vector = None if document.vector is None else decode_vector(document.vector, f"{where}.vector")
    if vector is None or document.text != "":
        _check_text(document.text, f"{where}.text", MAX_TEXT_CHARACTERS)
    metadata_json(document.metadata, where)
    language = None if document.language is None else _known_language(document.language, where)
    if vector is document.vector and language == document.language:
        return document
    return replace(document, language=language, vector=vector)


def _known_language(code: str, where: str) -> str:
    try:
        return normalize_language(code)
    except InvalidInputError as error:
        raise _bad(f"{where}.language: {error.message}") from error


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids; raise InvalidInputError unless they are a list of strings."""
    if isinstance(ids, str):
        raise InvalidInputError("ids must be a list of ids, not one id", param="ids")
    for position, id_ in enumerate(ids):
        if not isinstance(id_, str):
            raise InvalidInputError(f"ids[{position}] is {type(id_).__name__}, not a string", param="ids")
        _check_unicode(id_, f"ids[{position}]")
    return list(ids)


def metadata_json(metadata: Mapping[str, Any] | None, where: str) -> str | None:
    """Return metadata as JSON; raise InvalidInputError when it is no JSON object, too large or too deep."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise _bad(f"{where}.metadata must be an object with string keys")
    _check_values(metadata, f"{where}.metadata", 1)
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad(f"{where}.metadata cannot be written as JSON: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise _bad(f"{where}.metadata has {size} bytes of JSON; the limit is {MAX_METADATA_BYTES}")
    return text


def _check_values(value: Any, where: str, depth: int) -> None:
    """Refuse what JSON would write as something else, and numbers that no filter could compare."""
    if isinstance(value, dict | list | tuple):
        if depth > MAX_METADATA_DEPTH:
            raise _bad(f"{where} is nested more than {MAX_METADATA_DEPTH} deep")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise _bad(f"{where} must be an object with string keys")
        for key in value if isinstance(value, dict) else ():
            if len(key) > MAX_KEY_CHARACTERS:  # a field's name holds the keys of all objects around it
                raise _bad(f"{where} has a key of {len(key)} characters; the limit is {MAX_KEY_CHARACTERS}")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_values(inner, where, depth + 1)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        raise _bad(f"{where} holds the number {shown(value)}; the largest is about 1.8e308")


def _from_mapping(given: object, where: str) -> Document:
    if not isinstance(given, Mapping):
        raise _bad(f"{where} is {type(given).__name__}, not a document")
    for name in given:
        if name not in _FIELDS:
            raise _bad(f"{where} has an unknown field {name!r}; a document has {', '.join(_FIELDS)}")
    for name in ("id", "text"):
        if name not in given:
            raise _bad(f"{where} has no {name!r}")
    return Document(**given)


def _check_text(value: object, where: str, limit: int) -> None:
    if not isinstance(value, str):
        raise _bad(f"{where} is {type(value).__name__}, not a string")
    if not value or value.isspace():
        raise _bad(f"{where} is empty")
    if len(value) > limit:
        raise _bad(f"{where} has {len(value)} characters; the limit is {limit}")
    _check_unicode(value, where)


def _check_unicode(value: str, where: str) -> None:
    """Refuse what SQLite cannot hold as text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad(f"{where} holds a lone surrogate at character {error.start}; not valid Unicode") from error
    if "\0" in value:
        raise _bad(f"{where} holds a NUL at character {value.index(chr(0))}")


def _with_language(document: Document) -> Document:
    return document if document.language else replace(document, language=detect_language(document.text))


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError(message, param="documents")
