"""Searches over HTTP, beside brute force and beside what the library gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest

from embedsvc.collections.collection import SearchOptions
from embedsvc.encoder import load_encoder
from embedsvc.reranker import load_reranker
from embedsvc.server.requests.collections import SearchBody
from embedsvc.server.routes import search as search_route
from tests.collections.conftest import DIMENSION, brute_force, documents, random_texts
from tests.scheduling.toy_runtime import toy_encoder
from tests.server.conftest import AppClient, error_of
from tests.server.tiny_server import base64_of, tiny_client
from tests.tiny_rerankers import write_counting_reranker

SAMPLE_SEARCH = "/v1/collections/sample/search"
SEARCH = "/v1/collections/help/search"
TEXTS = {f"d{number}": text for number, text in enumerate(random_texts(60))}
QUERIES = ["w1 w2 w3", "w7", "w200 w11 w5 w9"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """Collections "help" of the model old, "fresh" of new, the same documents in both; 4 requests' texts."""
    client = tiny_client(tmp_path_factory.mktemp("tiny"), max_batch_texts=64)
    given = documents(list(TEXTS.values()))
    for name, model in (("help", "old"), ("fresh", "new")):
        assert client.post("/v1/collections", {"name": name, "model": model}).status_code == 201
        written = client.put(f"/v1/collections/{name}/documents", {"documents": given})
        assert written.json() == {"inserted": 60, "updated": 0}
    yield client
    client.close()


@pytest.fixture(scope="module")
def models(tiny):
    folders = {model.name: model.folder.path for model in tiny.app.state.server.models.all}
    return {name: load_encoder(folder) for name, folder in folders.items()}


def ids(result):
    return [hit["id"] for hit in result["hits"]]


def scores(result):
    return [hit["score"] for hit in result["hits"]]


@pytest.mark.parametrize(("name", "model"), [("help", "old"), ("fresh", "new")])
def test_each_collection_is_searched_with_its_own_model(tiny, models, name, model):
    for query in QUERIES:
        found = tiny.post(f"/v1/collections/{name}/search", {"query": query, "top_k": 7}).json()
        best, cosines = brute_force(models[model], query, TEXTS, 7)
        assert set(found) == {"hits"}
        assert ids(found) == best
        assert scores(found) == pytest.approx(cosines, abs=2e-3)  # vectors are stored as float16
        assert set(found["hits"][0]) == {"id", "text", "language", "score", "metadata"}


def test_a_list_of_queries_gives_a_list_of_results(tiny):
    together = tiny.post(SEARCH, {"query": QUERIES, "top_k": 5}).json()
    alone = [tiny.post(SEARCH, {"query": query, "top_k": 5}).json() for query in QUERIES]
    assert set(together) == {"results"}
    assert [ids(result) for result in together["results"]] == [ids(result) for result in alone]
    for one, other in zip(together["results"], alone, strict=True):
        assert scores(one) == pytest.approx(scores(other), abs=1e-6)
    assert tiny.post(SEARCH, {"query": QUERIES[:1], "top_k": 5}).json() == {"results": alone[:1]}


def test_a_vector_is_searched_for_as_numbers_and_as_base64(tiny, models):
    vectors = models["old"].encode(QUERIES)
    by_text = tiny.post(SEARCH, {"query": QUERIES[0]}).json()
    for given in (vectors[0].tolist(), base64_of(vectors[0]), (vectors[0] * 1000).tolist()):
        by_vector = tiny.post(SEARCH, {"vector": given}).json()
        assert ids(by_vector) == ids(by_text)
        assert scores(by_vector) == pytest.approx(scores(by_text), abs=1e-5)
    for many in (vectors.tolist(), [base64_of(row) for row in vectors]):
        results = tiny.post(SEARCH, {"vector": many}).json()["results"]
        assert [ids(result) for result in results] == [
            ids(tiny.post(SEARCH, {"query": query}).json()) for query in QUERIES
        ]


def test_with_text_and_vector_the_vector_decides_and_the_text_gives_the_words(tiny, models):
    vector = models["old"].encode(["w1"])[0].tolist()
    both = tiny.post(SEARCH, {"query": TEXTS["d9"], "vector": vector}).json()
    assert ids(both) == ids(tiny.post(SEARCH, {"vector": vector}).json())
    words = tiny.post(SEARCH, {"query": TEXTS["d9"], "vector": vector, "mode": "lexical"}).json()
    assert ids(words)[0] == "d9"


