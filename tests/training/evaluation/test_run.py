"""The command over two models: what it writes, and how it refuses."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.model_folder import BUNDLED
from tests.training.evaluation.fakes import chosen, unit_rows
from training.cli import evaluate
from training.evaluation.comparison import compare
from training.evaluation.report import Report
from training.evaluation.run import evaluate_models
from training.evaluation.tatoeba import evaluate_tatoeba

N = 40


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    for code in ("deu", "fra"):
        for side in (code, "eng"):
            lines = "".join(f"{code} {side} {n}\n" for n in range(N))
            (tmp_path / f"tatoeba.{code}-eng.{side}").write_text(lines)
    return tmp_path


def model(name: str, noise: float) -> dict[str, np.ndarray]:
    """Vectors of the sentences in ``sets``; translations lie ``noise`` apart, in directions by the name."""
    vectors = {}
    for seed, code in enumerate(("deu", "fra")):
        meaning = unit_rows(seed, N, 8)
        for shift, side in enumerate((code, "eng")):
            rows = meaning + noise * shift * unit_rows(len(name) + seed, N, 8)
            vectors |= {f"{code} {side} {n}": row for n, row in enumerate(rows)}
    return vectors


def reports(sets: Path) -> list[Report]:
    return [
        evaluate_tatoeba(chosen(model(name, noise), name), sets) for name, noise in (("a", 0.3), ("bb", 2.0))
    ]


def test_the_better_model_is_found_significantly_better(sets: Path) -> None:
    first, second = reports(sets)
    found = {c.column: c for c in compare([first, second])}
    mean = found["mean"]
    assert mean.mean.value == pytest.approx(first.mean["mean"] - second.mean["mean"])
    assert mean.mean.value > 20
    assert mean.mean.low > 0
    assert mean.mean.p == pytest.approx(1 / 1001)
    assert mean.rows_won() == (2, 0)
    assert mean.rows["deu"].value == pytest.approx(first.rows["deu"]["mean"] - second.rows["deu"]["mean"])
    (alike,) = (c for c in compare([first, first]) if c.column == "mean")
    assert (alike.mean.value, alike.mean.p, alike.rows_won()) == (0, 1, (0, 0))


class Checker(HTMLParser):
    """Fails at a tag that is not closed in its turn; collects what a browser would load."""

    VOID = frozenset({"meta", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.dots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        self.dots += tag == "circle"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_run_writes_one_page_that_loads_nothing(sets: Path, tmp_path: Path) -> None:
    encoders = [chosen(model("a", 0.3), "a<b|c"), chosen(model("bb", 2.0), "bb")]
    told: list[str] = []
    paths = evaluate_models(
        encoders, ["tatoeba"], sets, tmp_path / "out", tell=lambda report, _: told.append(report.model)
    )
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert told == ["a<b|c", "bb"]
    page = paths[2].read_text()
    checker = Checker()
    checker.feed(page)
    assert (checker.open, checker.loads, checker.dots) == ([], [], 4)
    assert "a&lt;b|c" in page
    for forbidden in ("a<b", "url(", "@import"):
        assert forbidden not in page
    assert r"a<b\|c" in paths[1].read_text()
    written = json.loads(paths[0].read_text())
    row = written["reports"]["tatoeba"][0]
    low, high = row["intervals"]["deu"]["mean"]
    assert low <= row["rows"]["deu"]["mean"] <= high
    assert written["comparisons"][0]["mean"]["p"] <= 1
    assert "| tatoeba | mean | a<b\\|c − bb | +" in paths[1].read_text()
    assert " | ≤ 0.001 | 2 / 0 of 2 |" in paths[1].read_text()


def test_models_of_one_name_are_told_apart_and_the_same_one_is_refused(sets: Path, tmp_path: Path) -> None:
    first, second = chosen(model("a", 0.3), "a"), chosen(model("a", 2.0), "a")
    second.fingerprint = "0123456789"  # type: ignore[misc]
    evaluate_models([first, second], ["tatoeba"], sets, tmp_path / "out", tell=lambda *_: None)
    assert (tmp_path / "out" / "tatoeba.a@01234567.md").is_file()
    with pytest.raises(InvalidInputError, match="model a is given twice"):
        evaluate_models([first, first], ["tatoeba"], sets, tmp_path / "out", tell=lambda *_: None)


def test_the_command_writes_the_reports_of_a_model(sets: Path, tmp_path: Path) -> None:
    shutil.copy(sets / "tatoeba.deu-eng.eng", sets / "tatoeba.deu-eng.deu")
    out = tmp_path / "report"
    result = CliRunner().invoke(
        evaluate, ["tatoeba", "--data", str(sets), "--out", str(out), "--model", str(BUNDLED)]
    )
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^tatoeba embedsvc-default: xx-eng \d+\.\d\d, .* \(mean of 2 languages; ", result.output, re.M
    )
    written = json.loads((out / "tatoeba.embedsvc-default.json").read_text())
    assert written["rows"]["deu"]["xx-eng"] == 100.0
    assert (
        "| deu | 40 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 |"
        in (out / "tatoeba.embedsvc-default.md").read_text()
    )
    assert (out / "report.html").is_file()


def test_a_task_is_refused_before_any_work_and_the_nearest_named(sets: Path) -> None:
    result = CliRunner().invoke(evaluate, ["tatoeba", "xsim+", "--data", str(sets)])
    assert isinstance(result.exception, InvalidInputError)
    assert result.exception.message.startswith(
        "task 'xsim+' is unknown; did you mean 'xsim++'? Choose from tatoeba"
    )
    result = CliRunner().invoke(evaluate, ["sts", "sts", "--data", str(sets)])
    assert str(result.exception) == "task 'sts' is given twice"


def test_a_missing_set_is_an_error_of_the_task_asked_only(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"xsim: no eng_Latn\.txt in .* or "):
        evaluate_models([chosen({})], ["tatoeba", "xsim"], sets, tmp_path / "out", tell=lambda *_: None)
    assert not (tmp_path / "out").exists()  # nothing was evaluated before
