"""Models and data sets from the Hugging Face hub: the only place that talks to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from embedsvc.errors import NotFoundError

_WANTED = [
    *("*.json", "*.txt", "*.model"),
    *("model.safetensors", "model-*-of-*.safetensors", "*/model.safetensors"),
    *("onnx/model.onnx*", "model.onnx*"),
]


def download_model(model: str, revision: str | None) -> Path:
    """Return the local folder of a hub model, downloading what is missing.

    ``HF_HUB_OFFLINE=1`` uses the local cache only. Raises NotFoundError with the hub's reason.
    """
    return _download("model", model, revision, _WANTED)


def download_dataset(dataset: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the local folder of a hub data set, downloading those of the files named that are missing.

    Otherwise as `download_model`.
    """
    return _download("dataset", dataset, revision, patterns)


def _download(
    kind: Literal["model", "dataset"], name: str, revision: str | None, patterns: Sequence[str]
) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NotFoundError(
            f"{kind} {name!r} is neither a folder here nor available from the hub: {reason}"
        ) from error
