"""Files of pairs: every format gives the same pairs, every bad one is named with file, line and value."""

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from training.data_config import PairFiles
from training.pair_files import PairFile, pair_files
from training.pair_readers import TextPair, read_pairs

PAIRS = [("Yes", "Ja"), ("No", "Nein")]
TMX = """<?xml version="1.0"?><tmx version="1.4"><header/><body>{}</body></tmx>"""
UNIT = '<tu><tuv xml:lang="en-US"><seg>{}</seg></tuv><tuv xml:lang="de"><seg>{}</seg></tuv></tu>'


def found(path: Path, **reading: Any) -> list[TextPair]:
    files = pair_files([PairFiles(files=path.name, **reading)], path.parent)
    return [pair for file in files for pair in read_pairs(file, skipped=Counter())]


def texts(pairs: list[TextPair]) -> list[tuple[str, ...]]:
    return [tuple(pair[1:5]) for pair in pairs]


def write(path: Path, content: str) -> Path:
    data = content.encode()
    packers = {".gz": gzip.compress, ".xz": lzma.compress}
    path.write_bytes(packers.get(path.suffix, bytes)(data))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_an_empty_first_column_repeats_the_english_of_the_line_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "Yes\tdeu_Latn\tJa\n\tfra_Latn\tOui\nNo\tdeu_Latn\tNein\n")
    assert found(path) == [
        (1, "Yes", "Ja", "en", "deu_Latn", None),
        (2, "Yes", "Oui", "en", "fra_Latn", None),
        (3, "No", "Nein", "en", "deu_Latn", None),
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.xz", "a.jsonl", "b.tsv", "a.tmx.gz"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    content = {
        "a.tsv": "".join(f"{x}\t{y}\n" for x, y in PAIRS),
        "b.tsv": "score\tsrc\ttgt\n" + "".join(f"0.9\t{x}\t{y}\n" for x, y in PAIRS),
        "a.jsonl": "".join(json.dumps({"src": x, "tgt": y}) + "\n" for x, y in PAIRS),
        "a.tmx": TMX.format("".join(UNIT.format(x, y) for x, y in PAIRS)),
    }
    path = write(tmp_path / name, content[name.removesuffix(".gz").removesuffix(".xz")])
    assert texts(found(path, target_language="de")) == [(x, y, "en", "de") for x, y in PAIRS]


def test_parquet_with_the_nested_columns_of_hub_data_sets(tmp_path: Path) -> None:
    rows = [{"translation": {"de": y, "fr": x}} for x, y in PAIRS]
    fields = {"source": "translation.fr", "target": "translation.de"}
    pairs = found(
        write_parquet(tmp_path / "a.parquet", rows), fields=fields, source_language="fr", target_language="de"
    )
    assert texts(pairs) == [(x, y, "fr", "de") for x, y in PAIRS]


def test_columns_by_number_where_a_table_has_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "7\tJa\tde\tYes\n8\tNein\tde\tNo\n")
    fields = {"source": 4, "target": 2, "target_language": 3, "group": 1}
    assert found(path, fields=fields) == [
        (1, "Yes", "Ja", "en", "de", "0\t7"),
        (2, "No", "Nein", "en", "de", "0\t8"),
    ]


def test_english_comes_first_and_other_pairs_keep_their_order(tmp_path: Path) -> None:
    rows = [
        {"src": "Ja", "tgt": "Yes", "src_lang": "de", "tgt_lang": "eng_Latn", "group": 5},
        {"src": "Ja", "tgt": "Oui", "src_lang": "de", "tgt_lang": "fr", "group": 5},
    ]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert found(path) == [
        (1, "Yes", "Ja", "eng_Latn", "de", "0\t5"),
        (2, "Ja", "Oui", "de", "fr", "0\t5"),
    ]


def test_a_unit_of_three_languages_is_a_group_of_pairs_with_its_english(tmp_path: Path) -> None:
    unit = "".join(
        f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>'
        for code, text in [("de", "Ja"), ("en", "Yes"), ("fr", "Oui"), ("en-GB", "Aye")]
    )
    path = write(
        tmp_path / "a.tmx", TMX.format(f"<tu>{unit}</tu><tu><tuv xml:lang='de'><seg>x</seg></tuv></tu>")
    )
    skipped: Counter[str] = Counter()
    file = pair_files([PairFiles(files="a.tmx")], tmp_path)[0]
    assert [*read_pairs(file, skipped=skipped)] == [
        (1, "Yes", "Ja", "en", "de", "0\ta.tmx\t1"),
        (1, "Yes", "Oui", "en", "fr", "0\ta.tmx\t1"),
    ]
    assert skipped == {"unit without a pair": 1}
    assert texts(found(path, source_language="fr", target_language="de")) == [("Oui", "Ja", "fr", "de")]


