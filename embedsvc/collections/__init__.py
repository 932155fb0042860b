"""Collections of documents: SQLite is the truth, the FAISS index is derived from it and can be lost."""

from __future__ import annotations

import os
from pathlib import Path

DATA_DIR_VARIABLE = "EMBEDSVC_DATA_DIR"


def default_data_dir() -> Path:
    """Return where collections are kept: $EMBEDSVC_DATA_DIR, else ~/.local/share/embedsvc."""
    given = os.environ.get(DATA_DIR_VARIABLE)
    return Path(given or "~/.local/share/embedsvc").expanduser()
