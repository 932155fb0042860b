"""What a recipe says about its data: which files, how they are read, which pairs are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from embedsvc.errors import InvalidInputError
from embedsvc.mining.filters import FILTERS, resolve_filters
from training.section import Positive, Section

EMPTY, DUPLICATE, NEAR_DUPLICATE = "empty", "duplicate", "near_duplicate"
DATA_FILTERS = (EMPTY, *FILTERS, DUPLICATE, NEAR_DUPLICATE)
"""In the order in which they are tried. All but these three are those of mining (`embedsvc.mining.filters`):

    empty           a side is blank; without this filter that is an error
    duplicate       the pair was read before: equal but for white space and Unicode composition
    near_duplicate  equal but for case, white space and punctuation
"""


class PairFields(Section):
    """Names of the columns of a table or the keys of an object (``translation.de`` of nested ones).

    Of a TSV file without a header they are numbers from 1. What is None is read where the file has it, as
    ``src_lang``, ``tgt_lang`` and ``group``.
    """

    source: str | int = "src"
    target: str | int = "tgt"
    source_language: str | int | None = None
    target_language: str | int | None = None
    group: str | int | None = None  # texts of one group mean the same


class PairFiles(Section):
    """Files of pairs, all of one kind: .tsv, .jsonl, .parquet, .tmx, .xlf, or lines with ``target_files``.

    ``files`` alone, a string in the place of the section, is enough for files that say their languages.
    """

    files: str  # a pattern, relative to ``--data`` or to the data set
    target_files: str | None = None  # Moses: line n of these translates line n of ``files``
    dataset: str | None = None  # a folder, or the id of a data set on the hub
    revision: str | None = None  # of the data set on the hub
    source_language: str | None = None  # where a file does not say it: English
    target_language: str | None = None
    fields: PairFields = PairFields()
    header: bool | None = None  # whether line 1 of a TSV file names its columns; absent: unless numbers do

    @model_validator(mode="after")
    def _fits(self) -> PairFiles:
        if self.revision is not None and self.dataset is None:
            raise ValueError("revision is that of a data set on the hub: give dataset")
        return self


def added_language(text: str, folder: Path) -> dict[str, Any]:
    """Return the section of ``xx=FILE``, or of ``xx=FILE,FILE`` for two files of lines, English first.

    Files are relative to ``folder``. Raises InvalidInputError for anything else.
    """
    code, equals, names = text.partition("=")
    files = names.split(",")
    if not (code and equals and all(files)) or len(files) > 2:
        raise InvalidInputError(
            f"--add-language {text!r}: expected xx=FILE, or xx=FILE,FILE for lines of English and of xx",
            param="add_language",
        )
    paths = [str((folder / Path(name).expanduser()).resolve()) for name in files]
    sides = dict(zip(("files", "target_files"), paths, strict=False))
    return {**sides, "target_language": code}


class DataConfig(Section):
    """What to read. A pattern is relative to ``--data`` or, without it, to the recipe's folder.

    Two crops of an unlabelled text are a pair; a file is in the language that its name begins with.
    """

    pairs: list[PairFiles] = Field(default_factory=list)
    texts: list[str] = Field(default_factory=list)  # unlabelled ones
    lists: list[str] = Field(default_factory=list)  # queries with scored passages: training/scored_lists.py
    negatives: str | None = None  # a file of `embedsvc negatives`, relative as a pattern is
    languages: list[str] | None = None  # only pairs in these languages and English; all when absent
    lexicon: PairFiles | None = None  # for sampling.code_switching; the data's own one-word pairs when absent
    filters: list[str] = Field(default_factory=list)  # of DATA_FILTERS; "default" is all of mining's
    min_characters: int = Field(default=5, ge=0)  # of the filter "short"
    max_characters: Positive = 1000  # of the filter "long"
    max_tokens: Positive = 128  # longer texts are cut, and counted in the data report
    held_out_groups: Positive = 2000  # English sentences kept aside, with all their translations

    @model_validator(mode="after")
    def _one_kind(self) -> DataConfig:
        if sum(map(bool, (self.pairs, self.texts, self.lists))) != 1:
            raise ValueError("give pairs, texts or lists: the patterns of the files to read")
        return self

    @field_validator("pairs", mode="before")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"files": item} if isinstance(item, str) else item for item in value]

    @field_validator("lexicon", mode="before")
    @classmethod
    def _pattern(cls, value: Any) -> Any:
        return {"files": value} if isinstance(value, str) else value

    @field_validator("filters")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        own = [name for name in names if name in (EMPTY, DUPLICATE, NEAR_DUPLICATE)]
        others = [name for name in names if name not in own]
        try:
            of_mining = resolve_filters(others) if others else ()
        except InvalidInputError as error:
            raise ValueError(f"unknown filter; choose among default, {', '.join(DATA_FILTERS)}") from error
        return [name for name in DATA_FILTERS if name in (*own, *of_mining)]
