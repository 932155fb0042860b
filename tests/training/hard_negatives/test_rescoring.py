"""A reranker whose scores are known by hand rejects negatives that it finds as relevant as the positive."""

import math
from pathlib import Path

import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from embedsvc.reranker import Reranker, load_reranker
from tests.tiny_rerankers import counted_logit, write_counting_reranker
from training.hard_negatives.miner import Models, mine_negatives
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import NegativeRecord, read_negatives
from training.hard_negatives.rescoring import rescored

TEXTS = [f"w{number} w{number + 7}" for number in range(6)]
RECORD = NegativeRecord(
    anchor="w1 w2",
    positive="w10 w11",
    negatives=TEXTS,
    anchor_side="english",
    language="deu_Latn",
    negative_languages=["deu_Latn"] * 6,
    group="0000000000000001",
    negative_groups=[[f"{number:016x}"] for number in range(6)],
    positive_score=0.8,
    negative_scores=[0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return load_reranker(write_counting_reranker(tmp_path_factory.mktemp("reranker")))


def relevance(anchor: str, text: str) -> float:
    return 1 / (1 + math.exp(-counted_logit(anchor.split(), text.split())))


def test_what_is_as_relevant_as_the_positive_is_rejected(reranker: Reranker) -> None:
    positive = relevance(RECORD.anchor, RECORD.positive)
    values = [relevance(RECORD.anchor, text) for text in TEXTS]
    fits = [at for at, value in enumerate(values) if value <= 0.9 * positive]
    assert 2 < len(fits) < 6, "the case must hold both"
    judged, rejected = rescored(RECORD, reranker, NegativeOptions(count=2, max_share=0.9, margin=0.5))
    assert rejected == 6 - len(fits)
    assert judged.negatives == [TEXTS[at] for at in fits[:2]]
    assert judged.negative_groups == [RECORD.negative_groups[at] for at in fits[:2]]
    assert judged.negative_scores == [RECORD.negative_scores[at] for at in fits[:2]]
    assert judged.positive_relevance == pytest.approx(positive, abs=1e-5)
    assert judged.negative_relevances == pytest.approx([values[at] for at in fits[:2]], abs=1e-5)


def test_the_miner_chooses_more_for_the_reranker_to_reject(reranker: Reranker, tmp_path: Path) -> None:
    draws = np.random.default_rng(2)
    lines = [" ".join(f"w{n}" for n in draws.integers(0, 40, 3)) for _ in range(80)]
    pairs = [f"{a}\tdeu_Latn\t{b}" for a, b in zip(lines[:40], lines[40:], strict=True)]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    models = Models(load_encoder(), reranker)
    options = NegativeOptions(count=3, max_share=1.0)
    report = mine_negatives([tmp_path / "pairs.tsv"], models, tmp_path / "n.jsonl", options)
    assert report.rejected > 0
    assert "rejected by the reranker" in report.text(tmp_path)
    records = list(read_negatives(tmp_path / "n.jsonl"))
    assert max(len(record.negatives) for record in records) == 3
    for record in records:
        assert record.positive_relevance is not None
        assert all(value <= record.positive_relevance for value in record.negative_relevances or [])
