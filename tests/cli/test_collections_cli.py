"""`embedsvc index`, `search` and `collections`, as a user meets them."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from pathlib import Path

import click
import numpy as np
import pytest

from embedsvc.cli import main
from embedsvc.cli.opening import creation_options
from embedsvc.cli.search import search as search_command
from embedsvc.collections.collection import Collection, CollectionOptions, SearchOptions
from embedsvc.encoder import load_encoder
from tests.collections.conftest import brute_force, documents, random_texts, write_tiny_model

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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The option of a model that is loaded in no time; it knows none of the words above."""
    return "--model", str(write_tiny_model(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture(scope="module")
def with_help(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the collection "help", which tests only look at."""
    folder = tmp_path_factory.mktemp("data")
    with Collection(folder / "collections" / "help") as collection:
        for row in DOCUMENTS:
            document = {key: row[key] for key in ("id", "text", "language")}
            collection.upsert([{**document, "metadata": {"n": row["n"]} if "n" in row else None}])
    return folder


def test_index_reports_counts_and_may_be_run_again(cli: Cli, small: tuple[str, str]) -> None:
    code, out, _ = cli("index", cli.file(), "--collection", "help", *small)
    assert (code, out) == (0, "help: 3 new and 0 updated documents, 3 in all; en 2, es 1\n")
    code, out, _ = cli("index", cli.file(), "--collection", "help", *small)
    assert (code, out) == (0, "help: 0 new and 3 updated documents, 3 in all; en 2, es 1\n")


def test_search_finds_a_document_by_its_own_text(
    cli: Cli, with_help: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSVC_DATA_DIR", str(with_help))
    for document in DOCUMENTS[:2]:
        code, out, _ = cli("search", "help", str(document["text"]), "--json", "--top-k", "2")
        hits = [json.loads(line) for line in out.splitlines()]
        assert (code, len(hits)) == (0, 2)
        metadata = {"n": 1} if "n" in document else None
        assert hits[0] == {
            **{key: document[key] for key in ("id", "text", "language")},
            "score": pytest.approx(1.0, abs=1e-4),
            "metadata": metadata,
        }


def test_search_table_shows_score_language_id_and_text(
    cli: Cli, with_help: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDSVC_DATA_DIR", str(with_help))
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


def test_a_damaged_collection_does_not_hide_the_others(cli: Cli, small: tuple[str, str]) -> None:
    for name in ("a", "b"):
        cli("index", cli.file(), "--collection", name, *small)
    (database,) = cli.folder.glob("data/collections/a/*.sqlite")
    database.write_bytes(b"no database" * 100)
    code, out, _ = cli("collections", "list")
    assert code == 0
    assert out.splitlines()[0].startswith("a\tcannot be opened: ")
    assert out.splitlines()[1].startswith("b\t")


def test_collections_are_listed_described_and_deleted(cli: Cli, small: tuple[str, str]) -> None:
    cli("index", cli.file(), "--collection", "help", *small)
    _, out, _ = cli("collections", "list")
    assert out == "help\t3 documents\t2 languages\tsmall\n"
    _, out, _ = cli("collections", "info", "help", "--json")
    assert json.loads(out)["languages"] == {"en": 2, "es": 1}
    _, out, _ = cli("collections", "info", "help")
    assert "languages    en 2, es 1\n" in out
    assert cli("collections", "delete", "help", "--yes")[:2] == (0, "deleted help: 3 documents\n")
    assert cli("collections", "list")[:2] == (0, "")


def test_field_options_name_the_columns(cli: Cli, small: tuple[str, str]) -> None:
    path = cli.file("t.jsonl", [{"key": 1, "body": "Guten Tag", "tongue": "deu"}])
    options = ["--id-field", "key", "--text-field", "body", "--lang-field", "tongue", *small]
    assert cli("index", path, "--collection", "c", *options)[1].endswith("1 in all; de 1\n")


def test_bad_line_stops_with_file_and_line_and_keeps_whole_batches(cli: Cli, small: tuple[str, str]) -> None:
    path = cli.file(
        "t.jsonl", [{"id": i, "text": f"text {i}", "lang": "en"} for i in range(1500)] + [{"id": "x"}]
    )
    code, out, err = cli("index", path, "--collection", "c", *small)
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
        (["search", "help"], 1, "embedsvc: give a query or a vector"),
        (["search", "help", "q", "--top-k", "0"], 2, "0 is not in the range"),
        (["search", "help", "q", "--offset", "-1"], 2, "-1 is not in the range"),
        (["search", "help", "q", "--offset", "9995"], 1, "embedsvc: offset is 9995; an integer from 0"),
        (["search", "help", "q", "--prefer-language", "de=x"], 1, "--prefer-language de=x: LANGUAGE=NUMB"),
        (["search", "help", "q", "--prefer-language", "de=3"], 1, "embedsvc: prefer_language.de is 3.0"),
        (["search", "help", "q", "--balance", "fair"], 1, "embedsvc: balance is 'fair'; one of none, rou"),
        (["search", "help", "q", "--balance", "de=1.5"], 1, "--balance de=1.5: LANGUAGE=NUMBER expected"),
        (["search", "help", "q", "--balance", "de=1", "--balance", "fr"], 1, "--balance fr: LANGUAGE=NUM"),
        (["search", "help", "q", "--filter", "{"], 1, "embedsvc: --filter is not valid JSON"),
        (["search", "help", "q", "--filter", "[]"], 1, "embedsvc: --filter must be a JSON object"),
        (["search", "help", "q", "--filter", '{"m": 1}'], 1, "filter: no document has a field 'm'"),
        (["search", "help", "q", "--mode", "sparse"], 2, "'sparse' is not one of"),
        (["search", "help", "q", "--fusion", "sum"], 2, "'sum' is not one of"),
        (["search", "help", "q", "--min-score", "x"], 2, "'x' is not a valid float"),
        (["search", "help", "q", "--group-by", ""], 1, "embedsvc: group_by is ''"),
        (["search", "help", "q", "--maxsim", "10"], 1, "was made without (token_vectors)"),
        (["search", "help", "q", "--rerank", "10"], 1, "embedsvc: rerank needs a cross-encoder"),
        (["search", "help", "q", "--rerank", "10", "--reranker", "./nowhere"], 1, "nowhere"),
        (["search", "help", "q", "--query-language", "xx"], 1, "query_language: 'xx' is not a language"),
        (["search", "help", "--vector", __file__], 1, "is no .npy file of numbers"),
        (["index", "DOCS", "--collection", "help", "--recall", "0.8"], 1, "recall = 0.95, not 0.8"),
        (["index", "DOCS", "--collection", "c", "--chunk-tokens", "3"], 1, "chunk_tokens is 3; an integer"),
        (["index", "DOCS", "--collection", "c", "--debias", "magic"], 2, "'magic' is not one of"),
        (["index", "DOCS", "--collection", "c", "--dimension", "3"], 1, "documents[0] has no vector"),
        (["collections", "create", "help"], 1, "embedsvc: collection 'help' exists already"),
        (["collections", "create", "c", "--dimension", "3", "--model", "."], 1, "."),
        (["collections", "export", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "backup", "none", "b"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "restore", "/nowhere"], 1, "is /nowhere a backup?"),
        (["collections", "verify", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "log", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "reindex", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "delete-documents", "help"], 1, "embedsvc: give a filter or languages"),
        (["collections", "delete-documents", "help", "--id", "a", "--lang", "de"], 2, "give --id, or --fil"),
        (["search", "help", "q", "--model", "./nowhere"], 1, "embedsvc: no model folder at nowhere"),
        (["collections", "info", "none"], 1, "embedsvc: no collection 'none'; known: help"),
        (["collections", "delete", "none", "--yes"], 1, "embedsvc: no collection 'none'; known: help"),
        (["index", "/nowhere.jsonl", "--collection", "c"], 2, "does not exist"),
    ],
)
def test_mistakes_get_one_line_and_no_traceback(
    cli: Cli, with_help: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("EMBEDSVC_DATA_DIR", str(with_help))
    found, out, err = cli(*(cli.file() if word == "DOCS" else word for word in arguments))
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_unknown_kind_of_file_makes_no_collection(cli: Cli) -> None:
    code, _, err = cli("index", cli.file("docs.csv"), "--collection", "c")
    assert code == 1
    assert "unknown kind of file '.csv'; known: .txt, .tsv, .jsonl, .ndjson, .parquet" in err
    assert cli("collections", "list")[1] == ""


TEXTS = {f"d{number}": text for number, text in enumerate(random_texts(30))}


@pytest.fixture
def tiny(cli: Cli) -> Path:
    """The collection "tiny" of a tiny model, whose folder is returned; documents d0 … in en, de, sw."""
    model = write_tiny_model(cli.folder / "old")
    rows = [{**row.pop("metadata"), **row} for row in documents(list(TEXTS.values()))]
    assert cli("index", cli.file("tiny.jsonl", rows), "--collection", "tiny", "--model", str(model))[0] == 0
    return model


def found_ids(cli: Cli, *arguments: str) -> list[str]:
    code, out, err = cli("search", "tiny", *arguments, "--json")
    assert code == 0, err
    return [json.loads(line)["id"] for line in out.splitlines()]


def test_the_options_of_a_search_are_those_of_the_library() -> None:
    given = {parameter.name for parameter in search_command.params}
    wanted = {field.name for field in fields(SearchOptions)} - {"filter"} | {"filter_json"}
    assert wanted <= given
    made = {parameter.name for parameter in creation_options(click.command()(lambda: None)).params}
    assert made == {field.name for field in fields(CollectionOptions)}


def test_every_option_of_a_search_has_its_effect(cli: Cli, tiny: Path) -> None:
    query, options = TEXTS["d7"], ["--model", str(tiny)]
    encoder = load_encoder(tiny)
    everything = brute_force(encoder, query, TEXTS, 30)[0]
    language = {id_: ("en", "de", "sw")[int(id_[1:]) % 3] for id_ in TEXTS}
    assert found_ids(cli, query, *options) == everything[:10]
    assert (
        found_ids(cli, query, *options, "--lang", "any", "--top-k", "5", "--offset", "3") == everything[3:8]
    )
    german = [id_ for id_ in everything if language[id_] == "de"]
    assert found_ids(cli, query, *options, "--lang", "deu") == german
    assert found_ids(cli, query, *options, "--prefer-language", "de=2", "--top-k", "3") == german[:3]
    balanced = found_ids(cli, query, *options, "--balance", "round_robin", "--top-k", "3")
    assert {language[id_] for id_ in balanced} == {"en", "de", "sw"}
    quotas = found_ids(cli, query, *options, "--balance", "de=2", "--balance", "*=1")
    assert sorted(language[id_] for id_ in quotas) == ["de", "de", "en", "sw"]
    filtered = found_ids(cli, query, *options, "--filter", '{"n": {"$lt": 5}}')
    assert filtered == [id_ for id_ in everything if int(id_[1:]) < 5]
    assert found_ids(cli, query, "--mode", "lexical")[0] == "d7"  # needs no model
    np.save(cli.folder / "v.npy", encoder.encode([query]))
    assert found_ids(cli, "--vector", str(cli.folder / "v.npy")) == everything[:10]
    assert len(found_ids(cli, query, *options, "--min-score", "0.99")) == 1


def test_facets_and_explanations_come_last(cli: Cli, tiny: Path) -> None:
    query = ["search", "tiny", TEXTS["d7"], "--model", str(tiny), "--top-k", "1", "--facets", "--explain"]
    code, out, _ = cli(*query)
    hit, explanation, facets, plan = out.splitlines()
    assert (code, hit.split()[:3]) == (0, ["1.000", "sw" if 7 % 3 == 2 else "de", "d7"])
    assert json.loads(explanation)["dense_rank"] == 1
    assert facets == "documents per language: de 10, en 10, sw 10"
    assert json.loads(plan.removeprefix("plan: "))["mode"] == "dense"
    hit, about = map(json.loads, cli(*query, "--json")[1].splitlines())
    assert (hit["id"], hit["explanation"]["dense_rank"]) == ("d7", 1)
    assert about["facets"] == {"de": 10, "en": 10, "sw": 10}


def test_a_collection_of_another_model_names_both_and_gives_what_needs_none(cli: Cli, tiny: Path) -> None:
    code, _, err = cli("search", "tiny", "w1")
    assert code == 1
    assert f"fingerprint {load_encoder(tiny).fingerprint}" in err
    assert "'embedsvc-default' (fingerprint " in err
    assert cli("collections", "verify", "tiny")[1].startswith("tiny: ok; checked 30 documents, ")
    assert len(cli("collections", "export", "tiny")[1].splitlines()) == 30
    assert cli("collections", "log", "tiny", "--limit", "1")[1].split()[2:] == ["upsert", "30", "documents"]


def test_an_export_is_indexed_again_with_its_vectors_and_without_a_model(cli: Cli, tiny: Path) -> None:
    out = cli.folder / "out.jsonl"
    assert cli("collections", "export", "tiny", "--out", str(out), "--vectors")[2] == (
        f"wrote {out}: 30 documents\n"
    )
    first = json.loads(out.read_text().splitlines()[0])
    vector = np.frombuffer(base64.b64decode(first["vector"]), "<f4")
    np.testing.assert_allclose(vector, load_encoder(tiny).encode([TEXTS["d0"]])[0], atol=1e-3)
    code, text, err = cli("index", str(out), "--collection", "copy", "--dimension", "16")
    assert (code, text.split(";")[0]) == (0, "copy: 30 new and 0 updated documents, 30 in all"), err
    about = json.loads(cli("collections", "info", "copy", "--json")[1])
    assert (about["model"], about["dimension"], about["fields"]) == ("", 16, ["n"])
    assert "copy\t30 documents\t3 languages\tno model, dimension 16\n" in cli("collections", "list")[1]
    german = cli("collections", "export", "tiny", "--lang", "de", "--filter", '{"n": {"$lt": 5}}')[1]
    assert [json.loads(line)["id"] for line in german.splitlines()] == ["d1", "d4"]


def test_a_backup_is_restored_under_its_name_or_another_and_never_over_one(cli: Cli, tiny: Path) -> None:
    folder = str(cli.folder / "backup")
    assert cli("collections", "backup", "tiny", folder)[:2] == (0, f"backed up tiny into {folder}\n")
    code, _, err = cli("collections", "backup", "tiny", folder)
    assert (code, "exists already" in err) == (1, True)
    code, _, err = cli("collections", "restore", folder)
    assert (code, err) == (1, "embedsvc: collection 'tiny' exists already; give another --name\n")
    assert cli("collections", "restore", folder, "--name", "two")[1] == "restored two: 30 documents\n"
    cli("collections", "delete", "tiny", "--yes")
    assert cli("collections", "restore", folder)[1] == "restored tiny: 30 documents\n"
    assert found_ids(cli, TEXTS["d4"], "--model", str(tiny))[0] == "d4"


def test_reindex_changes_the_model(cli: Cli, tiny: Path) -> None:  # noqa: ARG001 - the collection
    new = write_tiny_model(cli.folder / "new", seed=1)
    code, out, err = cli("collections", "reindex", "tiny", "--model", str(new))
    assert (code, out) == (0, "tiny: 30 documents encoded; its model is now new\n"), err
    expected = brute_force(load_encoder(new), TEXTS["d7"], TEXTS, 10)[0]
    assert found_ids(cli, TEXTS["d7"], "--model", str(new)) == expected


def test_documents_are_deleted_by_id_by_language_and_by_filter(cli: Cli, tiny: Path) -> None:  # noqa: ARG001
    delete = ["collections", "delete-documents", "tiny"]
    assert cli(*delete, "--id", "d0", "--id", "x")[1] == "tiny: 1 documents deleted, 29 left\n"
    assert cli(*delete, "--lang", "de")[1] == "tiny: 10 documents deleted, 19 left\n"
    for lang in (["any"], ["de", "Any"]):
        code, out, err = cli(*delete, *(word for one in lang for word in ("--lang", one)))
        assert (code, out) == (2, "")
        assert "--lang any is refused here" in err
    assert cli(*delete, "--filter", '{"n": {"$gte": 20}}')[1] == "tiny: 7 documents deleted, 12 left\n"


def test_verify_says_what_is_wrong_and_fails(cli: Cli, tiny: Path) -> None:  # noqa: ARG001 - the collection
    import sqlite3

    (database,) = cli.folder.glob("data/collections/tiny/*.sqlite")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE passages SET vector = x'0102' WHERE row = 3")
    connection.close()
    code, out, _ = cli("collections", "verify", "tiny")
    assert code == 1
    assert "problems; checked 30 documents" in out
    assert "row 3" in out


def test_creation_options_are_kept_and_given_again_are_no_difference(
    cli: Cli, small: tuple[str, str]
) -> None:
    made = ["--chunk-tokens", "16", "--chunk-overlap", "4", "--recall", "0.9"]
    code, out, _ = cli("collections", "create", "c", *made, *small)
    assert (code, out) == (0, "made c: of model small, dimension 16\n")
    assert cli("index", cli.file(), "--collection", "c", "--recall", "0.9", *small)[0] == 0
    options = json.loads(cli("collections", "info", "c", "--json")[1])["options"]
    assert (options["chunk_tokens"], options["chunk_overlap"], options["recall"]) == (16, 4, 0.9)
    code, _, err = cli("index", cli.file(), "--collection", "c", "--chunk-tokens", "32", *small)
    assert code == 1
    assert "collection 'c' was made with chunk_tokens = 16, not 32" in err


def test_packed_files_and_parquet_are_read(cli: Cli, small: tuple[str, str]) -> None:
    import gzip

    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the [parquet] extra")
    from pyarrow import table

    packed = cli.folder / "docs.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(cli.file()).read_bytes()))
    assert cli("index", str(packed), "--collection", "c", *small)[1].startswith("c: 3 new")
    rows = {"key": ["a", "b"], "body": ["w1", "w2"], "code": ["en", "de"], "own": [[1.0, 0.0], [0.0, 1.0]]}
    parquet.write_table(table(rows), cli.folder / "docs.parquet")
    names = ["--id-field", "key", "--text-field", "body", "--lang-field", "code", "--vector-field", "own"]
    code, out, err = cli(
        "index", str(cli.folder / "docs.parquet"), "--collection", "p", "--dimension", "2", *names
    )
    assert (code, out) == (0, "p: 2 new and 0 updated documents, 2 in all; de 1, en 1\n"), err
