"""Small random model folders, written the way sentence-transformers writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["query", "passage", ":", *(f"w{number}" for number in range(40))]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
MAX_SEQUENCE = 20
HIDDEN = 16
# Short, long, over the limit of 18 words, with unknown words, and repeated words.
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


def word_tokenizer(words: Sequence[str], *, special: bool) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.add_special_tokens(SPECIAL)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tokenizer


def write_transformer(folder: Path, config: Any, model_class: Any) -> Path:
    """Write a random transformer with its tokenizer: no modules.json yet."""
    import torch

    torch.manual_seed(3)
    model_class(config).save_pretrained(folder)
    word_tokenizer(WORDS, special=True).save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    write_json(folder / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"})
    return folder


def write_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.4,
    )
    return write_transformer(folder, config, BertModel)


def write_dense(folder: Path, *, inputs: int, outputs: int, activation: str, **config: Any) -> None:
    generator = np.random.default_rng(outputs)
    tensors = {
        "linear.weight": generator.normal(size=(outputs, inputs)).astype(np.float32),
        "linear.bias": generator.normal(size=outputs).astype(np.float32),
    }
    if config.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = generator.normal(size=(outputs, inputs)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    config |= {"in_features": inputs, "out_features": outputs, "bias": True}
    write_json(folder / "config.json", config | {"activation_function": activation})


Modules = Sequence[tuple[str, dict[str, Any]]]


def with_head(transformer: Path, folder: Path, modules: Modules, **general: Any) -> Path:
    """Copy a transformer folder, put modules after it; ``general`` is config_sentence_transformers.json."""
    shutil.copytree(transformer, folder)
    entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, config) in enumerate(modules, 1):
        path = f"{number}_{kind}"
        entries.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        if kind == "Dense":
            write_dense(folder / path, **config)
        else:
            write_json(folder / path / "config.json", config)
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_SEQUENCE, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", general)
    return folder


def write_static(folder: Path, tensors: dict[str, Any], words: Sequence[str], **general: Any) -> Path:
    """Write a static model; its tokenizer has [PAD] [UNK] [CLS] [SEP] and then the words."""
    folder.mkdir(parents=True, exist_ok=True)
    word_tokenizer(words, special=False).save(str(folder / "tokenizer.json"))
    save_file(tensors, folder / "model.safetensors")
    kinds = [("StaticEmbedding", ""), ("Normalize", "1_Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "config_sentence_transformers.json", general)
    return folder


def write_graph_model(folder: Path, *, inputs: Sequence[str], output: str = "last_hidden_state") -> Path:
    """Write a transformer folder whose ONNX graph adds table rows: no torch needed, values known by hand.

    The state of a token is ``[id, 1] + [0, 10] * token_type + [0, 100] * position``, both
    only where the graph takes them. The output "sentence_embedding" is the sum over the tokens.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows = len(SPECIAL) + len(WORDS)
    tables = {
        "input_ids": np.stack([np.arange(rows), np.ones(rows)], axis=1),
        "token_type_ids": np.array([[0.0, 0.0], [0.0, 10.0]]),
        "position_ids": np.stack([np.zeros(30), 100.0 * np.arange(30)], axis=1),
    }
    nodes, parts = [], []
    for name in [name for name in inputs if name in tables]:
        nodes.append(helper.make_node("Gather", [f"{name}_table", name], [f"{name}_rows"]))
        parts.append(f"{name}_rows")
    nodes.append(helper.make_node("Sum", parts, ["states" if output == "sentence_embedding" else output]))
    shape: list[Any] = ["n", "t", 2]
    initializers = [
        numpy_helper.from_array(tables[name].astype(np.float32), f"{name}_table")
        for name in inputs
        if name in tables
    ]
    if output == "sentence_embedding":
        initializers.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        nodes.append(helper.make_node("ReduceSum", ["states", "axis"], [output], keepdims=0))
        shape = ["n", 2]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    word_tokenizer(WORDS, special=True).save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", {"vocab_size": rows, "max_position_embeddings": 12, "pad_token_id": 0})
    return folder
