"""Shared fixtures. Nothing here needs the network; data that may be absent skips with a message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before any library reads them: tests never talk to a hub, and threads do not fight over two cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"


@pytest.fixture(scope="session")
def evaluation_data() -> Path:
    """The folder with the unpacked evaluation sets (tatoeba/, flores/ …), named by $EVALUATION_DATA."""
    folder = os.environ.get("EVALUATION_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set EVALUATION_DATA to the folder of the unpacked evaluation sets to run this test")
    return Path(folder)
