"""Preference, balance between languages and grouping move exactly what they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from embedsvc import search
from embedsvc.collections.collection import Collection, SearchOptions
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from tests.collections.oracle import Oracle, check, corpus


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[tuple[Collection, Oracle]]:
    given = corpus(300, seed=5)
    oracle = Oracle(encoder)
    oracle.upsert(given)
    with Collection(tmp_path_factory.mktemp("balance") / "help", encoder) as collection:
        collection.upsert(given)
        yield collection, oracle


MODES: list[dict[str, Any]] = [{}, {"mode": "lexical"}, {"mode": "hybrid"}]
BALANCES: list[Any] = [
    "round_robin",
    {"en": 3},
    {"en": 0, "*": 2},
    {"*": 4, "sw": 1},
    {"fi": 5},
    {"EN-us": 2, "ca": 9},
]


@pytest.mark.parametrize("mode", [{}, {"mode": "hybrid"}], ids=str)
@pytest.mark.parametrize("balance", BALANCES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"languages": ["de", "ca", "fi"]},
        {"filter": {"source": "web"}, "top_k": 25},
        {"prefer_language": {"sw": 0.2}, "offset": 3},
    ],
    ids=str,
)
def test_balanced_search_equals_brute_force(
    filled: tuple[Collection, Oracle], mode: dict[str, Any], balance: Any, options: dict[str, Any]
) -> None:
    collection, oracle = filled
    plain = (
        {code.split("-")[0].lower(): n for code, n in balance.items()}
        if isinstance(balance, dict)
        else balance
    )
    hits = collection.search("w1 w2 w3", balance=balance, **mode, **options)
    wanted = oracle.page("w1 w2 w3", balance=plain, **mode, **options)
    assert [hit.id for hit in hits] == [one.id for one in wanted]
    assert [hit.score for hit in hits] == pytest.approx([one.score for one in wanted], abs=1e-5)


def test_round_robin_takes_one_of_each_language_in_each_round(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    hits = collection.search("w1 w2 w3", balance="round_robin", top_k=10)
    assert (
        {hit.language for hit in hits[:5]}
        == {hit.language for hit in hits[5:]}
        == {"en", "de", "sw", "yo", "ca"}
    )
    assert [hit.score for hit in hits[:5]] == sorted((hit.score for hit in hits[:5]), reverse=True)
    best = {hit.language: hit.id for hit in hits[:5]}
    for code, id_ in best.items():
        assert collection.search("w1 w2 w3", languages=[code], top_k=1)[0].id == id_
    everything = collection.search("w1 w2 w3", balance="round_robin", top_k=300)
    assert len({hit.id for hit in everything}) == 300


def test_rankings_of_a_request_are_limited(
    filled: tuple[Collection, Oracle], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, _ = filled
    codes = len(collection.languages())

    def ask(count: int, **options: Any) -> int:
        return len(collection.query(["w1"] * count, options=SearchOptions(**options)))

    monkeypatch.setattr(search, "_MAX_RANKINGS", 3 * codes)
    assert ask(3, balance="round_robin") == 3
    message = f"4 queries with {codes} rankings each, by language, are {4 * codes}; the limit is {3 * codes}:"
    with pytest.raises(InvalidInputError, match=message) as caught:
        ask(4, balance="round_robin")
    assert caught.value.param == "balance"
    assert ask(4, balance={"en": 3, "*": 0}) == 4
    assert ask(4, balance="round_robin", languages=["en", "de"]) == 4
    with pytest.raises(InvalidInputError, match=f"{codes + 1} queries with 3 rankings each") as caught:
        ask(codes + 1, prefer_language={"en": 0.1, "de": 0.1})
    assert caught.value.param == "prefer_language"
    assert ask(3 * codes) == 3 * codes


def test_quotas_are_kept(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    hits = collection.search("w5", balance={"en": 2, "ca": 1, "*": 4}, top_k=50)
    assert Counter(hit.language for hit in hits) == {"en": 2, "ca": 1, "de": 4, "sw": 4, "yo": 4}
    assert collection.search("w5", balance={"*": 0}) == []


def test_boost_adds_to_the_cosine_of_its_language_alone(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    before = {hit.id: hit.score for hit in collection.search("w1 w2", top_k=300)}
    after = collection.search("w1 w2", top_k=300, prefer_language={"ca": 0.11, "yo": 0.02, "fi": 1.0})
    gain = {"ca": 0.11, "yo": 0.02}
    for hit in after:
        assert hit.score == pytest.approx(before[hit.id] + gain.get(hit.language, 0), abs=1e-6)
    assert collection.search("w1 w2", prefer_language={"sw": 0}) == collection.search("w1 w2")
    all_of_one = collection.search("w1 w2", top_k=4, prefer_language={"ca": 2.0})
    assert {hit.language for hit in all_of_one} == {"ca"}


def test_boost_raises_words_by_its_share(filled: tuple[Collection, Oracle]) -> None:
    collection, _ = filled
    before = {hit.id: hit.score for hit in collection.search("w1 w2", top_k=300, mode="lexical")}
    for hit in collection.search("w1 w2", top_k=300, mode="lexical", prefer_language={"de": 0.5}):
        assert hit.score == pytest.approx(before[hit.id] * (1.5 if hit.language == "de" else 1), rel=1e-5)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("group_by", ["source", "author.name", "author.age", "tags", "checked"])
@pytest.mark.parametrize(
    "options",
    [{}, {"balance": "round_robin", "top_k": 4}, {"offset": 2, "filter": {"year": {"$gt": 2018}}}],
    ids=str,
)
def test_groups_equal_brute_force(
    filled: tuple[Collection, Oracle], mode: dict[str, Any], group_by: str, options: dict[str, Any]
) -> None:
    check(*filled, group_by=group_by, **mode, **options)


def test_groups_are_found_beyond_many_documents_of_one_group(collection: Collection) -> None:
    """More documents of the best group than hits are wanted: the others are looked for further down."""
    near = [
        {
            "id": f"n{number}",
            "text": f"east east w{number}",
            "language": "en",
            "metadata": {"page": {"of": "one"}},
        }
        for number in range(40)
    ]
    far = [
        {"id": "f1", "text": "north north east", "language": "en", "metadata": {"page": {"of": "two"}}},
        {"id": "f2", "text": "north north", "language": "en", "metadata": {"page.of": "one"}},
        {"id": "f3", "text": "north north w1", "language": "en", "metadata": {"other": 1}},
        {"id": "f4", "text": "north north w2", "language": "en"},
    ]
    collection.upsert(near + far)
    for mode in ("dense", "hybrid"):
        hits = collection.search("east", top_k=9, group_by="page.of", mode=mode)
        assert hits[0].id.startswith("n")
        assert {hit.id for hit in hits[1:]} == {"f1", "f3", "f4"}, "no field: each by itself; a.b is a path"
    collection.build_index()
    assert [hit.id for hit in collection.search("east", top_k=2, group_by="page.of")][1:] == ["f1"]


def test_values_are_one_group_when_a_filter_takes_them_for_equal(collection: Collection) -> None:
    values: list[Any] = [1, 1.0, True, "1", ["b", "a"], ["a", "b"], None, None, [], {"z": 1}]
    collection.upsert(
        [
            {"id": f"d{number}", "text": f"east w{number}", "language": "en", "metadata": {"x": value}}
            for number, value in enumerate(values)
        ]
    )
    groups = {hit.id for hit in collection.search("east", top_k=20, group_by="x")}
    assert len(groups) == len(values) - 2
    assert len(groups & {"d0", "d1"}) == len(groups & {"d4", "d5"}) == 1
