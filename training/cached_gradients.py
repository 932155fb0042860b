"""Large batches on small memory (GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")


def cached_gradients(
    encode: Callable[[Chunk], torch.Tensor],
    chunks: Sequence[Chunk],
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Add the gradients of ``loss`` over all chunks to the parameters; return its value, detached.

    The same gradients as of ``loss(torch.cat([encode(chunk) for chunk in chunks])).backward()``, while
    the activations of one chunk only are held. Each chunk is encoded twice, with the same random
    numbers, so that dropout leaves out the same. encode: one chunk to (its rows, dim).
    loss: (all rows, dim) to a scalar; its own parameters get their gradients too.
    """
    states: list[_RandomState] = []
    vectors: list[torch.Tensor] = []
    for chunk in chunks:
        states.append(_RandomState())
        with torch.no_grad():
            vectors.append(encode(chunk))
    leaf = torch.cat(vectors).requires_grad_()
    value = loss(leaf)
    value.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None, "the loss does not depend on the vectors"
    after = _RandomState()
    gradients = torch.split(leaf.grad, [*map(len, vectors)])
    for chunk, state, gradient in zip(chunks, states, gradients, strict=True):
        state.restore()
        torch.autograd.backward(encode(chunk), gradient)
    after.restore()
    return value.detach()


class _RandomState:
    """Torch's random numbers from here on, of the processor and of this process's GPU."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore(self) -> None:
        """Let the next random numbers be those that followed when this was made."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
