"""A server of two tiny static models whose vectors are known, and what its collections hold."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedsvc.settings import Settings
from tests.collections.conftest import write_tiny_model
from tests.server.conftest import AppClient


def tiny_client(folder: Path, **options: Any) -> AppClient:
    """Serve the models "old" (the default) and "new", both of 16 dimensions."""
    models = tuple(
        f"{name}={write_tiny_model(folder / name, seed)}" for seed, name in enumerate(("old", "new"))
    )
    return AppClient(Settings(model=models, data_dir=folder / "data", **options), None)


def base64_of(vector: ArrayLike) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
