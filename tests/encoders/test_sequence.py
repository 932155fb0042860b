from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import WORDS, word_tokenizer, write_json

from embedsvc.encoder import PreparedText
from embedsvc.encoders.sequence import SequenceInputs
from embedsvc.errors import ModelError
from embedsvc.model_folder import ModelFolder, Module


def inputs(
    folder: Path, module: dict[str, Any] | None = None, tokenizer: Any = None, config: Any = None
) -> SequenceInputs:
    write_json(folder / "config.json", config or {})
    write_json(folder / "tokenizer_config.json", tokenizer or {})
    word_tokenizer(WORDS, special=True).save(str(folder / "tokenizer.json"))
    return SequenceInputs(ModelFolder(folder, (Module("Transformer", folder, module or {}),), {}, None, ()))


@pytest.mark.parametrize(
    ("module", "tokenizer", "config", "limit"),
    [
        ({"max_seq_length": 20}, {"model_max_length": 50}, {"max_position_embeddings": 40}, 18),
        ({"max_seq_length": None}, {"model_max_length": 50}, {"max_position_embeddings": 64}, 48),
        ({}, {"model_max_length": 50}, {"max_position_embeddings": 40}, 38),
        ({}, {"model_max_length": 1e30}, {"max_position_embeddings": 40}, 38),
        ({}, {}, {"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1}, 510),
        ({}, {}, {"max_position_embeddings": -1}, None),
        ({}, {}, {}, None),
        ({"processing_kwargs": {"text": {"max_length": 30}}, "max_seq_length": 20}, {}, {}, 28),
        ({"tokenizer_args": {"model_max_length": 25}, "max_seq_length": 20}, {}, {}, 23),
        ({"processor_kwargs": {"model_max_length": 25}}, {"model_max_length": 50}, {}, 23),
    ],
)
def test_the_limit_is_found_where_sentence_transformers_finds_it(
    tmp_path: Path, module: Any, tokenizer: Any, config: Any, limit: int | None
) -> None:
    assert inputs(tmp_path, module, tokenizer, config).max_tokens == limit


@pytest.mark.parametrize(
    ("tokenizer", "config", "pad"),
    [
        ({}, {"pad_token_id": 1}, 1),
        ({"pad_token": "[SEP]"}, {}, 3),
        ({"pad_token": {"content": "[SEP]"}}, {"pad_token_id": None}, 3),
        ({}, {}, 0),
    ],
)
def test_padding_is_on_the_right_with_the_pad_id(
    tmp_path: Path, tokenizer: Any, config: Any, pad: int
) -> None:
    padded = inputs(tmp_path, None, tokenizer, config).padded([PreparedText([9]), PreparedText([7, 8, 9], 2)])
    assert padded.ids.tolist() == [[2, 9, 3, pad, pad], [2, 7, 8, 9, 3]]
    assert padded.mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert padded.prompt.tolist() == [0, 3]


def test_a_text_without_tokens_still_makes_a_batch(tmp_path: Path) -> None:
    assert inputs(tmp_path).padded([PreparedText([])]).ids.tolist() == [[2, 3]]


@pytest.mark.parametrize(
    "module",
    [
        {"transformer_task": "fill-mask"},
        {"modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}},
    ],
)
def test_a_model_that_is_no_plain_text_encoder_is_refused(tmp_path: Path, module: Any) -> None:
    with pytest.raises(ModelError, match="cannot be served as a text encoder"):
        inputs(tmp_path, module)
