"""Does the runtime give the vectors that the model's authors would get? Checked when a server loads a model.

The reference is what sentence-transformers computes with torch. An exported folder brings it as
``reference.safetensors``; otherwise, where the folder has torch weights and torch is installed, it is
computed once, in a process of its own, and cached by fingerprint.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedsvc.cache import cache_folder
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, read_tensors
from embedsvc.runtime import torch_installed
from embedsvc.textfiles import atomic_write

_log = logging.getLogger(__name__)
REFERENCE_FILE = "reference.safetensors"
_LEAST_COSINE = {"float32": 0.9999, "int8": 0.95}
_PATIENCE_S = 600
# Several scripts, one word and many, so that pooling, padding and truncation all matter.
PROBES = (
    "Hello",
    "Where is the nearest railway station?",
    "Die Bibliothek öffnet montags um neun Uhr, aber am Wochenende bleibt sie geschlossen.",
    "Сегодня идёт дождь.",
    "هل يمكنك مساعدتي؟",
    "今天天气很好，我们去公园散步吧。",
    "हमें कल सुबह जल्दी निकलना होगा।",
    "The quick brown fox jumps over the lazy dog while the rain keeps falling on the old roof. " * 6,
)


@dataclass(frozen=True)
class Parity:
    """How near a runtime's vectors are to the reference's: the least cosine over the probe sentences."""

    least_cosine: float
    reference: str  # where the reference came from


def check_parity(encoder: Encoder, precision: str = "float32") -> Parity | None:
    """Compare with the reference; None where there is none. Raises ModelError when the vectors differ."""
    found = _reference(encoder.folder) if encoder.runtime.name == "onnx" else None
    if found is None:
        return None
    vectors, origin = found
    cosines = (probe_vectors(encoder) * vectors).sum(axis=1)
    worst = int(cosines.argmin())
    parity = Parity(float(cosines[worst]), origin)
    least = _LEAST_COSINE[precision]
    if parity.least_cosine < least:
        raise ModelError(
            f"{encoder.folder.path}: the vector of {PROBES[worst][:40]!r} has cosine "
            f"{parity.least_cosine:.4f} with the reference ({origin}); at least {least} expected. The ONNX "
            "file does not belong to this model or is damaged: export it again, or set self_check to false"
        )
    _log.info("%s agrees with %s: least cosine %.5f", encoder.name, origin, parity.least_cosine)
    return parity


def probe_vectors(encoder: Encoder) -> NDArray[np.float32]:
    """Return the unit vectors (probes, dimension) of the probe sentences, without any prompt."""
    vectors: NDArray[np.float32] = encoder.encode(PROBES, prompt="", truncate="end", progress=False)
    return vectors


def write_reference(encoder: Encoder, file: Path) -> None:
    """Write what `check_parity` compares with; the encoder is the one to trust."""
    with atomic_write(file) as target:
        target.write(save({"vectors": probe_vectors(encoder)}))


def _reference(folder: ModelFolder) -> tuple[NDArray[np.float32], str] | None:
    shipped = folder.path / REFERENCE_FILE
    if shipped.is_file():
        return _vectors(shipped), REFERENCE_FILE
    if not (torch_installed() and any(folder.path.glob("*.safetensors"))):
        return None
    cached = cache_folder("references") / f"{folder.fingerprint}.safetensors"
    if not cached.is_file():
        _log.info("computing reference vectors of %s with torch, once", folder.name)
        command = [sys.executable, "-m", "embedsvc.self_check", str(folder.path), str(cached)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            _log.warning("no reference vectors for %s: %s", folder.name, reason)
            return None
    return _vectors(cached), "torch"


def _vectors(file: Path) -> NDArray[np.float32]:
    tensors = read_tensors(file)
    if "vectors" not in tensors or tensors["vectors"].shape[0] != len(PROBES):
        raise ModelError(f"{file} does not hold the vectors of the {len(PROBES)} probe sentences")
    vectors: NDArray[np.float32] = tensors["vectors"].astype(np.float32)
    return vectors


if __name__ == "__main__":
    write_reference(load_encoder(sys.argv[1], runtime="torch", device="cpu"), Path(sys.argv[2]))
