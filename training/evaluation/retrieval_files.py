"""Retrieval sets in the layouts of BEIR and MIRACL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError, NotFoundError
from embedsvc.textfiles import iterate_lines

_IDS = ("_id", "id", "docid", "query_id")
_SPLITS = ("test", "dev")


@dataclass(frozen=True)
class RetrievalSet:
    """Passages and judged queries; ``judged[i]`` maps rows of the passages to the gains of query i."""

    passage_ids: list[str]
    passages: list[str]
    query_ids: list[str]
    queries: list[str]
    judged: list[dict[int, float]]


def retrieval_folders(data: Path) -> dict[str, Path]:
    """Return the sets by name: ``data`` itself, or the folders in ``data/retrieval`` or ``data``.

    Raises NotFoundError saying which files a set has.
    """
    if _is_set(data):
        return {data.resolve().name: data}
    for place in (data / "retrieval", data):
        if _is_set(place):
            return {place.name: place}
        found = sorted(path for path in place.glob("*") if _is_set(path))
        if found:
            return {path.name: path for path in found}
    raise NotFoundError(
        f"retrieval: no set in {data / 'retrieval'} or {data}. A set is a folder with corpus.jsonl (or "
        "MIRACL's docs-*.jsonl), queries.jsonl (or topics*.tsv) and a folder qrels"
    )


def _is_set(folder: Path) -> bool:
    return (folder / "qrels").is_dir() and bool(_files(folder, "corpus.jsonl*", "docs-*.jsonl*"))


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """Return the passages of a set and those of its queries that have a relevant one.

    Judgements of passages that are not in the corpus count as relevant but never found, as in trec_eval.
    Raises NotFoundError for a missing file and InvalidInputError for a line that cannot be read.
    """
    passages = dict(_passages(_files(folder, "corpus.jsonl*", "docs-*.jsonl*")))
    query_files = _files(folder, "queries.jsonl*") or _files(folder, "topics*.tsv", "topics/*.tsv")
    if not query_files:
        raise NotFoundError(f"no queries.jsonl or topics*.tsv in {folder}")
    queries = dict(_queries(query_files))
    gains = _judgements(_qrels_file(folder))
    chosen = [query for query in queries if any(gain > 0 for gain in gains.get(query, {}).values())]
    if not passages or not chosen:
        raise InvalidInputError(f"{folder} has {len(passages)} passages and {len(chosen)} judged queries")
    row = {passage: number for number, passage in enumerate(passages)}
    return RetrievalSet(
        list(passages),
        list(passages.values()),
        chosen,
        [queries[query] for query in chosen],
        [_by_row(gains[query], row) for query in chosen],
    )


def _by_row(gains: dict[str, float], row: dict[str, int]) -> dict[int, float]:
    """A passage that is not there takes a row of its own below 0."""
    return {row.get(passage, -1 - number): gain for number, (passage, gain) in enumerate(gains.items())}


def _files(folder: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _passages(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for place, record in _records(files):
        text = " ".join(str(record[key]) for key in ("title", "text") if record.get(key))
        yield _id(record, place), _visible(text, place)


def _queries(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in files:
        if ".jsonl" in path.name:
            for place, record in _records([path]):
                yield _id(record, place), _visible(str(record.get("text", record.get("query", ""))), place)
        else:
            for number, line in iterate_lines(path):
                query, tab, text = line.partition("\t")
                if not tab:
                    raise InvalidInputError(f"{path} line {number}: expected id, tab, query")
                yield query, _visible(text, f"{path} line {number}")


def _records(files: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
        for number, line in iterate_lines(path):
            place = f"{path} line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInputError(f"{place} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise InvalidInputError(f"{place} must be a JSON object, not {type(record).__name__}")
            yield place, record


def _id(record: dict[str, Any], place: str) -> str:
    name = next((name for name in _IDS if name in record), None)
    if name is None:
        raise InvalidInputError(f"{place} has no {' or '.join(_IDS)}")
    return str(record[name])


def _visible(text: str, place: str) -> str:
    if not text.strip():
        raise InvalidInputError(f"{place} has no text")
    return text


def _qrels_file(folder: Path) -> Path:
    """Return the judgements of the test split, else of dev, else the only ones."""
    files = sorted(path for path in (folder / "qrels").iterdir() if path.is_file())
    for split in _SPLITS:
        for path in files:
            if split in path.name.removesuffix(".tsv").replace("-", ".").split("."):
                return path
    if len(files) == 1:
        return files[0]
    found = ", ".join(path.name for path in files) or "nothing"
    raise NotFoundError(f"{folder / 'qrels'} has {found}; expected test.tsv or dev.tsv")


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    """Read BEIR's three columns (with a header) or TREC's four: query, 0, passage, gain."""
    gains: dict[str, dict[str, float]] = {}
    for number, line in iterate_lines(path):
        fields = line.split()
        if len(fields) not in (3, 4):
            raise InvalidInputError(
                f"{path} line {number}: {len(fields)} columns; expected 3 (BEIR) or 4 (TREC)"
            )
        try:
            gain = float(fields[-1])
        except ValueError as error:
            if number == 1:
                continue
            raise InvalidInputError(f"{path} line {number}: gain {fields[-1]!r} is not a number") from error
        gains.setdefault(fields[0], {})[fields[-2]] = gain
    return gains
