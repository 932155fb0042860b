from __future__ import annotations

import pytest

from embedsvc import align
from tests.server.conftest import error_of

SOURCE = ["The cat sleeps on the sofa.", "It is raining today.", "I would like a cup of tea."]
TARGET = [
    "Die Katze schläft auf dem Sofa.",
    "Guten Tag.",
    "Heute regnet es.",
    "Ich hätte gern eine Tasse Tee.",
]


def test_beads_are_those_of_the_library(client, encoder):
    for options in ({}, {"max_bead": 1}, {"block_vectors": "exact"}):
        beads = client.post("/v1/bitext/align", {"source": SOURCE, "target": TARGET, **options}).json()[
            "beads"
        ]
        expected = align(SOURCE, TARGET, encoder=encoder, **options)
        assert [(tuple(bead["source"]), tuple(bead["target"])) for bead in beads] == [
            (bead.source, bead.target) for bead in expected
        ]
        assert [bead["score"] for bead in beads] == pytest.approx([bead.score for bead in expected], abs=1e-5)
        assert beads[0]["source_text"] == SOURCE[0]


def test_a_text_is_split_into_sentences(client):
    answer = client.post(
        "/v1/bitext/align", {"source": " ".join(SOURCE), "target": TARGET, "source_language": "en"}
    )
    beads = answer.json()["beads"]
    assert [i for bead in beads for i in bead["source"]] == [0, 1, 2]
    assert [bead["target_text"] for bead in beads if bead["source_text"] == SOURCE[2]] == [TARGET[3]]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"source": []}, 400, "source is []; it must be a list of at least 1"),
        ({"source": " \n"}, 400, "source has no sentence; both documents need one"),
        ({"source": 5}, 400, "source is a number, not a list"),
        ({"target": ["a", " "]}, 400, "target[1] is empty"),
        ({"target": ["a", 5]}, 400, "target[1] is a number, not a string"),
        ({"max_bead": 0}, 400, "max_bead is 0; it must be at least 1"),
        ({"block_vectors": "all"}, 400, "block_vectors is 'all'; expected 'auto', 'mean' or 'exact'"),
        ({"source": "a text", "source_language": "klingonish"}, 400, "'klingonish' is not a language code"),
        ({"source": ["a"] * 9}, 413, "source has 9 sentences; max_mine_sentences = 8; for"),
        ({"target": "One here. Two. " * 9, "target_language": "en"}, 413, "target has 18 sentences"),
    ],
)  # fmt: skip
def test_bad_requests_are_explained(client, change, status, message):
    response = client.post("/v1/bitext/align", {"source": ["a"], "target": ["b"], **change})
    error = error_of(response, status, "invalid_input" if status == 400 else "body_too_large")
    assert error["message"].startswith(message), error["message"]
