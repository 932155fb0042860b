"""Cloned languages as token ids: language k says word w as id ``k * WORDS + w``. Losses learn them in 0.2 s.

A mean of token vectors is all the student there is, so that a loss is tested and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.loss_config import LossConfig
from training.losses import EmbeddedPairs
from training.losses.heads import places
from training.losses.tokens import NOT_MASKED, TokenStates
from training.objective import Aids, Objective
from training.relations import PairKeys, Positives, relation_matrix

WORDS, DIMENSION = 120, 32
_PLACE = 0.1  # how much of a token's state is where it stands
Sentences = list[NDArray[np.int64]]
Change = Callable[[EmbeddedPairs], EmbeddedPairs]
TokensOf = Callable[[EmbeddedPairs, torch.Tensor, Sentences], EmbeddedPairs]


def unchanged(pairs: EmbeddedPairs) -> EmbeddedPairs:
    return pairs


@dataclass(frozen=True)
class Lesson:
    """How a table is taught. Each sentence is paired in every (source, target) of ``languages``."""

    losses: Sequence[LossConfig]
    steps: int = 100
    rate: float = 0.05
    head_rate: float = 0.0025
    sentences: int = 64
    languages: Sequence[tuple[int, int]] = ((0, 1),)
    positives: Positives = "own"
    groups_known: bool = True
    prefixes: Sequence[int] = (DIMENSION,)
    teacher: Callable[[Sentences], torch.Tensor] | None = None
    learnt_projection: int | None = None
    change: Change = unchanged
    heads: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    tokens: TokensOf | None = None  # what the pairs get besides vectors


def taught(lesson: Lesson) -> torch.Tensor:
    """Return the table (ids, DIMENSION) after the lesson."""
    generator = torch.Generator().manual_seed(1)
    ids = WORDS * (1 + max(max(pair) for pair in lesson.languages)) + 2  # padding and mask at the end
    table = (torch.randn(ids, DIMENSION, generator=generator) / DIMENSION**0.5).requires_grad_()
    projection = (DIMENSION, lesson.learnt_projection) if lesson.learnt_projection else None
    objective = Objective(lesson.losses, projection=projection, aids=Aids(lesson.heads))
    adam = torch.optim.Adam([table], lr=lesson.rate)
    draws = np.random.default_rng(2)
    for step in range(lesson.steps):
        drawn = sentences(lesson.sentences, draws)
        pairs = replace(_pairs(lesson, table, drawn), step=step)
        if lesson.tokens is not None:
            pairs = lesson.tokens(pairs, table, drawn)
        adam.zero_grad()
        objective(lesson.change(pairs), lesson.prefixes)[0].backward()
        adam.step()
        objective.update(lesson.head_rate)
    return table.detach()


def _pairs(lesson: Lesson, table: torch.Tensor, drawn: Sentences) -> EmbeddedPairs:
    rows = np.arange(len(drawn) * len(lesson.languages))
    group = rows % len(drawn) if lesson.groups_known else rows
    keys = PairKeys(source=rows, target=rows + len(rows), group=group)
    return EmbeddedPairs(
        torch.cat([vectors(table, drawn, source) for source, _ in lesson.languages]),
        torch.cat([vectors(table, drawn, target) for _, target in lesson.languages]),
        torch.from_numpy(relation_matrix(keys, keys, positives=lesson.positives)),
        teacher=None if lesson.teacher is None else lesson.teacher(drawn),
    )


def sentences(number: int, generator: np.random.Generator) -> Sentences:
    return [generator.integers(0, WORDS, size=generator.integers(3, 7)) for _ in range(number)]


def vectors(table: torch.Tensor, drawn: Sentences, language: int) -> torch.Tensor:
    starts = torch.tensor(np.cumsum([0, *map(len, drawn)])[:-1])
    ids = torch.from_numpy(np.concatenate(drawn) + language * WORDS)
    return functional.embedding_bag(ids, table, starts, mode="mean")


def retrieval(table: torch.Tensor, source: int = 0, target: int = 1, *, size: int = DIMENSION) -> float:
    """Return the percentage of 400 new sentences whose nearest is their translation, both ways averaged."""
    new = [*{tuple(sorted(one)): one for one in sentences(400, np.random.default_rng(9))}.values()]
    x = functional.normalize(vectors(table, new, source)[:, :size], dim=1)
    y = functional.normalize(vectors(table, new, target)[:, :size], dim=1)
    own, cosine = torch.arange(len(new)), x @ y.T
    right = (cosine.argmax(1) == own).double().mean() + (cosine.argmax(0) == own).double().mean()
    return 50 * right.item()


def english_teacher(dimension: int) -> Callable[[Sentences], torch.Tensor]:
    """A teacher that knows the words of language 0: the mean of fixed random vectors, made unit."""
    words = torch.randn(WORDS, dimension, generator=torch.Generator().manual_seed(7))
    return lambda drawn: functional.normalize(torch.stack([words[one].mean(0) for one in drawn]), dim=1)


def token_states(
    table: torch.Tensor, drawn: Sentences, languages: Sequence[int], *, hidden: float = 0.0
) -> TokenStates:
    """Return the sentences in each language; states are rows of the table and places; a share is masked."""
    padding, mask = len(table) - 2, len(table) - 1
    texts = [torch.from_numpy(one) + language * WORDS for language in languages for one in drawn]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=padding)
    text = ids != padding
    chosen = text & (torch.rand(ids.shape) < hidden)
    shown = ids.masked_fill(chosen, mask)
    labels = ids.masked_fill(~chosen, NOT_MASKED) if hidden else None
    states = table[shown] + _PLACE * places(ids.shape[1], table.shape[1])
    return TokenStates(shown, text, states, labels)


def mixed_states(table: torch.Tensor, draws: np.random.Generator, *, hidden: float) -> TokenStates:
    """Return 64 texts about four things each, every word in either of two languages; a share is masked.

    The state of a token is its row of the table and the mean of those that its text shows.
    """
    texts = [draws.choice(WORDS, 4, replace=False)[draws.integers(0, 4, size=12)] for _ in range(64)]
    ids = torch.from_numpy(np.stack(texts) + WORDS * draws.integers(0, 2, size=(64, 12)))
    chosen = torch.rand(ids.shape) < hidden
    shown = ids.masked_fill(chosen, len(table) - 1)
    rows, seen = table[shown], (~chosen).float().unsqueeze(2)
    context = (rows * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
    labels = ids.masked_fill(~chosen, NOT_MASKED)
    return TokenStates(shown, torch.ones_like(chosen), rows + context, labels)
