from __future__ import annotations

import json

import numpy as np
import pytest

from embedsvc.mining.margin import CandidatePairs
from embedsvc.mining.report import mining_report, suspicion


def pairs(scores: list[float]) -> CandidatePairs:
    count = len(scores)
    rows = np.arange(count)
    values = np.array(scores, np.float32)
    return CandidatePairs(values, rows, rows, values, np.full(count, 3, np.int8))


def test_bands_count_every_pair_once_and_show_its_highest_and_lowest() -> None:
    scores = [2.0 - row / 100 for row in range(100)]
    texts = (lambda row: f"satz {row}", lambda row: f"sentence {row}")
    report = mining_report(pairs(scores), texts, threshold=1.5)
    assert (report.pairs, report.kept) == (100, 51)
    assert sum(band.pairs for band in report.bands) == 100
    assert len(report.bands) == 20
    first, last = report.bands[0], report.bands[-1]
    assert (first.high, last.low) == pytest.approx((2.0, 1.01))
    assert first.samples[0].source == "satz 0"
    assert last.samples[-1].target == "sentence 99"
    assert all(a.low > b.high for a, b in zip(report.bands, report.bands[1:], strict=False))


def test_one_extreme_score_does_not_hide_the_others_in_one_band() -> None:
    texts = (lambda row: f"satz {row}", lambda row: f"sentence {row}")
    report = mining_report(pairs([90.0, *(1.5 - row / 4000 for row in range(2_000))]), texts, threshold=1.2)
    assert len(report.bands) > 15


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("Berlin 2019", "berlin  2019", "copy"),
        ("12.5 %", "12,5 %", "no letters"),
        ("1945", "In 1945", "no letters"),
        ("The cat sleeps.", "A cat sleeps.", "same language"),
        ("Die Katze schläft.", "The cat sleeps.", None),
        ("猫", "cat", None),
    ],
)
def test_suspicious_pairs_are_named(source: str, target: str, expected: str | None) -> None:
    def language_of(text: str) -> str | None:
        return "eng" if "cat" in text else None

    assert suspicion(source, target, language_of) == expected


def test_suspicious_high_scores_are_counted_and_listed() -> None:
    sources, targets = ["Ja", "1 2", "Hallo"], ["ja", "3", "Hello"]
    report = mining_report(pairs([3.0, 2.0, 1.5]), (sources.__getitem__, targets.__getitem__), threshold=1)
    assert report.suspicious_counts == {"copy": 1, "no letters": 1}
    assert [pair.suspicion for pair in report.suspicious] == ["copy", "no letters"]
    assert json.loads(json.dumps(report.to_json()))["inspected"] == 3
    text = report.text()
    assert text.startswith("3 of 3 pairs score at least 1 (before filters of pairs)\n")
    assert "suspicious among the 3 highest: 1 copy, 1 no letters\n  3.0000 copy: Ja | ja\n" in text


def test_no_pairs() -> None:
    report = mining_report(pairs([]), (str, str), threshold=1)
    assert (report.bands, report.suspicious) == ((), ())
    assert "none" in report.text()
