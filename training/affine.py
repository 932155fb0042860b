"""An affine map of a model's vectors, written into its folder: every runtime and library serves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from embedsvc.encoders.static_table import read_table
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import ModelFolder, read_json
from embedsvc.textfiles import atomic_write, write_json
from training.model_copy import copy_plain, copy_weights, write_static_copy

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """``vectors @ weight + bias``: weight (dimension, new dimension), bias (new dimension,) or None."""

    weight: Vectors
    bias: Vectors | None = None

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return (n, new dimension) from (n, dimension); not normalised."""
        mapped: Vectors = vectors @ self.weight
        return mapped if self.bias is None else mapped + self.bias


def cut(dimension: int, kept: int) -> Affine:
    """Return the map that leaves the first ``kept`` coordinates."""
    return Affine(np.eye(dimension, kept, dtype=np.float32))


def append_affine(
    source: ModelFolder, out: Path, affine: Affine, *, unit: bool, matryoshka: Sequence[int] = ()
) -> None:
    """Write ``source`` with the map after it to ``out``, before the Normalize at its end if it has one.

    unit: the map is of unit vectors, else of what is pooled; without a bias that is the same. A transformer
    gets a Dense module. A static model's rows are mapped: the mean of mapped rows is the mapped mean.
    Raises InvalidInputError for a static model and a map of unit vectors with a bias, where it is not.
    """
    if source.is_static:
        if unit and affine.bias is not None:
            raise InvalidInputError(
                f"{source.path} is a static model: a map of its unit vectors cannot have a bias", param="bias"
            )
        write_static_copy(source, out, affine(read_table(source.modules[0].folder)))
    else:
        copy_plain(source, out)
        copy_weights(source, out)
        _add_modules(source, out, affine, unit=unit and affine.bias is not None)
    _declare(out, matryoshka)


def _add_modules(source: ModelFolder, out: Path, affine: Affine, *, unit: bool) -> None:
    entries: list[dict[str, Any]] = _module_entries(out)
    place = 1 + len(source.head)
    number = len(entries)
    added = [_entry(f"{number}_Dense", "Dense")]
    if unit:
        added.insert(0, _entry(f"{number + 1}_Normalize", "Normalize"))
        (out / f"{number + 1}_Normalize").mkdir()
        write_json(out / f"{number + 1}_Normalize" / "config.json", {})
    entries[place:place] = added
    write_json(out / "modules.json", [entry | {"idx": i, "name": str(i)} for i, entry in enumerate(entries)])
    _write_dense(out / f"{number}_Dense", affine)


def _module_entries(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    return entries


def _entry(path: str, kind: str) -> dict[str, Any]:
    return {"path": path, "type": f"sentence_transformers.models.{kind}"}


def _write_dense(folder: Path, affine: Affine) -> None:
    inputs, outputs = affine.weight.shape
    tensors = {"linear.weight": np.ascontiguousarray(affine.weight.T, np.float32)}
    if affine.bias is not None:
        tensors["linear.bias"] = np.ascontiguousarray(affine.bias, np.float32)
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": affine.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    folder.mkdir()
    write_json(folder / "config.json", config)
    with atomic_write(folder / "model.safetensors") as file:
        file.write(save(tensors, metadata={"format": "pt"}))


def _declare(folder: Path, matryoshka: Sequence[int]) -> None:
    """Say to which dimensions the vectors may be cut, which both files may; a space of before is left."""
    general = folder / "config_sentence_transformers.json"
    said = read_json(general, required=False) | {"matryoshka_dimensions": sorted(matryoshka)}
    said.pop("mapped_to", None)
    write_json(general, said)
    config = read_json(folder / "config.json", required=False)
    if config.pop("matryoshka_dimensions", None) is not None:
        write_json(folder / "config.json", config)


def declare_space(folder: Path, fingerprint: str) -> None:
    """Say that the vectors are in the space of the model with the fingerprint (`ModelFolder.fits`)."""
    general = folder / "config_sentence_transformers.json"
    write_json(general, read_json(general) | {"mapped_to": fingerprint})
