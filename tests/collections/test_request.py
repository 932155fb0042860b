"""Options of a search are checked once, each error naming the option, its value and the limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.collections.filters import Not, OneOf
from embedsvc.collections.metadata import Term
from embedsvc.collections.request import SearchOptions, SearchRequest, checked_request
from embedsvc.errors import InvalidInputError


def test_defaults_ask_for_ten_by_meaning() -> None:
    assert checked_request(SearchOptions()) == SearchRequest()
    assert (SearchRequest().reach, SearchRequest().depth, SearchRequest().is_balanced) == (10, 10, False)


def test_options_mean_what_they_say() -> None:
    request = checked_request(
        SearchOptions(
            top_k=5,
            offset=7,
            languages=["EN-us", "deu", "en"],
            prefer_language={"swh": 0.5, "de": 0},
            balance={"EN": 3, "*": 0},
            filter={"year": {"$ne": 1}},
            mode="hybrid",
            fusion="score",
            min_score=-1,
            group_by="a.b",
            maxsim=40,
            rerank=20,
            query_language="cmn",
            facets=True,
            explain=True,
        )
    )
    assert request == SearchRequest(
        5, 7, frozenset({"en", "de"}), {"sw": 0.5, "de": 0.0}, False, {"en": 3, "*": 0},
        Not(OneOf("year", (Term("year", "n", 1),))), "hybrid", "score", -1, "a.b", 40, 20, "zh", True, True,
    )  # fmt: skip
    assert (request.reach, request.depth, request.is_balanced) == (12, 40, True)
    assert checked_request(SearchOptions(prefer_language="pt_BR")).boosts == {"pt": 0.05}
    turns = checked_request(SearchOptions(balance="round_robin"))
    assert (turns.round_robin, turns.quotas, turns.is_balanced) == (True, None, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0; an integer from 1 to 1000 expected"),
        ({"top_k": 1001}, "top_k is 1001"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": 2.0}, "top_k is 2.0"),
        ({"offset": -1}, "offset is -1; an integer from 0 to 9990 expected"),
        ({"offset": 9_901, "top_k": 100}, "offset is 9901; an integer from 0 to 9900 expected"),
        ({"offset": 10**400}, "offset is 1000"),
        ({"languages": "en"}, "languages must be a list of codes, not 'en'"),
        ({"languages": []}, "languages is an empty list"),
        ({"languages": ["en", "klingon!"]}, "'klingon!' is not a language code"),
        ({"languages": [None]}, "None is not a language code"),
        ({"languages": 5}, "languages is 5; a list of codes expected"),
        ({"prefer_language": "xx"}, "prefer_language: 'xx' is not a language code"),
        (
            {"prefer_language": {}},
            "prefer_language is {}; a language code or an object {code: boost} expected",
        ),
        ({"prefer_language": ["en"]}, r"prefer_language is \['en'\]"),
        ({"prefer_language": {"en": -0.1}}, "prefer_language.en is -0.1; a number from 0 to 2 expected"),
        ({"prefer_language": {"en": 2.1}}, "prefer_language.en is 2.1"),
        ({"prefer_language": {"en": True}}, "prefer_language.en is True"),
        ({"prefer_language": {"en": float("nan")}}, "prefer_language.en is nan"),
        ({"prefer_language": {5: 1}}, "prefer_language: 5 is not a language code"),
        (
            {"prefer_language": {"en": 0.1, "en-GB": 0.2}},
            "prefer_language names 'en' twice: 'en' and 'en-GB'",
        ),
        ({"balance": "fair"}, "balance is 'fair'; one of none, round_robin expected"),
        ({"balance": {}}, "balance is {}; none, round_robin or an object {code: quota} expected"),
        ({"balance": {"en": -1}}, "balance.en is -1; an integer from 0 to 1000 expected"),
        ({"balance": {"en": 1.5}}, "balance.en is 1.5"),
        ({"balance": {"xx": 1}}, "balance: 'xx' is not a language code"),
        ({"balance": {"deu": 1, "de": 2}}, "balance names 'de' twice: 'deu' and 'de'"),
        ({"balance": None}, "balance is None"),
        ({"filter": {}}, "filter: an object without any condition"),
        ({"mode": "sparse"}, "mode is 'sparse'; one of dense, lexical, hybrid expected"),
        ({"mode": ["dense"]}, "mode is"),
        ({"fusion": "sum"}, "fusion is 'sum'; one of rrf, score expected"),
        ({"min_score": float("nan")}, "min_score is nan; a number expected"),
        ({"min_score": "0.5"}, "min_score is '0.5'"),
        ({"min_score": False}, "min_score is False"),
        ({"min_score": 10**400}, "min_score is 1000"),
        ({"group_by": ""}, "group_by is ''; the name of a metadata field expected"),
        ({"group_by": 5}, "group_by is 5"),
        ({"maxsim": 1001}, "maxsim is 1001; an integer from 0 to 1000 expected"),
        ({"maxsim": 9}, r"maxsim = 9 candidates are fewer than offset \+ top_k = 10 hits"),
        ({"rerank": 12, "offset": 5}, r"rerank = 12 candidates are fewer than offset \+ top_k = 15 hits"),
        (
            {"rerank": 50, "maxsim": 20},
            "maxsim = 20 candidates are fewer than the rerank = 50 of them",
        ),
        ({"rerank": -1}, "rerank is -1"),
        ({"query_language": "xx"}, "query_language: 'xx' is not a language code"),
        ({"facets": 1}, "facets is 1; true or false expected"),
        ({"explain": "yes"}, "explain is 'yes'; true or false expected"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        checked_request(SearchOptions(**options))
    assert len(caught.value.message) < 300


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["en", "*", "rrf"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.just("en"), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = sorted(SearchOptions.__dataclass_fields__)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=2))
def test_any_option_is_taken_or_refused_by_name(options: dict[str, Any]) -> None:
    try:
        request = checked_request(SearchOptions(**options))
    except InvalidInputError as error:
        request, said = None, f"{error.param} {error.message}"
    if request is None:
        assert any(name in said for name in [*options, "language"])
        return
    assert 1 <= request.top_k <= 1000
    assert request.reach <= 10_000
    assert request.languages is None or request.languages
    hash(request.filter)