def test_every_option_does_what_it_does_in_the_library(tiny):
    collection = tiny.app.state.server.collections.get("help")
    for options in (
        {"top_k": 3, "offset": 2},
        {"languages": ["de", "swa"]},
        {"prefer_language": "de"},
        {"prefer_language": {"de": 0.5, "sw": 0.0}},
        {"balance": "round_robin"},
        {"balance": {"en": 1, "*": 2}},
        {"filter": {"n": {"$gte": 20, "$lt": 40}}},
        {"filter": {"$or": [{"n": 3}, {"n": {"$in": [7, 8]}}]}},
        {"mode": "lexical"},
        {"mode": "hybrid"},
        {"mode": "hybrid", "fusion": "score"},
        {"min_score": 0.3},
        {"group_by": "n"},
        {"query_language": "de", "facets": True},
    ):
        expected = collection.query([QUERIES[0]], None, SearchOptions(**options))[0]
        found = tiny.post(SEARCH, {"query": QUERIES[0], **options}).json()
        assert ids(found) == [hit.id for hit in expected.hits], options
        assert expected.hits, options
        assert scores(found) == pytest.approx([hit.score for hit in expected.hits], abs=1e-6), options
        assert found.get("facets") == expected.facets


def test_the_body_has_every_option_of_a_search():
    taken = set(SearchBody.model_fields) - {"query", "vector"}
    assert taken == {field.name for field in fields(SearchOptions)}
    for field in fields(SearchOptions):
        assert SearchBody.model_fields[field.name].default == field.default, field.name


def test_facets_count_what_filter_and_languages_leave(tiny):
    body = {"query": "w1", "facets": True, "filter": {"n": {"$lt": 10}}, "languages": ["en", "de"]}
    assert tiny.post(SEARCH, body).json()["facets"] == {"en": 4, "de": 3}


def test_explain_gives_the_plan_and_each_hits_scores(tiny):
    found = tiny.post(SEARCH, {"query": QUERIES[0], "mode": "hybrid", "explain": True}).json()
    assert found["plan"]["mode"] == "hybrid"
    assert found["plan"]["timings_ms"]
    assert found["hits"][0]["explanation"]["dense_rank"] >= 1


def test_a_long_document_is_found_with_its_passage(tiny):
    tiny.post("/v1/collections", {"name": "long", "chunk_tokens": 8, "chunk_overlap": 0})
    text = "w1 w2 w3 w4 w5 w6 w7. east east east east east east east. w8 w9 w10 w11 w12 w13 w14."
    tiny.put("/v1/collections/long/documents", {"documents": [{"id": "a", "text": text, "language": "en"}]})
    (hit,) = tiny.post("/v1/collections/long/search", {"query": "east"}).json()["hits"]
    passage = hit["passage"]
    assert text[passage["start"] : passage["stop"]] == passage["text"]
    assert passage["text"].startswith("east east")
    assert hit["text"] == text
    assert tiny.get("/v1/collections/long").json()["passages"] > 1


def test_maxsim_and_rerank_say_what_they_miss(tiny):
    error = error_of(tiny.post(SEARCH, {"query": "w1", "maxsim": 20}), 400, "invalid_input")
    assert (error["param"], "made without (token_vectors)" in error["message"]) == ("maxsim", True)
    error = error_of(tiny.post(SEARCH, {"query": "w1", "rerank": 20}), 400, "invalid_input")
    assert (error["param"], "needs a cross-encoder" in error["message"]) == ("rerank", True)


def test_the_query_prompt_is_used(make_client, tmp_path):
    client = make_client(toy_encoder(tmp_path))
    given = [{"id": text, "text": text, "language": "en"} for text in ("q:abc", "abc")]
    client.put("/v1/collections/c/documents", {"documents": given})
    hits = client.post("/v1/collections/c/search", {"query": "abc"}).json()["hits"]
    assert hits[0]["id"] == "q:abc"
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)
    for body, place in (({"query": "x" * 20}, "query"), ({"query": ["a", "x" * 20]}, "query[1]")):
        error = error_of(client.post("/v1/collections/c/search", body), 400, "text_too_long")
        assert error["message"].startswith(f"{place} has 22 tokens; the limit is 12")
        assert error["param"] == "query"


def test_a_lone_surrogate_in_a_query_is_explained(tiny):
    headers = {"Content-Type": "application/json"}
    response = tiny.request("POST", SEARCH, content=b'{"query": "\\ud800"}', headers=headers)
    assert "query holds a lone surrogate" in error_of(response, 400, "invalid_input")["message"]
    response = tiny.request("POST", SEARCH, content=b'{"query": "a", "min_score": NaN}', headers=headers)
    assert error_of(response, 400, "invalid_input")["param"] == "min_score"


