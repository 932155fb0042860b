"""The file of API keys: JSON that holds the SHA-256 of each key, never the key itself."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embedsvc.errors import InvalidInputError, NotFoundError, StorageError
from embedsvc.textfiles import atomic_write

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")  # each allows what those before it do
_SECRET_BYTES = 32  # random, so that a plain hash of it cannot be searched


class ApiKey(BaseModel):
    """What is known of a key: who has it, what it may do, how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    scope: Scope
    requests_per_minute: int | None = Field(None, ge=1)
    texts_per_minute: int | None = Field(None, ge=1)
    created: date
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def allows(self, needed: Scope) -> bool:
        """Whether the key's scope includes the one that is needed."""
        return SCOPES.index(self.scope) >= SCOPES.index(needed)


class KeyFile(BaseModel):
    """Every key of a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> KeyFile:
        names = [key.name for key in self.keys]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the name {min(twice)!r} comes twice")
        return self

    def find(self, secret: bytes) -> ApiKey | None:
        """Return the key with this secret, comparing in constant time."""
        digest = sha256(secret).hexdigest()
        matching = [key for key in self.keys if hmac.compare_digest(key.sha256, digest)]
        return matching[0] if matching else None


@dataclass(frozen=True)
class KeyLimits:
    """What a new key may do, and how often."""

    scope: Scope = "read"
    requests_per_minute: int | None = None
    texts_per_minute: int | None = None


def read_keys(path: Path) -> KeyFile:
    """Return the keys in a file; raise NotFoundError or StorageError saying what is wrong with it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"no keys_file at {path}; make one: embedsvc keys create --keys-file {path} --name NAME"
        ) from error
    except OSError as error:
        raise StorageError(f"keys_file {path} cannot be read: {error.strerror}") from error
    try:
        return KeyFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise StorageError(f"keys_file {path} is damaged: {where}: {first['msg']}") from error


def create_key(path: Path, name: str, limits: KeyLimits) -> str:
    """Add a key to the file, which is made if it is not there; return the secret, kept nowhere.

    Raises InvalidInputError for a name that is taken or not of letters, digits, dot, dash and underscore.
    """
    known = read_keys(path) if path.exists() else KeyFile()
    if any(key.name == name for key in known.keys):
        raise InvalidInputError(f"{path} already has a key {name!r}; revoke it first", param="name")
    secret = f"embedsvc_{secrets.token_urlsafe(_SECRET_BYTES)}"
    digest = sha256(secret.encode()).hexdigest()
    today = datetime.now(UTC).date()
    try:
        key = ApiKey(name=name, created=today, sha256=digest, **asdict(limits))
    except ValidationError as error:
        first = error.errors()[0]
        param = str(first["loc"][0])
        raise InvalidInputError(f"{param} is {first['input']!r}: {first['msg']}", param=param) from error
    _write(path, KeyFile(keys=(*known.keys, key)))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from the file; raise NotFoundError naming those that there are."""
    known = read_keys(path)
    left = tuple(key for key in known.keys if key.name != name)
    if len(left) == len(known.keys):
        names = ", ".join(key.name for key in known.keys) or "none"
        raise NotFoundError(f"{path} has no key {name!r}; it has: {names}")
    _write(path, KeyFile(keys=left))


def _write(path: Path, keys: KeyFile) -> None:
    with atomic_write(path) as file:
        file.write(keys.model_dump_json(indent=2, exclude_none=True).encode() + b"\n")
