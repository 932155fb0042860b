"""Models from the Hugging Face hub: the only place that talks to it."""

from __future__ import annotations

import os
from pathlib import Path

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
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NotFoundError(
            f"model {model!r} is neither a folder here nor available from the hub: {reason}"
        ) from error
