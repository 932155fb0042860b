from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsvc import score_pairs
from embedsvc.cli import main
from embedsvc.encoder import load_encoder
from embedsvc.mining.outputs import OutputInfo, read_pairs, write_pairs
from embedsvc.mining.records import Pair, PairSide

Run = Callable[..., tuple[int, str]]

TEXTS = [
    ("Die Katze schläft im Haus.", "The cat sleeps in the house."),
    ("Musik ist wichtig für Kinder.", "Music is important for children."),
    ("Die Katze schläft im Haus.", "The cat sleeps in the house."),
    ("", "Nothing."),
    ("Heute regnet es.", "I like red cars."),
]
LOAD = functools.cache(load_encoder)


@functools.cache
def expected() -> tuple[list[str], list[str]]:
    """Return the scores and the cosines of the texts as they are written, computed by the library."""
    scored = score_pairs(*zip(*TEXTS, strict=True), encoder=LOAD())  # type: ignore[arg-type]
    scores, cosines = ([f"{x:.6f}" for x in found.tolist()] for found in (scored.scores, scored.cosines))
    scores[3] = cosines[3] = ""
    return scores, cosines


def scores() -> list[str]:
    return expected()[0]


def cosines() -> list[str]:
    return expected()[1]


BLANK = "without a score, for a side that is blank or unknown to the model: 1"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command in this process, the model loaded once: exit code and standard error."""
    monkeypatch.setattr("embedsvc.encoder.load_encoder", LOAD)

    def run_command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["embedsvc", "score", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run_command


def write_table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="")
    return path


def read_table(path: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split("\t")) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [(str(number), *texts, f"note\u2028{number}") for number, texts in enumerate(TEXTS)]
    return write_table(tmp_path / "pairs.tsv", [("id", "src", "tgt", "note"), *rows])


def test_a_table_keeps_its_columns_and_order_and_gets_score_and_cosine(
    table: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "scored.tsv"
    assert run(table, "--out", out) == (0, f"wrote {out}: 5 of 5 pairs; {BLANK}\n")
    assert read_table(out) == [
        ("id", "src", "tgt", "note", "score", "cosine"),
        *(
            (str(number), *texts, f"note\u2028{number}", scores()[number], cosines()[number])
            for number, texts in enumerate(TEXTS)
        ),
    ]


def test_the_threshold_leaves_out_what_scores_less_or_not_at_all(
    table: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "scored.tsv.gz"
    code, shown = run(table, "--out", out, "--threshold", "2.2")
    assert (code, shown) == (0, f"wrote {out}: 3 of 5 pairs with ratio >= 2.2; {BLANK}\n")
    run(table, "--out", tmp_path / "all.jsonl")
    run(table, "--out", tmp_path / "good.jsonl", "--threshold", "2.2")
    everything = list(read_pairs(tmp_path / "all.jsonl"))
    assert list(read_pairs(tmp_path / "good.jsonl")) == everything[:3]
    assert [pair.source.id for pair in everything] == ["0", "1", "2", "3", "4"]
    assert [pair.source.line for pair in everything] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("options", [["--margin", "distance"], ["--k", "1"], ["--dimensions", "64"]])
def test_options_are_those_of_the_library(table: Path, tmp_path: Path, run: Run, options: list[str]) -> None:
    out = tmp_path / "scored.tsv"
    run(table, "--out", out, *options)
    name, value = options[0].removeprefix("--"), options[1]
    given = {name: value if name == "margin" else int(value)}
    found = score_pairs(*zip(*TEXTS, strict=True), **given)  # type: ignore[arg-type]
    assert [row[4] for row in read_table(out)[1:]] == [
        f"{score:.6f}" if score == score else "" for score in found.scores.tolist()
    ]


def test_a_table_without_a_header_is_read_by_the_numbers_of_its_columns(tmp_path: Path, run: Run) -> None:
    plain = write_table(tmp_path / "plain.tsv", [(target, "x", source) for source, target in TEXTS])
    out = tmp_path / "out.tsv"
    assert run(plain, "--out", out, "--src-column", "3", "--tgt-column", "1")[0] == 0
    assert read_table(out) == [
        (target, "x", source, scores()[row], cosines()[row]) for row, (source, target) in enumerate(TEXTS)
    ]


def test_a_first_line_that_may_be_a_header_is_asked_about(tmp_path: Path, run: Run) -> None:
    doubtful = write_table(tmp_path / "doubt.tsv", [("Source", "target"), *TEXTS])
    out = tmp_path / "out.tsv"
    numbers = ["--src-column", "1", "--tgt-column", "2"]
    code, shown = run(doubtful, "--out", out, *numbers)
    assert code == 1
    assert (
        shown == f"embedsvc: {doubtful} line 1 looks like a header (source, target); say whether it is one\n"
    )
    assert run(doubtful, "--out", out, *numbers, "--header")[0] == 0
    assert read_table(out)[0] == ("Source", "target", "score", "cosine")
    assert [row[2] for row in read_table(out)[1:]] == scores()
    assert run(doubtful, "--out", out, *numbers, "--no-header")[0] == 0
    assert len(read_table(out)[0][2]) > 6  # the first line has a score like any


def test_old_scores_are_replaced_and_said_to_be(tmp_path: Path, run: Run) -> None:
    old = write_table(
        tmp_path / "old.tsv",
        [("score", "src", "probability", "tgt"), *(("9", source, "1", target) for source, target in TEXTS)],
    )
    out = tmp_path / "new.tsv"
    assert run(old, "--out", out)[1] == f"wrote {out}: 5 of 5 pairs; {BLANK}; replaced: score, probability\n"
    assert read_table(out)[:2] == [
        ("score", "src", "probability", "tgt", "cosine"),
        (scores()[0], TEXTS[0][0], "", TEXTS[0][1], cosines()[0]),
    ]


def test_json_lines_keep_every_value(tmp_path: Path, run: Run) -> None:
    rows = [
        {"de": source or None, "en": target, "big": 2**70, "deep": {"list": [1.10, None]}, "half": "\ud800"}
        for source, target in TEXTS
    ]
    lines, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    assert run(lines, "--out", out, "--src-field", "de", "--tgt-field", "en")[0] == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [{name: value for name, value in row.items() if name in rows[0]} for row in found] == rows
    assert [row["score"] for row in found] == [float(score) if score else None for score in scores()]


def test_parquet_keeps_its_columns_and_their_types(tmp_path: Path, run: Run) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the [parquet] extra")
    from pyarrow import parquet

    source, target = zip(*TEXTS, strict=True)
    columns = {"when": pa.array(range(5), pa.timestamp("ms")), "src": source, "tgt": target, "score": [9] * 5}
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    assert run(tmp_path / "in.parquet", "--out", out, "--threshold", "2.2", "--filters", "copy")[0] == 0
    found = parquet.read_table(out)
    assert {field.name: str(field.type) for field in found.schema} == {
        "when": "timestamp[ms]", "src": "string", "tgt": "string", "score": "double", "cosine": "double",
        "reason": "string",
    }  # fmt: skip
    assert found["when"].cast(pa.int64()).to_pylist() == [0, 1, 2]
    assert found["score"].to_pylist() == [float(score) for score in scores()[:3]]


@pytest.mark.parametrize("suffix", [".tmx", ".xlf"])
def test_translation_files_are_read_by_language(tmp_path: Path, run: Run, suffix: str) -> None:
    pairs = [Pair(9, 9, PairSide("0", source), PairSide("1", target)) for source, target in TEXTS]
    memory, out = tmp_path / f"m{suffix}", tmp_path / "out.tsv"
    write_pairs(memory, pairs, OutputInfo("de", "en-US"))
    assert run(memory, "--out", out, "--src-lang", "en", "--tgt-lang", "de")[0] == 0
    found = list(read_pairs(out))
    assert [(pair.target.text, pair.source.text) for pair in found] == TEXTS
    assert [pair.source.id for pair in found] == ["1", "2", "3", "4", "5"]
    assert [row[0] for row in read_table(out)[1:]] == [
        f"{score:.6f}" if score == score else ""
        for score in score_pairs(
            [target for _, target in TEXTS], [source for source, _ in TEXTS]
        ).scores.tolist()
    ]
    code, shown = run(memory, "--out", out)
    if suffix == ".tmx":
        message = "may hold many languages; say which are those of source and target"
        assert (code, shown) == (1, f"embedsvc: {memory} {message}\n")
    else:
        assert [pair.source.text for pair in read_pairs(out)] == [source for source, _ in TEXTS]


def test_a_moses_pair_is_scored_and_must_be_of_one_length(tmp_path: Path, run: Run) -> None:
    source, target, out = tmp_path / "a.de", tmp_path / "a.en", tmp_path / "out.tsv"
    write_table(source, [(text,) for text, _ in TEXTS])
    write_table(target, [(text,) for _, text in TEXTS])
    assert run("--src-file", source, "--tgt-file", target, "--out", out)[0] == 0
    assert [row[0] for row in read_table(out)[1:]] == scores()
    write_table(target, [("x",)] * 3)
    code, shown = run("--src-file", source, "--tgt-file", target, "--out", out)
    assert code == 1
    assert shown.startswith(f"embedsvc: {target} has 3 lines and {source} more; line n of one must be")


def test_filters_say_why_a_pair_would_be_dropped(tmp_path: Path, run: Run) -> None:
    texts = [
        ("Es kostet 20 Euro.", "It costs 30 euros."),
        ("Hallo!", "hallo"),
        ("Ja, 3 mal.", "Yes, 3 times."),
        ("", ""),
    ]
    table = write_table(tmp_path / "in.tsv", [("src", "tgt"), *texts])
    out = tmp_path / "out.tsv"
    code, shown = run(table, "--out", out, "--filters", "copy,numbers")
    assert (code, shown) == (0, f"wrote {out}: 4 of 4 pairs; {BLANK}; reasons: copy 1, numbers 1\n")
    assert [row[4] for row in read_table(out)] == ["reason", "numbers", "copy", "", ""]


def calibration(margin: str = "ratio") -> dict[str, object]:
    one = {"value": 1.0, "low": 1.0, "high": 1.0}
    return {
        "made_by": "development", "margin": margin, "retrieval": "max", "goal": None, "threshold": one,
        "precision": one, "recall": one, "f1": one, "true_pairs": one, "known_pairs": 9, "seed": 0,
        "score_knots": [1.0, 3.0], "probability_knots": [0.0, 1.0], "curve": [], "notes": [],
    }  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_a_calibration_gives_probabilities(table: Path, tmp_path: Path, run: Run, nested: bool) -> None:
    file, out = tmp_path / "c.json", tmp_path / "out.tsv"
    file.write_text(json.dumps({"calibration": calibration()} if nested else calibration()))
    assert run(table, "--out", out, "--calibration", file)[0] == 0
    rows = read_table(out)
    assert rows[0] == ("id", "src", "tgt", "note", "score", "probability", "cosine")
    assert [row[4] for row in rows[1:]] == scores()
    for score, row in zip(scores(), rows[1:], strict=True):
        expected = min(max((float(score) - 1) / 2, 0), 1) if score else None
        assert row[5] == "" if expected is None else float(row[5]) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "c.json: not JSON: "),
        ("[]", "c.json holds no calibration"),
        ('{"calibration": null}', "c.json is of a run that was not calibrated"),
        (
            json.dumps(calibration("distance")),
            "c.json is for margin 'distance'; the scores are of margin 'ratio'",
        ),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    table: Path, tmp_path: Path, run: Run, content: str, message: str
) -> None:
    (tmp_path / "c.json").write_text(content)
    code, shown = run(table, "--out", tmp_path / "out.tsv", "--calibration", tmp_path / "c.json")
    assert code == 1
    assert message in shown


def test_pools_are_neighbours_too(tmp_path: Path, run: Run) -> None:
    one = write_table(tmp_path / "one.tsv", [("src", "tgt"), TEXTS[0]])
    pools = [write_table(tmp_path / f"pool.{i}", [(texts[i],) for texts in TEXTS]) for i in (0, 1)]
    out = tmp_path / "out.tsv"
    run(one, "--out", out)
    assert read_table(out)[1][2] == "1.000000"
    run(one, "--out", out, "--src-pool", pools[0], "--tgt-pool", pools[1])
    found = score_pairs(
        [TEXTS[0][0]],
        [TEXTS[0][1]],
        source_pool=[source for source, _ in TEXTS],
        target_pool=[target for _, target in TEXTS],
    )
    assert read_table(out)[1][2] == f"{found.scores[0]:.6f}"
    assert found.scores[0] > 1.2


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        ("", [], 1, "{in} is empty"),
        ("src\ttgt\n", [], 1, "{in} has no pair"),
        (
            "a\tb\nc\td\n",
            [],
            1,
            "{in} line 1: no column is named 'src'; they are 'a', 'b'. For a file without",
        ),
        ("src\tsrc\n", [], 1, "{in} line 1: column name 'src' is empty or there twice. For a file without"),
        ("src\ttgt\na\n", [], 1, "{in} line 2: 1 columns; expected are 2"),
        ("a\tb\n", ["--src-column", "1", "--tgt-column", "3"], 1, "{in} has no column 3; its lines have 2"),
        ("src\ttgt\na\tb\n", ["--filters", "long"], 1, "filter 'long' is none of pairs; choose among ratio,"),
        ("src\ttgt\na\tb\n", ["--threshold", "nan"], 1, "threshold is not a number"),
        ("src\ttgt\na\tb\n", ["--dimensions", "9999"], 1, "dimensions = 9999; model"),
        ("src\ttgt\na\tb\n", ["--src-column", "1"], 2, "give --src-field and --tgt-field, or both"),
        ("src\ttgt\na\tb\n", ["--src-file", "{in}"], 2, "give PAIRS, or both --src-file and --tgt-file"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    tmp_path: Path, run: Run, content: str, options: list[str], code: int, message: str
) -> None:
    given = tmp_path / "in.tsv"
    given.write_text(content)
    found, shown = run(
        given, "--out", tmp_path / "out.tsv", *(word.replace("{in}", str(given)) for word in options)
    )
    assert found == code
    expected = message.replace("{in}", str(given))
    assert shown.splitlines()[-1].removeprefix("Error: ").removeprefix("embedsvc: ").startswith(expected)
    assert list(tmp_path.iterdir()) == [given]


def test_a_text_that_is_refused_is_named_by_its_line(
    table: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.encoders.static_table.StaticTableRuntime.max_tokens", 20)
    with table.open("a", encoding="utf-8") as file:
        file.write(f"x\tkurz\t{'word ' * 40}\tnote\n")
    code, shown = run(table, "--out", tmp_path / "out.tsv")
    assert code == 1
    assert shown.startswith(f"embedsvc: {table} line 7, target, has ")


def test_output_over_the_input_or_of_an_unknown_kind_is_refused(
    table: Path, tmp_path: Path, run: Run
) -> None:
    before = table.read_bytes()
    assert run(table, "--out", table)[0] == 2
    assert "unknown kind of file '.doc'" in run(table, "--out", tmp_path / "out.doc")[1]
    assert table.read_bytes() == before
