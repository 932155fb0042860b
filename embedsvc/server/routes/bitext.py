"""POST /v1/bitext/mine: translation pairs from two lists of sentences."""

from __future__ import annotations

from fastapi import APIRouter

from embedsvc.mining.mine import mine
from embedsvc.server.errors import BodyTooLargeError
from embedsvc.server.schemas import MineRequest, MineResponse, PairBody
from embedsvc.server.state import StateDep

router = APIRouter(prefix="/v1/bitext", tags=["bitext"])


@router.post("/mine")
async def mine_pairs(request: MineRequest, state: StateDep) -> MineResponse:
    """Find the pairs that are probably translations, best first."""
    limit = state.settings.max_mine_sentences
    for name, sentences in (("source", request.source), ("target", request.target)):
        if len(sentences) > limit:
            raise BodyTooLargeError(
                f"{name} has {len(sentences)} sentences; max_mine_sentences = {limit}; "
                "for larger files: embedsvc mine",
                param=name,
            )
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
