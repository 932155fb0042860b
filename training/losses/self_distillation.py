"""Self-distillation between dense, sparse and multi-vector scores (BGE-M3, https://arxiv.org/abs/2402.03216)."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.loss_config import SelfDistillationConfig
from training.losses.heads import MultiFunctionHead
from training.losses.pairs import EmbeddedPairs
from training.losses.tokens import TokenStates
from training.losses.translation_ranking import unit
from training.relations import IGNORED, NEGATIVE, POSITIVE


def self_distillation(pairs: EmbeddedPairs, config: SelfDistillationConfig) -> torch.Tensor:
    """Return BGE-M3's loss of ranking the targets for each source by three scores and by their sum.

    ``(rank(dense) + rank(sum) + w rank(sparse) + rank(multi)) / 4``; once the three learn from their sum,
    half of that and half of ``(teach(dense) + w teach(sparse) + teach(multi)) / 3``, with the cross
    entropy to the softmax of the sum, which gets no gradient, for ``teach``.
    """
    head = pairs.head("self_distillation", MultiFunctionHead)
    sides = pairs.token_sides
    dense = unit(pairs.source) @ unit(pairs.target).T
    sparse = sparse_scores(head, sides.source, sides.target)
    multi = multi_vector_scores(head, sides.source, sides.target)
    total = dense + config.sparse_weight * sparse + multi
    scores = [config.scale * one for one in (dense, sparse, multi, total)]
    ranked = [_ranked(one, pairs.relations) for one in scores]
    small = config.sparse_loss_weight
    ranking = (ranked[0] + ranked[3] + small * ranked[1] + ranked[2]) / 4
    if pairs.step < config.after_step:
        return ranking
    left_out = pairs.relations == IGNORED
    target = scores[3].detach().masked_fill(left_out, _never(scores[3])).softmax(dim=1)
    taught = [_cross_entropy(target, one, left_out) for one in scores[:3]]
    return (ranking + (taught[0] + small * taught[1] + taught[2]) / 3) / 2


def _ranked(scores: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
    """As `training.losses.ranking.ranking`, of scores that are no products of vectors."""
    negatives = scores.masked_fill(relations != NEGATIVE, _never(scores)).logsumexp(dim=1)
    text, column = (relations == POSITIVE).nonzero(as_tuple=True)
    count = torch.bincount(text, minlength=len(scores))
    each = functional.softplus(negatives[text] - scores[text, column])
    return (each / count[text]).sum() / (count > 0).sum().clamp(min=1)


def sparse_scores(head: MultiFunctionHead, rows: TokenStates, columns: TokenStates) -> torch.Tensor:
    """Return (rows, columns): the products of the weights of common tokens, added up.

    A token's weight in a text is the largest of its places, at least 0.
    """
    tokens, places = torch.unique(torch.cat([rows.ids.flatten(), columns.ids.flatten()]), return_inverse=True)
    in_rows, in_columns = places.split([rows.ids.numel(), columns.ids.numel()])
    x = _token_weights(head, rows, in_rows, len(tokens))
    return x @ _token_weights(head, columns, in_columns, len(tokens)).T


def _token_weights(
    head: MultiFunctionHead, side: TokenStates, places: torch.Tensor, tokens: int
) -> torch.Tensor:
    weights = functional.relu(head.sparse(side.states).squeeze(2)) * side.text
    none = weights.new_zeros(len(weights), tokens)
    return none.scatter_reduce(1, places.view_as(side.ids), weights, "amax")


def multi_vector_scores(head: MultiFunctionHead, rows: TokenStates, columns: TokenStates) -> torch.Tensor:
    """Return (rows, columns): for each token of a row its largest cosine in the column, averaged (MaxSim)."""
    x, y = (functional.normalize(head.multi_vector(side.states), dim=2) for side in (rows, columns))
    cosine = torch.einsum("aih,bjh->aibj", x, y).masked_fill(~columns.text, -1.0)
    best = cosine.amax(dim=3) * rows.text.unsqueeze(2)
    return best.sum(dim=1) / rows.text.sum(dim=1, keepdim=True).clamp(min=1)


def _cross_entropy(target: torch.Tensor, scores: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    logs = scores.masked_fill(left_out, _never(scores)).log_softmax(dim=1)
    return -(target * logs.masked_fill(left_out, 0.0)).sum(dim=1).mean()


def _never(scores: torch.Tensor) -> float:
    return torch.finfo(scores.dtype).min / 2
