"""Files of pairs: what is written, byte for byte, and that it comes back."""

from __future__ import annotations

import gzip
import math
import resource
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.mining.outputs import OutputInfo, output_kind, read_pairs, write_pairs
from embedsvc.mining.records import Origin, Pair, PairSide

pytest.importorskip("pyarrow", reason="needs the [parquet] extra")

INFO = OutputInfo("de", "en")
ORIGINS = (Origin("a.txt", 3, "2", "d1"), Origin("b.txt", 9, "11"))
PAIRS = [
    Pair(
        1.25,
        0.875,
        PairSide("2", "Guten <Tag> & »so«", 3, "a.txt", "d1", ORIGINS),
        PairSide("7", 'Say "hi"', 8, "c.txt"),
        direction="forward",
        probability=0.5,
    ),
    Pair(-0.0625, 0.1234567, PairSide("0"), PairSide("1"), "distance"),
]
SUFFIXES = (".tsv", ".jsonl", ".parquet", ".tmx", ".xlf", ".tsv.gz", ".jsonl.xz", ".tmx.zst")
HEADER = (
    "score\tprobability\tcosine\tsrc_id\ttgt_id\tsrc_line\ttgt_line\tsrc\ttgt\tsrc_file\ttgt_file\t"
    "src_document\ttgt_document\tmargin\tdirection\tsrc_copies\ttgt_copies\n"
)


def test_tsv_has_a_header_six_decimals_and_empty_cells_for_none(tmp_path: Path) -> None:
    assert write_pairs(tmp_path / "p.tsv", iter(PAIRS), INFO) == 2
    assert (tmp_path / "p.tsv").read_text(encoding="utf-8") == (
        HEADER
        + '1.250000\t0.500000\t0.875000\t2\t7\t3\t8\tGuten <Tag> & »so«\tSay "hi"\ta.txt\tc.txt\td1\t\t'
        "ratio\tforward\t2\t\n"
        "-0.062500\t\t0.123457\t0\t1\t\t\t\t\t\t\t\t\tdistance\tboth\t\t\n"
    )


def test_tsv_makes_breaks_within_a_value_spaces(tmp_path: Path) -> None:
    sides = PairSide("a\tb", "x\r\ny\0z", file="c\nd"), PairSide("1", "\u2028")
    write_pairs(tmp_path / "p.tsv", [Pair(1, 1, *sides)], INFO)
    line = (tmp_path / "p.tsv").read_text(encoding="utf-8").split("\n")[1]
    assert [line.split("\t")[column] for column in (3, 7, 8, 9)] == ["a b", "x  y z", "\u2028", "c d"]


