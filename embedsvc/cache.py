"""Where files go that can be made again: compared vectors, exported graphs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(purpose: str) -> Path:
    """Return the folder of this user's cache for a purpose, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base).expanduser() / "embedsvc" / purpose
    folder.mkdir(parents=True, exist_ok=True)
    return folder
