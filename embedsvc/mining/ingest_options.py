"""How the files of one side are read and which of their sentences are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from embedsvc.errors import InvalidInputError
from embedsvc.mining.filters import FILTERS, SENTENCE_FILTERS, resolve_filters
from embedsvc.mining.scripts import split_tag

EncodingErrors = Literal["strict", "replace"]
KINDS = ("txt", "tsv", "jsonl", "parquet", "tmx", "xliff")
MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class ReadingOptions:
    """How files of either side are read; all values are JSON.

    filters          names of filters (`embedsvc.mining.filters`)
    encoding_errors  "strict" refuses bytes that are not UTF-8, "replace" makes them U+FFFD and counts them
    kind             one of KINDS; None goes by the file's name
    columns          the columns of a .tsv file without a header: ("id", "text"); None: its first line is one
    text_field       the column or key of the sentence
    id_field         that of its id; None takes "id" where there is one
    document_field   that of its document; None takes "document" where there is one
    min_characters, max_characters   the limits of the filters "short" and "long"; a wide character (Chinese,
                     Japanese, Korean) counts as three
    max_line_bytes   a longer line is an error
    """

    filters: tuple[str, ...] = FILTERS
    encoding_errors: EncodingErrors = "strict"
    kind: str | None = None
    columns: tuple[str, ...] | None = None
    text_field: str = "text"
    id_field: str | None = None
    document_field: str | None = None
    min_characters: int = 5
    max_characters: int = 1000
    max_line_bytes: int = MAX_LINE_BYTES


@dataclass(frozen=True)
class IngestOptions(ReadingOptions):
    """The options of `ingest`: how files are read, and the language that the sentences should be in.

    None checks neither language nor script; a file of several languages (TMX, XLIFF) needs it.
    """

    language: str | None = None


def checked_options(options: IngestOptions) -> IngestOptions:
    """Return the options with one spelling of language and filters, of these those of single sentences.

    Raises InvalidInputError for a bad value.
    """
    for name, known in (("encoding_errors", get_args(EncodingErrors)), ("kind", (None, *KINDS))):
        if getattr(options, name) not in known:
            raise InvalidInputError(
                f"{name} {getattr(options, name)!r} is unknown; choose {', '.join(filter(None, known))}",
                param=name,
            )
    for name, least in (("min_characters", 0), ("max_characters", 1), ("max_line_bytes", 1)):
        if getattr(options, name) < least:
            raise InvalidInputError(
                f"{name} = {getattr(options, name)}; it must be at least {least}", param=name
            )
    if options.min_characters > options.max_characters:
        raise InvalidInputError(
            f"min_characters = {options.min_characters} is more than "
            f"max_characters = {options.max_characters}",
            param="min_characters",
        )
    if options.columns is not None and options.text_field not in options.columns:
        raise InvalidInputError(
            f"columns {', '.join(options.columns)} do not have the text field {options.text_field!r}",
            param="columns",
        )
    filters = tuple(name for name in resolve_filters(options.filters) if name in SENTENCE_FILTERS)
    return replace(options, language=_tag(options.language), filters=filters)


def _tag(language: str | None) -> str | None:
    if language is None:
        return None
    base, script = split_tag(language)
    return f"{base}-{script}" if script else base
