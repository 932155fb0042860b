"""Small reranker folders: random ones written with transformers, and one whose scores are known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [f"w{number}" for number in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CLS, SEP = 2, 3
LIMIT = 20  # tokens of a pair, three special ones included
QUERY = "w1 w2 w3"
# Short, long, over the limit of 14 words beside the query, with unknown words, repeated words.
TEXTS = [
    "w1",
    "w2 w3 w4 w5 w6 w7 w8",
    " ".join(f"w{number}" for number in range(30)),
    "w9 nobody knows w10",
    "w11 w11 w11",
    "nobody",
]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(
    folder: Path, *, pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1", kind: str = "BertTokenizer"
) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": kind, "model_max_length": LIMIT}
    write_json(folder / "tokenizer_config.json", names | config)


def write_bert_reranker(folder: Path, *, labels: int = 1) -> Path:
    """Write a random BERT with a classifier, as transformers does; token types matter to it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(5)
    config = BertConfig(num_labels=labels, max_position_embeddings=24, **_small())
    BertForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_xlmr_reranker(folder: Path) -> Path:
    """Write a random XLM-R with a classifier: no token types, two separators, positions counted from 1."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    torch.manual_seed(6)
    config = XLMRobertaConfig(
        num_labels=1, max_position_embeddings=24, type_vocab_size=1, pad_token_id=0, **_small()
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder, pair="[CLS] $A [SEP] [SEP] $B [SEP]", kind="PreTrainedTokenizerFast")
    return folder


def _small() -> dict[str, Any]:
    return {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.4,
    }


def token_weights() -> np.ndarray:
    """What each token adds to a logit of the counting reranker; ten times as much in the text."""
    weights = np.random.default_rng(4).normal(size=len(SPECIAL) + len(WORDS)).astype(np.float32) / 20
    weights[0] = 1000  # a padding token that is not masked would show
    return weights


def counted_logit(query: Sequence[str], text: Sequence[str]) -> float:
    """Return the logit of a query's and a text's words by hand."""
    weights = token_weights()
    ids = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    first = [CLS, *(ids.get(word, 1) for word in query), SEP]
    second = [*(ids.get(word, 1) for word in text), SEP]
    return float(weights[first].sum() + 10 * weights[second].sum())


def write_counting_reranker(
    folder: Path,
    *,
    output: str = "logits",
    labels: int = 1,
    file: str = "onnx/model.onnx",
    quantized: bool = False,
) -> Path:
    """Write a reranker as an ONNX graph that adds up token weights (see `counted_logit`): no torch.

    ``quantized``: the weights of a batch are rounded to int8 with one scale, as optimum's graphs do.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    initializers = [
        numpy_helper.from_array(token_weights(), "weights"),
        numpy_helper.from_array(np.array([1.0, 10.0], np.float32), "factors"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    rounded = [
        helper.make_node("DynamicQuantizeLinear", ["masked"], ["int8", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["int8", "scale", "zero"], ["rounded"]),
    ]
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["of_ids"]),
        helper.make_node("Gather", ["factors", "token_type_ids"], ["of_types"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["of_ids", "of_types"], ["weighed"]),
        helper.make_node("Mul", ["weighed", "mask"], ["masked"]),
        *(rounded if quantized else []),
        helper.make_node("ReduceSum", ["rounded" if quantized else "masked", "axis"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["sum"] * labels, [output], axis=1),
    ]
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", labels])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / file)
    write_tokenizer(folder)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "vocab_size": len(SPECIAL) + len(WORDS),
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }
    write_json(folder / "config.json", config)
    return folder
