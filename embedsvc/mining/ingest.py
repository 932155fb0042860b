"""Files of one side in, a store of their distinct sentences out."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import InvalidInputError, StorageError
from embedsvc.mining.duplicates import duplicate_key
from embedsvc.mining.filters import SentenceFilters
from embedsvc.mining.ingest_options import IngestOptions, checked_options
from embedsvc.mining.ingest_report import EXAMPLES, Example, IngestReport, InputFile, example
from embedsvc.mining.progress import Report, Step, ignore
from embedsvc.mining.readers import read_records
from embedsvc.mining.records import Record
from embedsvc.mining.sentence_keys import ABSENT, Keys, KeyTable, sentence_keys
from embedsvc.mining.sentence_store import SentenceStore, open_sentence_store, read_store_manifest
from embedsvc.mining.sentence_writer import StoreWriter
from embedsvc.textfiles import check_file
from indexing.durable import file_sha256

STAGE = "ingest"
_HASHED_BYTES = 1 << 20
_BATCH = 8_192  # records at once
_BATCH_CHARACTERS = 16 << 20  # or this much text


class NoSentenceError(InvalidInputError):
    """A side has no sentence, or none that the filters keep."""


def ingest(
    paths: Sequence[Path], folder: Path, options: IngestOptions | None = None, *, progress: Report = ignore
) -> SentenceStore:
    """Read the files of one side and write their distinct sentences to ``folder``; return the store.

    Equal sentences (but for whitespace and Unicode composition) become one row with all their origins.
    A finished store of the same files and options is opened, not made again; a damaged or unfinished one is
    made anew, and so is that of fewer files or of the beginnings of these, whose rows keep their numbers. The
    same files and options give the same bytes.
    Raises InvalidInputError: a bad option; a file that cannot be read, naming file and line; ``folder``
    holds the store of other files or options. NoSentenceError; NotFoundError; MissingExtraError for Parquet.
    """
    options = checked_options(options or IngestOptions())
    files = input_files(paths)
    made_of = json.loads(json.dumps({"options": asdict(options), "inputs": [_facts(file) for file in files]}))
    if (store := _reopened(folder, made_of, paths)) is not None:
        return store
    with StoreWriter(folder) as writer:
        side = _Side(writer, options, progress)
        for file, path in zip(files, paths, strict=True):
            side.read(file, Path(path))
        report = side.report()
        writer.finish(*side.kept_keys(), {**made_of, "report": report.to_json()})
    return open_sentence_store(folder, verify=False)


def input_files(paths: Sequence[Path]) -> list[InputFile]:
    """Return name, size and sha256 of each file; the name with as many folders as tell it from the others'.

    Raises InvalidInputError or NotFoundError: no file, one named twice, a folder, a pipe.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise InvalidInputError("no file to read")
    whole = [path.resolve() for path in paths]
    for path, count in Counter(whole).items():
        if count > 1:
            raise InvalidInputError(f"{path} is given {count} times")
    # Where the files lie is none of the output's business: it shall be the same wherever that is.
    named = [path.absolute() for path in paths]
    return [_input_file(path, _own_name(name, named)) for path, name in zip(paths, named, strict=True)]


def _own_name(path: Path, all_paths: Sequence[Path]) -> str:
    """Return the shortest end of a path that no other one has."""
    ends = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
    own = next(end for end in ends if sum(other.parts[-len(end) :] == end for other in all_paths) == 1)
    return str(Path(*own))


def _input_file(path: Path, name: str) -> InputFile:
    check_file(path)
    if not path.is_file():
        raise InvalidInputError(f"{path} is not a regular file: it is read twice, which a pipe cannot be")
    return InputFile(name, path.stat().st_size, file_sha256(path))


def _facts(file: InputFile) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _reopened(folder: Path, made_of: dict[str, Any], paths: Sequence[Path]) -> SentenceStore | None:
    """Return the finished store of the same files and options, if it is there."""
    try:
        manifest = read_store_manifest(folder)
    except StorageError:
        return None
    if manifest.get("options") == made_of["options"] and _grown(
        manifest.get("inputs", []), made_of["inputs"], paths
    ):
        return None
    for part, wanted in made_of.items():
        if manifest.get(part) != wanted:
            raise InvalidInputError(
                f"{folder} holds the sentences of other {part}: {_difference(manifest.get(part), wanted)}; "
                "give another folder or remove it"
            )
    with contextlib.suppress(StorageError):
        return open_sentence_store(folder)
    return None


def _grown(stored: list[dict[str, Any]], wanted: list[dict[str, Any]], paths: Sequence[Path]) -> bool:
    """Return whether files came after those stored, or lines after what was the end of a file."""
    return (
        stored != wanted
        and len(stored) <= len(wanted)
        and all(
            old == new or (old["name"] == new["name"] and _begins_with(Path(path), new, old))
            for old, new, path in zip(stored, wanted, paths, strict=False)
        )
    )


def _begins_with(path: Path, new: dict[str, Any], old: dict[str, Any]) -> bool:
    if new["size_bytes"] <= old["size_bytes"]:
        return False
    digest, left = hashlib.sha256(), int(old["size_bytes"])
    with path.open("rb") as file:
        while left and (content := file.read(min(left, _HASHED_BYTES))):
            digest.update(content)
            left -= len(content)
    return bool(digest.hexdigest() == old["sha256"])


