"""One step of learning, and what has to be saved so that a run goes on as if it had never stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsvc.errors import EmbedsvcError
from training.checkpoints import State, write_state
from training.config import Recipe
from training.gathered import gathered
from training.losses import EmbeddedPairs
from training.losses.pairs import MomentumKeys, Negatives, ScoredPassages
from training.objective import HEAD_RATE, Objective
from training.processes import average, leads, rank
from training.sampling import Batch, Batches, ScoredRows, masked
from training.schedule_config import ScheduleConfig
from training.student import BatchInputs, BatchStates, Student

_NAMED_PAIRS = 5
_MASKS = 0x3A5C  # the stream of random numbers that masks tokens


@dataclass(frozen=True)
class Learner:
    """The student and what it learns from."""

    recipe: Recipe
    student: Student[Any]
    objective: Objective

    def draw(self, batches: Batches, step: int) -> tuple[Batch, BatchInputs]:
        """Return batch number ``step`` and what the student makes of its texts."""
        batch = batches.batch(step)
        return batch, BatchInputs(self.student.prepared(batch.texts), self._masked(batch, step))

    def _masked(self, batch: Batch, step: int) -> Any:
        share, tokens = self.objective.masked, self.student.tokens
        if not share or tokens is None or tokens.mask is None:
            return None
        generator = np.random.default_rng((self.recipe.seed, step, rank(), _MASKS))
        return self.student.prepared(masked(batch.texts, share, tokens.mask, generator))

    def learn(self, batch: Batch, inputs: BatchInputs, step: int) -> dict[str, float]:
        """Learn from one batch; return its loss, and each by its kind where there are several.

        Torch's random numbers (dropout) depend on the seed of the recipe and the step alone. Raises
        EmbedsvcError, before anything is changed, when the loss or a gradient is not finite.
        """
        torch.manual_seed(step_seed(self.recipe.seed, step, rank()))
        parts: dict[str, torch.Tensor] = {}
        keys = self._momentum_keys(batch, inputs.texts)

        def loss(vectors: torch.Tensor, states: BatchStates | None = None) -> torch.Tensor:
            tokens = None if states is None else states.sides(len(batch.pairs))
            pairs = replace(self._pairs(vectors, batch, step), keys=keys, tokens=tokens)
            value, by_kind = self.objective(pairs, self._prefixes(step))
            parts.update(by_kind)
            return value

        try:
            if self.objective.sees_tokens:
                value = self.student.backward_tokens(inputs, loss)
            else:
                value = self.student.backward(inputs.texts, loss)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise self._too_large() from error
        self.student.average()
        self.objective.average()
        values = _averaged(value, parts)
        if not math.isfinite(values["loss"]):
            raise _broken(f"the loss of batch {step} is {values['loss']}", values, batch)
        if not self.student.finite():
            raise _broken(f"a gradient of batch {step} is not finite", values, batch)
        rate = learning_rate(self.recipe.schedule, step)
        self.student.update(step + 1, rate)
        self.objective.update(HEAD_RATE * rate / self.recipe.schedule.learning_rate)
        return values

    def _pairs(self, vectors: torch.Tensor, batch: Batch, step: int) -> EmbeddedPairs:
        size, device = len(batch.pairs), vectors.device
        pairs = EmbeddedPairs(
            vectors[:size],
            vectors[size : 2 * size],
            torch.from_numpy(batch.relations).to(device),
            step,
            None if batch.teacher is None else torch.from_numpy(batch.teacher).to(device),
            negatives=_negatives(vectors[2 * size :], batch),
            passages=None if batch.scored is None else _passages(vectors, batch.scored),
        )
        return gathered(pairs, batch.keys, positives=self.recipe.sampling.positives)

    def _momentum_keys(self, batch: Batch, inputs: Any) -> MomentumKeys | None:
        momentum, positives = self.objective.momentum, self.recipe.sampling.positives
        return None if momentum is None else momentum.ranked(inputs, batch.keys, positives)

    def _prefixes(self, step: int) -> list[int]:
        """The full dimension and one Matryoshka prefix in turn: as Arctic-Embed 2.0, half the cost of all."""
        sizes = sorted(self.recipe.model.matryoshka, reverse=True)
        turn, rest = divmod(step, self.recipe.model.matryoshka_every)
        return [self.student.dimension, *([sizes[turn % len(sizes)]] if sizes and not rest else [])]

    def _too_large(self) -> EmbedsvcError:
        size = self.recipe.schedule.batch
        chunk = "" if self.recipe.model.is_static else ", or a schedule.chunk of texts encoded at once"
        return EmbedsvcError(
            f"schedule.batch = {size} needs more memory than there is ({size**2 * 4 / 1e9:.1f} GB for each "
            f"matrix of scores); use a smaller batch{chunk}"
        )

    def checkpoint(self, done: int, path: Path) -> None:
        """Save everything that goes on changing, in place of the checkpoint before; the first process does.

        Raises EmbedsvcError, and leaves that one, when a value is not finite: a step too large
        shows in the loss of the next batch only; StorageError when there is no room.
        """
        state = {"model": self.student.state(), "objective": self.objective.state()}
        for tensors in state.values():
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    raise EmbedsvcError(
                        f"{name} is no longer finite after batch {done - 1}; stopped. The checkpoint before "
                        f"it is in {path.parent}; a lower learning_rate usually helps"
                    )
        if leads():
            write_state({"step": done, **state}, path)

    def restore(self, state: State | None) -> int:
        """Take over a checkpoint, if there is one; return the first step still to do."""
        if state is None:
            return 0
        self.student.restore(state["model"])
        self.objective.restore(state.get("objective", {}))
        return int(state["step"])


def _passages(vectors: torch.Tensor, scored: ScoredRows) -> ScoredPassages:
    """Put the best passage of each query before its others."""
    size = len(scored.scores)
    best, others = vectors[size : 2 * size], vectors[2 * size :].view(size, -1, vectors.shape[1])
    scores, entry = (torch.from_numpy(part).to(vectors.device) for part in (scored.scores, scored.entry))
    return ScoredPassages(torch.cat([best.unsqueeze(1), others], dim=1), scores, entry)


def _negatives(vectors: torch.Tensor, batch: Batch) -> Negatives | None:
    drawn = batch.negatives
    if drawn is None:
        return None
    forward, backward = (
        torch.from_numpy(part).to(vectors.device) for part in (drawn.forward, drawn.backward)
    )
    return Negatives(vectors[drawn.targets :], vectors[: drawn.targets], forward, backward)


def _averaged(value: torch.Tensor, parts: dict[str, torch.Tensor]) -> dict[str, float]:
    """The loss of all processes, and each by its kind where there are several."""
    named = {"loss": value}
    if len(parts) > 1:
        named |= {f"loss.{kind}": part for kind, part in parts.items()}
    numbers = torch.stack(list(named.values()))
    average([numbers])
    return dict(zip(named, numbers.tolist(), strict=True))


def _broken(what: str, values: dict[str, float], batch: Batch) -> EmbedsvcError:
    parts = ", ".join(
        f"{name.partition('.')[2]} {value:.4g}" for name, value in values.items() if "." in name
    )
    first = ", ".join(map(str, batch.pairs[:_NAMED_PAIRS].tolist()))
    return EmbedsvcError(
        f"{what}{f' ({parts})' if parts else ''}; stopped before it was learnt from. Its pairs: {first}, … "
        "of the data. The last checkpoint is kept; a lower learning_rate usually helps"
    )


def step_seed(seed: int, step: int, process: int) -> int:
    """Return 63 bits for torch's random numbers of one step: a resumed run needs no saved state."""
    return int(np.random.SeedSequence((seed, step, process)).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Linear warm-up, then linear decay to nothing."""
    warm = min(1.0, (step + 1) / max(schedule.warmup_steps, 1))
    left = (schedule.steps - step) / max(schedule.steps - schedule.warmup_steps, 1)
    return schedule.learning_rate * min(warm, left)
