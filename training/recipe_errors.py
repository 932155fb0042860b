"""What is wrong with a recipe, said so that it can be mended."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from training.loss_config import LOSS_KINDS


def explained(error: ValidationError, section: type[BaseModel]) -> str:
    """Return what is wrong with the values of a section: each key by its name, and the nearest valid one."""
    return "; ".join(_explain(item, section) for item in error.errors())


def _explain(item: Any, section: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in item["loc"] if part not in LOSS_KINDS)
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}" + _nearest(str(item["loc"][-1]), _known_keys(section))
    if item["type"] == "union_tag_invalid":
        tag, known = item["ctx"]["tag"], f"; known: {', '.join(LOSS_KINDS)}"
        return f"{key}.kind = {tag!r} is unknown" + (_nearest(tag, LOSS_KINDS) or known)
    if item["type"] in ("missing", "union_tag_not_found"):
        return f"key {key if item['type'] == 'missing' else key + '.kind'!r} is missing"
    if not key:  # about the recipe as a whole
        return str(item["msg"])
    return f"{key} = {item['input']!r}: {item['msg']}"


def _nearest(word: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _known_keys(section: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(name)
        for inner in _sections(field.annotation):
            keys.extend(_known_keys(inner))
    return keys


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a key may hold: itself one, or a list or choice of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)
