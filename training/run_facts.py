"""What a run was made of, kept in its folder: what a later call has to find unchanged, and where it ran."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import write_json
from training.config import Recipe


def keep_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe; raise InvalidInputError, naming what differs, when the folder holds another."""
    stored = _stored(path)
    if stored is not None:
        try:
            known = Recipe.model_validate(stored)  # keys that were not there yet have their defaults
        except ValidationError:
            raise _other("recipe", path, "it cannot be read by this version") from None
        if known != recipe:
            raise _other("recipe", path, _changes(_flat(known.model_dump()), _flat(recipe.model_dump())))
    write_json(path, recipe.model_dump(mode="json"))


def keep_facts(what: str, facts: Mapping[str, Any], path: Path) -> None:
    """Write facts; raise InvalidInputError, naming those that differ, when the folder holds others."""
    stored = _stored(path)
    if stored is not None and stored != facts:
        raise _other(what, path, _changes(_flat(stored), _flat(facts)))
    write_json(path, facts)


def check_files(facts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise InvalidInputError, naming them, when files differ from those that ``path`` says the run is of."""
    stored = _stored(path)
    if stored is None:
        return
    keys = ("name", "size_bytes", "sha256")
    known = {file["name"]: {key: file.get(key) for key in keys} for file in stored.get("files", [])}
    now = {file["name"]: {key: file[key] for key in keys} for file in facts}
    changes = [f"{name} changed" for name in sorted(known.keys() & now.keys()) if known[name] != now[name]]
    changes += [f"{name} is no longer there" for name in sorted(known.keys() - now.keys())]
    changes += [f"{name} is new" for name in sorted(now.keys() - known.keys())]
    if changes:
        raise _other("data", path, ", ".join(changes))


def keep_environment(path: Path) -> None:
    """Add where this call runs, machine and versions, to the list in ``path`` unless it is as the last."""
    now = environment()
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if not stored or stored[-1] != now:
        write_json(path, [*stored, now])


def environment() -> dict[str, Any]:
    """Return what results may depend on besides recipe and data."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "packages": dict(sorted(_packages())),
    }


def _packages() -> Iterator[tuple[str, str]]:
    for distribution in metadata.distributions():
        said = distribution.metadata  # read and parsed anew at each access
        yield said["Name"].lower(), said["Version"]


def _stored(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _other(what: str, path: Path, changes: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path.parent.parent} holds a run of {'other' if what == 'data' else 'another'} {what}: {changes}; "
        "choose another --out or remove that one"
    )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values of nested objects and lists by their dotted names."""
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        return {name: value}
    return {key: inner for part, of in items for key, inner in _flat(of, f"{name}.{part}".strip(".")).items()}


def _changes(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    absent = "absent"
    names = [*stored, *(name for name in now if name not in stored)]
    changed = [
        f"{name} was {stored.get(name, absent)!r}, now {now.get(name, absent)!r}"
        for name in names
        if stored.get(name, absent) != now.get(name, absent)
    ]
    return ", ".join(changed)
