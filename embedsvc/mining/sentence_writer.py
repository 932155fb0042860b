"""Write a sentence store: sentences and origins in the order of the files, then what is sorted."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.mining.records import Record
from embedsvc.mining.sentence_keys import Keys
from embedsvc.mining.sentence_store import FILES, FORMAT_VERSION, MANIFEST, ORIGIN
from embedsvc.textfiles import atomic_write
from indexing.durable import file_sha256, sync_folder

_UNSORTED = "origins.tmp"
_ROWS_AT_ONCE = 1 << 18


class StoreWriter(contextlib.ExitStack):
    """The files of a store being written; leaving it without `finish` leaves no store."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST, *FILES, _UNSORTED):  # of another run, or of one that was killed
            (folder / name).unlink(missing_ok=True)
        self._texts, self._ends, self._strings, self._unsorted = (
            self.enter_context((folder / name).open("wb"))
            for name in ("texts.txt", "ends.bin", "strings.bin", _UNSORTED)
        )
        self.rows = 0
        self._text_bytes = self._string_bytes = self._records = 0
        self._last_document: tuple[str | None, int, int] = (None, 0, -1)

    def add_texts(self, texts: Sequence[bytes]) -> None:
        """Append the next rows, UTF-8 without line feeds."""
        sizes = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
        ends = self._text_bytes + sizes.cumsum(dtype="<i8")
        self._texts.writelines(text + b"\n" for text in texts)
        self._ends.write(ends.tobytes())
        self.rows += len(texts)
        self._text_bytes += int(sizes.sum())

    def add_origins(self, file: int, first: int, records: Sequence[Record], rows: Sequence[int]) -> None:
        """Append where the sentences of these rows were found; ``first`` is the first record's number."""
        table = np.empty(len(records), ORIGIN)
        for i, (record, row) in enumerate(zip(records, rows, strict=True)):
            id_start, id_bytes = self._string(record.id)
            if record.document != self._last_document[0]:
                self._last_document = (record.document, *self._string(record.document))
            _, document_start, document_bytes = self._last_document
            table[i] = (row, first + i, record.line, file, id_bytes, id_start, document_start, document_bytes)
        self._unsorted.write(table[table["row"] >= 0].tobytes())

    def _string(self, value: str | None) -> tuple[int, int]:
        if value is None:
            return 0, -1
        data = value.encode()
        start = self._string_bytes
        self._strings.write(data)
        self._string_bytes += len(data)
        return start, len(data)

    def finish(self, keys: Keys, key_rows: NDArray[np.int64], facts: dict[str, Any]) -> None:
        """Write what is sorted, make all durable, then the manifest with these facts."""
        self.close()
        (self._folder / "keys.bin").write_bytes(keys.tobytes())
        (self._folder / "key_rows.bin").write_bytes(key_rows.astype("<i8").tobytes())
        self._sort_origins()
        manifest = {
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            **facts,
            "files": self._durable_files(),
        }
        with atomic_write(self._folder / MANIFEST) as file:
            file.write((json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
        sync_folder(self._folder)

    def _sort_origins(self) -> None:
        """Bring the origins of a row together, the first first, a part of the table in memory at a time."""
        unsorted = np.memmap(self._folder / _UNSORTED, ORIGIN, mode="r")
        rows = np.array(unsorted["row"])
        order = rows.argsort(kind="stable")
        with (self._folder / "origins.bin").open("wb") as file:
            for begin in range(0, len(order), _ROWS_AT_ONCE):
                file.write(unsorted[order[begin : begin + _ROWS_AT_ONCE]].tobytes())
        ends = np.bincount(rows, minlength=self.rows).cumsum(dtype="<i8")
        (self._folder / "origin_ends.bin").write_bytes(ends.tobytes())
        (self._folder / _UNSORTED).unlink()

    def _durable_files(self) -> dict[str, dict[str, Any]]:
        facts = {}
        for name in FILES:
            path = self._folder / name
            with path.open("rb") as file:
                os.fsync(file.fileno())
            facts[name] = {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}
        return facts
