"""XQuAD-R figures against a plain brute force over all questions and sentences."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from tests.training.evaluation.fakes import chosen, unit_rows
from training.evaluation.xquad_r import evaluate_xquad_r
from training.evaluation.xquad_r_files import read_xquad_r

LANGUAGES, KEYS, FILLERS = ("de", "en", "hi"), ("k0", "k1", "k2", "k3"), 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "xquadr"
    folder.mkdir()
    queries = [
        {"qid": f"{code}:{k}", "key": k, "lang": code, "text": f"q {code} {k}"}
        for k in KEYS
        for code in LANGUAGES
    ]
    passages = [
        {"sid": f"{code}.{n}", "lang": code, "text": f"p {code} {n}"}
        for code in LANGUAGES
        for n in range(4 + FILLERS)
    ]
    for name, records in (("queries", queries), ("corpus", passages)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pairs = [f"{q}:{k}\t{p}.{n}\t1\n" for n, k in enumerate(KEYS) for q in LANGUAGES for p in LANGUAGES]
    (folder / "qrels.tsv").write_text("qid\tsid\trel\n" + "".join(pairs))
    return tmp_path


def vectors() -> dict[str, np.ndarray]:
    texts = [f"q {code} {k}" for code in LANGUAGES for k in KEYS]
    texts += [f"p {code} {n}" for code in LANGUAGES for n in range(4 + FILLERS)]
    return dict(zip(texts, unit_rows(1, len(texts), 6), strict=True))


def mean_precision(ranked: list[str], relevant: set[str]) -> float:
    ranks = [rank for rank, text in enumerate(ranked, 1) if text in relevant]
    return float(np.mean([(number + 1) / rank for number, rank in enumerate(ranks)]))


def ranking(v: dict[str, np.ndarray], question: str, languages: tuple[str, ...]) -> list[str]:
    pool = [text for text in v if text.startswith("p") and text.split()[1] in languages]
    return sorted(pool, key=lambda text: -float(v[question] @ v[text]))


def test_figures_equal_a_plain_brute_force(data: Path) -> None:
    v = vectors()
    report = evaluate_xquad_r(chosen(v), data)
    for language in LANGUAGES:
        pooled, alone = [], []
        for number, key in enumerate(KEYS):
            question, relevant = f"q {language} {key}", {f"p {code} {number}" for code in LANGUAGES}
            pooled.append(mean_precision(ranking(v, question, LANGUAGES), relevant))
            alone.append([mean_precision(ranking(v, question, (code,)), relevant) for code in LANGUAGES])
        row, own = report.rows[language], LANGUAGES.index(language)
        assert row["pooled"] == pytest.approx(100 * np.mean(pooled))
        assert row["any pool"] == pytest.approx(100 * np.mean(alone))
        assert row["own pool"] == pytest.approx(100 * np.mean(alone, axis=0)[own])
        assert row["gap"] == pytest.approx(row["any pool"] - row["pooled"])


def test_rank_variance_is_that_of_the_answer_over_the_languages_asked_in(data: Path) -> None:
    v = vectors()
    report = evaluate_xquad_r(chosen(v), data)
    for pool in LANGUAGES:
        variances = []
        for number, key in enumerate(KEYS):
            ranks = [ranking(v, f"q {code} {key}", (pool,)).index(f"p {pool} {number}") for code in LANGUAGES]
            variances.append(np.var(ranks))
        assert report.rows[pool]["MRV"] == pytest.approx(np.mean(variances))


def test_language_pull_is_the_mean_over_all_pairs(data: Path) -> None:
    v = vectors()
    own = [vector for text, vector in v.items() if text.startswith("p de")]
    others = [vector for text, vector in v.items() if text[0] == "p" and text[2:4] != "de"]
    same = np.mean([a @ b for i, a in enumerate(own) for j, b in enumerate(own) if i != j])
    cross = np.mean([a @ b for a in own for b in others])
    report = evaluate_xquad_r(chosen(v), data)
    assert report.rows["de"]["language pull"] == pytest.approx(100 * (same - cross), abs=1e-4)


def test_bad_files_are_named_by_line(data: Path, tmp_path: Path) -> None:
    qrels = data / "xquadr" / "qrels.tsv"
    good = qrels.read_text()
    qrels.write_text(good + "de:k0\tnowhere\t1\n")
    with pytest.raises(InvalidInputError, match=r"qrels\.tsv line 38: expected qid, sid, rel of known"):
        read_xquad_r(data)
    qrels.write_text(good.replace("hi:k3\t", "de:k3\t"))
    with pytest.raises(InvalidInputError, match="no answer for question 'hi:k3'"):
        read_xquad_r(data)
    (data / "xquadr" / "corpus.jsonl").write_text('{"sid": "x"}\n')
    with pytest.raises(
        InvalidInputError, match=r"corpus\.jsonl line 1: expected an object with sid, lang, text"
    ):
        read_xquad_r(data)
    with pytest.raises(NotFoundError, match=r"xquad-r: no qrels\.tsv in"):
        read_xquad_r(tmp_path / "elsewhere")
