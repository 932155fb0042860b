"""STS against scipy, its subsets, and its files."""

from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from tests.training.evaluation.fakes import chosen
from training.evaluation.sts import evaluate_sts, read_scored_pairs

VECTORS = {"a": [1, 0], "b": [1, 0.2], "c": [1, 1], "d": [0.1, 1]}


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_correlations_of_cosine_and_score_by_file_and_subset(tmp_path: Path) -> None:
    write(tmp_path / "sts" / "x.en-de.tsv", ["score\tfirst\tsecond", "5\ta\tb", "1\ta\tc", "3\ta\td"])
    write(tmp_path / "sts" / "en-en.tsv", ["5\ta\tb", "3\ta\tc", "1\ta\td"])
    report = evaluate_sts(chosen(VECTORS), tmp_path)
    assert report.rows["en-en"]["spearman"] == pytest.approx(100)
    assert report.rows["x.en-de"]["spearman"] == pytest.approx(50)  # ranks 3 2 1 against 3 1 2
    assert report.rows["en-en"]["pearson"] < 100
    assert report.groups["cross-lingual"].rows == ["x.en-de"]
    assert report.groups["within a language"].mean["spearman"] == pytest.approx(100)
    assert report.mean["spearman"] == pytest.approx(75)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1\ta\tb", "2\ta"], r"line 2: 2 fields; expected score, text, text"),
        (["1\ta\tb", "x\ta\tb"], r"line 2: score 'x' is not a number"),
        (["1\ta\tb", "2\t\tb"], r"line 2: 3 fields"),
        (["1\ta\tb"], r"has 1 pairs; sts needs at least 3"),
        (["1\ta\tb"] * 3, r"all scores are 1"),
    ],
)
def test_a_bad_file_is_refused_by_line(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_scored_pairs(write(tmp_path / "x.tsv", lines))


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"sts: no \*\.tsv in .*sts or "):
        evaluate_sts(chosen({}), tmp_path)
