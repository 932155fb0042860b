"""Texts on disk, in order: their UTF-8 back to back, and where each ends."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from training.arrays import ArrayWriter, mapped_array

_READ_TEXTS = 16_384


class TextWriter(contextlib.ExitStack):
    """Appends texts to ``<name>.texts`` and ``<name>.ends.npy`` of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self._texts = self.enter_context((folder / f"{name}.texts").open("wb"))
        self._ends = self.enter_context(ArrayWriter(folder / f"{name}.ends.npy", np.int64))
        self._bytes = 0

    def __len__(self) -> int:
        return self._ends.rows

    def append(self, texts: Sequence[bytes]) -> None:
        """Write texts behind those there are."""
        ends = self._bytes + np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        self._texts.write(b"".join(texts))
        self._ends.append(ends)
        self._bytes = int(ends[-1]) if len(ends) else self._bytes

    def finish(self) -> None:
        """Bring everything to the disk and close the files."""
        self._texts.flush()
        os.fsync(self._texts.fileno())
        self._ends.finish()
        self.close()


class TextStore(Sequence[str]):
    """The texts that a `TextWriter` wrote; a slice of them is a list."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ends = mapped_array(folder / f"{name}.ends.npy")
        with (folder / f"{name}.texts").open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size
            self._texts = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _READ_TEXTS):
            yield from self[start : start + _READ_TEXTS]

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return [self[row] for row in range(start, stop, step)]
            return self._between(start, max(start, stop))
        row = place + len(self) if place < 0 else place
        if not 0 <= row < len(self):
            raise IndexError(f"text {place} of {len(self)}")
        return self._between(int(row), int(row) + 1)[0]

    def _between(self, start: int, stop: int) -> list[str]:
        if start == stop:
            return []
        begin = int(self._ends[start - 1]) if start else 0
        ends = self._ends[start:stop].tolist()
        block = self._texts[begin : ends[-1]]
        cuts = [begin, *ends]
        return [block[cuts[i] - begin : cuts[i + 1] - begin].decode() for i in range(len(ends))]
