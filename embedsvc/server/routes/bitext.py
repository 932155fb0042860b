"""POST /v1/bitext: /mine finds translation pairs, /score scores given ones, /align aligns two documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastapi import APIRouter

from embedsvc.mining.alignment.align import AlignOptions, align_sentences, sentences_of
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.mine import mine
from embedsvc.mining.score import score_pairs
from embedsvc.server.errors import BodyTooLargeError
from embedsvc.server.schemas import (
    AlignRequest,
    AlignResponse,
    BeadBody,
    MineRequest,
    MineResponse,
    PairBody,
    ScoredPair,
    ScoreRequest,
    ScoreResponse,
)
from embedsvc.server.state import ServerState, StateDep

router = APIRouter(prefix="/v1/bitext", tags=["bitext"])


@router.post("/mine")
async def mine_pairs(request: MineRequest, state: StateDep) -> MineResponse:
    """Find the pairs that are probably translations, best first."""
    _check_size(request.source, request.target, state, "embedsvc mine")
    pairs = await state.mining.run(
        mine,
        request.source,
        request.target,
        encoder=state.encoder,
        margin=request.margin,
        k=request.k,
        retrieval=request.retrieval,
        threshold=request.threshold,
        progress=False,
    )
    return MineResponse(
        pairs=[
            PairBody.model_construct(
                score=pair.score,
                source_row=pair.source_row,
                target_row=pair.target_row,
                source=pair.source,
                target=pair.target,
            )
            for pair in pairs
        ]
    )


@router.post("/score")
async def score_given_pairs(request: ScoreRequest, state: StateDep) -> ScoreResponse:
    """Score the pairs source[i], target[i]: the margin of each among all of them and the pools."""
    _check_size(request.source, request.target, state, "embedsvc score")
    _check_size(request.source_pool, request.target_pool, state, "embedsvc score", suffix="_pool")
    found = await state.mining.run(
        score_pairs,
        request.source,
        request.target,
        encoder=state.encoder,
        margin=request.margin,
        k=request.k,
        source_pool=request.source_pool,
        target_pool=request.target_pool,
        progress=False,
    )
    values = zip(found.scores.tolist(), found.cosines.tolist(), strict=True)
    return ScoreResponse(
        pairs=[
            ScoredPair.model_construct(score=_number(score), cosine=_number(cosine))
            for score, cosine in values
        ]
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


@router.post("/align")
async def align_documents(request: AlignRequest, state: StateDep) -> AlignResponse:
    """Align the sentences of two documents that are translations of each other, in order."""
    beads = await state.mining.run(_beads, request, state)
    return AlignResponse(
        beads=[
            BeadBody.model_construct(
                source=list(bead.source),
                target=list(bead.target),
                score=bead.score,
                cosine=bead.cosine,
                source_text=bead.source_text,
                target_text=bead.target_text,
            )
            for bead in beads
        ]
    )


def _beads(request: AlignRequest, state: ServerState) -> list[Bead]:
    """Split the texts that are no lists yet and align."""
    source = sentences_of(request.source, request.source_language, "source")
    target = sentences_of(request.target, request.target_language, "target")
    _check_size(source, target, state, "embedsvc align")
    options = AlignOptions(max_bead=request.max_bead, block_vectors=request.block_vectors)
    return align_sentences(source, target, state.encoder, options)


def _check_size(
    source: Sequence[str], target: Sequence[str], state: ServerState, command: str, *, suffix: str = ""
) -> None:
    limit = state.settings.max_mine_sentences
    for name, sentences in ((f"source{suffix}", source), (f"target{suffix}", target)):
        if len(sentences) > limit:
            raise BodyTooLargeError(
                f"{name} has {len(sentences)} sentences; max_mine_sentences = {limit}; "
                f"for larger files: {command}",
                param=name,
            )
