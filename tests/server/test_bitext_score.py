from __future__ import annotations

import pytest

from embedsvc.mining.score import score_pairs
from tests.server.conftest import error_of

SOURCE = ["The cat sleeps on the sofa.", "It is raining today.", "I would like a cup of tea.", " "]
TARGET = ["Die Katze schläft auf dem Sofa.", "Heute regnet es.", "Guten Tag.", "Ja"]


def test_scores_are_those_of_the_library_in_order_and_null_for_a_blank_side(client, encoder):
    seen = set()
    for options in ({}, {"k": 1}, {"margin": "distance"}, {"target_pool": TARGET, "source_pool": ["Hello."]}):
        answer = client.post("/v1/bitext/score", {"source": SOURCE, "target": TARGET, **options})
        assert answer.status_code == 200
        pairs = answer.json()["pairs"]
        expected = score_pairs(SOURCE, TARGET, encoder=encoder, **options)
        assert [pair["score"] for pair in pairs[:3]] == pytest.approx(expected.scores[:3].tolist())
        assert [pair["cosine"] for pair in pairs[:3]] == pytest.approx(expected.cosines[:3].tolist())
        assert pairs[3:] == [{"score": None, "cosine": None}]
        seen.add(round(pairs[0]["score"], 4))
    assert len(seen) == 4  # so that an ignored option would be noticed


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"source": []}, 400, "source is []; it must be a list of at least 1"),
        ({"target": ["a", "b"]}, 400, "source has 1 texts, target 2; a pair is the two at the same place"),
        ({"target": [5]}, 400, "target[0] is a number, not a string"),
        ({"margin": "best"}, 400, "margin is 'best'; expected 'ratio', 'distance' or 'absolute'"),
        ({"k": 0}, 400, "k is 0; it must be at least 1"),
        ({"source_pool": "a"}, 400, "source_pool is a string, not a list"),
        ({"threshold": 1}, 400, "unknown field 'threshold'"),
        (
            {"source": ["a"] * 9},
            413,
            "source has 9 sentences; max_mine_sentences = 8; for larger files: embedsvc",
        ),
        ({"target_pool": ["a"] * 9}, 413, "target_pool has 9 sentences; max_mine_sentences = 8"),
    ],
)
def test_bad_requests_are_explained(client, change, status, message):
    response = client.post("/v1/bitext/score", {"source": ["a"], "target": ["b"], **change})
    error = error_of(response, status, "invalid_input" if status == 400 else "body_too_large")
    assert error["message"].startswith(message), error["message"]
