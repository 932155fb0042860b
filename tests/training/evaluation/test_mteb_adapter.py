"""Tasks of mteb from folders on disk, and what mteb says beside our own evaluators on the same vectors."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, MissingExtraError, NotFoundError
from tests.training.evaluation.fakes import ChosenVectors, unit_rows
from training.evaluation.mteb_adapter import MtebEncoder, mteb_task, task_prompt
from training.evaluation.report import Report
from training.evaluation.retrieval import evaluate_retrieval
from training.evaluation.run import check_data, check_tasks, evaluate_models
from training.evaluation.sts import evaluate_sts
from training.evaluation.tatoeba import evaluate_tatoeba

N = 60


class Prompted(ChosenVectors):
    """Chosen vectors of a model with prompts; ``asked`` keeps with what it was asked to encode."""

    def __init__(self, vectors: dict[str, np.ndarray], prompts: dict[str, str] | None = None) -> None:
        super().__init__(cast(Any, vectors))
        self.folder = SimpleNamespace(prompts=prompts or {})
        self.dimension = 8
        self.asked: list[tuple[str | None, str | None]] = []

    def encode(self, texts: Sequence[str], **how: Any) -> np.ndarray:
        self.asked.append((how["input_type"], how["prompt_name"]))
        return super().encode(texts)


def evaluated(encoder: Prompted, task: str, data: Path) -> Report:
    told: list[Report] = []
    evaluate_models(
        [cast(Encoder, encoder)], [task], data, data / "out", tell=lambda report, _: told.append(report)
    )
    return told[0]


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r"a task of mteb needs the \[mteb\] extra: .* '\.\[mteb\]'"):
        check_tasks(["mteb:STS17"])


@pytest.mark.parametrize(
    ("prompts", "role", "name"),
    [
        (["STS17-query", "STS17", "STS-query", "STS", "query"], "query", "STS17-query"),
        (["STS17", "STS-query", "STS", "query"], "query", "STS17"),
        (["STS-query", "STS", "query"], "query", "STS-query"),
        (["STS-query", "STS", "query"], "document", "STS"),
        (["STS-query", "query"], None, None),
        (["query", "passage"], "document", None),
    ],
)
def test_a_prompt_of_the_task_goes_before_one_of_its_type(
    prompts: list[str], role: str | None, name: str | None
) -> None:
    task: Any = SimpleNamespace(name="STS17", type="STS")
    prompt_type: Any = None if role is None else SimpleNamespace(value=role)
    assert task_prompt(dict.fromkeys(prompts, "x: "), task, prompt_type) == name


@pytest.mark.slow
def test_correlations_are_those_of_our_own_evaluator(tmp_path: Path) -> None:
    vectors = {f"{side} {n}": row for side in "ab" for n, row in enumerate(unit_rows(ord(side), N, 8))}
    scores = np.random.default_rng(0).integers(0, 11, (2, N)) / 2
    records = []
    (tmp_path / "sts").mkdir()
    for number, pair in enumerate(("en-de", "es-es")):
        rows = [(scores[number, n], f"a {n}", f"b {n}") for n in range(N)]
        lines = "".join(f"{score}\t{a}\t{b}\n" for score, a, b in rows)
        (tmp_path / "sts" / f"{pair}.tsv").write_text(lines)
        records += [{"lang": pair, "score": s, "sentence1": a, "sentence2": b} for s, a, b in rows]
    write_lines(tmp_path / "mteb" / "STS17" / "test.jsonl", records)
    encoder = Prompted(vectors, {"STS17": "similar: ", "query": "query: "})
    report = evaluated(encoder, "mteb:STS17", tmp_path)
    assert encoder.asked == [(None, "STS17")] * 4
    ours = evaluate_sts(cast(Encoder, Prompted(vectors)), tmp_path)
    assert report.main == "cosine_spearman"
    for pair in ("en-de", "es-es"):
        assert report.rows[pair]["cosine_spearman"] == pytest.approx(ours.rows[pair]["spearman"], abs=1e-4)
    assert (tmp_path / "out" / "mteb-STS17.chosen.md").read_text().startswith("# mteb:STS17: chosen\n")


@pytest.mark.slow
def test_accuracy_of_bitext_mining_is_that_of_our_own_evaluator(tmp_path: Path) -> None:
    meaning = unit_rows(0, N, 8)
    vectors = {f"{side} {n}": row for side in ("deu", "eng") for n, row in enumerate(meaning)}
    vectors |= {
        f"deu {n}": row + 0.8 * noise
        for n, (row, noise) in enumerate(zip(meaning, unit_rows(1, N, 8), strict=True))
    }
    for side in ("deu", "eng"):
        (tmp_path / f"tatoeba.deu-eng.{side}").write_text("".join(f"{side} {n}\n" for n in range(N)))
    pairs = [{"lang": "deu-eng", "sentence1": f"deu {n}", "sentence2": f"eng {n}"} for n in range(N)]
    write_lines(tmp_path / "mteb" / "tatoeba-bitext-mining" / "test.jsonl", pairs)
    import mteb

    task = mteb_task("Tatoeba", tmp_path)
    task.hf_subsets = ["deu-eng"]
    encoder = Prompted(vectors)
    found = mteb.evaluate(MtebEncoder(cast(Encoder, encoder)), task, cache=None, co2_tracker=False)
    ours = evaluate_tatoeba(cast(Encoder, Prompted(vectors)), tmp_path).rows["deu"]["xx-eng"]
    assert 50 < ours < 100
    assert 100 * found.task_results[0].scores["test"][0]["accuracy"] == pytest.approx(ours)
    assert encoder.asked == [(None, None)] * 2


@pytest.mark.slow
def test_ndcg_recall_and_mrr_are_those_of_mteb_and_its_pytrec_eval(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    vectors = {f"T{n} passage {n}": row for n, row in enumerate(unit_rows(0, 3 * N, 8))}
    vectors |= {f"query {n}": row for n, row in enumerate(unit_rows(1, 20, 8))}
    judged = [
        (f"q{q}", f"p{p}", int(gain))
        for q in range(20)
        for p, gain in zip(
            generator.choice(3 * N, 9, replace=False), generator.integers(1, 3, 9), strict=True
        )
    ]
    corpus = [{"_id": f"p{n}", "title": f"T{n}", "text": f"passage {n}"} for n in range(3 * N)]
    queries = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(20)]
    folder, copied = tmp_path / "retrieval", tmp_path / "mteb" / "NanoSciFactRetrieval"
    for place in (folder, copied):
        write_lines(place / "corpus.jsonl", corpus)
        write_lines(place / "queries.jsonl", queries)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("".join(f"{q}\t0\t{p}\t{gain}\n" for q, p, gain in judged))
    qrels = [{"query-id": q, "corpus-id": p, "score": gain} for q, p, gain in judged]
    write_lines(copied / "qrels.jsonl", qrels)
    configs = [
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n"
        for name in ("corpus", "queries", "qrels")
    ]
    (copied / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    import mteb

    encoder = Prompted(vectors)
    model = MtebEncoder(cast(Encoder, encoder))
    found = mteb.evaluate(model, mteb_task("NanoSciFactRetrieval", tmp_path), cache=None, co2_tracker=False)
    scores = found.task_results[0].scores["train"][0]
    ours = evaluate_retrieval(cast(Encoder, Prompted(vectors)), tmp_path).rows["retrieval"]
    assert scores["ndcg_at_10"] == pytest.approx(ours["nDCG@10"] / 100, abs=1e-5)
    assert scores["recall_at_100"] == pytest.approx(ours["recall@100"] / 100, abs=1e-5)
    assert scores["mrr_at_100"] == pytest.approx(ours["MRR"] / 100, abs=1e-5)
    assert {asked[0] for asked in encoder.asked} == {"query", "document"}


@pytest.mark.slow
def test_an_unknown_task_and_missing_data_are_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^mteb has no task 'STS71'; did you mean 'STS\d+'\?"):
        check_tasks(["mteb:STS71"])
    message = (
        r"^mteb:STS17: neither .*mteb/STS17 nor .*mteb/sts17-crosslingual-sts is there; hf download mteb/"
    )
    with pytest.raises(NotFoundError, match=message):
        check_data(["mteb:STS17"], tmp_path)
    write_lines(tmp_path / "mteb" / "STS17" / "test.jsonl", [{"something": "else"}])
    with pytest.raises(InvalidInputError, match=r"^mteb:STS17: .*mteb/STS17 is no copy of its dataset"):
        check_data(["mteb:STS17"], tmp_path)
