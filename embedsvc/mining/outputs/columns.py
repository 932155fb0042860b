"""The columns of a pair, the same in every table; six decimals in every format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from embedsvc.errors import InvalidInputError
from embedsvc.mining.records import Direction, Origin, Pair, PairSide

COLUMNS = (
    "score",
    "probability",
    "cosine",
    "src_id",
    "tgt_id",
    "src_line",
    "tgt_line",
    "src",
    "tgt",
    "src_file",
    "tgt_file",
    "src_document",
    "tgt_document",
    "margin",
    "direction",
    "src_copies",
    "tgt_copies",
)
ORIGIN_COLUMNS = ("src_origins", "tgt_origins")
DECIMALS = 6

_DIRECTIONS: dict[str, Direction] = {"forward": "forward", "backward": "backward", "both": "both"}


def rounded(value: float | None) -> float | None:
    """Return the value with six decimals and no negative zero; None for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), DECIMALS) + 0.0


def values_of(pair: Pair) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`; None where there is none."""
    source, target = pair.source, pair.target
    return (
        rounded(pair.score),
        rounded(pair.probability),
        rounded(pair.cosine),
        source.id,
        target.id,
        source.line,
        target.line,
        source.text,
        target.text,
        source.file,
        target.file,
        source.document,
        target.document,
        pair.margin,
        pair.direction,
        len(source.origins) or None,
        len(target.origins) or None,
    )


def origins_of(side: PairSide) -> list[dict[str, Any]]:
    """Return where the sentence was found, as plain values."""
    return [
        {"file": origin.file, "line": origin.line, "id": origin.id, "document": origin.document}
        for origin in side.origins
    ]


def check_encodable(pair: Pair, number: int) -> None:
    """Raise InvalidInputError for a lone surrogate, which no UTF-8 file can hold."""
    for name, side in (("source", pair.source), ("target", pair.target)):
        for text in (side.text, side.id, side.file, side.document):
            if text is None or text.isascii():
                continue
            try:
                text.encode()
            except UnicodeEncodeError as error:
                code = ord(text[error.start])
                raise InvalidInputError(
                    f"pair {number}: the {name} {text!r} has a lone surrogate, U+{code:04X}, at position "
                    f"{error.start}; no file in UTF-8 can hold it"
                ) from error


def pair_of(row: Mapping[str, Any], where: str) -> Pair:
    """Return the pair of a row of a table, be its cells text or typed; "" and None are none.

    Raises InvalidInputError saying ``where`` for a cell that is not of its kind.
    """
    score, cosine = _number(row, "score", where), _number(row, "cosine", where)
    return Pair(
        score=math.nan if score is None else score,
        cosine=math.nan if cosine is None else cosine,
        source=_side(row, "src", where),
        target=_side(row, "tgt", where),
        margin=_text(row.get("margin")) or "ratio",
        direction=_direction(row, where),
        probability=_number(row, "probability", where),
    )


def _side(row: Mapping[str, Any], name: str, where: str) -> PairSide:
    line = _number(row, f"{name}_line", where)
    return PairSide(
        id=_text(row.get(f"{name}_id")) or "",
        text=_text(row.get(name)) or "",
        line=None if line is None else int(line),
        file=_text(row.get(f"{name}_file")),
        document=_text(row.get(f"{name}_document")),
        origins=tuple(
            Origin(origin["file"], origin["line"], origin["id"], origin["document"])
            for origin in row.get(f"{name}_origins") or ()
        ),
    )


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _direction(row: Mapping[str, Any], where: str) -> Direction:
    given = row.get("direction") or "both"
    if given not in _DIRECTIONS:
        raise InvalidInputError(f"{where}: direction is {given!r}; expected {', '.join(_DIRECTIONS)}")
    return _DIRECTIONS[cast(str, given)]


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{where}: {name} is {value!r}; expected a number") from error
