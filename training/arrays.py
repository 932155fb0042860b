"""Arrays larger than the memory: written a part at a time as .npy files, read back memory-mapped."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray


class ArrayWriter(contextlib.ExitStack):
    """Appends rows to a one-dimensional .npy file; left without `finish` it is one without rows."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        super().__init__()
        self._file = self.enter_context(path.open("wb"))
        self._dtype = np.dtype(dtype)
        self._write_header(0)
        self._begin = self._file.tell()
        self.rows = 0

    def _write_header(self, rows: int) -> None:
        # numpy leaves room in the header for the length to grow.
        described = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (rows,)}
        npy.write_array_header_1_0(self._file, described)

    def append(self, values: NDArray[Any]) -> None:
        """Write values ``(n,)`` behind those there are."""
        self._file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self.rows += len(values)

    def finish(self) -> None:
        """Set the length, bring everything to the disk and close the file."""
        self._file.seek(0)
        self._write_header(self.rows)
        assert self._file.tell() == self._begin, "a longer header would lie over the first rows"
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()


def mapped_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file, read as it is used; of an empty one an array in memory."""
    # A plain view: each indexing of np.memmap makes another one, which costs more than reading.
    return np.asarray(np.load(path, mmap_mode="r" if _has_rows(path) else None))


def _has_rows(path: Path) -> bool:
    with path.open("rb") as file:
        npy.read_magic(file)
        shape, _, _ = npy.read_array_header_1_0(file)
    return 0 not in shape
