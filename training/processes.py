"""Several processes of one run, started by torchrun: what all must know, and who writes.

Without torchrun every function is that of a single process. Batch t is drawn by all of them, each learns
from its own part of it, and the gradients are averaged: the same weights everywhere, at any number of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
from torch import distributed

_PATIENCE = timedelta(hours=12)  # for the first process: it asks the teacher, evaluates and saves
_BUCKET = 1 << 24  # numbers sent at once


def leads() -> bool:
    """Return whether this is the process that writes and speaks."""
    return not distributed.is_torchelastic_launched() or os.environ.get("RANK") == "0"


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that torchrun has started, over the GPUs ("cuda") or over sockets ("cpu")."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do the block, then the others, who find what it has written."""
    if rank() > 0:
        distributed.barrier()
    yield
    if world() > 1 and rank() == 0:
        distributed.barrier()


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process."""
    if world() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return bool(value)


@torch.no_grad()
def average(tensors: Sequence[torch.Tensor]) -> None:
    """Put the mean over the processes in the place of each tensor."""
    if world() == 1:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        distributed.all_reduce(flat)
        flat /= world()
        for tensor, mean in zip(
            bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True
        ):
            tensor.copy_(mean.view_as(tensor))


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def average_rows(
    rows: torch.Tensor, gradients: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the rows that any process has used, sorted, and the mean gradient of each.

    rows: (u,) sorted row numbers of a table, other ones in each process. gradients: (u, …) of those rows.
    """
    if world() == 1:
        return rows, gradients
    count = torch.tensor([len(rows)])
    counts = [torch.empty_like(count) for _ in range(world())]
    distributed.all_gather(counts, count)
    longest = int(torch.cat(counts).max())
    own = torch.cat([rows, rows.new_full((longest - len(rows),), -1)])
    everyone = [torch.empty_like(own) for _ in range(world())]
    distributed.all_gather(everyone, own)
    union = torch.unique(torch.cat(everyone))
    union = union[union >= 0]
    place = torch.searchsorted(union, rows)
    spread = {}
    for name, gradient in gradients.items():
        spread[name] = gradient.new_zeros((len(union), *gradient.shape[1:]))
        spread[name][place] = gradient
    average(list(spread.values()))
    return union, spread
