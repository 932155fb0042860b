"""A JSON body as a request: parsed once, in the handler; FastAPI's own way costs more than a short text."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, TypeVar

import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.datastructures import Headers

from embedsvc.errors import InvalidInputError

Body = TypeVar("Body", bound=BaseModel)
NDJSON = "application/x-ndjson"
_SHOWN_CHARACTERS = 60


class StrictRequest(BaseModel):
    """A request body or a part of one: no guessing of types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                name = name[:_SHOWN_CHARACTERS]  # comparing megabytes takes seconds
                near = get_close_matches(name, cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
                raise ValueError(f"unknown field {name!r}; {hint}")
        return given


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the body as ``kind``; raise RequestValidationError, as FastAPI does, for a wrong one."""
    return parsed_body(await request.body(), request.headers, kind)


def parsed_body(content: bytes, headers: Headers, kind: type[Body]) -> Body:
    """Return a body that has been read as ``kind``; raise as `read_body`."""
    if content and not is_json(headers):
        raise RequestValidationError([{"type": "dict_type", "loc": ("body",), "input": content}])
    return validated(kind, parse_json(content))


def read_query(request: Request, kind: type[Body]) -> Body:
    """Return the options in a request's query as ``kind``, whose fields read text."""
    given = request.query_params.multi_items()
    if len(given) != len(dict(given)):
        raise InvalidInputError("an option is given twice in the query")
    return validated(kind, dict(given))


def is_json(headers: Headers) -> bool:
    """True for a body that calls itself JSON."""
    media_type = _media_type(headers)
    return media_type == "application/json" or media_type.endswith("+json")


def is_ndjson(headers: Headers) -> bool:
    """True for a body of lines, which is read as it comes."""
    return _media_type(headers) == NDJSON


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def validated(kind: type[Body], given: Any) -> Body:
    """Return the value as ``kind``; raise RequestValidationError naming the first field that is wrong."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RequestValidationError([{**first, "loc": ("body", *first["loc"])}]) from error


def parse_json(content: bytes) -> Any:
    """Return the value; raise RequestValidationError naming the place of the first mistake."""
    if not content:
        raise RequestValidationError([{"type": "missing", "loc": ("body",)}])
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return _parse_leniently(content)


def _parse_leniently(content: bytes) -> Any:
    """Parse with the standard library, which lets lone surrogates and NaN through: validation names them."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        violation = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([violation]) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, thousands of digits, nested too deeply
        raise HTTPException(400) from error


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the part of the OpenAPI document that describes a body read by `read_body`."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions)}}
    return {"requestBody": {"required": True, "content": content}}


def query_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the part of the OpenAPI document that describes options in the query."""
    fields = kind.model_json_schema()["properties"]
    return {"parameters": [{"name": name, "in": "query", "schema": fields[name]} for name in fields]}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return the schema without references: the document has no place of its own for these definitions."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(part, definitions) for name, part in schema.items()}
