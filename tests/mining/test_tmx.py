from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.mining.records import Record
from embedsvc.mining.tmx import read_tmx, read_tmx_pairs

UNIT = (
    '<tu tuid="7"><prop type="x-document">d</prop><note>nothing</note>'
    '<tuv xml:lang="de-CH"><prop type="client">nobody</prop><seg>{}</seg></tuv>'
    '<tuv lang="EN"><seg>text</seg></tuv></tu>'
)
TWO = '<tu><tuv xml:lang="en-GB"><seg>colour</seg></tuv><tuv xml:lang="en-US"><seg>color</seg></tuv></tu>'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.tmx"


def tmx(*units: str, head: str = '<?xml version="1.0"?>') -> str:
    return f'{head}<tmx version="1.4">\n<header/>\n<body>{"".join(units)}</body></tmx>'


def test_segments_come_by_base_language_with_the_number_id_and_document_of_their_unit(path: Path) -> None:
    path.write_text(tmx(UNIT.format("Grüezi 𝄞"), TWO, UNIT.format("")), encoding="utf-8")
    assert list(read_tmx(path, "de")) == [Record(1, "Grüezi 𝄞", "7", "d"), Record(3, "", "7", "d")]
    assert [(found.line, found.text, found.id) for found in read_tmx(path, "en-AU")] == [
        (1, "text", "7"),
        (2, "colour", None),
        (2, "color", None),
        (3, "text", "7"),
    ]


def test_pairs_are_the_first_variants_of_the_units_that_have_both(path: Path) -> None:
    path.write_text(tmx(TWO, UNIT.format("eins")), encoding="utf-8")
    assert [(left.text, right.text) for left, right in read_tmx_pairs(path, "en", "de")] == [("text", "eins")]


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('a<bpt i="1">&lt;b></bpt>fett<ept i="1">&lt;/b></ept>er', "afetter"),
        ("eins<ph>&lt;br/></ph>zwei <ph>x</ph> drei<ph/>.", "eins zwei  drei."),
        ("<ph/>vorn <ph/>hinten<ph/>", "vorn hinten"),
        ('<hi type="x">hoch<it pos="begin">code</it></hi><ut>{\\b</ut>!', "hoch!"),
        ("a<ph>code<sub>hidden<ph>deep</ph></sub>code</ph>b", "a b"),
        ("1 &lt; 2 &amp; <![CDATA[<3>]]>&#13;&#x1F600;", "1 < 2 & <3>\r😀"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_inline_markup_leaves_the_text_it_marks(path: Path, segment: str, text: str) -> None:
    path.write_text(tmx(UNIT.format(segment)), encoding="utf-8", newline="")
    assert [found.text for found in read_tmx(path, "de")] == [text]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-8-sig", "UTF-8"), ("cp1252", "windows-1252")],
)
def test_the_declared_encoding_is_read(path: Path, encoding: str, declared: str) -> None:
    content = tmx(UNIT.format("für 5 €"), head=f'<?xml version="1.0" encoding="{declared}"?>')
    path.write_bytes(content.encode(encoding))
    assert [found.text for found in read_tmx(path, "de")] == ["für 5 €"]


def test_a_document_type_and_a_namespace_are_no_hindrance(path: Path) -> None:
    content = tmx(UNIT.format("ja"), head='<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd">')
    path.write_text(content.replace("<tmx ", '<tmx xmlns="http://www.lisa.org/tmx14" '), encoding="utf-8")
    assert [found.text for found in read_tmx(path, "de")] == ["ja"]


def test_packed_files_are_unpacked_on_the_way(tmp_path: Path) -> None:
    content = tmx(UNIT.format("ja")).encode()
    for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress)):
        path = tmp_path / f"m.tmx{suffix}"
        path.write_bytes(pack(content))
        assert [found.text for found in read_tmx(path, "de")] == ["ja"]
        path.write_bytes(pack(content)[:-9])
        with pytest.raises(
            InvalidInputError, match=rf"m\.tmx\{suffix} after line \d: damaged \{suffix} file"
        ):
            list(read_tmx(path, "de"))


def test_units_are_read_as_they_come(path: Path) -> None:
    path.write_text(tmx(*[UNIT.format("x" * 100)] * 1_000)[:-500] + "<broken", encoding="utf-8")
    found = read_tmx(path, "de")
    assert next(found).text == "x" * 100  # before the end was looked at


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html/>", r"m\.tmx: its root element is <html>, not <tmx>"),
        ("", r"m\.tmx line 1, column 1: damaged XML: no element found"),
        ("plain text", r"line 1, column 1: damaged XML: syntax error"),
        ("<tmx>\n<body>\n</tmx>", r"m\.tmx line 3, column 3: damaged XML: mismatched tag"),
        (tmx(UNIT.format("a & b")), r"line 3, column \d+: damaged XML: not well-formed"),
        (tmx(UNIT.format("a"))[:-20], r"line 3, column \d+: damaged XML"),
        (tmx(UNIT.format("a&nbsp;b")), r"line 3, column \d+: damaged XML: undefined entity"),
        (
            tmx(head='<?xml version="1.0" encoding="klingon"?>'),
            "its XML declaration names a strange encoding",
        ),
        (
            tmx(head='<?xml version="1.0" encoding="shift_jis"?>'),
            "its XML declaration names a strange encoding",
        ),
    ],
)
def test_damage_is_named_with_its_line(path: Path, content: str, message: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        list(read_tmx(path, "de"))


@pytest.mark.parametrize(
    ("subset", "reference"),
    [
        ('<!DOCTYPE tmx [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>', "&b;"),
        ('<!DOCTYPE tmx [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
        ('<!DOCTYPE tmx [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>', "x"),
        ('<!DOCTYPE tmx SYSTEM "tmx14.dtd">', "&a;"),
    ],
)
def test_entities_are_refused(path: Path, subset: str, reference: str) -> None:
    path.write_text(tmx(UNIT.format(reference), head=f'<?xml version="1.0"?>\n{subset}'), encoding="utf-8")
    with pytest.raises(
        InvalidInputError, match=r"m\.tmx line \d: the entity 'a' is refused; only &amp; &lt;"
    ):
        list(read_tmx(path, "de"))


def test_a_language_that_is_not_there_is_answered_with_those_that_are(path: Path) -> None:
    path.write_text(tmx(UNIT.format("a"), UNIT.format("b"), TWO), encoding="utf-8")
    there = "'EN' (2), 'de-CH' (2), 'en-GB' (1), 'en-US' (1)"
    with pytest.raises(InvalidInputError) as raised:
        list(read_tmx(path, "fr"))
    assert raised.value.message == (
        f"{path}: no unit has 'fr'; the languages there, with how many units: {there}"
    )
    with pytest.raises(InvalidInputError, match=r"no unit has 'fr' and 'de'; the languages"):
        list(read_tmx_pairs(path, "fr", "de"))
    with pytest.raises(InvalidInputError, match="'klingonese' is not a language code"):
        list(read_tmx(path, "klingonese"))
    with pytest.raises(InvalidInputError, match="'en-GB' and 'en' are one language, 'en'"):
        list(read_tmx_pairs(path, "en-GB", "en"))


def test_a_file_without_units_has_no_sentences(path: Path) -> None:
    path.write_text(tmx(), encoding="utf-8")
    assert list(read_tmx(path, "de")) == []


def test_a_missing_file_is_not_found(path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file at .*m\.tmx"):
        list(read_tmx(path, "de"))
