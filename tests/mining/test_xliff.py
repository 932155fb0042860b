from __future__ import annotations

from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.mining.records import Record
from embedsvc.mining.xliff import read_xliff, read_xliff_pairs, read_xliff_translations

OLD = """<?xml version="1.0"?>
<xliff xmlns="urn:oasis:names:tc:xliff:document:1.2" xmlns:o="urn:other" version="1.2">
<file original="f.html" source-language="de" target-language="en-US" datatype="html">
<header><o:x><source>no</source></o:x></header><body>{}</body></file>
<file original="g" source-language="fr" datatype="html"><body>
<trans-unit id="z"><source>fin</source><target xml:lang="en">end</target></trans-unit></body></file>
</xliff>"""
NEW = """<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" xmlns:m="urn:oasis:names:tc:xliff:matches:2.0"
version="2.0" srcLang="de" trgLang="en"><file id="f1"><group><unit id="u">
<m:matches><m:match><source>no</source><target>no</target></m:match></m:matches>
<notes><note>no</note></notes>
<segment id="s1"><source>Hallo <pc id="1">Welt</pc><ph id="2"/>da<cp hex="001f"/></source>
<target>Hello</target></segment>
<ignorable><source> </source></ignorable>
<segment><source>Zwei</source></segment></unit></group></file></xliff>"""
SEGMENTS = (
    '<mrk mtype="seg" mid="0">{} <g id="1">x</g>.</mrk> '
    '<mrk mtype="seg" mid="1"><mrk mtype="term">{}</mrk></mrk>'
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.xlf"


def unit(source: str, rest: str = "") -> str:
    return f'<trans-unit id="u"><source>{source}</source>{rest}</trans-unit>'


def test_sources_and_targets_come_by_language_with_id_and_original(path: Path) -> None:
    path.write_text(OLD.format(f"<group>{unit('eins', '<target>one</target>')}</group>{unit('zwei')}"))
    assert list(read_xliff(path, "de")) == [
        Record(1, "eins", "u", "f.html"),
        Record(2, "zwei", "u", "f.html"),
    ]
    assert list(read_xliff(path, "en")) == [Record(1, "one", "u", "f.html"), Record(3, "end", "z", "g")]
    assert [found.text for found in read_xliff(path, "fr")] == ["fin"]


def test_pairs_are_of_the_languages_asked_for_or_of_source_and_target(path: Path) -> None:
    path.write_text(OLD.format(unit("eins", "<target>one</target>") + unit("zwei")))

    def texts(pairs: object) -> list[tuple[str, str]]:
        return [(left.text, right.text) for left, right in pairs]  # type: ignore[attr-defined]

    assert texts(read_xliff_pairs(path, "de", "en")) == [("eins", "one")]
    assert texts(read_xliff_pairs(path, "en", "fr")) == [("end", "fin")]
    assert texts(read_xliff_translations(path)) == [("eins", "one"), ("fin", "end")]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('Der <g id="1">klei<g id="2">ne</g></g> Hund', "Der kleine Hund"),
        ('Zeile<x id="1" ctype="lb"/>Zeile<x id="2"/>.', "Zeile Zeile."),
        ('<bx id="1"/>fett<ex id="1"/>er', "fetter"),
        ('<bpt id="1">&lt;b></bpt>a<ept id="1">&lt;/b></ept><it id="2" pos="open">c</it>b', "ab"),
        ('a<ph id="1">code<sub>hidden</sub></ph>b', "a b"),
        ('<mrk mtype="protected">Name</mrk>, <o:y>kept</o:y>', "Name, kept"),
    ],
)
def test_inline_markup_leaves_the_text_it_marks(path: Path, source: str, text: str) -> None:
    path.write_text(OLD.format(unit(source)))
    assert next(read_xliff(path, "de")).text == text


def test_proposals_and_other_namespaces_are_not_read(path: Path) -> None:
    proposal = "<alt-trans><source>no</source><target>no</target></alt-trans>"
    other = "<o:y><source>no</source><o:z/><target>no</target></o:y>"
    path.write_text(OLD.format(unit("ja", f"<target>yes</target>{proposal}{other}") + unit("nein", proposal)))
    assert [found.text for found in read_xliff(path, "de")] == ["ja", "nein"]
    assert [found.text for found in read_xliff(path, "en")] == ["yes", "end"]


def test_a_unit_cut_alike_on_both_sides_is_read_by_its_segments(path: Path) -> None:
    cut = f"<seg-source>{SEGMENTS.format('A', 'B')}</seg-source><target>{SEGMENTS.format('a', 'b')}</target>"
    untranslated = f"<seg-source>{SEGMENTS.format('C', 'D')}</seg-source><target/>"
    whole = f"<seg-source>{SEGMENTS.format('E', 'F')}</seg-source><target>e. f.</target>"
    path.write_text(OLD.format(unit("A x. B", cut) + unit("C x. D", untranslated) + unit("E x. F", whole)))
    assert [(found.line, found.text, found.id) for found in read_xliff(path, "de")] == [
        (1, "A x.", "u:0"),
        (2, "B", "u:1"),
        (3, "C x.", "u:0"),
        (4, "D", "u:1"),
        (5, "E x. F", "u"),
    ]
    pairs = [(left.text, right.text) for left, right in read_xliff_pairs(path, "de", "en")]
    assert pairs == [("A x.", "a x."), ("B", "b"), ("E x. F", "e. f.")]


def test_version_2_has_segments_in_units(path: Path) -> None:
    path.write_text(NEW)
    assert list(read_xliff(path, "de")) == [
        Record(1, "Hallo Welt da", "u:s1", "f1"),
        Record(2, "Zwei", "u", "f1"),
    ]
    assert [found.text for found in read_xliff(path, "en")] == ["Hello"]


def test_a_language_that_is_not_there_is_answered_with_those_that_are(path: Path) -> None:
    path.write_text(OLD.format(unit("a")))
    with pytest.raises(
        InvalidInputError, match=r"no unit has 'it'; .* units: 'de' \(1\), 'en' \(1\), 'fr' \(1\)"
    ):
        list(read_xliff(path, "it"))


def test_what_is_no_xliff_is_refused(path: Path) -> None:
    path.write_text("<tmx/>")
    with pytest.raises(InvalidInputError, match="its root element is <tmx>, not <xliff>"):
        list(read_xliff(path, "de"))