def _difference(stored: Any, wanted: Any) -> str:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        names = sorted(name for name in stored | wanted if stored.get(name) != wanted.get(name))
        return ", ".join(f"{name} was {stored.get(name)!r}, now {wanted.get(name)!r}" for name in names)
    names = [", ".join(file["name"] for file in files) for files in (stored, wanted)]
    if names[0] != names[1]:
        return f"it was {names[0]}, now {names[1]}"
    changed = [new["name"] for old, new in zip(stored, wanted, strict=True) if old != new]
    return f"{', '.join(changed)} changed"


class _Side:
    """One pass over the files: what was seen, what is kept, what is counted."""

    def __init__(self, writer: StoreWriter, options: IngestOptions, progress: Report) -> None:
        self._writer, self._options, self._progress = writer, options, progress
        self._filters = SentenceFilters(options)
        self._seen = KeyTable()
        self._records = self._duplicates = 0
        self._dropped: Counter[str] = Counter()
        self._examples: dict[str, list[Example]] = {}
        self._files: list[InputFile] = []

    def read(self, file: InputFile, path: Path) -> None:
        """Take in all records of a file."""
        replaced: list[int] = []
        bad = (
            (lambda _, count: replaced.append(count)) if self._options.encoding_errors == "replace" else None
        )
        first, blank = self._records, 0
        for batch in _batches(read_records(path, self._options, bad)):
            blank += self._take(file.name, batch)
            self._progress(Step(STAGE, self._records, 0))
        count = self._records - first
        self._files.append(replace(file, records=count, blank=blank, replaced=sum(replaced)))

    def _take(self, file: str, records: list[Record]) -> int:
        """Write what is new in a batch and where everything stands; return the number of blank records."""
        texts = [duplicate_key(record.text) for record in records]
        filled = [i for i, text in enumerate(texts) if text]
        encoded = [texts[i].encode() for i in filled]
        keys = sentence_keys(encoded)
        rows = self._seen.find(keys)
        new, first, inverse = _distinct(keys, np.flatnonzero(rows == ABSENT))
        numbers = self._numbers(file, [(records[filled[i]], texts[filled[i]]) for i in first.tolist()])
        kept = first[numbers >= 0]
        self._writer.add_texts([encoded[i] for i in kept.tolist()])
        self._seen.add(new, numbers)
        rows[rows == ABSENT] = numbers[inverse]
        self._count(rows, len(kept))
        all_rows = np.full(len(records), ABSENT)
        all_rows[filled] = rows
        self._writer.add_origins(len(self._files), self._records, records, all_rows.tolist())
        self._records += len(records)
        return len(records) - len(filled)

    def _numbers(self, file: str, new: list[tuple[Record, str]]) -> NDArray[np.int64]:
        """Return the row of each new sentence; of one that is dropped, -1 less the number of its reason."""
        numbers = np.empty(len(new), np.int64)
        row = self._writer.rows
        reasons = self._filters.reasons([text for _, text in new])
        for i, ((record, text), reason) in enumerate(zip(new, reasons, strict=True)):
            if reason is None:
                numbers[i] = row
                row += 1
                continue
            numbers[i] = -1 - self._filters.names.index(reason)
            shown = self._examples.setdefault(reason, [])
            if len(shown) < EXAMPLES:
                shown.append(example(file, record.line, text))
        return numbers

    def _count(self, rows: NDArray[np.int64], kept: int) -> None:
        self._duplicates += int((rows >= 0).sum()) - kept
        for number, count in zip(*np.unique(rows[rows < 0], return_counts=True), strict=True):
            self._dropped[self._filters.names[-1 - int(number)]] += int(count)

    def kept_keys(self) -> tuple[Keys, NDArray[np.int64]]:
        """Return the keys of the sentences that are kept, ascending, and their rows."""
        keys, rows = self._seen.sorted()
        return keys[rows >= 0], rows[rows >= 0]

    def report(self) -> IngestReport:
        """Return the counts; raise InvalidInputError when no sentence is left."""
        report = IngestReport(
            records=self._records,
            sentences=self._writer.rows,
            duplicates=self._duplicates,
            blank=sum(file.blank for file in self._files),
            replaced=sum(file.replaced for file in self._files),
            dropped={name: self._dropped[name] for name in self._filters.names if self._dropped[name]},
            examples={name: self._examples[name] for name in self._filters.names if name in self._examples},
            files=self._files,
            notes=self._filters.notes,
        )
        if not report.sentences:
            raise NoSentenceError(no_sentence(report))
        return report


def no_sentence(report: IngestReport) -> str:
    """Return why a side has no sentence."""
    where = ", ".join(file.name for file in report.files)
    if not report.records:
        return f"{where}: no sentence; empty"
    if report.blank == report.records:
        return f"{where}: no sentence; all {report.records} lines are blank"
    counts = ", ".join(f"{reason} {count}" for reason, count in report.dropped.items())
    return f"{where}: no sentence is left; dropped by filters: {counts}; blank: {report.blank}"


def _distinct(keys: Keys, positions: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct keys at these positions in order of first occurrence, the position of each one's
    first, and for every position which of them it has."""
    distinct, first, inverse = np.unique(keys[positions], return_index=True, return_inverse=True)
    order = first.argsort()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], positions[first[order]], rank[inverse.reshape(-1)]


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Yield the records some thousand at a time, fewer where they are long."""
    batch: list[Record] = []
    characters = 0
    for record in records:
        batch.append(record)
        characters += len(record.text)
        if len(batch) >= _BATCH or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
