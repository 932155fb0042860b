"""What the losses of a recipe need beside the student, made for that student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import atomic_write
from training.config import Recipe
from training.loss_config import (
    CrossUnmaskingConfig,
    LossConfig,
    MaskedTokensConfig,
    RepresentationTranslationConfig,
    SelfDistillationConfig,
)
from training.losses.heads import (
    HeadShape,
    MultiFunctionHead,
    TokenGuess,
    TranslationHead,
    UnmaskingHead,
)
from training.momentum import MomentumQueue
from training.objective import Aids
from training.student import Student, TokenShape


def needed_aids(recipe: Recipe, student: Student[Any]) -> Aids:
    """Return the aids that the recipe's losses need; heads start the same for the same seed.

    Raises InvalidInputError where the student cannot give what they need.
    """
    heads: dict[str, torch.nn.Module] = {}
    for loss in recipe.objective:
        if loss.needs.tokens:
            torch.manual_seed(recipe.seed)
            heads[loss.kind] = _head(loss, _token_shape(loss, student), student.dimension).to(student.device)
    wanted = [loss.needs.momentum for loss in recipe.objective if loss.needs.momentum]
    if not wanted:
        return Aids(heads)
    places = torch.zeros(wanted[0].queue, student.dimension, device=student.device)
    return Aids(heads, MomentumQueue(student.slow_copy(), wanted[0], places))


def _token_shape(loss: LossConfig, student: Student[Any]) -> TokenShape:
    tokens = student.tokens
    if tokens is None or (loss.needs.masked and tokens.mask is None):
        lacking = "token states" if tokens is None else "a mask token in its tokenizer"
        raise InvalidInputError(f"loss {loss.kind!r} needs {lacking}; the student has none")
    return tokens


def _head(loss: LossConfig, tokens: TokenShape, dimension: int) -> torch.nn.Module:
    hidden, vocabulary = tokens.hidden, tokens.vocabulary
    if isinstance(loss, MaskedTokensConfig):
        return TokenGuess(hidden, vocabulary)
    if isinstance(loss, SelfDistillationConfig):
        return MultiFunctionHead(hidden, loss.multi_vector_dimension or hidden)
    assert isinstance(loss, CrossUnmaskingConfig | RepresentationTranslationConfig)
    if hidden % loss.heads:
        raise InvalidInputError(
            f"loss {loss.kind!r}: heads = {loss.heads} must divide the student's width of {hidden}"
        )
    shape = HeadShape(hidden, dimension, vocabulary, loss.layers, loss.heads)
    return UnmaskingHead(shape) if isinstance(loss, CrossUnmaskingConfig) else TranslationHead(shape)


def write_heads(aids: Aids, folder: Path) -> None:
    """Write what serves beside the dense vectors, as BGE-M3's folder has it.

    ``sparse_linear.pt`` and ``colbert_linear.pt`` are the state of a linear layer each, over the token
    states. sentence-transformers and this server pass them over.
    """
    for head in aids.heads.values():
        if isinstance(head, MultiFunctionHead):
            parts = {"sparse_linear": head.sparse, "colbert_linear": head.multi_vector}
            for name, layer in parts.items():
                state = {key: tensor.cpu() for key, tensor in layer.state_dict().items()}
                with atomic_write(folder / f"{name}.pt") as file:
                    torch.save(state, file)
