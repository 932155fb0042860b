from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import EmbedsvcError, InvalidInputError
from embedsvc.server.requests.multipart import FormRules, read_form


def rules(**given):
    return FormRules(
        **{
            "files": frozenset({"source", "dev"}),
            "fields": frozenset({"options", "kind"}),
            "check_field": lambda *_: None,
            "max_upload_bytes": 1 << 20,
            "max_field_bytes": 1000,
            **given,
        }
    )


def read(body: bytes, content_type: str, folder, *, cuts=(), **given):
    async def chunks() -> AsyncIterator[bytes]:
        edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
        for start, stop in pairwise(edges):
            yield body[start:stop]

    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(read_form(chunks(), content_type, folder, rules(**given)))


def encoded(files=(), data=None):
    """What httpx sends for a form; the boundary is fixed, so that tests keep their names."""
    headers = {"Content-Type": "multipart/form-data; boundary=between"}
    request = httpx.Request("POST", "http://x", files=list(files), data=data or {}, headers=headers)
    return request.read(), request.headers["content-type"]


@settings(max_examples=20, deadline=None)
@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    options=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
)
def test_files_and_fields_arrive_as_sent_however_the_body_is_cut(tmp_path_factory, contents, options, cuts):
    folder = tmp_path_factory.mktemp("form")
    files = [("source", (f"{n}.txt.gz", content)) for n, content in enumerate(contents)]
    body, content_type = encoded(files, {"options": options})
    form = read(body, content_type, folder, cuts=cuts)
    assert form.fields == {"options": options}
    assert [path.read_bytes() for path in form.files["source"]] == contents
    assert [path.name for path in form.files["source"]] == [f"{n}.txt.gz" for n in range(len(contents))]


@pytest.mark.parametrize(
    ("filename", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\texts\\de.txt", "de.txt"),
        ("..", "source.txt"),
        (".hidden.txt", "hidden.txt"),
        ("größe.txt", "größe.txt"),
        ("a\tb;c.txt", "a_b_c.txt"),
        ("x" * 400 + ".tsv.gz", "x" * 193 + ".tsv.gz"),
    ],
)
def test_a_name_cannot_lead_out_of_its_folder(tmp_path, filename, stored):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="source"; filename="'
        + filename.encode()
        + b'"\r\n\r\nx\r\n--b--\r\n'
    )
    form = read(body, "multipart/form-data; boundary=b", tmp_path / "in")
    (path,) = form.files["source"]
    assert path.parent == tmp_path / "in" / "source-1"
    assert path.name == stored
    assert path.read_bytes() == b"x"


def test_a_text_in_place_of_a_file_is_a_file(tmp_path):
    body, content_type = encoded([("kind", (None, b"mine")), ("source", (None, b"text"))])
    form = read(body, content_type, tmp_path / "in")
    assert form.fields == {"kind": "mine"}
    assert form.files["source"][0].read_bytes() == b"text"


def test_a_file_that_nobody_chose_is_none(tmp_path):
    body = b'--b\r\nContent-Disposition: form-data; name="dev"; filename=""\r\n\r\n\r\n--b--\r\n'
    assert read(body, "multipart/form-data; boundary=b", tmp_path / "in").files == {}


GOOD, TYPE = encoded([("source", ("a.txt", b"abc"))], {"kind": "mine"})


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (GOOD, "multipart/form-data", "has no boundary"),
        (GOOD, f"multipart/form-data; boundary={'b' * 300}", "wrong boundary"),
        (GOOD[:-20], TYPE, "ends before the last boundary"),
        (b"", TYPE, "ends before the last boundary"),
        (b"not a form", TYPE, "not valid multipart/form-data"),
        (*encoded([("sauce", ("a.txt", b"abc"))]), "the form has a part 'sauce'; known: dev, kind, options"),
        (*encoded([("kind", (None, b"a")), ("kind", (None, b"b"))]), "two parts 'kind'"),
        (*encoded([("options", (None, b"x" * 1001))]), "options has more than max_body_bytes = 1000 bytes"),
        (*encoded([("source", ("a.txt", bytes(1 << 20)))]), "more than max_upload_bytes = 1048576 bytes"),
        (*encoded([("options", (None, b"\xff"))]), "options is not UTF-8"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b", "has a part ''"),
    ],
)
def test_what_is_no_such_form_is_refused_saying_why(tmp_path, body, content_type, message):
    with pytest.raises(EmbedsvcError) as caught:
        read(body, content_type, tmp_path / "in")
    assert message in caught.value.message
    assert caught.value.status in (400, 413)


def test_a_wrong_field_is_refused_before_the_files_behind_it_are_read(tmp_path):
    def check(name: str, text: str) -> None:
        raise InvalidInputError(f"{name} {text}")

    body, content_type = encoded([("kind", (None, b"mime")), ("source", ("a.txt", bytes(1 << 16)))])
    with pytest.raises(InvalidInputError, match="kind mime"):
        read(body, content_type, tmp_path / "in", check_field=check)
    assert list((tmp_path / "in").iterdir()) == []


def test_too_many_parts_are_refused(tmp_path):
    part = b'--b\r\nContent-Disposition: form-data; name="source"\r\n\r\nx\r\n'
    with pytest.raises(InvalidInputError, match="more than 100 parts"):
        read(part * 101, "multipart/form-data; boundary=b", tmp_path / "in")
