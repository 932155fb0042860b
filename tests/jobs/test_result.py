from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.jobs.result import PageQuery, read_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def walk(path, limit, min_score, *, best_first):
    """Read page by page to the end."""
    rows, cursor = [], None
    while True:
        page = read_page(path, PageQuery(limit, cursor, min_score), best_first=best_first)
        rows += [json.loads(line) for line in page.lines]
        assert len(page.lines) <= limit
        if page.next is None:
            return rows
        assert page.next != cursor
        cursor = page.next


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(0, 9), max_size=30),
    limit=st.integers(1, 40),
    min_score=st.none() | st.floats(-1, 10),
    best_first=st.booleans(),
)
def test_the_pages_are_the_rows_that_a_filter_of_all_lets_through(
    folder, scores, limit, min_score, best_first
):
    scores = sorted(scores, reverse=True) if best_first else scores
    rows = [{"score": score, "n": n, "text": "ä" * n} for n, score in enumerate(scores)]
    path = folder / "result.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    wanted = [row for row in rows if min_score is None or row["score"] >= min_score]
    assert walk(path, limit, min_score, best_first=best_first) == wanted


@pytest.mark.parametrize("cursor", ["", "x", "-5", "3", "24", "99", "1e1", "٣", "9" * 40])
def test_a_cursor_that_no_page_gave_is_refused(folder, cursor):
    path = folder / "two.jsonl"
    path.write_text('{"score":1}\n{"score":0}\n')
    assert path.stat().st_size == 24
    with pytest.raises(InvalidInputError, match="no page of this result ended there"):
        read_page(path, PageQuery(1, cursor), best_first=True)
    assert read_page(path, PageQuery(1, "12"), best_first=True).lines == [b'{"score":0}']


def test_a_result_that_is_gone_is_said_to_be(folder):
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        read_page(folder / "none", PageQuery(1), best_first=True)


def test_a_page_of_long_rows_ends_early(folder):
    path = folder / "long.jsonl"
    row = json.dumps({"score": 1, "text": "x" * 1_500_000}) + "\n"
    path.write_text(row * 5)
    first = read_page(path, PageQuery(1000), best_first=True)
    assert len(first.lines) == 3
    second = read_page(path, PageQuery(1000, first.next), best_first=True)
    assert (len(second.lines), second.next) == (2, None)
