"""Align two documents given as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedsvc.encoder import Encoder, check_texts, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.document import document_of_text, joined
from embedsvc.mining.alignment.texts import (
    BLOCK_VECTORS,
    BlockVectors,
    TextSide,
    doubtful_blocks,
    encoded_side,
    every_block,
    read_blocks,
)
from embedsvc.mining.alignment.vectors import MAX_BEAD, align_blocks, check_max_bead
from embedsvc.options import EncodeOptions
from embedsvc.tokens import Truncate, check_unicode


@dataclass(frozen=True)
class AlignOptions:
    """How documents are aligned; each field is explained at `align`."""

    max_bead: int = MAX_BEAD
    block_vectors: BlockVectors = "auto"
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    truncate: Truncate = "none"


def align(
    source: str | Sequence[str],
    target: str | Sequence[str],
    *,
    encoder: Encoder | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    max_bead: int = MAX_BEAD,
    block_vectors: BlockVectors = "auto",
    prompt_name: str | None = None,
    prompt: str | None = None,
    dimensions: int | None = None,
    truncate: Truncate = "none",
) -> list[Bead]:
    """Return the beads of two documents that are translations of each other, in order.

    A document is the list of its sentences, or a text that is split into them (by the rules of its
    language, detected when not given). Every sentence is in exactly one bead, alone when nothing on the
    other side corresponds. One side of a bead has at most ``max_bead`` sentences, both at most one more.
    block_vectors says what stands for several sentences: "mean" of their vectors, weighted by tokens;
    "exact", the vector of the joined text, everywhere; "auto", exact where the means leave doubt (a static
    model's means are exact). The other options are those of `Encoder.encode`.
    Time and memory are linear in the number of sentences.
    Raises InvalidInputError naming the side and the sentence, and for a side without sentences.
    """
    options = AlignOptions(max_bead, block_vectors, prompt_name, prompt, dimensions, truncate)
    sides = sentences_of(source, source_language, "source"), sentences_of(target, target_language, "target")
    return align_sentences(*sides, encoder or load_encoder(), options)


def align_sentences(
    source: Sequence[str], target: Sequence[str], encoder: Encoder, options: AlignOptions
) -> list[Bead]:
    """As `align`, for lists of sentences."""
    check_max_bead(options.max_bead)
    if options.block_vectors not in BLOCK_VECTORS:
        known = ", ".join(BLOCK_VECTORS)
        raise InvalidInputError(
            f"block_vectors {options.block_vectors!r} is unknown; choose {known}", param="block_vectors"
        )
    sides = [
        encoded_document(side, name, encoder, options)
        for name, side in (("source", source), ("target", target))
    ]
    return align_encoded(sides[0], sides[1], encoder, options)


def align_encoded(source: TextSide, target: TextSide, encoder: Encoder, options: AlignOptions) -> list[Bead]:
    """As `align`, for documents from `encoded_document` with the same encoder and options."""
    return [
        replace(
            bead,
            source_text=joined(source.sentences[i] for i in bead.source),
            target_text=joined(target.sentences[j] for j in bead.target),
        )
        for bead in _aligned(source, target, encoder, options)
    ]


def _aligned(source: TextSide, target: TextSide, encoder: Encoder, options: AlignOptions) -> list[Bead]:
    means = source.blocks, target.blocks
    encode = replace(_encode_options(options), truncate="end")
    if options.block_vectors == "exact":
        blocks = [read_blocks(encoder, side, every_block(side), encode) for side in (source, target)]
        return align_blocks(*blocks, max_bead=options.max_bead)
    beads = align_blocks(*means, max_bead=options.max_bead)
    if options.block_vectors == "mean" or encoder.runtime.name == "static":
        return beads
    read = (
        read_blocks(encoder, source, doubtful_blocks(beads, source, "source"), encode),
        read_blocks(encoder, target, doubtful_blocks(beads, target, "target"), encode),
    )
    return align_blocks(*read, max_bead=options.max_bead)


def sentences_of(document: str | Sequence[str], language: str | None, name: str) -> Sequence[str]:
    """Return the sentences of a document given as a text or as their list."""
    if not isinstance(document, str):
        return document
    check_unicode(document, name, param=name)
    return document_of_text(document, language).sentences


def encoded_document(
    sentences: Sequence[str], name: str, encoder: Encoder, options: AlignOptions
) -> TextSide:
    """Return a document with its vectors. Raises InvalidInputError naming it and the sentence."""
    check_texts(sentences, name=name)
    if not sentences:
        raise InvalidInputError(f"{name} has no sentence; both documents need one", param=name)
    try:
        return encoded_side(encoder, sentences, options.max_bead, _encode_options(options))
    except InvalidInputError as error:
        message = re.sub(r"\binput\[", f"{name}[", error.message)
        raise type(error)(message, param=error.param) from error


def _encode_options(options: AlignOptions) -> EncodeOptions:
    return EncodeOptions(
        prompt_name=options.prompt_name,
        prompt=options.prompt,
        dimensions=options.dimensions,
        truncate=options.truncate,
        normalize=False,
    )
