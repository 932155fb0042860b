from __future__ import annotations

import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embedsvc.encoder import load_encoder
from embedsvc.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelError,
    ModelFailedError,
    NotFoundError,
    TextTooLongError,
)
from embedsvc.model_folder import BUNDLED, open_model_folder
from embedsvc.reranker import Reranker, ScoreOptions, activated, load_reranker
from embedsvc.tokens import TextTokenizer
from tests.tiny_rerankers import (
    LIMIT,
    QUERY,
    TEXTS,
    counted_logit,
    token_weights,
    write_bert_reranker,
    write_counting_reranker,
    write_json,
    write_xlmr_reranker,
)

ROOM = LIMIT - 3 - len(QUERY.split())


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def changed(path: Path, **values: object) -> None:
    """Change a JSON file; None deletes the key."""
    config = json.loads(path.read_text()) if path.is_file() else {}
    merged = {key: value for key, value in (config | values).items() if value is not None}
    write_json(path, merged)


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting_reranker(tmp_path_factory.mktemp("counting") / "counting")


@pytest.fixture
def copy(counting: Path, tmp_path: Path) -> Path:
    return shutil.copytree(counting, tmp_path / "copy")


@pytest.fixture(scope="session")
def reranker(counting: Path) -> Reranker:
    return load_reranker(counting)


@pytest.fixture(scope="session", params=["bert", "xlmr"])
def random(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with its ONNX export."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    pytest.importorskip("onnx", reason="needs the train extra")
    write = {"bert": write_bert_reranker, "xlmr": write_xlmr_reranker}[request.param]
    folder = write(tmp_path_factory.mktemp(request.param) / request.param)
    export(folder, types=request.param == "bert")
    return folder


def export(folder: Path, *, types: bool) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *rows: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(names, rows, strict=True))).logits

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    ones = torch.ones(3, 8, dtype=torch.int64)
    (folder / "onnx").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(),
            tuple(ones.clone() if name != "token_type_ids" else ones * 0 for name in names),
            str(folder / "onnx" / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "n", 1: "t"} for name in names},
            dynamo=False,
        )


