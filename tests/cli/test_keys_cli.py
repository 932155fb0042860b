"""`embedsvc keys` as an operator meets it."""

from __future__ import annotations

import sys

import pytest

from embedsvc.api_keys import read_keys
from embedsvc.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `embedsvc keys`; return exit status, standard output and standard error."""
    monkeypatch.delenv("EMBEDSVC_KEYS_FILE", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["embedsvc", "keys", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_a_key_is_printed_once_listed_and_revoked(run, tmp_path):
    file = ("--keys-file", str(tmp_path / "keys.json"))
    code, secret, errors = run("create", "--name", "ci", "--requests-per-minute", "600", *file)
    assert (code, errors) == (0, "")
    assert read_keys(tmp_path / "keys.json").find(secret.strip().encode()).name == "ci"
    run("create", "--name", "ops", "--scope", "admin", *file)
    _, listed, _ = run("list", *file)
    assert [line.rsplit("  ", 1)[0] for line in listed.splitlines()] == [
        "ci  read  600 requests/min",
        "ops  admin  no limit",
    ]
    assert secret.strip() not in listed
    assert run("revoke", "ci", *file)[:2] == (0, "revoked ci\n")
    assert run("list", *file)[1].startswith("ops  admin")


def test_the_file_may_come_from_the_settings(run, monkeypatch, tmp_path):
    code, _, errors = run("list")
    assert code == 2
    assert "Missing option '--keys-file'" in errors
    monkeypatch.setenv("EMBEDSVC_KEYS_FILE", str(tmp_path / "keys.json"))
    assert run("create", "--name", "a")[0] == 0
    assert run("list")[1].startswith("a  read")


def test_mistakes_are_one_line(run, tmp_path):
    file = ("--keys-file", str(tmp_path / "keys.json"))
    code, _, errors = run("revoke", "ci", *file)
    assert code == 1
    assert errors == (
        f"embedsvc: no keys_file at {file[1]}; make one: embedsvc keys create --keys-file {file[1]} "
        "--name NAME\n"
    )
    assert run("create", "--name", "a", "--scope", "root", *file)[0] == 2
    assert run("create", "--name", "a", "--requests-per-minute", "0", *file)[0] == 2
