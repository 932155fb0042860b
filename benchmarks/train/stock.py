"""sentence-transformers' side, one training in a process of its own.    python stock.py JOB.json

Needs sentence-transformers[train] only. As its scripts do: `MultipleNegativesRankingLoss` as in the script of
static-similarity-mrl-multilingual-v1 (without Matryoshka), or `MSELoss` as in make_multilingual.py; AdamW,
linear schedule, 10 % warm-up. Teacher vectors are looked up in a file, as if they cost nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MSELoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from tokenizers import Tokenizer
from transformers import TrainerCallback

sys.path.insert(1, str(Path(__file__).parents[1]))
from train.clock import Clock
from train.samples import read_pairs


class Ticks(TrainerCallback):
    """Tell the clock of every step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.tick()


def student(job: dict[str, Any]) -> SentenceTransformer:
    if job["transformer"]:
        model = SentenceTransformer(job["transformer"], device="cpu")
        model.max_seq_length = job["max_tokens"]
        return model
    tokenizer = Tokenizer.from_file(job["tokenizer"])
    return SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=job["dimension"])], device="cpu"
    )


def dataset(job: dict[str, Any]) -> Dataset:
    pairs = list(read_pairs(Path(job["data"])))
    found = Dataset.from_dict(
        {"english": [english for english, _, _ in pairs], "non_english": [other for _, _, other in pairs]}
    )
    if job["loss"] == "mnrl":
        return found
    row = {text: number for number, text in enumerate(dict.fromkeys(english for english, _, _ in pairs))}
    vectors = np.load(job["teacher"], mmap_mode="r")
    return found.map(
        lambda batch: {"label": vectors[[row[text] for text in batch["english"]]].astype(np.float32)},
        batched=True,
    )


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.manual_seed(job["seed"])
    model, clock = student(job), Clock()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(Path(job["out"]) / "trainer"),
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch"],
        learning_rate=job["rate"],
        warmup_steps=0.1,
        batch_sampler=BatchSamplers.NO_DUPLICATES if job["no_duplicates"] else BatchSamplers.BATCH_SAMPLER,
        save_strategy="no",
        logging_steps=job["steps"],
        report_to="none",
        disable_tqdm=True,
        seed=job["seed"],
        use_cpu=True,
        bf16=job["bf16"],
        dataloader_pin_memory=False,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset(job),
        loss=(MultipleNegativesRankingLoss if job["loss"] == "mnrl" else MSELoss)(model),
        callbacks=[Ticks(clock)],
    )
    trainer.train()
    model.save(job["out"], create_model_card=False)
    clock.write(Path(job["result"]))


if __name__ == "__main__":
    main()