def test_scores_are_those_counted_by_hand_in_order(reranker: Reranker) -> None:
    words = [text.split()[:ROOM] for text in TEXTS]
    expected = [sigmoid(counted_logit(QUERY.split(), text)) for text in words]
    scores = reranker.scores(QUERY, TEXTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert len(set(np.round(scores, 4))) == len(TEXTS)  # a lost order would show
    assert reranker.scores(QUERY, []).shape == (0,)
    assert reranker.scores("w1", [""])[0] == pytest.approx(sigmoid(counted_logit(["w1"], [])), rel=1e-5)


def test_torch_scores_are_those_of_sentence_transformers(random: Path) -> None:
    from sentence_transformers import CrossEncoder

    reranker = load_reranker(random, runtime="torch", device="cpu")
    assert (reranker.runtime.name, reranker.max_tokens) == ("torch", LIMIT)
    expected = CrossEncoder(str(random), device="cpu").predict([(QUERY, text) for text in TEXTS])
    np.testing.assert_allclose(reranker.scores(QUERY, TEXTS), expected, atol=1e-5)


def test_onnx_scores_are_those_of_torch(random: Path) -> None:
    in_onnx, in_torch = load_reranker(random), load_reranker(random, runtime="torch", device="cpu")
    assert in_onnx.runtime.name == "onnx"
    raw = ScoreOptions(raw=True)
    logits = in_torch.score_with_usage(QUERY, TEXTS, raw).scores
    np.testing.assert_allclose(in_onnx.score_with_usage(QUERY, TEXTS, raw).scores, logits, atol=1e-4)
    np.testing.assert_allclose(in_onnx.scores(QUERY, TEXTS), [sigmoid(x) for x in logits], atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_score_does_not_depend_on_the_batch(random: Path, runtime: str) -> None:
    reranker = load_reranker(random, runtime=runtime, device="cpu")
    alone = [reranker.scores(QUERY, [text])[0] for text in TEXTS]
    np.testing.assert_allclose(reranker.scores(QUERY, TEXTS), alone, atol=1e-5)
    reranker.runtime.batch_tokens = 40  # two pairs
    np.testing.assert_allclose(reranker.scores(QUERY, TEXTS * 3), alone * 3, atol=1e-5)


def test_a_graph_that_scales_whole_batches_scores_one_pair_at_a_time(tmp_path: Path) -> None:
    folder = write_counting_reranker(tmp_path / "m", quantized=True)
    in_batch = load_reranker(folder).scores(QUERY, TEXTS)
    alone = [load_reranker(folder).scores(QUERY, [text])[0] for text in TEXTS]
    np.testing.assert_array_equal(in_batch, alone)
    exact = [sigmoid(counted_logit(QUERY.split(), text.split()[:ROOM])) for text in TEXTS]
    assert np.abs(in_batch - exact).max() > 1e-4  # it does round


def test_what_sentence_transformers_saves_is_opened_with_its_activation(random: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(random), device="cpu", max_length=12, activation_fn=torch.nn.Identity(), prompts={"q": "w7 "}
    )
    model.default_prompt_name = "q"
    model.save_pretrained(str(tmp_path / "saved"))
    reranker = load_reranker(tmp_path / "saved")
    assert (reranker.folder.activation, reranker.max_tokens) == ("identity", 12)
    saved = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    expected = saved.predict([(QUERY, text) for text in TEXTS])
    assert ((expected < 0) | (expected > 1)).any()  # no sigmoid
    np.testing.assert_allclose(reranker.scores(QUERY, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "values", "activation"),
    [
        ("config.json", {}, "sigmoid"),
        ("config.json", {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}, "identity"),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Identity"}, "identity"),
        (
            "config_sentence_transformers.json",
            {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"},
            "sigmoid",
        ),
    ],
)
def test_the_activation_is_the_folder_s(
    copy: Path, file: str, values: dict[str, object], activation: str
) -> None:
    changed(copy / file, **values)
    logit = counted_logit(["w1"], ["w2"])
    expected = logit if activation == "identity" else sigmoid(logit)
    reranker = load_reranker(copy)
    assert reranker.scores("w1", ["w2"])[0] == pytest.approx(expected, rel=1e-5)
    raw = reranker.score_with_usage("w1", ["w2"], ScoreOptions(raw=True))
    assert raw.scores[0] == pytest.approx(logit, rel=1e-5)


def test_a_tokenizer_that_is_told_to_give_no_token_types_gives_none(copy: Path) -> None:
    changed(copy / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    ids = np.array([2, 5, 3, 6, 3])  # [CLS] w1 [SEP] w2 [SEP]
    logit = load_reranker(copy).score_with_usage("w1", ["w2"], ScoreOptions(raw=True)).scores[0]
    assert logit == pytest.approx(token_weights()[ids].sum(), rel=1e-5)


def test_the_sigmoid_of_large_logits_neither_overflows_nor_leaves_its_range() -> None:
    scores = activated(np.array([-200.0, -2.0, 0.0, 2.0, 200.0], np.float32), "sigmoid")
    np.testing.assert_allclose(scores, [0, 0.11920292, 0.5, 0.880797, 1], atol=1e-7)


def test_too_long_texts_are_cut_and_reported_or_refused(reranker: Reranker) -> None:
    long = TEXTS[2].split()
    found = reranker.score_with_usage(QUERY, TEXTS)
    assert found.truncated == [False, False, True, False, False, False]
    assert found.tokens == [3 + 3 + len(text.split()) for text in TEXTS]
    for options, kept in (
        (ScoreOptions(), long[:ROOM]),
        (ScoreOptions(truncate="start"), long[-ROOM:]),
        (ScoreOptions(max_text_tokens=3), long[:3]),
        (ScoreOptions(max_text_tokens=500), long[:ROOM]),
    ):
        score = reranker.score_with_usage(QUERY, [TEXTS[2]], options).scores[0]
        assert score == pytest.approx(sigmoid(counted_logit(QUERY.split(), kept)), rel=1e-5)
    with pytest.raises(TextTooLongError, match=r"texts\[2\] has 30 tokens; beside the query the limit is 14"):
        reranker.score_with_usage(QUERY, TEXTS, ScoreOptions(truncate="none"))
    fitting = " ".join(long[:ROOM])
    exact = reranker.score_with_usage(QUERY, [fitting], ScoreOptions(truncate="none"))
    assert (exact.truncated, exact.tokens) == ([False], [LIMIT])


def test_a_query_must_leave_room_for_a_text(reranker: Reranker) -> None:
    assert reranker.score_with_usage("w1 " * 16, ["w2 w3"]).truncated == [True]
    with pytest.raises(TextTooLongError, match="query has 17 tokens; the limit is 16, with room for one"):
        reranker.scores("w1 " * 17, ["w2"])


@pytest.mark.parametrize(
    ("query", "texts", "options", "message"),
    [
        ("", ["a"], {}, "query is empty"),
        (" \n", ["a"], {}, "query is empty"),
        ("a\ud800", ["a"], {}, "query holds a lone surrogate at character 1"),
        ("a", "b", {}, "texts must be a list of texts, not one text"),
        ("a", ["b", None], {}, r"texts\[1\] is NoneType, not a text"),
        ("a", ["b", "\ud800"], {}, r"texts\[1\] holds a lone surrogate"),
        ("a", ["b"], {"max_text_tokens": 0}, "max_text_tokens = 0; it must be at least 1"),
    ],
)
def test_bad_input_is_named(
    reranker: Reranker, query: str, texts: list[str], options: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        reranker.score_with_usage(query, texts, ScoreOptions(**options))


def test_a_score_that_is_not_finite_is_an_error_that_names_the_text(counting: Path) -> None:
    reranker = load_reranker(counting)
    logits = reranker.runtime.logits

    def spoilt(batch: object) -> np.ndarray:
        values = logits(batch)
        values[(batch.ids == 20).any(axis=1)] = np.nan
        return values

    reranker.runtime.logits = spoilt
    with pytest.raises(ModelFailedError, match=r"not finite for texts\[2\]"):
        reranker.scores("w1", ["w2 w3 w4", "w5", "w16", "w6 w7"])


def test_threads_get_the_scores_of_their_own_texts(reranker: Reranker) -> None:
    expected = reranker.scores(QUERY, TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda shift: reranker.scores(QUERY, np.roll(TEXTS, shift).tolist()), range(40))
        )
    for shift, scores in enumerate(found):
        np.testing.assert_array_equal(scores, np.roll(expected, shift))


def test_the_fingerprint_changes_with_the_model_only(copy: Path, reranker: Reranker) -> None:
    assert load_reranker(copy).fingerprint == reranker.fingerprint
    (copy / "README.md").write_text("hello")
    assert load_reranker(copy).fingerprint == reranker.fingerprint
    changed(copy / "config.json", sbert_ce_default_activation_function="torch.nn.Identity")
    assert load_reranker(copy).fingerprint != reranker.fingerprint
    assert (reranker.name, load_reranker(copy).name) == ("counting", "copy")


def test_int8_is_its_own_file(copy: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"precision int8 needs an ONNX file; .* has none for it"):
        load_reranker(copy, precision="int8")
    shutil.copy(copy / "onnx" / "model.onnx", copy / "onnx" / "model_quantized.onnx")
    (copy / "onnx" / "model.onnx").unlink()
    score = load_reranker(copy, precision="int8").scores("w1", ["w2"])[0]
    assert score == pytest.approx(sigmoid(counted_logit(["w1"], ["w2"])), rel=1e-5)
    shutil.copy(copy / "onnx" / "model_quantized.onnx", copy / "onnx" / "model.onnx")
    full, rounded = (load_reranker(copy, precision=precision) for precision in ("float32", "int8"))
    assert full.fingerprint != rounded.fingerprint


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}}, "is a classifier with 3 labels"),
        ("config.json", {"id2label": None}, "is a classifier with 2 labels"),
        (
            "config.json",
            {"architectures": ["BertModel"]},
            "is not a reranker: its config.json names BertModel",
        ),
        ("config.json", {"architectures": None}, "is not a reranker: its config.json names no architecture"),
        (
            "config.json",
            {"sentence_transformers": {"activation_fn": "a.B"}},
            "activation_fn 'a.B' is unknown",
        ),
        ("config.json", {"vocab_size": 3}, "config.json says vocab_size 3"),
        (
            "tokenizer_config.json",
            {"model_max_length": 4},
            "3 special tokens leave no room for a query and a",
        ),
        (
            "config_sentence_transformers.json",
            {"model_type": "SentenceTransformer"},
            "is not a reranker but an embedding model",
        ),
    ],
)
def test_a_folder_of_another_kind_says_what_is_wrong(
    copy: Path, name: str, values: dict[str, object], message: str
) -> None:
    changed(copy / name, **values)
    with pytest.raises(ModelError, match=message):
        load_reranker(copy)


