"""`embedsvc index`, `search` and `collections`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedsvc.cli import main

DOCUMENTS = [
    {"id": "lib-en", "text": "The town library is open from Monday to Saturday.", "language": "en", "n": 1},
    {"id": "lib-es", "text": "La biblioteca municipal abre de lunes a sábado.", "language": "es"},
    {"id": "bus-en", "text": "The bus to the airport leaves every hour.", "language": "en"},
]


class Cli:
    """Runs the command line in this process on one data folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder, self._capsys, self._patch = folder, capsys, patch
        patch.setenv("EMBEDSVC_DATA_DIR", str(folder / "data"))

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, output and error output."""
        self._patch.setattr("sys.argv", ["embedsvc", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = self._capsys.readouterr()
        return code, out, err

    def file(self, name: str = "docs.jsonl", documents: list[dict[str, object]] | None = None) -> str:
        path = self.folder / name
        lines = (json.dumps(document, ensure_ascii=False) for document in documents or DOCUMENTS)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(tmp_path, capsys, monkeypatch)


def test_index_reports_counts_and_may_be_run_again(cli: Cli) -> None:
    code, out, _ = cli("index", cli.file(), "--collection", "help")
    assert (code, out) == (0, "help: 3 new and 0 updated documents, 3 in all; en 2, es 1\n")
    code, out, _ = cli("index", cli.file(), "--collection", "help")
    assert (code, out) == (0, "help: 0 new and 3 updated documents, 3 in all; en 2, es 1\n")


def test_search_finds_a_document_by_its_own_text(cli: Cli) -> None:
    cli("index", cli.file(), "--collection", "help")
    for document in DOCUMENTS:
        code, out, _ = cli("search", "help", str(document["text"]), "--json", "--top-k", "2")
        hits = [json.loads(line) for line in out.splitlines()]
        assert (code, len(hits)) == (0, 2)
        metadata = {"n": 1} if "n" in document else None
        assert hits[0] == {
            **{key: document[key] for key in ("id", "text", "language")},
            "score": pytest.approx(1.0, abs=1e-4),
            "metadata": metadata,
        }


def test_search_table_shows_score_language_id_and_text(cli: Cli) -> None:
    cli("index", cli.file(), "--collection", "help")
    _, out, _ = cli("search", "help", "La biblioteca municipal abre de lunes a sábado.", "--lang", "spa")
    assert out == " 1.000  es   lib-es  La biblioteca municipal abre de lunes a sábado.\n"
    code, out, err = cli("search", "help", "x y z", "--lang", "fr")
    assert (code, out, err) == (0, "", "no hits\n")


def test_an_id_that_comes_twice_is_refused(cli: Cli) -> None:
    twice = [{"id": "a", "text": "first"}, {"id": "b", "text": "other"}, {"id": "a", "text": "second"}]
    code, out, err = cli("index", cli.file("t.jsonl", twice), "--collection", "new")
    assert (code, out) == (1, "")
    assert "t.jsonl line 3: id 'a' is also that of line 1" in err


def test_a_file_without_documents_makes_no_collection(cli: Cli) -> None:
    path = cli.file("t.txt")
    Path(path).write_text("\n\n")
    code, _, err = cli("index", path, "--collection", "new")
    assert code == 1
    assert "t.txt holds no documents" in err
    assert cli("collections", "list")[1] == ""


def test_a_damaged_collection_does_not_hide_the_others(cli: Cli) -> None:
    for name in ("a", "b"):
        cli("index", cli.file(), "--collection", name)
    (database,) = cli.folder.glob("data/collections/a/*.sqlite")
    database.write_bytes(b"no database" * 100)
    code, out, _ = cli("collections", "list")
    assert code == 0
    assert out.splitlines()[0].startswith("a\tcannot be opened: ")
    assert out.splitlines()[1].startswith("b\t")


def test_collections_are_listed_described_and_deleted(cli: Cli) -> None:
    cli("index", cli.file(), "--collection", "help")
    _, out, _ = cli("collections", "list")
    assert out == "help\t3 documents\t2 languages\tembedsvc-default\n"
    _, out, _ = cli("collections", "info", "help", "--json")
    assert json.loads(out)["languages"] == {"en": 2, "es": 1}
    _, out, _ = cli("collections", "info", "help")
    assert "languages    en 2, es 1\n" in out
    assert cli("collections", "delete", "help", "--yes")[:2] == (0, "deleted help: 3 documents\n")
    assert cli("collections", "list")[:2] == (0, "")


def test_field_options_name_the_columns(cli: Cli) -> None:
    path = cli.file("t.jsonl", [{"key": 1, "body": "Guten Tag", "tongue": "deu"}])
    options = ["--id-field", "key", "--text-field", "body", "--lang-field", "tongue"]
    assert cli("index", path, "--collection", "c", *options)[1].endswith("1 in all; de 1\n")


def test_bad_line_stops_with_file_and_line_and_keeps_whole_batches(cli: Cli) -> None:
    path = cli.file(
        "t.jsonl", [{"id": i, "text": f"text {i}", "lang": "en"} for i in range(1500)] + [{"id": "x"}]
    )
    code, out, err = cli("index", path, "--collection", "c")
    assert (code, out) == (1, "")
    assert "t.jsonl line 1501: 'text' is missing; its fields are 'id'" in err
    assert "the first 1000 documents were written" in err
    assert json.loads(cli("collections", "info", "c", "--json")[1])["documents"] == 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "none", "q"], 1, "embedsvc: no collection 'none'; known: help"),
        (["search", "../x", "q"], 1, "embedsvc: collection name '../x'"),
        (["search", "help", "q", "--lang", "xx"], 1, "embedsvc: 'xx' is not a language code"),
        (["search", "help", " "], 1, "embedsvc: query must be a text"),
        (["search", "help", "q", "--top-k", "0"], 2, "0 is not in the range"),
        (["search", "help", "q", "--model", "./nowhere"], 1, "embedsvc: no model folder at nowhere"),
        (["collections", "info", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "delete", "none", "--yes"], 1, "embedsvc: no collection 'none'; known: help"),
        (["index", "/nowhere.jsonl", "--collection", "c"], 2, "does not exist"),
    ],
)
def test_mistakes_get_one_line_and_no_traceback(
    cli: Cli, arguments: list[str], code: int, message: str
) -> None:
    cli("index", cli.file(), "--collection", "help")
    found, out, err = cli(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_unknown_kind_of_file_makes_no_collection(cli: Cli) -> None:
    code, _, err = cli("index", cli.file("docs.csv"), "--collection", "c")
    assert code == 1
    assert "unknown kind of file '.csv'; known: .txt, .tsv, .jsonl" in err
    assert cli("collections", "list")[1] == ""
