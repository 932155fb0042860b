from __future__ import annotations

import json
from hashlib import sha256

import pytest

from embedsvc.api_keys import KeyLimits, create_key, read_keys, revoke_key
from embedsvc.errors import InvalidInputError, NotFoundError, StorageError


def test_a_key_is_found_by_its_secret_which_the_file_does_not_hold(tmp_path):
    file = tmp_path / "keys.json"
    first = create_key(file, "first", KeyLimits())
    second = create_key(file, "second", KeyLimits("admin", requests_per_minute=5, texts_per_minute=7))
    assert first != second
    keys = read_keys(file)
    assert [key.name for key in keys.keys] == ["first", "second"]
    found = keys.find(second.encode())
    assert (found.name, found.scope, found.requests_per_minute, found.texts_per_minute) == (
        "second",
        "admin",
        5,
        7,
    )
    assert keys.find(first.encode()).name == "first"
    assert keys.find(second[:-1].encode()) is None
    assert keys.find(b"") is None
    stored = file.read_text()
    assert first not in stored
    assert sha256(first.encode()).hexdigest() in stored


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("read", ["read"]), ("write", ["read", "write"]), ("admin", ["read", "write", "admin"])],
)
def test_a_scope_includes_the_smaller_ones(tmp_path, scope, allowed):
    create_key(tmp_path / "keys.json", "k", KeyLimits(scope))
    (key,) = read_keys(tmp_path / "keys.json").keys
    assert [needed for needed in ("read", "write", "admin") if key.allows(needed)] == allowed


def test_revoking_takes_one_key_away(tmp_path):
    file = tmp_path / "keys.json"
    secrets = [create_key(file, name, KeyLimits()) for name in ("a", "b")]
    revoke_key(file, "a")
    assert read_keys(file).find(secrets[0].encode()) is None
    assert read_keys(file).find(secrets[1].encode()).name == "b"
    with pytest.raises(NotFoundError, match=r"has no key 'a'; it has: b$"):
        revoke_key(file, "a")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "naïve"])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"^name is "):
        create_key(tmp_path / "keys.json", name, KeyLimits())
    assert not (tmp_path / "keys.json").exists()


def test_a_name_cannot_be_taken_twice(tmp_path):
    create_key(tmp_path / "keys.json", "a", KeyLimits())
    with pytest.raises(InvalidInputError, match="already has a key 'a'; revoke it first"):
        create_key(tmp_path / "keys.json", "a", KeyLimits())


KEY = {"name": "a", "scope": "read", "created": "2026-01-01", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "it: Invalid JSON"),
        (json.dumps({"version": 2, "keys": []}), "version: Input should be 1"),
        (json.dumps({"keys": [{**KEY, "scope": "root"}]}), "keys.0.scope: Input should be 'read'"),
        (json.dumps({"keys": [{**KEY, "sha256": "secret"}]}), "keys.0.sha256: String should match"),
        (json.dumps({"keys": [{**KEY, "admin": True}]}), "keys.0.admin: Extra inputs are not permitted"),
        (json.dumps({"keys": [KEY, KEY]}), "it: Value error, the name 'a' comes twice"),
    ],
)
def test_a_damaged_file_says_where(tmp_path, content, reason):
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(StorageError) as caught:
        read_keys(file)
    assert caught.value.message.startswith(f"keys_file {file} is damaged: {reason}")
