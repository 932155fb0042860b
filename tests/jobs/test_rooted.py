from __future__ import annotations

import os

import pytest

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.jobs.rooted import file_below


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "de.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("b")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "x.txt").write_text("c")
    (root / "inside").symlink_to(root / "sub" / "de.txt")
    (root / "outside").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "circle").symlink_to("circle")
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize("name", ["sub/de.txt", "./sub/../sub/de.txt", "inside"])
def test_files_below_the_root_are_found_at_their_real_place(root, name):
    assert file_below(root, name, param="source") == root / "sub" / "de.txt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.txt", "leads out of the jobs_root"),
        ("../nothing.txt", "leads out of the jobs_root"),  # tells nothing of what is there
        ("sub/../../root-too/x.txt", "leads out of the jobs_root"),
        ("outside", "leads out of the jobs_root"),
        ("up/secret.txt", "leads out of the jobs_root"),
        ("/etc/passwd", "a path below the jobs_root is expected"),
        ("", "a path below the jobs_root is expected"),
        ("sub\0/de.txt", "a path below the jobs_root is expected"),
        ("sub", "which is not a file"),
        ("pipe", "which is not a file"),
    ],
)
def test_what_leads_elsewhere_is_refused(root, name, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        file_below(root, name, param="source")
    assert caught.value.param == "source"


@pytest.mark.parametrize("name", ["none.txt", "sub/de.txt/x", "circle", "x" * 5000, "\udc80"])
def test_what_is_not_there_is_not_found(root, name):
    with pytest.raises(NotFoundError, match=r"source: no file .* below the jobs_root"):
        file_below(root, name, param="source")
