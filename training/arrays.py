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
    """Appends rows, numbers or of ``width`` numbers, to a .npy file; left without `finish` it has no rows."""

    def __init__(self, path: Path, dtype: DTypeLike, *, width: int | None = None) -> None:
        super().__init__()
        self._file = self.enter_context(path.open("wb"))
        self._dtype = np.dtype(dtype)
        self._width = () if width is None else (width,)
        self._write_header(0)
        self._begin = self._file.tell()
        self.rows = 0

    def _write_header(self, rows: int) -> None:
        # numpy leaves room in the header for the length to grow.
        described = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False}
        npy.write_array_header_1_0(self._file, {**described, "shape": (rows, *self._width)})

    def append(self, values: NDArray[Any]) -> None:
        """Write values ``(n,)`` or ``(n, width)`` behind those there are."""
        assert values.shape[1:] == self._width, f"rows of {values.shape[1:]} among rows of {self._width}"
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
