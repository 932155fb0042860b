"""Recipes on cloned languages for a tiny transformer, and a ready-made folder with a word for each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.encoders.tiny_models import write_transformer
from training.config import Recipe

TINY = {"layers": 2, "hidden": 32, "heads": 2, "dropout": 0.0}


def recipe(
    *, model: dict[str, Any] | None = None, schedule: dict[str, Any] | None = None, **sections: Any
) -> Recipe:
    """Return a recipe for 6 steps of a fresh transformer."""
    values: dict[str, Any] = {
        "name": "cloned",
        "seed": 3,
        "data": {"pairs": ["pairs.tsv"], "held_out_groups": 50, "max_tokens": 30},
        "tokenizer": {"vocabulary": 400, "sample": 2000},
        "model": {"fresh": TINY} if model is None else model,
        "schedule": {
            **{"steps": 6, "batch": 32, "learning_rate": 3e-3, "warmup_steps": 2, "threads": 1},
            **{"checkpoint_every": 2, "evaluate_every": 6, "log_every": 3},
            **(schedule or {}),
        },
        **sections,
    }
    return Recipe.model_validate(values)


def write_bert(folder: Path, *, dropout: float = 0.0) -> Path:
    """Write a random BERT without modules.json, as a hub has it, for the words of `tiny_models`."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=47,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return write_transformer(folder, config, BertModel)
