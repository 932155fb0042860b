"""A new transformer from given sizes: the folder that training starts from."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, processors

from embedsvc.textfiles import write_json
from training.model_config import FreshConfig

_SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def write_fresh_folder(
    folder: Path, config: FreshConfig, tokenizer_json: str, *, max_tokens: int, seed: int
) -> None:
    """Write a random BERT of these sizes, whole or not at all; the same for the same seed.

    tokenizer_json: without special tokens; they get the ids after all others. max_tokens: of a text,
    without them.
    """
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = with_special_tokens(Tokenizer.from_str(tokenizer_json))
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate or 4 * config.hidden,
            max_position_embeddings=max_tokens + tokenizer.num_special_tokens_to_add(False),
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            pad_token_id=tokenizer.token_to_id(_SPECIAL["pad_token"]),
        )
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(work)
        tokenizer.save(str(work / "tokenizer.json"))
        names = {**_SPECIAL, "unk_token": tokenizer.model.unk_token}
        write_json(work / "tokenizer_config.json", {**names, "tokenizer_class": "PreTrainedTokenizerFast"})
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Add padding, mask and the tokens around a text, as BERT has them; other ids stay as they are."""
    tokenizer.add_special_tokens([*_SPECIAL.values()])
    begin, end = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return tokenizer
