"""A slow copy of the student and a queue of its vectors (MoCo, https://arxiv.org/abs/1911.05722)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed

from training.loss_config import MomentumRankingConfig
from training.losses.pairs import MomentumKeys
from training.processes import rank
from training.relations import IGNORED, PairKeys, Positives, relation_matrix
from training.student import SlowCopy

_EMPTY = -1  # the key of a place that no vector has taken yet; keys of texts are not negative


class MomentumQueue:
    """The copy's vectors of the targets of this batch and of earlier ones; the oldest make room."""

    def __init__(self, copy: SlowCopy, config: MomentumRankingConfig, vectors: torch.Tensor) -> None:
        """``vectors`` (config.queue, dim): the queue's places, on the device of the copy."""
        self._copy = copy
        self._momentum = config.momentum
        self._vectors = vectors
        self._keys = torch.full((3, len(vectors)), _EMPTY, dtype=torch.int64)
        self._place = torch.zeros((), dtype=torch.int64)
        self._new: tuple[torch.Tensor, torch.Tensor] | None = None

    def ranked(self, inputs: Any, keys: PairKeys, positives: Positives) -> MomentumKeys:
        """Let the copy follow, and return its vectors of all processes' targets, then the queue's.

        inputs: the 2B texts that the student prepared, sources first. A text of the queue that means the
        same as a source is no negative of it.
        """
        self._copy.follow(self._momentum)
        size = len(keys.source)
        targets = _of_everyone(self._copy.vectors(inputs)[size : 2 * size])
        own = torch.from_numpy(np.stack([keys.source, keys.target, keys.group]))
        everyone = _of_everyone(own.T.to(targets.device)).T.cpu()
        self._new = targets, everyone
        columns = torch.cat([everyone, self._keys], dim=1)
        others = PairKeys(*columns.numpy())
        relations = relation_matrix(keys, others, positives=positives, offset=rank() * size)
        relations[:, columns[0].numpy() == _EMPTY] = IGNORED
        return MomentumKeys(
            torch.cat([targets, self._vectors]), torch.from_numpy(relations).to(targets.device)
        )

    def update(self) -> None:
        """Put the vectors of the last batch, of all processes, into the queue."""
        assert self._new is not None, "update() follows ranked()"
        places = len(self._vectors)
        vectors, keys = self._new[0][-places:], self._new[1][:, -places:]
        taken = (self._place + torch.arange(len(vectors))) % places
        self._vectors[taken.to(self._vectors.device)] = vectors
        self._keys[:, taken] = keys
        self._place = (self._place + len(vectors)) % places
        self._new = None

    def state(self) -> dict[str, torch.Tensor]:
        """Return the copy and the queue."""
        copy = {f"copy.{name}": tensor for name, tensor in self._copy.state().items()}
        return {**copy, "vectors": self._vectors, "keys": self._keys, "place": self._place}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        self._copy.restore(
            {name.removeprefix("copy."): state[name] for name in state if name.startswith("copy.")}
        )
        self._vectors.copy_(state["vectors"])
        self._keys.copy_(state["keys"])
        self._place.copy_(state["place"])


def _of_everyone(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes, in the order of their ranks; the own ones where there is one."""
    if not distributed.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
