from __future__ import annotations

import pytest

from embedsvc.mining.mine import mine
from tests.server.conftest import error_of

SOURCE = ["The cat sleeps on the sofa.", "It is raining today.", "I would like a cup of tea."]
TARGET = [
    "Heute regnet es.",
    "Ich hätte gern eine Tasse Tee.",
    "Die Katze schläft auf dem Sofa.",
    "Guten Tag.",
]


def test_pairs_are_those_of_the_library(client, encoder):
    seen = []
    for options in (
        {"threshold": -9.0},
        {"threshold": -9.0, "k": 1},
        {"threshold": -9.0, "margin": "absolute"},
        {"threshold": -9.0, "retrieval": "backward"},
        {"threshold": 9.0},
        {},
    ):
        pairs = client.post("/v1/bitext/mine", {"source": SOURCE, "target": TARGET, **options}).json()[
            "pairs"
        ]
        expected = mine(SOURCE, TARGET, encoder=encoder, **options)
        assert [(pair["source_row"], pair["target_row"]) for pair in pairs] == [
            (pair.source_row, pair.target_row) for pair in expected
        ]
        for pair, wanted in zip(pairs, expected, strict=True):
            assert pair["score"] == pytest.approx(wanted.score, abs=1e-6)
            assert (pair["source"], pair["target"]) == (
                SOURCE[pair["source_row"]],
                TARGET[pair["target_row"]],
            )
        seen.append([(pair["source_row"], round(pair["score"], 5)) for pair in pairs])
    assert len({str(pairs) for pairs in seen[:5]}) == 5  # so that an ignored option would be noticed
    assert {pair[0] for pair in seen[0]} == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"source": []}, 400, "source is []; it must be a list of at least 1"),
        ({"source": "a"}, 400, "source is a string, not a list"),
        ({"target": None}, 400, "target is null, not a list"),
        ({"target": ["a", " "]}, 400, "target[1] is empty"),
        ({"target": ["a", 5]}, 400, "target[1] is a number, not a string"),
        ({"margin": "best"}, 400, "margin is 'best'; expected 'ratio', 'distance' or 'absolute'"),
        ({"k": 0}, 400, "k is 0; it must be at least 1"),
        ({"retrieval": "x"}, 400, "retrieval is 'x'; expected"),
        ({"threshold": "x"}, 400, "threshold is a string, not a number"),
        ({"source": ["a"] * 9}, 413, "source has 9 sentences; max_mine_sentences = 8"),
        ({"target": ["a"] * 9}, 413, "target has 9 sentences; max_mine_sentences = 8"),
    ],
)
def test_bad_requests_are_explained(client, change, status, message):
    response = client.post("/v1/bitext/mine", {"source": ["a"], "target": ["b"], **change})
    error = error_of(response, status, "invalid_input" if status == 400 else "body_too_large")
    assert error["message"].startswith(message), error["message"]
    assert error["param"] == next(iter(change))
