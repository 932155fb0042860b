"""Files of documents: aligned where they are translations of each other, and the rest mined as sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.align import AlignOptions
from embedsvc.mining.documents import MinedDocuments, TextDocument, mine_documents, read_documents
from embedsvc.mining.ingest import NoSentenceError
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import OutputInfo, read_pairs, write_pairs
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.records import Origin, Pair, PairSide, Record
from embedsvc.mining.sides import MiningInputs
from embedsvc.mining.work_folder import remove
from embedsvc.textfiles import atomic_write

ALIGNED = "alignment"
"""What aligned pairs have for a margin: their score is the cosine above that of random sentences."""

_OF_SENTENCES = ("kind", "columns", "text_field", "id_field", "document_field")

MineRest = Callable[[MiningInputs, Path, MiningOptions], dict[str, Any]]
"""Mine files of sentences into a file and return the manifest."""


@dataclass(frozen=True, eq=False)
class DocumentFiles:
    """The documents of both sides and the files that they stand in."""

    paths: tuple[Path, Path]
    documents: tuple[list[TextDocument], list[TextDocument]]


def read_document_files(inputs: MiningInputs, options: MiningOptions) -> DocumentFiles:
    """Read the two files; raise InvalidInputError for anything but one .jsonl file per side.

    Options that say how files of sentences are read are refused too.
    """
    if inputs.source_vectors is not None or inputs.target_vectors is not None:
        raise InvalidInputError("documents are texts: vectors cannot be given for them", param="docs")
    if len(inputs.source) != 1 or len(inputs.target) != 1:
        raise InvalidInputError("give one file of documents per side", param="docs")
    for name in _OF_SENTENCES:
        if getattr(options, name) != getattr(MiningOptions, name):
            raise InvalidInputError(
                f"{name} is for files of sentences: documents have the keys id, text or sentences, language",
                param=name,
            )
    source, target = inputs.source[0], inputs.target[0]
    documents = read_documents(source, options.src_lang), read_documents(target, options.tgt_lang)
    return DocumentFiles((source, target), documents)


def mine_document_files(
    files: DocumentFiles,
    out: Path,
    folder: Path,
    options: MiningOptions,
    encoder: Encoder,
    mine_rest: MineRest,
    dev: Path | None,
    report: Report,
) -> tuple[int, dict[str, Any]]:
    """Write the aligned pairs, document by document, then the pairs mined from what is left, best first.

    Returns how many there are and what the manifest says of documents and rest.
    """
    source, target = files.documents
    report(Step("align documents", 0, 1, "collections"))
    found = mine_documents(source, target, encoder, _align_options(options))
    report(Step("align documents", 1, 1, "collections"))
    facts: dict[str, Any] = {"documents": _document_facts(found, source, target), "rest": None}
    facts["rest_without_sentences"] = None
    left = found.source_left, found.target_left
    rest: Iterator[Pair] = iter(())
    if left[0] and left[1]:
        paths = folder / "source-left.jsonl", folder / "target-left.jsonl"
        for path, records in zip(paths, left, strict=True):
            _write_left(path, records, folder / "rest")
        sentences = replace(options, docs=False, kind="jsonl", text_field="text")
        inputs = MiningInputs([paths[0]], [paths[1]], dev=dev)
        try:
            facts["rest"] = mine_rest(inputs, folder / "rest.jsonl", sentences)
            rest = _restored(read_pairs(folder / "rest.jsonl"), left, files.paths)
        except NoSentenceError as error:  # what is aligned is a result all the same
            facts["rest_without_sentences"] = error.message
    aligned = (_aligned(pair, files.paths) for pair in found.pairs)
    return write_pairs(out, chain(aligned, rest), OutputInfo(options.src_lang, options.tgt_lang)), facts


def _align_options(options: MiningOptions) -> AlignOptions:
    return AlignOptions(
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        dimensions=options.dimensions,
        truncate=options.truncate,
    )


def _document_facts(
    found: MinedDocuments, source: Sequence[TextDocument], target: Sequence[TextDocument]
) -> dict[str, Any]:
    return {
        "source": len(source),
        "target": len(target),
        "pairs": [
            {
                "source": source[pair.source].id,
                "target": target[pair.target].id,
                "score": round(pair.score, 6),
                "agreement": round(pair.agreement, 6),
            }
            for pair in found.document_pairs
        ],
        "aligned": len(found.pairs),
        "source_left": len(found.source_left),
        "target_left": len(found.target_left),
    }


def _write_left(path: Path, records: Sequence[Record], made_of_it: Path) -> None:
    """Write what is left; remove what was made of an earlier file, unless lines only came after its own."""
    earlier = path.read_bytes() if path.exists() else b""
    rows = ({"id": record.id, "text": record.text, "document": record.document} for record in records)
    content = b"".join((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
    if not content.startswith(earlier):
        remove(made_of_it)  # first: killed in between, the next run sees the difference again
    with atomic_write(path) as file:
        file.write(content)


def _aligned(pair: Pair, paths: tuple[Path, Path]) -> Pair:
    return replace(
        pair,
        margin=ALIGNED,
        source=replace(pair.source, file=paths[0].name),
        target=replace(pair.target, file=paths[1].name),
    )


def _restored(
    pairs: Iterator[Pair], left: tuple[list[Record], list[Record]], paths: tuple[Path, Path]
) -> Iterator[Pair]:
    """Yield the pairs with the places in the files of documents instead of those in the files left."""
    for pair in pairs:
        yield replace(
            pair,
            source=_place(pair.source, left[0], paths[0].name),
            target=_place(pair.target, left[1], paths[1].name),
        )


def _place(side: PairSide, left: Sequence[Record], file: str) -> PairSide:
    origins = tuple(
        Origin(file, left[origin.line - 1].line, origin.id, origin.document) for origin in side.origins
    )
    return replace(side, file=file, line=origins[0].line, origins=origins)
