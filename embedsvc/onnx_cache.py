"""A transformer without an ONNX file, exported once into the user's cache. torch runs in another process."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.util import find_spec

from embedsvc.cache import cache_folder
from embedsvc.errors import MissingExtraError, ModelError
from embedsvc.model_folder import ModelFolder, Precision, open_model_folder

_log = logging.getLogger(__name__)
_NEEDED = ("torch", "sentence_transformers", "onnx", "onnxscript")


def exported_folder(folder: ModelFolder, precision: Precision) -> ModelFolder:
    """Return the folder of a model's ONNX export, made if it is not there.

    Raises MissingExtraError without the train extra, and ModelError with the reason of a failed export.
    """
    name = folder.name.replace("/", "--")
    cached = cache_folder("onnx") / f"{folder.files_fingerprint}-{precision}" / name
    if not cached.is_dir():
        if any(find_spec(package) is None for package in _NEEDED):
            raise MissingExtraError(f"{folder.path} has no {precision} ONNX file; exporting one", "train")
        _log.warning("exporting %s to ONNX, once, into %s", folder.name, cached)
        options = ["--out", str(cached), "--onnx", precision]
        command = [sys.executable, "-m", "embedsvc", "export", str(folder.path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ModelError(f"{folder.path} cannot be exported to ONNX: {reason}")
    return open_model_folder(cached)
