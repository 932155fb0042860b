"""What a recipe says about the steps of a run. No torch: a recipe is checked without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.section import Positive, Section

_TRANSFORMER_ONLY = {"device", "chunk", "weight_decay", "clip", "gradient_checkpointing"}


class ScheduleConfig(Section):
    """How many steps, how large, and how often the run is looked at and kept."""

    steps: Positive
    batch: Annotated[int, Field(gt=1)] = 2048  # pairs of one step, of all processes together
    learning_rate: float = Field(default=0.01, gt=0.0)  # a transformer has to be given one
    warmup_steps: int = Field(default=500, ge=0)
    checkpoint_every: Positive = 1000
    keep_checkpoints: Positive = 1  # the last so many, of which `embedsvc export --checkpoints` is the mean
    evaluate_every: Positive = 1000
    log_every: Positive = 50
    threads: Positive | None = None  # torch's own choice when absent
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: autocast; weights and loss stay in float32
    # The rest is for transformers (`transformer_keys`); a static table trains on the processor.
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the GPU if there is one
    chunk: Positive | None = None  # texts encoded at once (cached gradients); the whole batch when absent
    weight_decay: float = Field(default=0.01, ge=0.0)  # not of biases and norms
    clip: float = Field(default=1.0, gt=0.0)  # longest gradient, all weights together
    gradient_checkpointing: bool = False  # less memory, a third more work

    def transformer_keys(self) -> list[str]:
        """Return the keys that are set, and for transformers alone."""
        given = sorted(self.model_fields_set & _TRANSFORMER_ONLY)
        return [key for key in given if getattr(self, key) != type(self).model_fields[key].default]