WIDE = [1.0] * DIMENSION


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "query", "give a query or a vector"),
        ({"query": ""}, "query", "query is empty"),
        ({"query": ["a", " \n"]}, "query", "query[1] is empty"),
        ({"query": []}, "query", "query: the list is empty"),
        ({"query": 3}, "query", "query: a string or a list of strings is expected"),
        ({"query": ["a", 3]}, "query", "query: text 1 is no string"),
        ({"query": ["a"] * 65}, "query", "query has 65 queries; max_batch_texts = 64"),
        ({"query": ["a", "b"], "vector": [WIDE]}, "vector", "2 queries and 1 vectors; one for each"),
        ({"vector": []}, "vector", "vector is empty"),
        ({"vector": 3}, "vector", "vector is int; a list of numbers or base64 of float32 expected"),
        ({"vector": [1.0, "2"]}, "vector", "vector[1] is str, not a number"),
        ({"vector": [1.0, True]}, "vector", "vector[1] is bool, not a number"),
        ({"vector": [1.0, 1e39]}, "vector", "vector[1] is inf; finite numbers expected"),
        ({"vector": [0.0] * DIMENSION}, "vector", "vector is all zeros"),
        ({"vector": [1.0]}, "vector", "the vector has shape (1,); the collection has vectors of (16,)"),
        ({"vector": [WIDE, [1.0, None]]}, "vector", "vector[1][1] is NoneType, not a number"),
        ({"vector": [WIDE] * 65}, "vector", "vector has 65 vectors; max_batch_texts = 64"),
        ({"vector": "a"}, "vector", "vector is not base64"),
        ({"vector": "ä"}, "vector", "vector is not base64"),
        ({"vector": "AAAA"}, "vector", "vector has 3 bytes; float32 numbers have 4 each"),
        ({"vector": base64_of([1, np.nan])}, "vector", "vector[1] is nan; finite numbers expected"),
        ({"vector": WIDE, "mode": "hybrid"}, "query", "mode hybrid needs the text of the query"),
        ({"vector": WIDE, "rerank": 10}, "query", "rerank and maxsim needs the text of the query"),
        ({"query": "a", "top_k": 0}, "top_k", "top_k is 0; an integer from 1 to 1000 expected"),
        ({"query": "a", "top_k": 10**9}, "top_k", "top_k is 1000000000; an integer from 1 to"),
        ({"query": "a", "top_k": "5"}, "top_k", "top_k is a string, not a whole number"),
        ({"query": "a", "offset": -1}, "offset", "offset is -1; an integer from 0 to"),
        ({"query": "a", "languages": "de"}, "languages", "languages is a string, not a list"),
        ({"query": "a", "languages": []}, "languages", "languages is an empty list"),
        ({"query": "a", "languages": ["zz9"]}, "language", "'zz9' is not a language code"),
        ({"query": "a", "prefer_language": 3}, "prefer_language", "prefer_language is 3; a language code"),
        ({"query": "a", "prefer_language": {"de": 9}}, "prefer_language", "prefer_language.de is 9; a num"),
        ({"query": "a", "balance": "fair"}, "balance", "balance is 'fair'; one of none, round_robin"),
        ({"query": "a", "balance": {"de": -1}}, "balance", "balance.de is -1; an integer from 0 to"),
        ({"query": "a", "filter": []}, "filter", "filter is a list, not an object"),
        ({"query": "a", "filter": {"m": 3}}, "filter", ""),
        ({"query": "a", "filter": {"n": {"$near": 3}}}, "filter", ""),
        ({"query": "a", "mode": "sparse"}, "mode", "mode is 'sparse'; expected 'dense', 'lexical' or 'hy"),
        ({"query": "a", "fusion": "sum"}, "fusion", "fusion is 'sum'; expected 'rrf' or 'score'"),
        ({"query": "a", "min_score": "x"}, "min_score", "min_score is a string, not a number"),
        ({"query": "a", "group_by": ""}, "group_by", "group_by is ''; the name of a metadata field"),
        ({"query": "a", "group_by": "m"}, "group_by", ""),
        ({"query": "a", "maxsim": 2}, "maxsim", "maxsim = 2 candidates are fewer than offset + top_k"),
        ({"query": "a", "rerank": -1}, "rerank", "rerank is -1; an integer from 0 to 1000"),
        ({"query": "a", "query_language": "zz9"}, "query_language", "query_language: 'zz9' is not"),
        ({"query": "a", "facets": 1}, "facets", "facets is a number, not true or false"),
        ({"query": "a", "explain": "x"}, "explain", "explain is a string, not true or false"),
        ({"query": "a", "topk": 3}, None, "unknown field 'topk'; did you mean 'top_k'?"),
    ],
)
def test_bad_searches_are_explained(tiny, body, param, message):
    answer = tiny.post(SEARCH, body)
    code = "dimension_mismatch" if "has shape" in message else "invalid_input"
    error = error_of(answer, 400, code)
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == param


def test_all_hits_together_are_limited(tiny, monkeypatch):
    monkeypatch.setattr(search_route, "_MAX_HITS", 59)
    error = error_of(tiny.post(SEARCH, {"query": ["w1"] * 6}), 400, "invalid_input")
    assert error["message"] == "6 queries for 10 hits each; the limit is 59 hits in all"
    assert len(tiny.post(SEARCH, {"query": ["w1"] * 5}).json()["results"]) == 5


