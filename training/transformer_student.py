"""Any transformer as a student: the sentence-transformers chain of a folder, taught with AdamW."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from embedsvc.errors import StorageError
from embedsvc.model_folder import read_json
from embedsvc.postprocess import finish_vectors
from embedsvc.textfiles import write_json
from training.cached_gradients import cached_gradients
from training.config import Recipe
from training.data import TokenBags
from training.losses.tokens import NOT_MASKED, TokenStates
from training.objective import HEAD_RATE
from training.padding import Template, length_parts, padded
from training.processes import average
from training.schedule_config import ScheduleConfig
from training.student import BatchInputs, BatchStates, TokenLoss, TokenShape, VectorLoss
from training.transformer_chain import Chain, modules_of

_PART_TOKENS = {"cpu": 4096, "cuda": 65_536}  # padded tokens of what is encoded at once
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Part:
    """Texts of like length: ids and mask (rows, tokens), special tokens included."""

    ids: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Parts:
    """A batch, longest texts first; text i is row ``place[i]`` of all parts' rows one after the other."""

    parts: Sequence[Part]
    place: torch.Tensor


class TransformerStudent:
    """Teaches every weight of a chain that is not frozen."""

    def __init__(self, chain: Chain, recipe: Recipe, device: torch.device) -> None:
        self._chain = chain
        self._schedule = recipe.schedule
        self._matryoshka = recipe.model.matryoshka
        self.device = device
        inputs = chain.inputs
        self._template = Template(inputs.prefix, inputs.suffix, inputs.pad)
        chain.model.to(self.device).train()
        self._modules = chain.modules
        if recipe.schedule.gradient_checkpointing:
            _enable_checkpointing(chain.transformer)
        self.weights = {n: p for n, p in chain.model.named_parameters() if p.requires_grad}
        self._length: torch.Tensor  # of the last batch's gradients
        self._adam = _adamw(self.weights, chain.new_weights, recipe.schedule)

    @property
    def dimension(self) -> int:
        return self._chain.dimension

    def prepared(self, texts: TokenBags) -> Parts:
        """Sort the texts by length and pad them in parts; ``schedule.chunk`` texts at most in each."""
        budget = _PART_TOKENS[self.device.type]
        groups = length_parts(
            texts.lengths + self._template.special_tokens, tokens=budget, rows=self._schedule.chunk
        )
        place = np.empty(len(texts), np.int64)
        place[np.concatenate(groups)] = np.arange(len(texts))
        return Parts([self._part(texts, rows) for rows in groups], torch.from_numpy(place))

    def _part(self, texts: TokenBags, rows: NDArray[np.int64]) -> Part:
        ids, mask = padded(texts, rows, self._template)
        self._chain.check_ids(ids)
        both = torch.from_numpy(ids), torch.from_numpy(mask)
        return Part(*(tensor.pin_memory() for tensor in both)) if self.device.type == "cuda" else Part(*both)

    def encode(self, part: Part) -> torch.Tensor:
        """Return (rows, dim): the vectors of the part's texts, of any norm."""
        return self._through(self._modules, part)

    def _through(self, modules: Sequence[torch.nn.Module], part: Part) -> torch.Tensor:
        vectors: torch.Tensor = self._forward(modules, part)["sentence_embedding"]
        return vectors.float()

    def _forward(self, modules: Sequence[torch.nn.Module], part: Part) -> dict[str, Any]:
        features = self._features(part)
        with self._autocast():
            for module in modules:
                features = module(features)
        return features

    def _features(self, part: Part) -> dict[str, Any]:
        return {
            "input_ids": part.ids.to(self.device, non_blocking=True),
            "attention_mask": part.mask.to(self.device, non_blocking=True),
            **self._chain.prompt_length,
        }

    def _autocast(self) -> torch.autocast:
        wanted = self._schedule.precision == "bf16" and self._chain.model.training
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    def backward(self, inputs: Parts, loss: VectorLoss) -> torch.Tensor:
        """Make the gradients of every weight; with ``schedule.chunk`` one part's activations at a time."""
        if self._schedule.chunk is not None:
            place = inputs.place.to(self.device)
            return cached_gradients(self.encode, inputs.parts, lambda rows: loss(rows[place]))
        value = loss(self._joined(self._modules, inputs))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    @property
    def tokens(self) -> TokenShape:
        """What the transformer's last states are like."""
        ids, hidden = self._vocabulary.shape
        return TokenShape(hidden, ids, self._chain.mask)

    @property
    def _vocabulary(self) -> torch.Tensor:
        weight: torch.Tensor = self._chain.transformer.get_input_embeddings().weight
        return weight

    def backward_tokens(self, inputs: BatchInputs, loss: TokenLoss) -> torch.Tensor:
        """Make the gradients of every weight, of a loss that sees the states of every token, too."""
        vectors, texts = self._with_states(inputs.texts)
        masked = None
        if inputs.masked is not None:
            _, masked = self._with_states(inputs.masked)
            assert self._chain.mask is not None, "masked texts are made with the mask token"
            shown = masked.ids.ne(self._chain.mask)
            masked = replace(masked, labels=texts.ids.masked_fill(shown, NOT_MASKED))
        value = loss(vectors, BatchStates(texts, masked, self._vocabulary))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    def _with_states(self, inputs: Parts) -> tuple[torch.Tensor, TokenStates]:
        """Return vectors (texts, dim) and token states, in the order of the texts."""
        longest = max(part.ids.shape[1] for part in inputs.parts)
        vectors, rows = [], []
        for part in inputs.parts:
            features = self._forward(self._modules, part)
            vectors.append(features["sentence_embedding"].float())
            room = longest - part.ids.shape[1]
            ids = functional.pad(part.ids, (0, room), value=self._template.pad)
            text = functional.pad(_text(part.mask, self._template), (0, room))
            states = functional.pad(features["token_embeddings"].float(), (0, 0, 0, room))
            rows.append((ids.to(self.device), text.to(self.device), states))
        place = inputs.place.to(self.device)
        joined = (torch.cat(parts)[place] for parts in zip(*rows, strict=True))
        return torch.cat(vectors)[place], TokenStates(*joined)

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of the last batch."""
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]

    def average(self) -> None:
        """Put the mean over all processes in the place of the last batch's gradients."""
        average(self.gradients())

    def finite(self) -> bool:
        """Return whether the gradients of the last batch are all numbers, and their length is one."""
        self._length = torch.nn.utils.get_total_norm(self.gradients())
        return bool(self._length.isfinite())

    def update(self, step: int, learning_rate: float) -> None:  # noqa: ARG002
        """Shorten the gradients, as long as `finite` has found them, to ``schedule.clip``; apply AdamW."""
        torch.nn.utils.clip_grads_with_norm_(self.weights.values(), self._schedule.clip, self._length)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate * group["share"]
        self._adam.step()
        self._adam.zero_grad()

    @torch.no_grad()
    def vectors(self, texts: TokenBags) -> NDArray[np.float32]:
        """Return (texts, dim) unit rows, in float32 and without dropout."""
        inputs = self.prepared(texts)
        self._chain.model.eval()
        rows = torch.cat([self.encode(part).cpu() for part in inputs.parts])
        self._chain.model.train()
        unit: NDArray[np.float32] = finish_vectors(
            rows[inputs.place].numpy(), dimensions=None, normalize=True
        )
        return unit

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights that are taught, and AdamW's moments of those that have had a gradient."""
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            for moment, value in self._adam.state.get(weight, {}).items():
                tensors[f"{moment}.{name}"] = value
        return tensors

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        for name, weight in self.weights.items():
            weight.copy_(state[f"weight.{name}"])
            moments = {m: state[f"{m}.{name}"] for m in _MOMENTS if f"{m}.{name}" in state}
            if moments:
                self._adam.state[weight] = {m: t.clone().to(weight.device) for m, t in moments.items()}

    def slow_copy(self) -> SlowChain:
        """Return a copy that follows every weight that is taught."""
        return SlowChain(copy.deepcopy(self._chain.model), self.weights, self._joined)

    def _joined(self, modules: Sequence[torch.nn.Module], inputs: Parts) -> torch.Tensor:
        """Return (texts, dim) of a batch, in the order of its texts."""
        rows = torch.cat([self._through(modules, part) for part in inputs.parts])
        return rows[inputs.place.to(self.device)]

    def write(self, folder: Path) -> None:
        """Write a sentence-transformers folder, each file replaced whole, once all are there; teaching ends.

        LoRA's adapters are merged into it, and kept in ``run/adapter``. Raises StorageError when there is
        no room; what was there before stays.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".model.", dir=folder) as work:
                self._chain.save(Path(work), folder / "run" / "adapter")
                if self._matryoshka:
                    _add_dimensions(Path(work), [*self._matryoshka, self.dimension])
                _move(Path(work), folder)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"the model cannot be written to {folder}: {error}") from error


class SlowChain:
    """Follows the weights of a chain (`training.student.SlowCopy`); nothing is dropped out of its texts."""

    def __init__(
        self,
        model: SentenceTransformer,
        student: Mapping[str, torch.Tensor],
        encode: Callable[[Sequence[torch.nn.Module], Parts], torch.Tensor],
    ) -> None:
        model.eval().requires_grad_(False)
        self._modules = modules_of(model)
        self._student = student
        self._weights = {name: weight for name, weight in model.named_parameters() if name in student}
        self._encode = encode

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Let each weight be ``momentum`` of itself and the rest the student's."""
        for name, weight in self._weights.items():
            weight.lerp_(self._student[name], 1 - momentum)

    @torch.no_grad()
    def vectors(self, inputs: Parts) -> torch.Tensor:
        """Return (texts, dim) without gradients."""
        return self._encode(self._modules, inputs)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the copy's weights."""
        return self._weights

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a saved state."""
        for name, weight in self._weights.items():
            weight.copy_(state[name])


def _text(mask: torch.Tensor, template: Template) -> torch.Tensor:
    """Return (rows, tokens) bool: what is neither padding nor one of the special tokens around a text."""
    place = torch.arange(mask.shape[1])
    end = mask.sum(dim=1, keepdim=True) - len(template.suffix)
    return (place >= len(template.prefix)) & (place < end)


def _enable_checkpointing(transformer: Any) -> None:
    """Under the name of transformers 5.24, or the one before."""
    enable = getattr(transformer, "activation_checkpointing_enable", None)
    (enable or transformer.gradient_checkpointing_enable)({"use_reentrant": False})


def _adamw(
    weights: dict[str, torch.nn.Parameter], new: set[int], schedule: ScheduleConfig
) -> torch.optim.AdamW:
    """Weight decay is for matrices: biases and norms have one axis. New weights learn faster."""
    faster = max(1.0, HEAD_RATE / schedule.learning_rate)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for weight in weights.values():
        share = faster if id(weight) in new else 1.0
        groups.setdefault((schedule.weight_decay * (weight.ndim > 1), share), []).append(weight)
    return torch.optim.AdamW(
        [{"params": of, "weight_decay": decay, "share": share} for (decay, share), of in groups.items()],
        fused=True,
    )


def _add_dimensions(folder: Path, dimensions: Sequence[int]) -> None:
    path = folder / "config_sentence_transformers.json"
    write_json(path, read_json(path) | {"matryoshka_dimensions": sorted(dimensions)})


def _move(work: Path, folder: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        path.chmod(0o666 & ~mask)  # safetensors writes files that only their owner can read
        target = folder / path.relative_to(work)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
