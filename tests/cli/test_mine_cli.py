from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embedsvc
from embedsvc import mine
from embedsvc.cli import main
from embedsvc.mining.outputs import read_pairs
from tests.collections.conftest import write_tiny_model

Run = Callable[..., tuple[int, str]]

GERMAN = ["Die Katze schläft im Haus.", "", "Musik ist wichtig für Kinder.", "Die Katze  schläft im Haus."]
ENGLISH = [
    "The football match ended without a goal.",
    "Music is important for children.",
    "The cat sleeps in the house.",
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    source, target = tmp_path / "de.txt", tmp_path / "en.txt"
    source.write_text("\n".join(GERMAN) + "\n", encoding="utf-8")
    target.write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    return source, target, tmp_path / "pairs.tsv"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command in this process: exit code and standard error."""

    def run_command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["embedsvc", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run_command


def test_pairs_and_summary(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    code, shown = run("mine", source, target, "--out", out, "--threshold", "1.0", "--no-progress")
    assert code == 0
    pairs = list(read_pairs(out))
    assert {(p.source.text, p.target.text, p.source.line, p.target.line) for p in pairs} == {
        (GERMAN[0], ENGLISH[2], 1, 3),
        (GERMAN[2], ENGLISH[1], 3, 2),
    }
    assert shown.startswith(f"wrote {out}: 2 pairs with ratio >= 1\n")


def test_the_command_does_what_the_library_does(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    options: dict[str, Any] = {
        "margin": "distance", "retrieval": "backward", "k": 2, "threshold": 0.1, "dimensions": 128,
        "prompt": "a ", "truncate": "end", "batch_tokens": 8,
    }  # fmt: skip
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert run("mine", source, target, "--out", out, *arguments)[0] == 0
    pairs = mine([line for line in GERMAN if line], ENGLISH, **options)
    found = list(read_pairs(out))
    assert [(p.source.text, p.target.text) for p in found] == [(p.source, p.target) for p in pairs]
    assert [p.score for p in found] == pytest.approx([p.score for p in pairs], abs=2e-3)


def test_every_field_of_the_options_is_an_option_of_the_command() -> None:
    from dataclasses import fields

    from embedsvc.cli.mine import mine as command
    from embedsvc.mining.options import MiningOptions

    assert {field.name for field in fields(MiningOptions)} <= {option.name for option in command.params}
    defaults = {option.name: option.default for option in command.params}
    for field in fields(MiningOptions):
        given = defaults[field.name]
        if field.name not in ("filters", "memory"):
            assert given == field.default or (given is None) or not isinstance(given, (str, int, float))


def test_same_file_twice_finds_every_line_itself(files: tuple[Path, Path, Path], run: Run) -> None:
    _, target, out = files
    code, shown = run("mine", target, target, "--out", out, "--threshold", "0", "--filters", "none")
    assert code == 0
    assert "warning: source and target are the same files\n" in shown
    pairs = list(read_pairs(out))
    assert {(p.source.text, p.target.text) for p in pairs} == {(line, line) for line in ENGLISH}


def test_no_pair_is_a_header_and_no_error(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    code, shown = run("mine", source, target, "--out", out, "--threshold", "99")
    assert (code, out.read_text().count("\n")) == (0, 1)
    assert "0 pairs with ratio >= 99" in shown


def test_output_is_the_same_bytes_under_any_hash_seed(files: tuple[Path, Path, Path]) -> None:
    source, target, out = files
    model = write_tiny_model(out.with_name("tiny"))
    source.write_text("east w1\nnorth w2\nw3\n")
    target.write_text("w3\nnorth w2 w4\neast\n")
    results = []
    for seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(embedsvc.__file__).parents[1]),
        }
        command = [
            sys.executable,
            "-c",
            "from embedsvc.cli import main; main()",
            "mine",
            str(source),
            str(target),
        ]
        options = ["--out", str(out), "--threshold", "-9", "--retrieval", "forward", "--model", str(model)]
        subprocess.run([*command, *options], env=environment, check=True, capture_output=True)
        results.append(out.read_bytes())
    assert results[0] == results[1] != b""


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, 2, "Error: Invalid value for '[TARGET]': File '{target}' does not exist."),
        (b"", 1, "embedsvc: en.txt: no sentence; empty"),
        (b"\n\n", 1, "embedsvc: en.txt: no sentence; all 2 lines are blank"),
        (b"ok\n\xe9t\xe9\n", 1, "embedsvc: {target} line 2: byte 0xe9 at position 0 is not UTF-8"),
        (b"\x7fELF\x00", 1, "embedsvc: {target} line 1: a NUL byte; this is not a UTF-8 text file"),
        (b"en-1\tHello\n", 1, "embedsvc: {target} line 1 has a tab: for a table give kind tsv, and columns "
                              "where its first line does not name them (id,text); for sentences with tabs "
                              "give kind txt"),
    ],
)  # fmt: skip
def test_bad_file_is_one_clear_line(
    files: tuple[Path, Path, Path], run: Run, content: bytes | None, code: int, message: str
) -> None:
    source, target, out = files
    target.unlink()
    if content is not None:
        target.write_bytes(content)
    out.write_text("old")
    found, shown = run("mine", source, target, "--out", out)
    assert (found, shown.splitlines()[-1]) == (code, message.format(target=target))
    assert "Traceback" not in shown
    assert out.read_text() == "old"
    assert {path.name for path in out.parent.iterdir()} <= {"de.txt", "en.txt", "pairs.tsv"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--margin", "cosine"], 2, "Error: Invalid value for '--margin': 'cosine' is not one of"),
        (["--retrieval", "fwd"], 2, "Error: Invalid value for '--retrieval': 'fwd' is not one of"),
        (["--k", "0"], 2, "Error: Invalid value for '--k': 0 is not in the range x>=1."),
        (["--threshold", "high"], 2, "Error: Invalid value for '--threshold': 'high' is not a valid float."),
        (["--threshold", "nan"], 1, "embedsvc: threshold is not a number"),
        (["--dimensions", "9999"], 1, "embedsvc: dimensions = 9999; model 'embedsvc-default' has 1 to"),
        (["--prompt-name", "nope"], 1, "embedsvc: prompt_name 'nope' is unknown to model"),
        (["--model", "./no-such-folder"], 1, "embedsvc: no model folder at no-such-folder"),
    ],
)
def test_bad_option_is_one_clear_line(
    files: tuple[Path, Path, Path], run: Run, options: list[str], code: int, message: str
) -> None:
    source, target, out = files
    found, shown = run("mine", source, target, "--out", out, *options)
    assert found == code
    assert shown.splitlines()[-1].startswith(message)
    assert not out.exists()


def test_too_long_line_is_named_by_its_line_number(
    files: tuple[Path, Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, out = files
    monkeypatch.setattr("embedsvc.encoders.static_table.StaticTableRuntime.max_tokens", 20)
    with source.open("a", encoding="utf-8") as file:
        file.write("Wort " * 40 + "\n")
    code, shown = run("mine", source, target, "--out", out)
    assert code == 1
    assert shown.startswith("embedsvc: de.txt line 5 has ")
    assert run("mine", source, target, "--out", out, "--truncate", "end")[0] == 0


def test_output_over_an_input_is_refused(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, _ = files
    before = target.read_bytes()
    code, shown = run("mine", source, target, "--out", target)
    assert code == 2
    assert "is one of the input files; it would be overwritten" in shown
    assert target.read_bytes() == before


def test_exchanged_languages_are_warned_of(files: tuple[Path, Path, Path], run: Run) -> None:
    source, target, out = files
    lines = [f"The cat sleeps in house number {number} of the old street." for number in range(20)]
    target.write_text("\n".join([*lines, GERMAN[0]]) + "\n", encoding="utf-8")
    code, shown = run("mine", source, target, "--out", out, "--tgt-lang", "de", "--filters", "language")
    assert code == 0
    assert "warning: 20 of 21 lines of the target are not in 'de'" in shown
    assert "are the same files" not in shown
