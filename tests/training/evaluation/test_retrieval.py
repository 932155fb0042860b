"""Retrieval figures against sklearn and a hand-computed case; files in the layouts of BEIR and MIRACL."""

import gzip
import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from tests.training.evaluation.fakes import ChosenVectors, chosen
from training.evaluation.retrieval import evaluate_retrieval, ndcg, recall, reciprocal_rank
from training.evaluation.retrieval_files import read_retrieval_set, retrieval_folders
from training.evaluation.vectors import encoded


def test_ndcg_equals_that_of_sklearn_with_graded_gains() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    gains, scores = generator.choice([0, 0, 0, 1, 2], (20, 30)), generator.random((20, 30))
    gains[:, 0] = 1
    ranked = [np.argsort(-row) for row in scores]
    judged = [{int(row): float(gain) for row, gain in enumerate(of) if gain} for of in gains]
    expected = [metrics.ndcg_score([g], [s], k=10) for g, s in zip(gains, scores, strict=True)]
    assert ndcg(ranked, judged, k=10) == pytest.approx(expected)


def test_figures_of_a_case_computed_by_hand() -> None:
    ranked, judged = [np.array([4, 2, 0, 7])], [{2: 2.0, 7: 1.0, 9: 1.0, 4: 0.0}]
    ideal = 2 / np.log2(2) + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(ranked, judged, k=10) == pytest.approx([(2 / np.log2(3) + 1 / np.log2(5)) / ideal])
    assert ndcg(ranked, judged, k=2) == pytest.approx([2 / np.log2(3) / (2 / np.log2(2) + 1 / np.log2(3))])
    assert recall(ranked, judged, k=100) == pytest.approx([2 / 3])
    assert recall(ranked, judged, k=3) == pytest.approx([1 / 3])
    assert reciprocal_rank(ranked, judged, k=100) == pytest.approx([0.5])
    assert reciprocal_rank(ranked, judged, k=1) == pytest.approx([0])


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def beir(folder: Path) -> Path:
    passages = [
        {"_id": "d1", "title": "A", "text": "one"},
        {"_id": "d2", "text": "two"},
        {"_id": "q1", "text": "three"},
    ]
    write_lines(folder / "corpus.jsonl", [json.dumps(passage) for passage in passages])
    write_lines(folder / "queries.jsonl", [json.dumps({"_id": q, "text": q}) for q in ("q1", "q2", "q3")])
    rows = ["query-id\tcorpus-id\tscore", "q1\td2\t1", "q1\tgone\t1", "q2\td1\t2", "q3\td1\t0"]
    write_lines(folder / "qrels" / "test.tsv", rows)
    write_lines(folder / "qrels" / "train.tsv", rows[:2])
    return folder


VECTORS = {"q1": [1, 0], "A one": [0.6, 0.8], "two": [0.8, 0.6], "three": [1, 0], "q2": [1, 0.1]}


def test_beir_files_are_read_and_a_query_does_not_find_itself(tmp_path: Path) -> None:
    beir(tmp_path / "retrieval" / "little")
    report = evaluate_retrieval(chosen(VECTORS), tmp_path)
    # q1: itself is passed over, d2 first of two relevant (one not in the corpus); q2: d1 is third
    ndcg_1, ndcg_2 = 1 / (1 + 1 / np.log2(3)), 1 / np.log2(4)
    assert report.rows["little"]["queries"] == 2  # q3 has nothing relevant
    assert report.rows["little"]["nDCG@10"] == pytest.approx(50 * (ndcg_1 + ndcg_2))
    assert report.rows["little"]["recall@100"] == pytest.approx(50 * (1 / 2 + 1))
    assert report.rows["little"]["MRR"] == pytest.approx(50 * (1 + 1 / 3))


def test_miracl_files_give_the_same_set_as_those_of_beir(tmp_path: Path) -> None:
    first = read_retrieval_set(beir(tmp_path / "beir"))
    folder = tmp_path / "miracl"
    (folder / "qrels").mkdir(parents=True)
    passages = [
        {"docid": i, "title": "A" * (i == "d1"), "text": t} for i, t in (("d1", "one"), ("d2", "two"))
    ]
    with gzip.open(folder / "docs-0.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(passage) + "\n" for passage in passages)
    write_lines(folder / "docs-1.jsonl", [json.dumps({"docid": "q1", "text": "three"})])
    write_lines(folder / "topics.miracl-v1.0-de-dev.tsv", ["q1\tq1", "q2\tq2", "q3\tq3"])
    write_lines(folder / "qrels" / "qrels.miracl-v1.0-de-train.tsv", ["q1 Q0 d1 1"])
    write_lines(
        folder / "qrels" / "qrels.miracl-v1.0-de-dev.tsv",
        ["q1 Q0 d2 1", "q1 Q0 gone 1", "q2 Q0 d1 2", "q3 Q0 d1 0"],
    )
    assert read_retrieval_set(folder) == first


def test_a_text_that_the_model_does_not_know_finds_nothing_in_particular(tmp_path: Path) -> None:
    beir(tmp_path / "retrieval" / "little")
    unknown = ChosenVectors(VECTORS)
    unknown.encode = lambda texts, **_: np.zeros((len(texts), 40), np.float32)  # type: ignore[method-assign]
    first, second = (encoded(cast(Encoder, unknown), ["a", "b", "c"]) for _ in range(2))
    assert first == pytest.approx(second)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(3))
    assert abs(first @ first.T - np.eye(3)).max() < 0.6
    assert evaluate_retrieval(cast(Encoder, unknown), tmp_path).rows["little"]["queries"] == 2


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"retrieval: no set in .*A set is a folder with corpus\.jsonl"):
        retrieval_folders(tmp_path)
    folder = beir(tmp_path / "set")
    write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "q1\td2\tmuch"])
    with pytest.raises(InvalidInputError, match=r"test\.tsv line 2: gain 'much' is not a number"):
        read_retrieval_set(folder)
    write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "other\td2\t1"])
    with pytest.raises(InvalidInputError, match="3 passages and 0 judged queries"):
        read_retrieval_set(folder)
    write_lines(folder / "corpus.jsonl", ['{"text": "no id"}'])
    with pytest.raises(InvalidInputError, match=r"corpus\.jsonl line 1 has no _id"):
        read_retrieval_set(folder)
