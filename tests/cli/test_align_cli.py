from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedsvc import align
from embedsvc.cli import main

Run = Callable[..., tuple[int, str, str]]
GERMAN = ["Die Katze schläft im Haus.", "", "Musik ist wichtig für Kinder.", "Sie kaufte ein neues Auto."]
ENGLISH = ["The cat sleeps in the house.", "Music is important for children.", "She bought", "a new car."]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    source, target = tmp_path / "de.txt", tmp_path / "en.txt"
    source.write_text("\n".join(GERMAN) + "\n", encoding="utf-8")
    target.write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    return source, target, tmp_path / "beads.tsv"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command in this process: exit code, standard output and standard error."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["embedsvc", "align", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run_command


def rows(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_beads_are_those_of_the_library(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    code, shown, message = run(source, target, "--out", out)
    assert (code, shown, message) == (0, "", f"wrote {out}: 3 beads of 3 x 4 sentences\n")
    expected = align([line for line in GERMAN if line], ENGLISH)
    assert [(row["src_id"], row["tgt_id"]) for row in rows(out)] == [("0", "0"), ("1", "1"), ("2", "2,3")]
    assert [row["score"] for row in rows(out)] == [f"{bead.score:.6f}" for bead in expected]
    assert [(row["src_line"], row["tgt_line"]) for row in rows(out)] == [("1", "1"), ("3", "2"), ("4", "3")]
    assert rows(out)[2]["tgt"] == "She bought a new car."


def test_gold_beads_give_precision_recall_and_f1(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    gold = out.parent / "gold"
    gold.write_text("[0]:[0]\n[1]:[1]\n[2]:[2]\n[]:[3]\n")
    code, shown, _ = run(source, target, "--out", out, "--gold", gold)
    assert code == 0
    assert shown.splitlines() == [
        "       precision  recall     F1",
        "strict    0.6667  0.6667  0.6667",
        "lax       1.0000  1.0000  1.0000",
    ]


def test_a_text_is_split_and_written_as_a_translation_memory(
    files: tuple[Path, Path, Path], run: Run
) -> None:
    source, target, out = files
    target.write_text(" ".join(ENGLISH), encoding="utf-8")
    memory = out.with_suffix(".tmx")
    options = ("--split", "sentences", "--src-lang", "de", "--tgt-lang", "en", "--max-bead", 2)
    assert run(source, target, "--out", memory, *options)[0] == 0
    written = memory.read_text(encoding="utf-8")
    assert "<seg>She bought a new car.</seg>" in written
    assert "<seg>Die Katze schläft im Haus.</seg>" in written


def test_the_same_command_writes_the_same_bytes(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    results = []
    for _ in range(2):
        run(source, target, "--out", out, "--format", "vecalign")
        results.append(out.read_bytes())
    assert results[0] == results[1]
    assert results[0].startswith(b"[0]:[0]:0.")


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        ("", (), 1, "embedsvc: {target} has no sentence: it is empty, or all lines are blank"),
        (None, ("--gold", "{source}"), 1, "embedsvc: {source} line 1 is 'Die Katze"),
        (None, ("--tgt-lang", "xx-yy-zz"), 1, "embedsvc: 'xx-yy-zz' is not a language code"),
        (None, ("--max-bead", "0"), 2, "Error: Invalid value for '--max-bead': 0 is not in the range"),
        (None, ("--model", "./no-such-folder"), 1, "embedsvc: no model folder at no-such-folder"),
        (None, ("--dimensions", "9999"), 1, "embedsvc: dimensions = 9999; model 'embedsvc-default' has 1 to"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(
    files: tuple[Path, Path, Path],
    run: Run,
    content: str | None,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    source, target, out = files
    if content is not None:
        target.write_text(content)
    given = [option.format(source=source) for option in options]
    found, _, shown = run(source, target, "--out", out, *given)
    assert found == code
    assert shown.splitlines()[-1].startswith(message.format(source=source, target=target))
    assert not out.exists()


def test_a_sentence_too_long_is_named_by_its_line(
    files: tuple[Path, Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, out = files
    monkeypatch.setattr("embedsvc.encoders.static_table.StaticTableRuntime.max_tokens", 20)
    with source.open("a", encoding="utf-8") as file:
        file.write("Wort " * 40 + "\n")
    code, _, shown = run(source, target, "--out", out)
    assert code == 1
    assert shown.startswith(f"embedsvc: {source} line 5 has ")


def test_output_over_an_input_is_refused(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, _ = files
    code, _, shown = run(source, target, "--out", source)
    assert code == 2
    assert "is one of the input files; it would be overwritten" in shown


def test_a_moses_pair_is_not_written_over_the_documents(run: Run, tmp_path: Path) -> None:
    for language, lines in (("de", GERMAN), ("en", ENGLISH)):
        (tmp_path / f"doc.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source, target = tmp_path / "doc.de", tmp_path / "doc.en"
    languages = ("--src-lang", "de", "--tgt-lang", "en")
    code, _, message = run(source, target, "--out", tmp_path / "doc.moses", *languages)
    assert code == 1
    assert "is one of the input files; it would be overwritten" in message
    assert source.read_text(encoding="utf-8").splitlines() == GERMAN


def test_a_table_is_no_document(run: Run, tmp_path: Path) -> None:
    (tmp_path / "de.tsv").write_text("text\nHallo\n")
    code, _, message = run(tmp_path / "de.tsv", tmp_path / "de.tsv", "--out", tmp_path / "beads.tsv")
    assert code == 1
    assert "a document is a text file; mine and score read .tsv files" in message
