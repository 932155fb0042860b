"""What a search asks for: the options as users write them, checked once, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from embedsvc.collections.filters import Filter, parse_filter
from embedsvc.collections.metadata import shown
from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language, normalize_languages

Mode = Literal["dense", "lexical", "hybrid"]
Fusion = Literal["rrf", "score"]
MAX_TOP_K = 1_000
MAX_REACH = 10_000  # offset + top_k
MAX_RERANK = 1_000
PREFERENCE = 0.05  # what a preferred language's score gains unless told otherwise
_MAX_PREFERENCE = 2.0
_MODES = get_args(Mode)
_FUSIONS = get_args(Fusion)
OTHERS = "*"


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search; the same names in the library, the commands and over HTTP.

    top_k, offset: hits wanted, and skipped before them. languages: only documents in these.
    prefer_language: a code, or {code: boost}; the boost (0.05 unless given) is added to the cosine, and
    raises other scores by that share. balance: "round_robin" takes the best of each language in turn;
    {code: quota} takes at most so many of each ("*": of every other). filter: conditions on metadata.
    mode: dense (meaning), lexical (words, BM25), hybrid (both). fusion: how hybrid joins them: by ranks
    (rrf) or by normalised scores. min_score: drop hits with a lower score. group_by: only the best hit of
    each value of a metadata field. maxsim, rerank: score so many candidates anew by their token vectors, by
    the cross-encoder. query_language: of the query, for words and debiasing; detected when left out.
    facets: count the documents per language that filter and languages leave. explain: say how it was done.
    """

    top_k: int = 10
    offset: int = 0
    languages: Sequence[str] | None = None
    prefer_language: str | Mapping[str, float] | None = None
    balance: str | Mapping[str, int] = "none"
    filter: Mapping[str, Any] | None = None
    mode: Mode = "dense"
    fusion: Fusion = "rrf"
    min_score: float | None = None
    group_by: str | None = None
    maxsim: int = 0
    rerank: int = 0
    query_language: str | None = None
    facets: bool = False
    explain: bool = False


@dataclass(frozen=True)
class SearchRequest:
    """Checked options. ``boosts`` and ``quotas`` are by language; quotas None is no limit."""

    top_k: int = 10
    offset: int = 0
    languages: frozenset[str] | None = None
    boosts: Mapping[str, float] = field(default_factory=dict)
    round_robin: bool = False
    quotas: Mapping[str, int] | None = None
    filter: Filter | None = None
    mode: Mode = "dense"
    fusion: Fusion = "rrf"
    min_score: float | None = None
    group_by: str | None = None
    maxsim: int = 0
    rerank: int = 0
    query_language: str | None = None
    facets: bool = False
    explain: bool = False

    @property
    def reach(self) -> int:
        """How many hits are needed, those skipped included."""
        return self.offset + self.top_k

    @property
    def depth(self) -> int:
        """How many candidates are needed."""
        return max(self.reach, self.maxsim, self.rerank)

    @property
    def is_balanced(self) -> bool:
        return self.round_robin or self.quotas is not None


def checked_request(options: SearchOptions) -> SearchRequest:
    """Return what the options mean; raise InvalidInputError naming the option, its value and the limit."""
    _check_integer("top_k", options.top_k, 1, MAX_TOP_K)
    _check_integer("offset", options.offset, 0, MAX_REACH - options.top_k)
    for name in ("maxsim", "rerank"):
        _check_integer(name, getattr(options, name), 0, MAX_RERANK)
        if 0 < getattr(options, name) < options.offset + options.top_k:
            raise InvalidInputError(
                f"{name} = {getattr(options, name)} candidates are fewer than offset + top_k = "
                f"{options.offset + options.top_k} hits",
                param=name,
            )
    if 0 < options.maxsim < options.rerank:
        raise InvalidInputError(
            f"maxsim = {options.maxsim} candidates are fewer than the rerank = {options.rerank} of them",
            param="maxsim",
        )
    _check_choice("mode", options.mode, _MODES)
    _check_choice("fusion", options.fusion, _FUSIONS)
    for name in ("facets", "explain"):
        if not isinstance(getattr(options, name), bool):
            raise _wrong(name, getattr(options, name), "true or false")
    least = options.min_score
    if least is not None and not _is_number(least):
        raise _wrong("min_score", least, "a number")
    group_by = options.group_by
    if group_by is not None and (not isinstance(group_by, str) or not group_by):
        raise _wrong("group_by", group_by, "the name of a metadata field")
    round_robin, quotas = _balance(options.balance)
    return SearchRequest(
        top_k=options.top_k,
        offset=options.offset,
        languages=_languages(options.languages),
        boosts=_boosts(options.prefer_language),
        round_robin=round_robin,
        quotas=quotas,
        filter=None if options.filter is None else parse_filter(options.filter),
        mode=options.mode,
        fusion=options.fusion,
        min_score=least,
        group_by=group_by,
        maxsim=options.maxsim,
        rerank=options.rerank,
        query_language=_language("query_language", options.query_language),
        facets=options.facets,
        explain=options.explain,
    )


def _boosts(given: object) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, str):
        given = {given: PREFERENCE}
    if not isinstance(given, Mapping) or not given:
        raise _wrong("prefer_language", given, "a language code or an object {code: boost}")
    for code, boost in given.items():
        if not _is_number(boost) or not 0 <= boost <= _MAX_PREFERENCE:
            raise _wrong(f"prefer_language.{code}", boost, f"a number from 0 to {_MAX_PREFERENCE:g}")
    return {code: float(boost) for code, boost in _by_language("prefer_language", given).items()}


def _balance(given: object) -> tuple[bool, dict[str, int] | None]:
    """Return whether languages take turns, and the quota of each."""
    if isinstance(given, str):
        _check_choice("balance", given, ("none", "round_robin"))
        return given == "round_robin", None
    if not isinstance(given, Mapping) or not given:
        raise _wrong("balance", given, "none, round_robin or an object {code: quota}")
    for code, quota in given.items():
        _check_integer(f"balance.{code}", quota, 0, MAX_TOP_K)
    return False, _by_language("balance", given)


def _by_language(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by canonical code; "*" stays where quotas may have it."""
    codes: dict[str, str] = {}
    for code in given:
        own = code if name == "balance" and code == OTHERS else str(_language(name, code))
        if own in codes:
            raise InvalidInputError(f"{name} names {own!r} twice: {codes[own]!r} and {code!r}", param=name)
        codes[own] = code
    return {own: given[code] for own, code in codes.items()}


def _languages(given: object) -> frozenset[str] | None:
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise _wrong("languages", given, "a list of codes")
    return normalize_languages(given)


def _language(name: str, code: object) -> str | None:
    if code is None:
        return None
    try:
        return normalize_language(code)  # type: ignore[arg-type]
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error.message}", param=name) from error


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise _wrong(name, value, f"one of {', '.join(allowed)}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, value, f"an integer from {least} to {most}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _wrong(name: str, value: object, expected: str) -> InvalidInputError:
    return InvalidInputError(f"{name} is {shown(value)}; {expected} expected", param=name.partition(".")[0])
