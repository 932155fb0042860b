"""Align two documents given as text."""

from __future__ import annotations

from collections.abc import Sequence

from embedsvc.encoder import Encoder, check_texts, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.texts import encoded_blocks
from embedsvc.mining.alignment.vectors import MAX_BEAD, align_blocks, check_max_bead
from embedsvc.options import EncodeOptions


def align(
    source: Sequence[str],
    target: Sequence[str],
    *,
    encoder: Encoder | None = None,
    max_bead: int = MAX_BEAD,
) -> list[Bead]:
    """Return the beads of two documents that are translations of each other, in order.

    ``source`` and ``target`` are the sentences of each, in order.
    """
    check_max_bead(max_bead)
    for name, sentences in (("source", source), ("target", target)):
        check_texts(sentences, name=name)
        if not sentences:
            raise InvalidInputError(f"{name} has no sentences; nothing to align with", param=name)
    encoder = encoder or load_encoder()
    options = EncodeOptions(normalize=False)
    sides = [encoded_blocks(encoder, side, max_bead, options) for side in (source, target)]
    return align_blocks(sides[0], sides[1], max_bead=max_bead)
