"""Pairs from files, one at a time, with what each file says of languages and groups.

The readers are those of mining; of training's own is the table ``English <TAB> language <TAB> other``, in
which an empty first column repeats the English of the line before: translations of one sentence together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from embedsvc.errors import InvalidInputError
from embedsvc.mining.bitext import Bitext, BitextFields
from embedsvc.mining.outputs import output_kind
from embedsvc.mining.tmx import tmx_units
from embedsvc.mining.translation_units import TranslationUnit, base_language
from embedsvc.mining.xliff import xliff_units
from embedsvc.rows import Rows
from embedsvc.textfiles import iterate_lines
from embedsvc.tokens import check_unicode
from training.pair_files import PairFile

ENGLISH = "en"
_GROUPED = ["source", "language", "target"]
_UNITS = {"tmx": tmx_units, "xliff": xliff_units}
_LANGUAGE_FIELDS = {"source": "src_lang", "target": "tgt_lang"}


class TextPair(NamedTuple):
    """Two texts that translate each other. A text may be blank, which is not the reader's business.

    ``line`` is the number of the line, row or unit, from 1. ``group`` is equal for pairs that mean the
    same, None where the file says nothing of it. If a side is English it is the source.
    """

    line: int
    source: str
    target: str
    source_language: str
    target_language: str
    group: str | None = None


@lru_cache(maxsize=4096)
def is_english(code: str) -> bool:
    """Say whether a code of a file means English, in whatever script or region."""
    return base_language(code) == ENGLISH


def read_pairs(file: PairFile, *, skipped: Counter[str]) -> Iterator[TextPair]:
    """Yield the pairs of a file in order; count in ``skipped`` the units of a file of units that hold none.

    Raises InvalidInputError naming file, line and value: a damaged file, a column or key that is not there,
    a language that nothing says, a file of units without any pair.
    """
    kind = "moses" if file.target_path is not None else output_kind(file.path).format
    if kind == "moses" and file.target_path is None:
        raise InvalidInputError(f"{file.path}: name both files of a Moses pair: files and target_files")
    if kind in _UNITS:
        return map(_english_first, _unit_pairs(file, _UNITS[kind](file.path), skipped))
    if kind == "tsv" and _is_grouped(file, _first_cells(file)):
        return _grouped_pairs(file)
    return map(_english_first, _row_pairs(file, _bitext(file, kind)))


def _english_first(pair: TextPair) -> TextPair:
    line, source, target, source_language, target_language, group = pair
    if is_english(target_language) and not is_english(source_language):
        return TextPair(line, target, source, target_language, source_language, group)
    return pair


def _first_cells(file: PairFile) -> list[str]:
    return next((line.split("\t") for _, line in iterate_lines(file.path)), [])


def _names_columns(file: PairFile, cells: list[str]) -> bool:
    """Whether the first line of a TSV file is a header: said so, or the names of both sides are there."""
    fields, header = file.reading.fields, file.reading.header
    named = {fields.source, fields.target} <= set(cells) or fields != type(fields)()
    return named and not isinstance(fields.source, int) if header is None else header


def _is_grouped(file: PairFile, cells: list[str]) -> bool:
    by_number = isinstance(file.reading.fields.source, int)
    return len(cells) == len(_GROUPED) and not by_number and not _names_columns(file, cells)


def _grouped_pairs(file: PairFile) -> Iterator[TextPair]:
    previous, english = "", file.reading.source_language or ENGLISH
    for number, line in iterate_lines(file.path):  # without `table_rows`: an object for each takes a sixth
        cells = line.split("\t")
        if len(cells) != len(_GROUPED):
            raise InvalidInputError(
                f"{file.path} line {number}: {len(cells)} columns; expected are {len(_GROUPED)}"
            )
        source, language, target = cells
        previous = source or previous
        if not language:
            raise InvalidInputError(f"{file.path} line {number}: the language is empty")
        yield TextPair(number, previous, target, english, language)


def _bitext(file: PairFile, kind: str) -> Bitext:
    reading, fields = file.reading, file.reading.fields
    columns = BitextFields(fields.source, fields.target, reading.header)
    if kind == "tsv" and not isinstance(fields.source, int):
        cells = _first_cells(file)
        if not _names_columns(file, cells):
            if len(cells) != 2:
                raise InvalidInputError(
                    f"{file.path} line 1: {len(cells)} columns; expected are source and target, or English, "
                    "language and other, or a header with src and tgt. Others are named in fields, by the "
                    f"header's names or by number: {chr(9).join(cells)[:80]!r}"
                )
            columns = BitextFields(1, 2, reading.header)
    return Bitext(file.path, file.target_path, columns)


def _row_pairs(file: PairFile, bitext: Bitext) -> Iterator[TextPair]:
    source, target = bitext.side_names
    row_facts = _RowFacts(file, bitext)
    check = check_unicode if bitext.kind == "jsonl" else None  # in JSON, half a surrogate pair can be written
    for number, row in _flat_rows(bitext, (source, target, *row_facts.names)):
        texts = bitext.text(row, source, number), bitext.text(row, target, number)
        for text, name in zip(texts, (source, target), strict=True):
            if check is not None:
                check(text, f"{bitext.path} line {number}: {name!r}")
        yield TextPair(
            number,
            *texts,
            row_facts.language(row, number, "source"),
            row_facts.language(row, number, "target"),
            row_facts.group(row, number),
        )


class _RowFacts:
    """What a row says of itself besides its texts, and the recipe where the row says nothing."""

    def __init__(self, file: PairFile, bitext: Bitext) -> None:
        reading, self._bitext, self._entry = file.reading, bitext, file.entry
        self._given = {"source": reading.source_language or ENGLISH, "target": reading.target_language}
        self._fields = {
            "source": self._field(reading.fields.source_language),
            "target": self._field(reading.fields.target_language),
            "group": self._field(reading.fields.group),
        }
        self.names = [name for name in self._fields.values() if name is not None]

    def _field(self, field: str | int | None) -> str | None:
        return None if field is None else str(field)

    def language(self, row: Mapping[str, Any], number: int, side: str) -> str:
        """Return the language of a side: the row's, else the recipe's."""
        named = self._fields[side]
        if named is None and self._given[side] is not None and _LANGUAGE_FIELDS[side] not in row:
            return str(self._given[side])
        if named is None and _LANGUAGE_FIELDS[side] not in row:
            raise InvalidInputError(
                f"{self._where(number)}: nothing says the language of the {side}; give {side}_language with "
                f"the files, or a field {_LANGUAGE_FIELDS[side]!r}"
            )
        code = self._bitext.text(dict(row), named or _LANGUAGE_FIELDS[side], number)
        if not code:
            raise InvalidInputError(f"{self._where(number)}: the language of the {side} is empty")
        return code

    def group(self, row: Mapping[str, Any], number: int) -> str | None:
        """Return the group, apart from those of other sections of the recipe."""
        name = self._fields["group"] or "group"
        if name not in row and self._fields["group"] is None:
            return None
        value = row.get(name)
        if value is None or value == "" or isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidInputError(
                f"{self._where(number)}: the group {name!r} is {value!r}; expected a text or a whole number"
            )
        return f"{self._entry}\t{value}"

    def _where(self, number: int) -> str:
        return f"{self._bitext.path} {self._bitext.unit} {number}"


def _flat_rows(bitext: Bitext, names: Iterable[str]) -> Rows:
    """Yield the rows, their objects taken apart where a name asks for a part: ``translation.de``."""
    nested = {name.partition(".")[0] for name in names if "." in name}
    for number, row in bitext.rows():
        for outer in nested & row.keys():
            if isinstance(row[outer], Mapping):
                row |= {f"{outer}.{inner}": value for inner, value in row[outer].items()}
        yield number, row


def _unit_pairs(
    file: PairFile, units: Iterable[TranslationUnit], skipped: Counter[str]
) -> Iterator[TextPair]:
    """Yield one variant of each unit with all that are in other languages; the unit is their group."""
    seen: Counter[str] = Counter()
    count = 0
    for unit in units:
        pairs = list(_pairs_of_unit(file, unit))
        seen.update({base_language(variant.language) for variant in unit.variants})
        skipped["unit without a pair"] += not pairs
        count += len(pairs)
        yield from pairs
    if not count:
        raise InvalidInputError(_no_pair(file, seen))


def _pairs_of_unit(file: PairFile, unit: TranslationUnit) -> Iterator[TextPair]:
    texts = [(base_language(variant.language), variant.text) for variant in unit.variants]
    source = _source_variant(texts, file.reading.source_language)
    wanted = file.reading.target_language and base_language(file.reading.target_language)
    group = f"{file.entry}\t{file.path.name}\t{unit.number}"
    for language, text in texts:
        if source is not None and language != source[0] and wanted in (None, language):
            yield TextPair(unit.number, source[1], text, source[0], language, group)


def _source_variant(texts: list[tuple[str, str]], language: str | None) -> tuple[str, str] | None:
    """The variant in the language asked for; without one the English, or else the first."""
    wanted = base_language(language) if language else ENGLISH
    found = next((variant for variant in texts if variant[0] == wanted), None)
    return found if found or language else next(iter(texts), None)


def _no_pair(file: PairFile, seen: Counter[str]) -> str:
    there = ", ".join(f"{code!r} ({count})" for code, count in sorted(seen.items())) or "none"
    asked = [code for code in (file.reading.source_language, file.reading.target_language) if code]
    wanted = f"of {' and '.join(map(repr, asked))}" if asked else "of two languages"
    return f"{file.path}: no unit has a pair {wanted}; the languages there, with how many units: {there}"