def test_what_is_reranked_is_as_limited_as_by_the_rerank_routes(tiny):
    body = {"query": ["w1"] * 5, "top_k": 4, "rerank": 13}
    error = error_of(tiny.post(SEARCH, body), 400, "invalid_input")
    expected = "5 queries with 13 candidates each to rerank are 65 texts; max_batch_texts = 64"
    assert (error["message"], error["param"]) == (expected, "rerank")
    error = error_of(tiny.post(SEARCH, {**body, "query": ["w1"] * 4}), 400, "invalid_input")
    assert error["message"].startswith("rerank needs a cross-encoder"), "52 texts are not too many"


def test_a_large_body_is_checked_in_a_thread(tiny, monkeypatch):
    """Else a filter of megabytes would hold up everybody's requests."""
    real, threads = search_route.checked_request, []

    def noted(options):
        threads.append(threading.current_thread())
        return real(options)

    monkeypatch.setattr(search_route, "checked_request", noted)
    few, many = ({"query": "w1", "filter": {"n": {"$in": list(range(count))}}} for count in (60, 9_999))
    many["filter"]["n"]["$in"][60:] = [f"{'x' * 10}{n}" for n in range(9_000)]
    small, large = tiny.post(SEARCH, few), tiny.post(SEARCH, many)
    assert ids(small.json()) == ids(large.json())
    assert len(ids(small.json())) == 10
    loop = tiny.run(_current_thread())
    assert threads[0] is loop
    assert threads[1] is not loop
    many["filter"]["n"]["$in"].append([1])
    error = error_of(tiny.post(SEARCH, many), 400, "invalid_input")
    assert error["message"].startswith("filter: 'n' is compared with [1]")
    error = error_of(tiny.post(SEARCH, {**many, "topk": 1}), 400, "invalid_input")
    assert error["message"] == "unknown field 'topk'; did you mean 'top_k'?"


async def _current_thread():
    return threading.current_thread()


def test_what_is_wrong_is_said_before_the_model_works(make_client, tmp_path):
    encoder = toy_encoder(tmp_path)
    client = make_client(encoder)
    client.put("/v1/collections/c/documents", {"documents": [{"id": "a", "text": "abc"}]})
    before = len(encoder.runtime.batches)
    error_of(client.post("/v1/collections/c/search", {"query": "a", "top_k": 0}), 400, "invalid_input")
    error_of(client.post("/v1/collections/nope/search", {"query": "a"}), 404, "not_found")
    assert len(encoder.runtime.batches) == before


def test_a_collection_re_embedded_during_a_search_is_searched_with_its_new_model(tiny, models, monkeypatch):
    """Between the encoding of the query and the search the collection changes hands."""
    from embedsvc.collections.reindex import reindex

    tiny.post("/v1/collections", {"name": "moving", "model": "old"})
    tiny.put("/v1/collections/moving/documents", {"documents": documents(list(TEXTS.values()))})
    collection = tiny.app.state.server.collections.get("moving")
    encode = search_route.encode_for
    asked = []

    async def slow(request, served, texts, options, place):
        encoding = await encode(request, served, texts, options, place)
        asked.append(served.name)
        if len(asked) == 1:
            import asyncio

            await asyncio.to_thread(reindex, collection, models["new"])
        return encoding

    monkeypatch.setattr(search_route, "encode_for", slow)
    found = tiny.post("/v1/collections/moving/search", {"query": QUERIES[0], "top_k": 7}).json()
    assert asked == ["old", "new"]
    assert ids(found) == brute_force(models["new"], QUERIES[0], TEXTS, 7)[0]


def test_the_server_s_reranker_decides_the_order_of_its_candidates(tmp_path):
    pytest.importorskip("onnx", reason="the reranker is written with it")
    folder = write_counting_reranker(tmp_path / "counting")
    client = tiny_client(tmp_path, reranker=str(folder))
    client.put("/v1/collections/help/documents", {"documents": documents(list(TEXTS.values())[:20])})
    body = {"query": QUERIES[0], "top_k": 4, "rerank": 12}
    candidates = ids(client.post(SEARCH, {"query": QUERIES[0], "top_k": 12}).json())
    found = client.post(SEARCH, body).json()
    client.close()
    truth = load_reranker(folder).scores(QUERIES[0], [TEXTS[id_] for id_ in candidates])
    order = sorted(range(12), key=lambda place: (-truth[place], int(candidates[place][1:])))
    assert ids(found) == [candidates[place] for place in order[:4]]
    assert scores(found) == pytest.approx([truth[place] for place in order[:4]], abs=1e-5)
    assert ids(found) != candidates[:4]
