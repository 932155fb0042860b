"""The miner beside plain loops over every score, on texts with repeated, shared and unknown translations."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import EmbedsvcError, InvalidInputError
from embedsvc.mining.progress import Step
from training.cli import negatives
from training.data import text_keys
from training.hard_negatives.miner import Models, mine_negatives
from training.hard_negatives.options import NegativeOptions
from training.hard_negatives.records import NegativeRecord, group_of_key, read_negatives

WORDS = ["house", "dog", "water", "light", "Haus", "Hund", "Wasser", "Licht", "maison", "chien", "eau", "rot"]
LANGUAGES = ["deu_Latn", "fra_Latn", "spa_Latn"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 sentences in up to three languages; some translate two, some are equal but for case and dots."""
    draws = np.random.default_rng(1)

    def text() -> str:
        return " ".join(draws.choice(WORDS, size=draws.integers(1, 6)))

    shared = [text() for _ in range(8)]
    lines = []
    for _ in range(60):
        english = text()
        for code in LANGUAGES:
            if draws.random() < 0.7:
                other = str(draws.choice(shared)) if draws.random() < 0.3 else text()
                lines.append(f"{english}\t{code}\t{other}")
                if draws.random() < 0.2:
                    lines.append(f"{english.upper()}.\t{code}\t{other.upper()}!")
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def unit(encoder: Encoder, texts: list[str]) -> NDArray[np.float64]:
    """Vectors as the miner keeps them, in 16 bits."""
    found: NDArray[np.float64] = encoder.encode(texts).astype(np.float16).astype(np.float64)
    return found


class ByLoop:
    """Mines by looking at everything for each pair."""

    def __init__(self, data: Path, encoder: Encoder, options: NegativeOptions) -> None:
        self.options = options
        lines = [line.split("\t") for line in data.read_text(encoding="utf-8").splitlines()]
        english_keys = text_keys([first for first, _, _ in lines]).tolist()
        other_keys = text_keys([second for _, _, second in lines]).tolist()
        self.rows = [(e, o, code) for e, o, (_, code, _) in zip(english_keys, other_keys, lines, strict=True)]
        self.english: dict[int, str] = {}
        self.other: dict[tuple[str, int], str] = {}
        for (first, code, second), (e, o, _) in zip(lines, self.rows, strict=True):
            self.english.setdefault(e, first)
            self.other.setdefault((code, o), second)
        self.known = {(english, other) for english, other, _ in self.rows}
        self.english_vectors = dict(zip(self.english, unit(encoder, [*self.english.values()]), strict=True))
        self.other_vectors = dict(zip(self.other, unit(encoder, [*self.other.values()]), strict=True))

    def candidates(self, code: str, side: str) -> dict[int, NDArray[np.float64]]:
        """Vectors by key of the texts that negatives of a pair may come from."""
        if side == "other":
            wanted = {e for e, _, c in self.rows if self.options.languages == "any" or c == code}
            return {key: self.english_vectors[key] for key in wanted}
        found: dict[int, NDArray[np.float64]] = {}
        for other_code, key in sorted(self.other, key=lambda one: LANGUAGES.index(one[0])):
            fits = {"same": other_code == code, "any": True, "another": other_code != code}
            if fits[self.options.languages]:
                found.setdefault(key, self.other_vectors[other_code, key])
        return found

    def negatives(self, english: int, other: int, code: str, side: str) -> list[float]:
        """The scores of a pair's negatives."""
        x, y = self.english_vectors[english], self.other_vectors[code, other]
        anchor, ceiling = (x, y)[side == "other"], 0.95 * float(x @ y) if x @ y > 0 else 1.05 * float(x @ y)
        found = []
        for key, vector in self.candidates(code, side).items():
            pair = (english, key) if side == "english" else (key, other)
            if pair not in self.known and pair[0] != pair[1]:
                found.append(float(anchor @ vector))
        in_window = sorted(found, reverse=True)[self.options.skip :]
        return [score for score in in_window if score <= ceiling][: self.options.count]


def mined(data: Path, encoder: Encoder, out: Path, options: NegativeOptions) -> list[NegativeRecord]:
    mine_negatives([data], Models(encoder), out, options)
    return list(read_negatives(out))


@pytest.mark.parametrize(
    ("anchors", "languages", "skip"),
    [("both", "same", 0), ("both", "any", 2), ("english", "another", 0), ("other", "same", 1)],
)
def test_negatives_are_those_of_a_loop_over_all_scores(
    data: Path, encoder: Encoder, tmp_path: Path, anchors: str, languages: str, skip: int
) -> None:
    options = NegativeOptions(count=5, skip=skip, anchors=anchors, languages=languages, depth=300)  # type: ignore[arg-type]
    loop = ByLoop(data, encoder, options)
    records = mined(data, encoder, tmp_path / "out.jsonl", options)
    assert len(records) == len(set(loop.rows)) * (2 if anchors == "both" else 1)
    assert any(len(record.negatives) == 5 for record in records)
    for record in records:
        english, other = record.anchor, record.positive
        if record.anchor_side == "other":
            english, other = other, english
        keys = text_keys([english, other]).tolist()
        expected = loop.negatives(*keys, record.language, record.anchor_side)
        assert record.negative_scores == pytest.approx(expected, abs=2e-6)
        assert record.group == group_of_key(keys[0])
        negative_keys = text_keys(record.negatives).tolist()
        for key, groups in zip(negative_keys, record.negative_groups, strict=True):
            assert record.group not in groups
            if record.anchor_side == "english":
                assert set(groups) == {group_of_key(e) for e, o, _ in loop.rows if o == key}


