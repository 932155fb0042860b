"""The file of a fitted debiasing method: an .npz archive of arrays and a format version, never pickled."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexFileError
from indexing.manifest import StrPath

FORMAT_VERSION = 1
_KINDS = {"method": "U", "groups": "U", "unchanged": "U", "offsets": "f", "directions": "f"}
# What numpy and zipfile raise for a spoilt archive (a shape in it may ask for all memory), and for one array.
_DAMAGE = (ValueError, EOFError, KeyError, RuntimeError, MemoryError, TypeError, zipfile.BadZipFile)


def write_arrays(path: StrPath, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``path``, durably, in place of what was there; raise OSError and leave that if it cannot be."""
    temporary = Path(path).with_name(Path(path).name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, version=np.array(FORMAT_VERSION), **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_arrays(path: StrPath) -> dict[str, NDArray[Any]]:
    """Return the arrays in ``path``, which fit each other and are finite.

    Raises:
        IndexFileError: the file is missing, damaged, of another format version, or holds something else.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise IndexFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise IndexFileError(f"{path}: damaged, or no file of a debiasing method: {error}") from error
    version = stored["version"].tolist() if "version" in stored else None
    if version != FORMAT_VERSION:
        raise IndexFileError(f"{path}: format version {version!r}; this version reads {FORMAT_VERSION}")
    del stored["version"]
    problem = _problem(stored)
    if problem:
        raise IndexFileError(f"{path}: {problem}")
    return stored


def _problem(stored: Mapping[str, NDArray[Any]]) -> str | None:
    """What is wrong with the arrays, if anything."""
    kinds = {name: array.dtype.kind for name, array in stored.items()}
    if kinds != _KINDS:
        return f"holds arrays of kinds {kinds}; expected {_KINDS}"
    groups, offsets, directions = stored["groups"], stored["offsets"], stored["directions"]
    if [stored[name].ndim for name in _KINDS] != [0, 1, 1, 2, 3]:
        return f"arrays have shapes { {name: array.shape for name, array in stored.items()} }"
    if (groups[:-1] >= groups[1:]).any():
        return "groups are not distinct and ascending"
    if directions.shape[::2] != offsets.shape or len(offsets) != len(groups) + 1:
        shapes = f"offsets {offsets.shape} and directions {directions.shape}"
        return f"{shapes} do not fit {len(groups)} groups"
    if not (np.isfinite(offsets).all() and np.isfinite(directions).all()):
        return "holds NaN or infinity"
    return None
