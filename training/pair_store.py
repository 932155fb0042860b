"""The pairs of a run on disk, in the order of the files, so that they need not fit in memory.

english.*               the distinct first texts: English, or the source of pairs without English
other.*                 a text per pair
<side>.texts, .ends     the texts (`training.text_store`)
<side>.keys             `text_keys` of each
english.characters      how long each is
group                   (pairs,) row of english
group_keys              (pairs,) equal for pairs that mean the same
languages               (pairs,) index into the manifest's languages
manifest.json           what it was made of, and counts; written last: without one the rest is unfinished
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedsvc.errors import InvalidInputError
from embedsvc.mining.bitext import Bitext
from embedsvc.mining.sentence_keys import ABSENT, KeyTable, sentence_keys
from embedsvc.textfiles import write_json
from training.arrays import ArrayWriter, mapped_array
from training.data import text_keys
from training.data_config import DataConfig
from training.groups import joined_groups
from training.pair_files import PairFile
from training.pair_filtering import PairFilter, length_factors
from training.pair_readers import TextPair, is_english, read_pairs
from training.text_store import TextStore, TextWriter

_BATCH = 8_192  # pairs at once
_MANIFEST = "manifest.json"
_MOST_LANGUAGES = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class TextPairs:
    """All pairs as text. ``english[group[i]]`` and ``other[i]`` translate each other.

    ``english`` holds what comes first in a pair: the English text, or the source of a pair without one.
    ``languages`` are codes of the other text, with the source's before it where that is not English: "de-fr".
    ``report`` says how many pairs each file had and what the filters dropped.
    """

    english: TextStore
    other: TextStore
    english_key: NDArray[np.int64]  # (english,) equal for texts that differ in case, spaces and the like only
    characters: NDArray[np.int32]  # (english,)
    group: NDArray[np.int32]  # (pairs,) index into english
    group_key: NDArray[np.int64]  # (pairs,) equal for pairs that mean the same
    other_key: NDArray[np.int64]  # (pairs,) equal for the same other text
    language: NDArray[np.int16]  # (pairs,) index into languages
    languages: list[str]
    report: dict[str, Any]
    fingerprint: str  # of what the pairs were made of


def stored_pairs(
    files: Sequence[PairFile],
    config: DataConfig,
    facts: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    progress: bool = False,
) -> TextPairs:
    """Return the pairs of the files; read them into ``folder`` unless an earlier call has finished that.

    facts: name, size and sha256 of every file; other facts or another ``config`` are read anew.
    Raises InvalidInputError naming file and line of the first bad pair, and a language without pairs.
    """
    made_of = {"files": [*facts], "data": config.model_dump(mode="json")}
    if (manifest := _manifest(folder)) is None or manifest["made_of"] != made_of:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        manifest = {"made_of": made_of, **_read(files, config, folder, progress)}
        manifest["report"]["files"] = made_of["files"]
        write_json(folder / _MANIFEST, manifest)
    return _opened(folder, manifest)


def _manifest(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads((folder / _MANIFEST).read_bytes())
        return found if isinstance(found, dict) and "made_of" in found else None
    return None


def _opened(folder: Path, manifest: Mapping[str, Any]) -> TextPairs:
    return TextPairs(
        TextStore(folder, "english"),
        TextStore(folder, "other"),
        mapped_array(folder / "english.keys.npy"),
        mapped_array(folder / "english.characters.npy"),
        mapped_array(folder / "group.npy"),
        mapped_array(folder / "group_keys.npy"),
        mapped_array(folder / "other.keys.npy"),
        mapped_array(folder / "languages.npy"),
        manifest["languages"],
        manifest["report"],
        sha256(json.dumps(manifest["made_of"]).encode()).hexdigest(),
    )


def _read(files: Sequence[PairFile], config: DataConfig, folder: Path, progress: bool) -> dict[str, Any]:
    factors = {}
    if "ratio" in config.filters:
        factors = length_factors(pairs for file in files for pairs in _wanted(file, config, Counter()))
    filters = PairFilter(config, factors)
    report: dict[str, Any] = {"read": [], "filters": {}}
    bar = tqdm(desc="read", unit="pair", unit_scale=True, disable=not progress)
    with bar, _PairWriter(folder) as writer:
        for file in files:
            report["read"].append(_read_file(file, config, filters, writer, bar))
        _check(files, config, writer)
        writer.finish()
    report["filters"] = filters.report()
    report["without_english"] = writer.without_english()
    return {"languages": [*writer.codes], "report": report}


def _read_file(
    file: PairFile, config: DataConfig, filters: PairFilter, writer: _PairWriter, bar: tqdm[Any]
) -> dict[str, Any]:
    """Write the pairs of a file that are kept; return how many it has, and of which none was made."""
    skipped: Counter[str] = Counter()
    read, before = 0, len(writer)
    place = f"{file.path} {Bitext(file.path, file.target_path).unit}"
    for pairs in _wanted(file, config, skipped):
        read += len(pairs)
        writer.append(filters.kept(place, pairs))
        bar.update(len(pairs))
    left_out = {reason: count for reason, count in skipped.items() if count}
    return {"name": file.path.name, "pairs": read, "kept": len(writer) - before, "left_out": left_out}


def _wanted(file: PairFile, config: DataConfig, skipped: Counter[str]) -> Iterator[list[TextPair]]:
    """Yield the pairs in the languages wanted, some thousand at a time; count the others."""
    pairs = read_pairs(file, skipped=skipped)
    if config.languages is not None:
        pairs = _of_languages(pairs, set(config.languages), skipped)
    while batch := [*islice(pairs, _BATCH)]:
        yield batch


def _of_languages(pairs: Iterator[TextPair], wanted: set[str], skipped: Counter[str]) -> Iterator[TextPair]:
    for pair in pairs:
        if _in_languages(pair, wanted):
            yield pair
        else:
            skipped["language not in data.languages"] += 1


def _in_languages(pair: TextPair, wanted: set[str]) -> bool:
    return pair.target_language in wanted and (
        pair.source_language in wanted or is_english(pair.source_language)
    )


def _check(files: Sequence[PairFile], config: DataConfig, writer: _PairWriter) -> None:
    if missing := sorted(set(config.languages or ()) - writer.seen):
        raise InvalidInputError(f"data.languages: no pairs of {', '.join(map(repr, missing))} in the data")
    if not len(writer):
        raise InvalidInputError(f"no pairs in {', '.join(str(file.path) for file in files)}")
    if len(writer.codes) > _MOST_LANGUAGES:
        raise InvalidInputError(f"{len(writer.codes)} languages and pairs of them; {_MOST_LANGUAGES} at most")


class _PairWriter(contextlib.ExitStack):
    """Writes pairs as they come; of the first texts each once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._english, self._other = (
            self.enter_context(TextWriter(folder, side)) for side in ("english", "other")
        )
        names = {
            "english.keys": np.int64,
            "english.characters": np.int32,
            "other.keys": np.int64,
            "group": np.int32,
            "languages": np.int16,
            "named_groups": np.int64,
        }
        self._arrays = {
            name: self.enter_context(ArrayWriter(folder / f"{name}.npy", dtype))
            for name, dtype in names.items()
        }
        self._rows = KeyTable()
        self.codes: dict[str, int] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._foreign: set[str] = set()
        self.seen: set[str] = set()  # languages other than English, and English as a target

    def __len__(self) -> int:
        return len(self._other)

    def append(self, pairs: Sequence[TextPair]) -> None:
        """Write pairs behind those there are."""
        targets = [pair.target for pair in pairs]
        self._other.append([text.encode() for text in targets])
        values = {
            "other.keys": text_keys(targets),
            "group": self._english_rows(pairs),
            "languages": self._codes_of(pairs),
            "named_groups": np.array(
                [0 if pair.group is None else _named(pair.group) for pair in pairs], np.int64
            ),
        }
        for name, array in values.items():
            self._arrays[name].append(array)

    def _codes_of(self, pairs: Sequence[TextPair]) -> NDArray[np.int64]:
        languages = [pair[3:5] for pair in pairs]
        codes = {both: self._code(both) for both in dict.fromkeys(languages)}
        return np.array([codes[both] for both in languages], np.int64)

    def _code(self, languages: tuple[str, str]) -> int:
        known = self._numbers.get(languages)
        if known is None:
            english = is_english(languages[0])
            self.seen.update(languages[english:])
            code = languages[1] if english else "-".join(languages)
            self._foreign.update([] if english else [code])
            known = self._numbers[languages] = self.codes.setdefault(code, len(self.codes))
        return known

    def without_english(self) -> dict[str, int]:
        """Return how many pairs have no English text, by their languages."""
        counts = np.bincount(mapped_array(self._folder / "languages.npy"), minlength=len(self.codes))
        return {code: int(counts[self.codes[code]]) for code in sorted(self._foreign)}

    def _english_rows(self, pairs: Sequence[TextPair]) -> NDArray[np.int64]:
        """Return the row of each first text; write those that are new."""
        distinct: dict[str, int] = {}
        places, place, before, language = [], 0, None, None
        for pair in pairs:
            if pair.source is not before or pair.source_language != language:  # else: of the pair before
                before, language = pair.source, pair.source_language
                place = distinct.setdefault(_identity(pair), len(distinct))
            places.append(place)
        keys = sentence_keys(text.encode() for text in distinct)
        rows = self._rows.find(keys)
        new = rows == ABSENT
        rows[new] = len(self._english) + np.arange(new.sum())
        self._rows.add(keys[new], rows[new])
        texts = [
            text.partition("\0")[2] for text, is_new in zip(distinct, new.tolist(), strict=True) if is_new
        ]
        self._english.append([text.encode() for text in texts])
        self._arrays["english.keys"].append(text_keys(texts))
        self._arrays["english.characters"].append(np.fromiter(map(len, texts), np.int64, len(texts)))
        return rows[places]

    def finish(self) -> None:
        """Bring all to the disk and find out which pairs mean the same."""
        self._english.finish()
        self._other.finish()
        for array in self._arrays.values():
            array.finish()
        key, group, named = (
            mapped_array(self._folder / f"{name}.npy") for name in ("english.keys", "group", "named_groups")
        )
        with ArrayWriter(self._folder / "group_keys.npy", np.int64) as joined:
            joined.append(joined_groups(key[group], named))
            joined.finish()
        (self._folder / "named_groups.npy").unlink()


def _identity(pair: TextPair) -> str:
    """What first texts that are one have in common."""
    return f"{'' if is_english(pair.source_language) else pair.source_language}\0{pair.source}"


def _named(group: str) -> int:
    """A key of the group that a file names, never 0."""
    return (int.from_bytes(blake2b(group.encode(), digest_size=8).digest(), "little") >> 1) or 1
