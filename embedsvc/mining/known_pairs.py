"""Pairs known to be translations, from a file."""

from __future__ import annotations

from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.mining.bitext import Bitext, BitextFields
from embedsvc.mining.outputs import output_kind
from embedsvc.textfiles import iterate_lines


def read_known_pairs(
    path: Path, source_language: str | None, target_language: str | None
) -> list[tuple[str, str]]:
    """Return the pairs of a file whose two sides are not blank.

    Of a .tsv file these are the columns src and tgt where its first line names them, else the only two.
    Raises InvalidInputError naming file and line, and for a file without a pair.
    """
    fields = BitextFields()
    if output_kind(path).format == "tsv":
        _, first = next(iterate_lines(path), (1, ""))
        columns = first.split("\t")
        if not {"src", "tgt"} <= set(columns):
            if len(columns) != 2:
                raise InvalidInputError(
                    f"{path} line 1: {len(columns)} columns; expected source and target, or a header "
                    "with the columns src and tgt",
                    param="dev",
                )
            fields = BitextFields(1, 2)
    bitext = Bitext(path, None, fields, source_language, target_language)
    pairs = [(source, target) for source, target in bitext.texts() if source.strip() and target.strip()]
    if not pairs:
        raise InvalidInputError(f"{path} has no pair", param="dev")
    return pairs
