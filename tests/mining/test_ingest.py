"""Every record ends in one place: kept, folded into its equal, blank, or dropped for a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.mining import ingest as ingest_module
from embedsvc.mining.ingest import ingest, input_files
from embedsvc.mining.ingest_options import IngestOptions, checked_options
from embedsvc.mining.ingest_report import Example
from embedsvc.mining.progress import Step
from embedsvc.mining.records import Origin

UNFILTERED = IngestOptions(filters=())


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SPACED = st.lists(
    st.sampled_from(["a", "b", "é", "e\u0301", " ", "\t", "\f", "\u2028", "\x1c", "\u00a0"]), max_size=5
)


@settings(max_examples=25, deadline=None)
@given(st.lists(SPACED.map("".join), max_size=30), st.integers(1, 4))
def test_folding_agrees_with_a_dict(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], batch: int
) -> None:
    expected: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        if text := " ".join(unicodedata.normalize("NFC", line).split()):
            expected.setdefault(text, []).append(number)
    folder = tmp_path_factory.mktemp("fold")
    path = written(folder, "a.txt", "".join(line + "\n" for line in lines))
    options = replace(UNFILTERED, kind="txt")  # as to the tabs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "_BATCH", batch)
        if not expected:
            with pytest.raises(InvalidInputError, match="no sentence"):
                ingest([path], folder / "store", options)
            return
        store = ingest([path], folder / "store", options)
    sides = [store.side(row) for row in range(len(store))]
    assert [side.text for side in sides] == list(expected)
    assert [[origin.line for origin in side.origins] for side in sides] == list(expected.values())
    assert [store.row_of(text) for text in expected] == list(range(len(expected)))
    report = store.report
    filled = sum(map(len, expected.values()))
    assert (report.records, report.blank) == (len(lines), len(lines) - filled)
    assert (report.sentences, report.duplicates) == (len(expected), filled - len(expected))


def test_report_counts_every_record_once_and_shows_examples(tmp_path: Path) -> None:
    german = [
        f"Der Zug nach {city} fährt heute um {hour} Uhr ab." for city, hour in (("Ulm", 3), ("Bonn", 7))
    ]
    english = "The train to the capital leaves in the evening."
    lines = [german[0], "", english, german[0], english, "12345 67890", "Ja", german[1], "Ja", "Nein"]
    path = written(tmp_path, "a.txt", "\n".join(lines))
    store = ingest([path], tmp_path / "store", IngestOptions(language="deu"))
    report = store.report
    assert store.texts(0, len(store)) == german
    assert (report.records, report.sentences, report.duplicates, report.blank) == (10, 2, 1, 1)
    assert report.dropped == {"short": 3, "letters": 1, "language": 2}
    assert report.examples == {
        "short": [Example("a.txt", 7, "Ja"), Example("a.txt", 10, "Nein")],
        "letters": [Example("a.txt", 6, "12345 67890")],
        "language": [Example("a.txt", 3, english)],
    }
    assert list(report.dropped) == ["short", "letters", "language"]
    assert report.notes == []
    assert store.row_of(english) is None


def test_long_examples_are_cut_and_only_the_first_shown(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.txt", "".join(f"{number} {'x' * 2000}\n" for number in range(5)) + "kept text\n"
    )
    report = ingest([path], tmp_path / "store", IngestOptions(filters=("long",))).report
    assert report.dropped == {"long": 5}
    assert [example.line for example in report.examples["long"]] == [1, 2, 3]
    assert report.examples["long"][0].text == "0 " + "x" * 78 + "…"


def test_several_files_are_one_side(tmp_path: Path) -> None:
    paths = [written(tmp_path, "a.txt", "eins\nzwei\n"), written(tmp_path, "b.jsonl", '{"text": "eins"}\n')]
    empty = written(tmp_path, "empty.txt", "")
    store = ingest([paths[0], empty, paths[1]], tmp_path / "store", UNFILTERED)
    assert store.side(0).origins == (Origin("a.txt", 1, "0"), Origin("b.jsonl", 1, "2"))
    assert [(file.name, file.records) for file in store.report.files] == [
        ("a.txt", 2),
        ("empty.txt", 0),
        ("b.jsonl", 1),
    ]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        paths.append(written(tmp_path / folder, "a.txt", f"in {folder}\n"))
    store = ingest(paths, tmp_path / "store", UNFILTERED)
    assert [store.side(row).file for row in range(2)] == ["x/a.txt", "y/a.txt"]
    assert [file.name for file in input_files(paths[:1])] == ["a.txt"]


def test_names_of_files_do_not_say_where_their_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["x/in/a.txt", "y/in/a.txt", "a.txt", "b.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path, name, f"in {name}\n")
    absolute = [file.name for file in input_files([tmp_path / name for name in names])]
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in input_files([Path(name) for name in names])] == absolute
    assert absolute == ["x/in/a.txt", "y/in/a.txt", f"{tmp_path.name}/a.txt", "b.txt"]


def test_all_lines_equal_leave_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "immer gleich\n" * 20_000)
    store = ingest([path], tmp_path / "store", UNFILTERED)
    assert (len(store), store.report.duplicates) == (1, 19_999)
    assert [origin.line for origin in store.side(0).origins] == list(range(1, 20_001))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.txt: no sentence; empty"),
        (" \n\n\t\n", "a.txt: no sentence; all 3 lines are blank"),
        ("ab\n\n1234567\n", "a.txt: no sentence is left; dropped by filters: short 1, letters 1; blank: 1"),
    ],
)
def test_a_side_without_a_sentence_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, "a.txt", content)
    with pytest.raises(InvalidInputError) as caught:
        ingest([path], tmp_path / "store", IngestOptions())
    assert caught.value.message == message
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (IngestOptions(language="xx"), "'xx' is not a language code"),
        (IngestOptions(language="german"), "'german' is not a language code"),
        (
            IngestOptions(filters=("short", "shrt")),
            "filter 'shrt' is unknown; choose default, none, or among long, short, letters, symbols",
        ),
        (
            IngestOptions(encoding_errors="ignore"),
            "encoding_errors 'ignore' is unknown; choose strict, replace",
        ),  # type: ignore[arg-type]
        (IngestOptions(kind="doc"), "kind 'doc' is unknown; choose txt, tsv, jsonl, parquet, tmx, xliff"),
        (IngestOptions(max_characters=0), "max_characters = 0; it must be at least 1"),
        (
            IngestOptions(min_characters=9, max_characters=8),
            "min_characters = 9 is more than max_characters = 8",
        ),
    ],
)
def test_a_bad_option_is_refused_before_reading(tmp_path: Path, options: IngestOptions, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ingest([tmp_path / "gone.txt"], tmp_path / "store", options)
    assert message in caught.value.message


def test_options_have_one_spelling(tmp_path: Path) -> None:
    assert checked_options(IngestOptions(language="eng_US", filters=("copy", "script", "long"))) == replace(
        UNFILTERED, language="en", filters=("long", "script")
    )
    assert checked_options(IngestOptions(language="srp_Latn")).language == "sr-Latn"
    path = written(tmp_path, "a.txt", "eins\n")
    ingest([path], tmp_path / "store", IngestOptions(language="deu", filters=("short",), min_characters=1))
    ingest(
        [path], tmp_path / "store", IngestOptions(language="de", filters=("short", "copy"), min_characters=1)
    )


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "eins\n")
    with pytest.raises(NotFoundError, match=r"no file at .*gone\.txt"):
        ingest([path, tmp_path / "gone.txt"], tmp_path / "store", UNFILTERED)
    with pytest.raises(InvalidInputError, match=r"a\.txt is given 2 times"):
        ingest([path, tmp_path / "." / "a.txt"], tmp_path / "store", UNFILTERED)
    with pytest.raises(InvalidInputError, match="no file to read"):
        ingest([], tmp_path / "store", UNFILTERED)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InvalidInputError, match=r"pipe\.txt is not a regular file"):
        ingest([tmp_path / "pipe.txt"], tmp_path / "store", UNFILTERED)


def test_bad_bytes_are_an_error_or_replaced_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"gut\nschl\xffe\xffcht\n")
    with pytest.raises(InvalidInputError, match=r"a\.txt line 2: byte 0xff at position 4 is not UTF-8"):
        ingest([path], tmp_path / "store", UNFILTERED)
    store = ingest([path], tmp_path / "store", replace(UNFILTERED, encoding_errors="replace"))
    assert store.texts(0, 2) == ["gut", "schl\ufffde\ufffdcht"]
    assert (store.report.replaced, store.report.files[0].replaced) == (2, 2)


def test_a_ten_megabyte_line_is_read_and_dropped_as_long(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "ein Satz\n" + "x" * 10_000_000 + "\n")
    report = ingest([path], tmp_path / "store", IngestOptions()).report
    assert (report.sentences, report.dropped) == (1, {"long": 1})


def test_a_finished_store_is_opened_and_not_made_again(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "eins\nzwei\n")
    ingest([path], tmp_path / "store", UNFILTERED)
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "store").iterdir()}
    assert len(ingest([path], tmp_path / "store", UNFILTERED)) == 2
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "store").iterdir()} == times


def test_a_store_of_other_files_or_options_is_not_touched(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "eins\nzwei\n")
    store = tmp_path / "store"
    ingest([path], store, UNFILTERED)
    before = contents(store)
    with pytest.raises(
        InvalidInputError, match=r"other options: language was None, now 'de', min_characters was 5"
    ):
        ingest([path], store, replace(UNFILTERED, language="de", min_characters=2))
    other = written(tmp_path, "b.txt", "drei\n")
    with pytest.raises(InvalidInputError, match=r"other inputs: it was a\.txt, now b\.txt, a\.txt"):
        ingest([other, path], store, UNFILTERED)
    written(tmp_path, "a.txt", "eins\nZwei\n")
    with pytest.raises(
        InvalidInputError, match=r"other inputs: a\.txt changed; give another folder or remove it"
    ):
        ingest([path], store, UNFILTERED)
    assert contents(store) == before


@pytest.mark.parametrize("further", ["file", "lines"])
def test_a_store_that_grows_is_that_from_scratch_with_the_old_rows_first(
    tmp_path: Path, further: str
) -> None:
    path = written(tmp_path, "a.txt", "eins\nzwei\n")
    before = ingest([path], tmp_path / "store", UNFILTERED)
    paths = [path]
    if further == "file":
        paths.append(written(tmp_path, "b.txt", "drei\neins\n"))
    else:
        written(tmp_path, "a.txt", "eins\nzwei\ndrei\neins\n")
    grown = ingest(paths, tmp_path / "store", UNFILTERED)
    assert grown.texts(0, 3) == ["eins", "zwei", "drei"]
    assert [origin.line for origin in grown.side(0).origins] == ([1, 2] if further == "file" else [1, 4])
    assert (grown.sha256_of_first(2), grown.sha256_of_first(3)) == (before.sha256, grown.sha256)
    ingest(paths, tmp_path / "anew", UNFILTERED)
    assert contents(tmp_path / "store") == contents(tmp_path / "anew")


@pytest.mark.parametrize("damage", ["flip", "truncate", "no manifest"])
def test_a_damaged_or_unfinished_store_is_made_again(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path, "a.txt", "eins\nzwei\neins\n")
    store = tmp_path / "store"
    ingest([path], store, UNFILTERED)
    before = contents(store)
    if damage == "no manifest":
        (store / "manifest.json").unlink()
        (store / "origins.tmp").write_bytes(b"half")
    else:
        data = before["texts.txt"]
        (store / "texts.txt").write_bytes(data[:-1] if damage == "truncate" else b"E" + data[1:])
    ingest([path], store, UNFILTERED)
    assert contents(store) == before


def test_progress_counts_records_and_may_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "a.txt", "".join(f"Satz {number}\n" for number in range(25)))
    monkeypatch.setattr(ingest_module, "_BATCH", 10)
    steps: list[Step] = []
    ingest([path], tmp_path / "store", UNFILTERED, progress=steps.append)
    assert [(step.stage, step.done, step.unit) for step in steps] == [
        ("ingest", done, "sentences") for done in (10, 20, 25)
    ]

    def cancel(step: Step) -> None:
        if step.done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest([path], tmp_path / "other", UNFILTERED, progress=cancel)
    assert not (tmp_path / "other" / "manifest.json").exists()


def _killed(command: list[str], after_s: float) -> None:
    with subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": "7"}) as child:
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_run_called_again_gives_the_same_bytes(tmp_path: Path) -> None:
    lines = (f"Zeile {number % 9000} von vielen\n" for number in range(60_000))
    path = written(tmp_path, "a.txt", "".join(lines))
    ingest([path], tmp_path / "whole", UNFILTERED)
    code = (
        "import sys; from pathlib import Path; from embedsvc.mining.ingest import ingest;"
        "from embedsvc.mining.ingest_options import IngestOptions;"
        "ingest([Path(sys.argv[1])], Path(sys.argv[2]), IngestOptions(filters=()))"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "store")]
    for after_s in (0.5, 0.7, 0.9, 1.1, 1.3):
        _killed(command, after_s)
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "8"})
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
