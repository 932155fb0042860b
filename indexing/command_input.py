"""What the command reads: arrays, labels, and sizes of memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.errors import IndexingError, VectorError

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{binary}b": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("kmgt", 1)
    for binary in ("", "i")
}


def byte_count(text: str) -> int:
    """Return the bytes that a text such as "2GiB" (2·1024³), "1.5 GB" (1.5·1000³) or "800" stands for.

    Raises IndexingError for any other text.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise IndexingError(f"memory is {text!r}; expected bytes, KB, MB, GB, KiB, MiB or GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def read_array(path: Path) -> NDArray[Any]:
    """Return the array (n, dim) of a .npy file, memory-mapped.

    Raises IndexingError when the file cannot be read as one, VectorError for an array of another form.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise IndexingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise IndexingError(f"{path}: not a .npy file that can be memory-mapped: {error}") from error
    if array.ndim != 2 or 0 in array.shape:
        raise VectorError(f"{path}: has shape {array.shape}; expected (n, dim), at least one row")
    if not np.issubdtype(array.dtype, np.floating):
        raise VectorError(f"{path}: has dtype {array.dtype}; expected float16 or float32")
    return array


def read_labels(path: Path) -> list[str]:
    """Return the label on each line of a UTF-8 text.

    Raises IndexingError that names the first line without a label, or the byte that is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except OSError as error:
        raise IndexingError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise IndexingError(f"{path}: byte {error.start} is not UTF-8") from error
    labels = [line.strip() for line in lines]
    if not all(labels):
        raise IndexingError(f"{path}: line {labels.index('') + 1} has no label")
    return labels