def test_losing_the_groups_makes_translations_negatives(
    data: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that the mining above is right about groups fails without them."""
    options = NegativeOptions(count=5, languages="any", max_share=1.0)

    def pushed() -> int:
        records = mined(data, encoder, tmp_path / "out.jsonl", options)
        return sum(record.group in groups for record in records for groups in record.negative_groups)

    assert pushed() == 0
    monkeypatch.setattr(
        "training.translations.Translations.known", lambda _, english, other: english == other
    )
    assert pushed() > 20


def test_more_than_there_are_gives_all_there_are(data: Path, encoder: Encoder, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    options = NegativeOptions(count=5000, anchors="both")
    report = mine_negatives([data], Models(encoder), out, options)
    assert report.full == 0
    assert report.cut_short == 0
    assert report.records == sum(report.by_number.values()) > 200
    facts = json.loads((tmp_path / "out.parquet.manifest.json").read_text())
    assert facts["with_fewer"] + facts["with_none"] == report.records
    assert facts["negatives"] == sum(len(record.negatives) for record in read_negatives(out))
    assert facts["searches"]["fra_Latn"]["method"] == "exact"


def test_a_pair_without_an_admissible_negative_is_kept_and_counted(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("house\tdeu_Latn\tHaus\ndog\tdeu_Latn\tHund\nHouse!\tdeu_Latn\tHund\n", encoding="utf-8")
    report = mine_negatives([path], Models(encoder), tmp_path / "out.jsonl")
    records = {(r.anchor, r.positive): r.negatives for r in read_negatives(tmp_path / "out.jsonl")}
    assert records["house", "Haus"] == records["house", "Hund"] == []  # Hund is said to mean House, too
    assert (report.records, report.without) == (3, 2 + (records["dog", "Hund"] == []))


def test_too_small_a_depth_is_told(data: Path, encoder: Encoder, tmp_path: Path) -> None:
    options = NegativeOptions(count=5, depth=5)
    report = mine_negatives([data], Models(encoder), tmp_path / "out.jsonl", options)
    assert report.cut_short > 0
    assert "might have more with a greater --depth" in report.text(tmp_path)


def test_a_killed_run_goes_on_in_its_work_folder(data: Path, encoder: Encoder, tmp_path: Path) -> None:
    options = NegativeOptions(count=3)
    out, work = tmp_path / "out.jsonl", tmp_path / "work"
    mine_negatives([data], Models(encoder), tmp_path / "whole.jsonl", options)

    def killed(step: Step) -> None:
        if step.stage == "search" and (work / "search-1").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_negatives([data], Models(encoder), out, options, work=work, report=killed)
    assert not out.exists()
    encoded: list[Step] = []
    mine_negatives([data], Models(encoder), out, options, work=work, report=encoded.append)
    assert next(step.done for step in encoded if step.stage == "encode English") > 0, "encoded before"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    other = tmp_path / "other.tsv"
    other.write_text(data.read_text(encoding="utf-8").replace("\t", " x\t", 1), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="of other data or another model: take another --work"):
        mine_negatives([other], Models(encoder), out, options, work=work)
    with pytest.raises(InvalidInputError, match="begun with languages = 'same', now it is 'any'"):
        mine_negatives([data], Models(encoder), out, replace(options, languages="any"), work=work)


@pytest.fixture
def one_language(tmp_path: Path) -> Path:
    path = tmp_path / "one.tsv"
    path.write_text("house\tdeu_Latn\tHaus\ndog\tdeu_Latn\tHund\n", encoding="utf-8")
    return path


def test_another_language_needs_two(one_language: Path, encoder: Encoder, tmp_path: Path) -> None:
    options = NegativeOptions(languages="another")
    with pytest.raises(InvalidInputError, match="all translations are in 'deu_Latn'; take 'same'"):
        mine_negatives([one_language], Models(encoder), tmp_path / "out.jsonl", options)


def test_the_command_writes_the_file_and_names_what_is_wrong(one_language: Path, tmp_path: Path) -> None:
    out = tmp_path / "negatives.jsonl"
    arguments = [str(one_language), "--out", str(out), "--count", "1", "--no-progress"]
    done = CliRunner().invoke(negatives, arguments)
    assert done.exit_code == 0, done.output
    assert "2 pairs" in done.output
    assert [record.anchor for record in read_negatives(out)] == ["house", "dog"]
    assert "does not exist" in CliRunner().invoke(negatives, ["nowhere.tsv", "--out", str(out)]).output
    wrong = CliRunner().invoke(negatives, [str(one_language), "--out", str(tmp_path / "out.txt")])
    assert isinstance(wrong.exception, EmbedsvcError)
    assert "expected a name in .jsonl" in str(wrong.exception)


def test_files_that_name_no_language_are_told_it(tmp_path: Path) -> None:
    (tmp_path / "two.tsv").write_text("the dog\tder Hund\nthe water\tdas Wasser\nthe house\tdas Haus\n")
    command = [str(tmp_path / "two.tsv"), "--count", "1", "--out", str(tmp_path / "n.jsonl"), "--no-progress"]
    refused = CliRunner().invoke(negatives, command)
    assert isinstance(refused.exception, InvalidInputError)
    assert "target_language" in str(refused.exception)
    done = CliRunner().invoke(negatives, [*command, "--tgt-lang", "deu_Latn"], catch_exceptions=False)
    assert done.exit_code == 0
    assert len([*read_negatives(tmp_path / "n.jsonl")]) == 3