def test_missing_and_damaged_files_are_named(copy: Path) -> None:
    with pytest.raises(NotFoundError, match="no model folder at"):
        load_reranker(copy / "nothing")
    (copy / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"model.onnx cannot be opened as an ONNX model"):
        load_reranker(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"incomplete: .*tokenizer.json is missing"):
        load_reranker(copy)


def test_a_chain_of_modules_is_refused(copy: Path) -> None:
    changed(copy / "config_sentence_transformers.json", model_type="CrossEncoder")
    kinds = ["Transformer", "Pooling", "Dense"]
    write_json(copy / "modules.json", [{"idx": i, "path": "", "type": f"x.{k}"} for i, k in enumerate(kinds)])
    with pytest.raises(ModelError, match="has the modules Transformer, Pooling, Dense; a reranker of one"):
        load_reranker(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"output": "last_hidden_state"},
            "has the outputs last_hidden_state; a reranker's is logits or scores",
        ),
        ({"labels": 2}, r"the model gave shape \(1, 2\) for 1 pairs"),
    ],
)
def test_a_graph_of_another_kind_is_refused_when_it_is_opened(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_reranker(write_counting_reranker(tmp_path / "m", **options))


def test_an_embedding_model_is_no_reranker_and_the_reverse(counting: Path, copy: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a reranker: its config.json names no architecture"):
        load_reranker(BUNDLED)
    with pytest.raises(ModelError, match=r"is a reranker \(a cross-encoder\), not an embedding model"):
        load_encoder(counting)
    changed(copy / "config_sentence_transformers.json", model_type="CrossEncoder")
    write_json(copy / "modules.json", [{"idx": 0, "path": "", "type": "x.Transformer"}])
    with pytest.raises(ModelError, match=r"is a reranker \(a cross-encoder\), not an embedding model"):
        open_model_folder(copy)


def test_the_runtime_is_what_the_folder_and_the_machine_have(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match="runtime 'static' runs no reranker"):
        load_reranker(copy, runtime="static")
    with pytest.raises(InvalidInputError, match="device 'cuda' is for the torch runtime"):
        load_reranker(copy, runtime="onnx", device="cuda")
    shutil.rmtree(copy / "onnx")
    with pytest.raises(ModelError, match="has no float32 ONNX file; runtime torch needs none"):
        load_reranker(copy, runtime="onnx")
    monkeypatch.setattr("embedsvc.reranker.torch_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"running it with torch needs the \[torch\] extra"):
        load_reranker(copy)


def test_weights_without_a_classifier_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    from safetensors.numpy import load_file, save_file

    folder = write_bert_reranker(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no weights for classifier.weight; its scores would be chance"):
        load_reranker(folder, device="cpu")


@pytest.mark.parametrize(
    "pair",
    ["[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]", "$A $B:1", "$A:0 [SEP]:1 $B:0 [CLS]"],
)
def test_a_joined_pair_is_what_the_tokenizer_makes_of_it(tmp_path: Path, pair: str) -> None:
    from tokenizers import Tokenizer

    from tests.tiny_rerankers import write_tokenizer

    write_tokenizer(tmp_path, pair=pair)
    ours, theirs = (
        TextTokenizer(tmp_path / "tokenizer.json"),
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")),
    )
    for text in [*TEXTS, ""]:
        expected = theirs.encode(QUERY, text)
        joined = ours.pair_template().join(*ours.ids([QUERY, text]))
        assert joined == (expected.ids, expected.type_ids)
