"""Negatives of all processes: each ranks its own texts against everybody's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import distributed

from training.losses.pairs import Candidates, EmbeddedPairs, Negatives
from training.relations import PairKeys, Positives, relation_matrix


def gathered(pairs: EmbeddedPairs, keys: PairKeys, *, positives: Positives = "own") -> EmbeddedPairs:
    """Return the pairs with the texts of every process as candidates; without a process group, as they are.

    The mean of every process's loss is that of one process with the whole batch, and so are the
    gradients once they are averaged (DistributedDataParallel does it). Each process has to have a
    batch of the same size.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return pairs
    everyone, first = _gathered_keys(keys, pairs.source.device), distributed.get_rank() * len(keys.source)
    forward = relation_matrix(keys, everyone, positives=positives, offset=first)
    backward = relation_matrix(everyone, keys, positives=positives, offset=-first).T
    others = Candidates(
        source=_Gather.apply(pairs.source),  # type: ignore[no-untyped-call]
        target=_Gather.apply(pairs.target),  # type: ignore[no-untyped-call]
        forward=torch.from_numpy(forward).to(pairs.source.device),
        backward=torch.from_numpy(backward).to(pairs.source.device),
        teacher=None if pairs.teacher is None else _gathered(pairs.teacher),
    )
    return replace(pairs, others=others, negatives=pairs.negatives and _gathered_negatives(pairs.negatives))


def _gathered_negatives(own: Negatives) -> Negatives:
    """Return the negatives of all processes, of which this one has encoded its share."""
    target, source = own.forward.shape[1], own.backward.shape[1]
    return replace(own, target=_all(own.target, target), source=_all(own.source, source))


def _all(share: torch.Tensor, rows: int) -> torch.Tensor:
    size = -(-rows // distributed.get_world_size())
    filled = torch.cat([share, share.new_zeros(size - len(share), share.shape[1])])
    gathered: torch.Tensor = _Gather.apply(filled)  # type: ignore[no-untyped-call]
    return gathered[:rows]


class _Gather(torch.autograd.Function):
    """The rows of all processes; the gradient of the own ones is the sum of all processes'."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(own)
        return _gathered(own)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank() * ctx.rows :][: ctx.rows]


def _gathered_keys(keys: PairKeys, device: torch.device) -> PairKeys:
    own = torch.stack([torch.from_numpy(part) for part in (keys.source, keys.target, keys.group)]).to(device)
    return PairKeys(*_gathered(own, dim=1).cpu().numpy())


def _gathered(own: torch.Tensor, dim: int = 0) -> torch.Tensor:
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own.detach().contiguous())
    return torch.cat(parts, dim=dim)
