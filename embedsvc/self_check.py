"""Does the runtime give the vectors that the model's authors would get? Checked when a server loads a model.

The reference is what sentence-transformers computes with torch. An exported folder brings it as
``reference.safetensors``; otherwise, where the folder has torch weights and torch is installed, it is
computed once, in a process of its own, and cached by the fingerprint of the files.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedsvc.cache import cache_folder
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, Precision, read_tensors
from embedsvc.runtime import torch_installed
from embedsvc.textfiles import atomic_write

_log = logging.getLogger(__name__)
REFERENCE_FILE = "reference.safetensors"
_LEAST_COSINE: dict[Precision, float] = {"float32": 0.9999, "int8": 0.95}
_PATIENCE_S = 600
_LONG_TOKENS = 600
# Several scripts, one word and many, so that pooling, padding and truncation all matter.
PROBES = (
    "Hello",
    "The quick brown fox jumps over the lazy dog.",
    "Der Zug nach München fährt heute leider erst um 17:45 Uhr ab.",
    "¿Dónde está la biblioteca más cercana? «Ici», dit-elle.",
    "Москва — столица России, её население превышает 13 миллионов человек.",
    "صباح الخير، كيف حالك اليوم؟",
    "今日はとても良い天気ですね。",
    "नमस्ते दुनिया",
    "1234567890 !? %$#",
)


def probe_texts(encoder: Encoder) -> list[str]:
    """Return texts of many lengths and scripts; the last is longer than the limit, or of some 600 tokens."""
    once = max(len(encoder.runtime.tokenize([PROBES[1]])[0]), 1)
    wanted = min(encoder.runtime.max_tokens or _LONG_TOKENS, _LONG_TOKENS)
    return [*PROBES, " ".join([PROBES[1]] * (wanted // once + 1))]


def check_vectors(encoder: Encoder, precision: Precision = "float32") -> float | None:
    """Return the least cosine to the reference over the probe texts; None where there is no reference.

    Raises ModelError when it is too low: the ONNX file does not belong to the model, or is damaged.
    """
    reference = _reference(encoder.folder) if encoder.runtime.name == "onnx" else None
    if reference is None:
        if encoder.runtime.name == "onnx":
            _log.warning("%s brings no reference vectors: they are not checked", encoder.folder.path)
        return None
    vectors = _probe_vectors(encoder)
    if vectors.shape != reference.shape:
        raise ModelError(
            f"{encoder.folder.path}: the reference vectors have shape {reference.shape}, the model gives "
            f"{vectors.shape}: export it again, or set self_check to false"
        )
    cosines = (vectors * reference).sum(axis=1)
    known = np.linalg.norm(reference, axis=1) > 0.5  # the others have no known token
    worst = int(np.where(known, cosines, np.inf).argmin())
    if cosines[worst] < _LEAST_COSINE[precision]:
        raise ModelError(
            f"{encoder.folder.path}: the vector of {probe_texts(encoder)[worst][:40]!r} has cosine "
            f"{cosines[worst]:.4f} to the reference; at least {_LEAST_COSINE[precision]} expected. The ONNX "
            "file does not belong to this model or is damaged: export it again, or set self_check to false"
        )
    return float(cosines[worst])


def write_reference(encoder: Encoder, file: Path) -> None:
    """Write what `check_vectors` compares with; the encoder is the one to trust."""
    with atomic_write(file) as target:
        target.write(save({"vectors": _probe_vectors(encoder)}))


def _probe_vectors(encoder: Encoder) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = encoder.encode(
        probe_texts(encoder), prompt="", truncate="end", progress=False
    )
    return vectors


def _reference(folder: ModelFolder) -> NDArray[np.float32] | None:
    shipped = folder.path / REFERENCE_FILE
    if shipped.is_file():
        return _read_vectors(shipped)
    if not (torch_installed() and any(folder.modules[0].folder.glob("model*.safetensors"))):
        return None
    cached = cache_folder("references") / f"{folder.files_fingerprint}.safetensors"
    if not cached.is_file():
        _log.info("computing reference vectors of %s with torch, once", folder.name)
        command = [sys.executable, "-m", "embedsvc.self_check", str(folder.path), str(cached)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            _log.warning("no reference vectors of %s: %s", folder.name, reason)
            return None
    return _read_vectors(cached)


def _read_vectors(file: Path) -> NDArray[np.float32]:
    vectors = read_tensors(file).get("vectors")
    if vectors is None or vectors.ndim != 2:
        raise ModelError(f"{file} holds no reference vectors")
    return vectors.astype(np.float32)


if __name__ == "__main__":
    write_reference(load_encoder(sys.argv[1], runtime="torch", device="cpu"), Path(sys.argv[2]))