def test_lines_of_two_files_are_pairs_even_where_one_is_packed(tmp_path: Path) -> None:
    write(tmp_path / "x.en.gz", "Yes\nNo\n")
    write(tmp_path / "x.de", "Ja\nNein\n")
    section = PairFiles(files="x.en", target_files="x.de", target_language="de")
    (file,) = pair_files([section], tmp_path)
    assert [pair[:3] for pair in read_pairs(file, skipped=Counter())] == [(1, "Yes", "Ja"), (2, "No", "Nein")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "Yes\tde\tJa\nYes\tJa\n", r"a\.tsv line 2: 2 columns; expected are 3"),
        ("a.tsv", "Yes\t\tJa\n", r"a\.tsv line 1: the language is empty"),
        ("a.tsv", "Yes\tde\n", r"a\.tsv line 1: nothing says the language of the target"),
        (
            "a.tsv",
            "a\tb\tc\td\n",
            r"a\.tsv line 1: 4 columns; expected are source and target.*'a\\tb\\tc\\td'",
        ),
        ("a.tsv", "Yes\tde\tJ\udcff\n", r"a\.tsv line 1: byte 0xff at position 8 is not UTF-8"),
        ("a.jsonl", '{"src": "Yes"}\n', r"a\.jsonl line 1: 'tgt' is missing; its fields are 'src'"),
        ("a.jsonl", '{"src": "a", "tgt": "b", "tgt_lang": "de"}\n{"src"\n', r"a\.jsonl line 2: not JSON"),
        ("a.jsonl", '{"src": "a", "tgt": 5}', r"a\.jsonl line 1: 'tgt' is int, not a text"),
        ("a.jsonl", '{"src": "a", "tgt": "b\\ud800"}', r"a\.jsonl line 1: 'tgt' holds a lone surrogate"),
        (
            "a.jsonl",
            '{"src": "a", "tgt": "b", "tgt_lang": ""}',
            "line 1: the language of the target is empty",
        ),
        (
            "a.jsonl",
            '{"src": "a", "tgt": "b", "tgt_lang": "de", "group": 1.5}',
            r"line 1: the group 'group' is 1\.5; expected a text or a whole number",
        ),
        ("a.tmx", TMX.format("<tu></tu>"), r"a\.tmx: no unit has a pair of two languages"),
        ("a.tmx", "<tmx><tu>", r"a\.tmx line 1, column 10: damaged XML"),
        ("a.tsv.gz", "", r"a\.tsv\.gz after line 0: damaged \.gz file"),
        ("a.doc", "", r"a\.doc: unknown kind of file '\.doc'"),
    ],
)
def test_a_bad_file_is_named_with_line_and_value(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape") or b"\x1f\x8b")
    with pytest.raises(InvalidInputError, match=message):
        found(path)


def test_moses_files_of_other_lengths_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.en", "Yes\nNo\n")
    write(tmp_path / "x.de", "Ja\n")
    file = PairFile(
        tmp_path / "x.en", tmp_path / "x.de", PairFiles(files="x.en", target_language="de"), entry=0
    )
    with pytest.raises(InvalidInputError, match=r"x\.de has 1 lines and .*x\.en more"):
        list(read_pairs(file, skipped=Counter()))


def test_a_pattern_finds_packed_files_and_absolute_ones(tmp_path: Path) -> None:
    for name in ("p-1.tsv.zst", "p-2.tsv.zst", "q.tsv"):
        (tmp_path / name).touch()
    sections = [PairFiles(files="p-*.tsv"), PairFiles(files=str(tmp_path / "q.*"))]
    files = pair_files(sections, tmp_path)
    assert [(file.path.name, file.entry) for file in files] == [
        ("p-1.tsv.zst", 0),
        ("p-2.tsv.zst", 0),
        ("q.tsv", 1),
    ]


def test_a_pattern_without_files_and_one_named_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file matches 'x-\*\.tsv'.*--data"):
        pair_files([PairFiles(files="x-*.tsv")], tmp_path)
    (tmp_path / "a.tsv").touch()
    with pytest.raises(InvalidInputError, match=r"a\.tsv is named twice"):
        pair_files([PairFiles(files="a.tsv"), PairFiles(files="*.tsv")], tmp_path)
    (tmp_path / "b.tsv").touch()
    with pytest.raises(InvalidInputError, match=r"1 files match 'a\.tsv', but 2 match '\*'"):
        pair_files([PairFiles(files="a.tsv", target_files="*")], tmp_path)


def test_a_data_set_is_a_folder_or_what_the_hub_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "a.tsv").touch()
    local = pair_files([PairFiles(files="data/*.tsv", dataset="mine")], tmp_path)
    assert local[0].path == tmp_path / "mine" / "data" / "a.tsv"

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    there = PairFiles(files="data/*.tsv", dataset="acme/pairs", revision="main")
    with pytest.raises(NotFoundError, match="dataset 'acme/pairs' is neither a folder here nor available"):
        pair_files([there], tmp_path)
    cached = tmp_path / "cache" / "datasets--acme--pairs"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40) / "data").mkdir(parents=True)
    (cached / "snapshots" / ("0" * 40) / "data" / "b.tsv").touch()
    assert pair_files([there], tmp_path)[0].path.name == "b.tsv"