def test_jsonl_has_every_key_and_the_origins(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.jsonl", PAIRS[:1], INFO)
    assert (tmp_path / "p.jsonl").read_text(encoding="utf-8") == (
        '{"score":1.25,"probability":0.5,"cosine":0.875,"src_id":"2","tgt_id":"7","src_line":3,"tgt_line":8,'
        '"src":"Guten <Tag> & »so«","tgt":"Say \\"hi\\"","src_file":"a.txt","tgt_file":"c.txt",'
        '"src_document":"d1","tgt_document":null,"margin":"ratio","direction":"forward","src_copies":2,'
        '"tgt_copies":null,"src_origins":[{"file":"a.txt","line":3,"id":"2","document":"d1"},'
        '{"file":"b.txt","line":9,"id":"11","document":null}],"tgt_origins":[]}\n'
    )


def test_parquet_is_typed_in_row_groups_and_names_the_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("embedsvc.mining.outputs.parquet.ROW_GROUP_ROWS", 2)
    write_pairs(tmp_path / "p.parquet", PAIRS + PAIRS[:1], INFO)
    file = parquet.ParquetFile(tmp_path / "p.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 1]
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    assert (kinds["score"], kinds["src_line"], kinds["src"]) == ("double", "int64", "string")
    assert kinds["src_origins"].startswith("list<element: struct<file: string, line: int64")
    assert file.schema_arrow.metadata == {b"source_language": b"de", b"target_language": b"en"}


def test_tmx_is_what_it_was(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.tmx", PAIRS[:1], INFO)
    lines = (tmp_path / "p.tmx").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ['<?xml version="1.0" encoding="UTF-8"?>', '<tmx version="1.4">']
    assert lines[2].startswith('<header creationtool="embedsvc" creationtoolversion="')
    assert lines[2].endswith(
        'segtype="sentence" o-tmf="embedsvc" adminlang="en" srclang="de" datatype="plaintext"/>'
    )
    assert lines[3:6] == ["<body>", '<tu tuid="1">', '<prop type="x-score">1.250000</prop>']
    assert lines[-5:] == [
        '<tuv xml:lang="de"><seg>Guten &lt;Tag&gt; &amp; »so«</seg></tuv>',
        '<tuv xml:lang="en"><seg>Say "hi"</seg></tuv>',
        "</tu>",
        "</body>",
        "</tmx>",
    ]


def test_xliff_is_what_it_was(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.xlf", PAIRS[:1], INFO)
    lines = (tmp_path / "p.xlf").read_text(encoding="utf-8").splitlines()
    assert lines[1] == '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">'
    assert lines[2] == (
        '<file original="pairs" source-language="de" target-language="en" datatype="plaintext" '
        'tool-id="embedsvc" xml:space="preserve">'
    )
    assert lines[5:10] == [
        '<trans-unit id="1">',
        "<source>Guten &lt;Tag&gt; &amp; »so«</source>",
        '<target>Say "hi"</target>',
        '<context-group purpose="information">',
        '<context context-type="x-score">1.250000</context>',
    ]


def test_moses_is_two_files_named_by_language(tmp_path: Path) -> None:
    assert write_pairs(tmp_path / "p.moses", PAIRS, INFO) == 2
    write_pairs(tmp_path / "q.x", PAIRS, OutputInfo(), format="moses")
    assert (tmp_path / "p.de").read_text(encoding="utf-8") == "Guten <Tag> & »so«\n\n"
    assert (tmp_path / "p.en").read_text(encoding="utf-8") == 'Say "hi"\n\n'
    assert {path.name for path in tmp_path.iterdir()} == {"p.de", "p.en", "q.x.src", "q.x.tgt"}


def test_packed_moses_files_keep_their_suffix(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.moses.gz", PAIRS[:1], INFO)
    assert gzip.decompress((tmp_path / "p.en.gz").read_bytes()) == b'Say "hi"\n'


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_pairs_give_the_same_bytes_and_come_back(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        write_pairs(path, iter(PAIRS), INFO)
    assert first.read_bytes() == second.read_bytes()
    found = list(read_pairs(first))
    assert [pair.score for pair in found] == [1.25, -0.0625]
    assert [pair.cosine for pair in found] == [0.875, 0.123457]
    assert [pair.probability for pair in found] == [0.5, None]
    assert [pair.direction for pair in found] == ["forward", "both"]
    assert [pair.margin for pair in found] == ["ratio", "distance"]
    with_origins = suffix in (".jsonl", ".parquet", ".jsonl.xz")
    assert found[0].source == PairSide(
        "2", "Guten <Tag> & »so«", 3, "a.txt", "d1", ORIGINS if with_origins else ()
    )
    assert found[1].target == PairSide("1")


def test_a_score_that_is_no_number_is_empty(tmp_path: Path) -> None:
    for suffix in (".tsv", ".jsonl", ".parquet", ".tmx"):
        path = tmp_path / f"p{suffix}"
        write_pairs(path, [Pair(math.nan, -0.0, PairSide("0", "a"), PairSide("1", "b"))], INFO)
        (pair,) = read_pairs(path)
        assert math.isnan(pair.score)
        assert str(pair.cosine) == "0.0"


TEXTS = st.text(max_size=12) | st.text(
    "\t\r\n\0\x0b\x85\u2028<>&'\"]\ufffe\uffff\U0001f600שלום\x01 ", max_size=12
)
LIST = st.lists(st.tuples(TEXTS, TEXTS), max_size=3)


def _written_and_read(texts: list[tuple[str, str]], suffix: str) -> list[tuple[str, str]]:
    pairs = [Pair(1.0, 1.0, PairSide("0", source), PairSide("1", target)) for source, target in texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"p{suffix}"
        write_pairs(path, pairs, INFO)
        return [(pair.source.text, pair.target.text) for pair in read_pairs(path)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@settings(max_examples=40, deadline=None)
@given(texts=LIST)
def test_every_text_comes_back_unchanged(suffix: str, texts: list[tuple[str, str]]) -> None:
    assert _written_and_read(texts, suffix) == texts


@settings(max_examples=100, deadline=None)
@given(texts=LIST)
def test_tsv_keeps_all_but_breaks(texts: list[tuple[str, str]]) -> None:
    spaced = str.maketrans("\t\r\n\0", "    ")
    expected = [(source.translate(spaced), target.translate(spaced)) for source, target in texts]
    assert _written_and_read(texts, ".tsv") == expected


@pytest.mark.parametrize("suffix", [".tmx", ".xliff"])
@settings(max_examples=100, deadline=None)
@given(texts=LIST)
def test_xml_keeps_all_that_xml_can_say(suffix: str, texts: list[tuple[str, str]]) -> None:
    def sayable(text: str) -> str:
        return "".join(
            c if c in "\t\n\r" or "\x20" <= c <= "\ufffd" or c >= "\U00010000" else "\ufffd" for c in text
        )

    assert _written_and_read(texts, suffix) == [
        (sayable(source), sayable(target)) for source, target in texts
    ]


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        (
            "p.csv",
            None,
            r"p\.csv: unknown kind of file '\.csv'; known: \.tsv, \.jsonl, .* or name the format: tsv,",
        ),
        ("p", None, r"p: unknown kind of file ''"),
        ("p.tsv", "excel", r"format 'excel' is unknown; choose tsv, jsonl, parquet, moses, tmx, xliff"),
        ("p.parquet.gz", None, r"p\.parquet\.gz: a Parquet file is packed inside; leave out \.gz"),
    ],
)
def test_an_unknown_format_is_refused(name: str, format: str | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        output_kind(Path(name), format)


def test_a_moses_pair_of_one_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="two files named by their languages, and both are 'de'"):
        write_pairs(tmp_path / "p.moses", PAIRS, OutputInfo("de", "de"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".moses"])
def test_a_lone_surrogate_is_named_and_nothing_is_left(tmp_path: Path, suffix: str) -> None:
    bad = Pair(1, 1, PairSide("0", "ok"), PairSide("1", "a\ud800"))
    with pytest.raises(InvalidInputError, match=r"pair 2: the target .* U\+D800, at position 1"):
        write_pairs(tmp_path / f"p{suffix}", [PAIRS[0], bad], INFO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".moses.gz"])
def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    write_pairs(path, PAIRS, INFO)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted() -> Iterator[Pair]:
        yield PAIRS[1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(path, interrupted(), INFO)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_moses_file_never_stands_beside_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "p.moses", PAIRS, INFO)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "p.en":
            raise KeyboardInterrupt  # between the two
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_pairs(tmp_path / "p.moses", PAIRS[:1], INFO)
    assert not (tmp_path / "p.en").exists()


FULL_DISK = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("error")
from embedsvc.errors import StorageError
from embedsvc.mining.outputs import OutputInfo, write_pairs
from embedsvc.mining.records import Pair, PairSide
import random
draw = random.Random(0)
text = lambda: "".join(chr(draw.randrange(97, 50_000)) for _ in range(40))
side = lambda i: PairSide(str(i), text(), i)
pairs = (Pair(draw.random(), 1.0, side(i), side(i)) for i in range(3_000))
try:
    write_pairs(Path(sys.argv[1]), pairs, OutputInfo("de", "en"))
except StorageError as error:
    print(error.message)
"""


SLOW = (
    pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".tsv", ".tmx.zst", ".xlf.xz", ".parquet")
)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".moses", *SLOW])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    path = tmp_path / f"p{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], preexec_fn=limited, capture_output=True, text=True
    )
    assert done.stdout == f"{path} cannot be written: File too large; nothing was changed\n"
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_no_moses_file_appears_when_the_end_of_the_other_finds_no_room(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageError):
            write_pairs(
                tmp_path / "p.moses", [Pair(1, 1, PairSide("0", "a"), PairSide("1", "b" * 200))], INFO
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_gzip_archive_holds_neither_time_nor_name(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.tsv.gz", PAIRS, INFO)
    assert (tmp_path / "p.tsv.gz").read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tsv.gz", ".jsonl", ".tmx", ".xlf.zst"])
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    peaks = []
    for count in (400, 4_000):
        pairs = (Pair(1.0, 1.0, PairSide(str(i), f"Satz {i}"), PairSide(str(i), "x")) for i in range(count))
        tracemalloc.start()
        assert write_pairs(path, pairs, INFO) == count
        assert sum(1 for _ in read_pairs(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        write_pairs(tmp_path / "file" / "p.tsv", PAIRS, INFO)
    assert not issubclass(StorageError, OSError)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "a\tb\n1\t2\n", r"p\.tsv line 2: 'src' is missing; this is no file of pairs"),
        ("p.tsv", "src\ttgt\tscore\na\tb\thigh\n", r"p\.tsv line 2: score is 'high'; expected a number"),
        ("p.jsonl", '{"src": "a"}\n', r"p\.jsonl line 1: 'tgt' is missing"),
        (
            "p.jsonl",
            '{"src": "a", "tgt": "b", "direction": "up"}',
            "direction is 'up'; expected forward, backw",
        ),
        ("p.tmx", "<tmx><body><tu><tuv><seg>a</seg></tuv></tu></body></tmx>", "unit 1: 'tgt' is missing"),
        ("p.moses", "", "Moses files hold texts only"),
    ],
)
def test_what_is_no_file_of_pairs_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        list(read_pairs(tmp_path / name))
