"""A file of pairs, or the two files of a Moses pair, read as often as needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from embedsvc.errors import InvalidInputError
from embedsvc.mining.outputs.kinds import OutputFormat, output_kind
from embedsvc.mining.records import Record
from embedsvc.mining.tmx import read_tmx_pairs
from embedsvc.mining.xliff import read_xliff_pairs, read_xliff_translations
from embedsvc.parquet_rows import parquet_rows
from embedsvc.rows import json_rows, table_rows
from embedsvc.textfiles import iterate_lines

Row = dict[str, Any]
_NO_HEADER = "For a file without a header give the numbers of the columns"
_HEADER_WORDS = {"src", "tgt", "source", "target"}


@dataclass(frozen=True)
class BitextFields:
    """The columns of the two sides: names, or for TSV numbers from 1.

    ``header``: whether the first line of a TSV file names the columns. None: it does, unless the sides are
    given by number, and then a first line that looks like one is refused rather than guessed about.
    """

    source: str | int = "src"
    target: str | int = "tgt"
    header: bool | None = None


@dataclass(frozen=True)
class Bitext:
    """Where pairs are: one file, by its suffix (.tsv, .jsonl, .parquet, .tmx, .xlf), or two files of lines.

    The languages say which two of a TMX or XLIFF file are meant; without them those of an XLIFF file's own
    source and target are.
    """

    path: Path
    target_path: Path | None = None
    fields: BitextFields = BitextFields()
    source_language: str | None = None
    target_language: str | None = None

    @property
    def kind(self) -> OutputFormat:
        """The format of the file."""
        return "moses" if self.target_path is not None else output_kind(self.path).format

    @property
    def unit(self) -> str:
        """What the numbers of `rows` count."""
        return {"parquet": "row", "tmx": "unit", "xliff": "unit"}.get(self.kind, "line")

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield the number from 1 and the values of every pair; units and lines have names of `COLUMNS`.

        Raises InvalidInputError for a damaged file, naming the line, and for a field that is not there.
        """
        if self.target_path is not None:
            return _line_rows(self.path, self.target_path)
        if self.kind == "tsv":
            names, lines = self.names, iterate_lines(self.path)
            if self.has_header:
                next(lines, None)
            return table_rows(self.path, lines, names)
        if self.kind == "jsonl":
            return json_rows(self.path, iterate_lines(self.path))
        if self.kind == "parquet":
            return parquet_rows(self.path, None)
        return self._unit_rows()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield source and target of every pair; "" for none."""
        source, target = self.side_names
        for number, row in self.rows():
            yield self.text(row, source, number), self.text(row, target, number)

    def text(self, row: Row, name: str, number: int) -> str:
        """Return the text of a field, "" for none; raise InvalidInputError naming the row's number."""
        where = f"{self.path} {self.unit} {number}"
        if name not in row:
            there = ", ".join(map(repr, row)) or "none"
            raise InvalidInputError(f"{where}: {name!r} is missing; its fields are {there}")
        text = row[name]
        if text is not None and not isinstance(text, str):
            raise InvalidInputError(f"{where}: {name!r} is {type(text).__name__}, not a text")
        return text or ""

    @property
    def side_names(self) -> tuple[str, str]:
        """The names that the two sides have in `rows`."""
        if self.kind in ("moses", "tmx", "xliff"):
            return "src", "tgt"
        if self.kind == "tsv":
            return self._column(self.fields.source), self._column(self.fields.target)
        for field in (self.fields.source, self.fields.target):
            if isinstance(field, int):
                raise InvalidInputError(f"{self.path}: column numbers are for .tsv files; name the fields")
        return str(self.fields.source), str(self.fields.target)

    @property
    def has_header(self) -> bool:
        """Whether the first line of a TSV file names its columns."""
        by_number = isinstance(self.fields.source, int)
        return not by_number if self.fields.header is None else self.fields.header

    @property
    def names(self) -> list[str]:
        """The names of the columns of a TSV file; without a header "1", "2" and so on."""
        first = next(iterate_lines(self.path), None)
        if first is None:
            raise InvalidInputError(f"{self.path} is empty")
        cells = first[1].split("\t")
        if self.has_header:
            self._check_header(cells)
            return cells
        numbers = [str(number) for number in range(1, len(cells) + 1)]
        if self.fields.header is None:
            self._refuse_header(dict(zip(numbers, cells, strict=True)))
        return numbers

    def _check_header(self, cells: list[str]) -> None:
        for name in cells:
            if not name or cells.count(name) > 1:
                raise InvalidInputError(
                    f"{self.path} line 1: column name {name!r} is empty or there twice. {_NO_HEADER}"
                )

    def _refuse_header(self, first: Row) -> None:
        cells = {str(first.get(str(field))).lower() for field in (self.fields.source, self.fields.target)}
        if cells <= _HEADER_WORDS:
            raise InvalidInputError(
                f"{self.path} line 1 looks like a header ({', '.join(sorted(cells))}); say whether it is one",
                param="header",
            )

    def _column(self, field: str | int) -> str:
        names = self.names
        if isinstance(field, int):
            if not 1 <= field <= len(names):
                raise InvalidInputError(f"{self.path} has no column {field}; its lines have {len(names)}")
            return names[field - 1]
        if field not in names:
            raise InvalidInputError(
                f"{self.path} line 1: no column is named {field!r}; they are {', '.join(map(repr, names))}. "
                + _NO_HEADER
            )
        return field

    def _unit_rows(self) -> Iterator[tuple[int, Row]]:
        for source, target in self._units():
            yield source.line, _columns_of(source, target, self.path, self.path)

    def _units(self) -> Iterator[tuple[Record, Record]]:
        source, target = self.source_language, self.target_language
        if source is not None and target is not None:
            read = read_tmx_pairs if self.kind == "tmx" else read_xliff_pairs
            return read(self.path, source, target)
        if self.kind == "xliff" and source is target is None:
            return read_xliff_translations(self.path)
        raise InvalidInputError(
            f"{self.path} may hold many languages; say which are those of source and target",
            param="tgt_lang" if source else "src_lang",
        )


def _line_rows(source: Path, target: Path) -> Iterator[tuple[int, Row]]:
    lines = zip_longest(iterate_lines(source), iterate_lines(target))
    for count, (left, right) in enumerate(lines):
        if left is None or right is None:
            short, long = (source, target) if left is None else (target, source)
            raise InvalidInputError(
                f"{short} has {count} lines and {long} more; line n of one must be the translation of line n "
                "of the other"
            )
        yield left[0], _columns_of(Record(*left), Record(*right), source, target)


def _columns_of(source: Record, target: Record, source_file: Path, target_file: Path) -> Row:
    row: Row = {}
    for side, record, file in (("src", source, source_file), ("tgt", target, target_file)):
        row[side] = record.text
        row[f"{side}_id"] = record.id or str(record.line - 1)
        row[f"{side}_line"], row[f"{side}_document"] = record.line, record.document
        row[f"{side}_file"] = file.name
    return row
