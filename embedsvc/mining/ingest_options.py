"""How the files of one side are read and which of their sentences are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from embedsvc.errors import InvalidInputError
from embedsvc.languages import normalize_language
from embedsvc.mining.filters import resolve_filters

EncodingErrors = Literal["strict", "replace"]
MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class IngestOptions:
    """The options of `ingest`; all of them are JSON values.

    language         what the sentences should be in; None checks neither language nor script
    filters          names of sentence filters (`embedsvc.mining.filters`)
    encoding_errors  "strict" refuses bytes that are not UTF-8, "replace" makes them U+FFFD and counts them
    kind             "txt", "tsv", "jsonl", "parquet", "tmx" or "xliff"; None goes by the file's name
    columns          the columns of a .tsv file without a header: ("id", "text"); None: its first line is one
    text_field       the column or key of the sentence
    id_field         that of its id; None takes "id" where there is one
    document_field   that of its document; None takes "document" where there is one
    min_characters, max_characters   the limits of the filters "short" and "long"; a wide character (Chinese,
                     Japanese, Korean) counts as three
    max_line_bytes   a longer line is an error
    """

    language: str | None = None
    filters: tuple[str, ...] = ()
    encoding_errors: EncodingErrors = "strict"
    kind: str | None = None
    columns: tuple[str, ...] | None = None
    text_field: str = "text"
    id_field: str | None = None
    document_field: str | None = None
    min_characters: int = 1
    max_characters: int = 1000
    max_line_bytes: int = MAX_LINE_BYTES


def checked_options(options: IngestOptions) -> IngestOptions:
    """Return the options with one spelling of language and filters; raise InvalidInputError for a bad one."""
    if options.encoding_errors not in get_args(EncodingErrors):
        raise InvalidInputError(
            f"encoding_errors {options.encoding_errors!r} is unknown; choose strict, replace",
            param="encoding_errors",
        )
    language = None if options.language is None else normalize_language(options.language)
    return replace(options, language=language, filters=resolve_filters(options.filters))
