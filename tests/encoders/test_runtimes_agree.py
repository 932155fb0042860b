"""sentence-transformers = our torch runtime = our ONNX runtime, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import HIDDEN, TEXTS, with_head

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import TextTooLongError
from embedsvc.options import EncodeOptions
from embedsvc.pooling import POOLING_MODES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LONG = "The ferry leaves the island at dawn . " * 50
SENTENCES = [
    "Hello",
    "The cat sits on the mat and looks at the bird outside.",
    LONG,
    "Der Zug nach München fährt heute erst um 17:45 Uhr.",
    "Привет, мир",
    "今日はとても良い天気です",
    "a b",
]


def sentence_transformer(path: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu", local_files_only=True)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() < 1e-4
    assert np.einsum("nd,nd->n", found, expected).min() > 0.99999


@pytest.fixture(scope="module")
def reference(minilm: Path) -> np.ndarray:
    return np.asarray(sentence_transformer(minilm).encode(SENTENCES, normalize_embeddings=True))


@pytest.fixture(params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])  # the export takes long
def encoder(request: pytest.FixtureRequest) -> Encoder:
    found: Encoder = request.getfixturevalue(f"minilm_{request.param}")
    return found


def test_minilm_gives_sentence_transformers_vectors(encoder: Encoder, reference: np.ndarray) -> None:
    assert_same(encoder.encode(SENTENCES, truncate="end"), reference)


def test_minilm_alone_equals_minilm_in_a_batch(encoder: Encoder, reference: np.ndarray) -> None:
    alone = np.concatenate([encoder.encode([text], truncate="end") for text in SENTENCES])
    assert_same(alone, reference)


def test_order_survives_shuffling_and_small_batches(encoder: Encoder, reference: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(SENTENCES))
    shuffled = [SENTENCES[row] for row in order]
    assert_same(encoder.encode(shuffled, truncate="end", batch_tokens=40), reference[order])


def test_too_long_text_is_reported_not_hidden(encoder: Encoder) -> None:
    count = len(encoder.runtime.tokenize([LONG])[0])
    assert (encoder.runtime.max_tokens, encoder.runtime.special_tokens, count) == (254, 2, 400)
    with pytest.raises(TextTooLongError, match=r"input\[2\] has 400 tokens; the limit is 254"):
        encoder.encode(SENTENCES)


def test_usage_counts_every_token_and_marks_the_cut_text(encoder: Encoder) -> None:
    found = encoder.encode_with_usage(SENTENCES[:3], EncodeOptions(truncate="end"))
    assert found.tokens == [3, 15, 402]
    assert found.truncated == [False, False, True]


def test_cutting_at_the_start_keeps_the_end(encoder: Encoder) -> None:
    found = encoder.encode(["start " + "water " * 300 + "the very last words"], truncate="start")
    expected = encoder.encode(["water " * 250 + "the very last words"])
    assert_same(found, expected)


def test_token_vectors_are_those_of_sentence_transformers(encoder: Encoder, minilm: Path) -> None:
    expected = sentence_transformer(minilm).encode(SENTENCES, output_value="token_embeddings")
    found = encoder.encode_tokens(SENTENCES, EncodeOptions(truncate="end"))
    assert found.truncated == [text is LONG for text in SENTENCES]
    for states, wanted in zip(found.vectors, expected, strict=True):
        assert states.shape == tuple(wanted.shape)
        assert np.abs(states - wanted.numpy()).max() < 1e-4


def test_tokens_and_cuts_of_a_tiny_model_are_the_same_in_both_runtimes(bert_mean: Path) -> None:
    encoders = [load_encoder(bert_mean, runtime=runtime, device="cpu") for runtime in ("torch", "onnx")]
    texts = [*TEXTS, "w1 w2 w3 " * 20]
    expected = sentence_transformer(bert_mean).encode(texts, output_value="token_embeddings")
    for encoder in encoders:
        found = encoder.encode_tokens(texts, EncodeOptions(truncate="end"))
        assert found.truncated[-1]
        for states, wanted in zip(found.vectors, expected, strict=True):
            assert states.shape == tuple(wanted.shape)
            assert np.abs(states - wanted.numpy()).max() < 1e-4
        with pytest.raises(TextTooLongError, match=rf"input\[{len(TEXTS)}\] has 60 tokens"):
            encoder.encode(["w1"] * len(TEXTS) + texts[-1:])
    for truncate in ("end", "start"):
        one, other = (
            encoder.encode_with_usage(texts[::-1], EncodeOptions(truncate=truncate)) for encoder in encoders
        )
        assert (one.tokens, one.truncated) == (other.tokens, other.truncated)
        assert_same(np.asarray(other.vectors), np.asarray(one.vectors))


def pooling(**config: Any) -> tuple[str, dict[str, Any]]:
    return "Pooling", {"embedding_dimension": HIDDEN, **config}


def dense(inputs: int, outputs: int, activation: str, **config: Any) -> tuple[str, dict[str, Any]]:
    name = "linear.Identity" if activation == "Identity" else f"activation.{activation}"
    return "Dense", {
        "inputs": inputs,
        "outputs": outputs,
        "activation": f"torch.nn.modules.{name}",
        **config,
    }


NORMALIZE: tuple[str, dict[str, Any]] = ("Normalize", {})
HEADS = {
    **{mode: [pooling(pooling_mode=mode)] for mode in POOLING_MODES},
    "three modes": [pooling(pooling_mode=["lasttoken", "mean", "cls"]), NORMALIZE],
    "old config": [
        (
            "Pooling",
            {
                "word_embedding_dimension": HIDDEN,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": True,
            },
        )
    ],
    "dense": [pooling(pooling_mode="mean"), dense(HIDDEN, 5, "Tanh"), NORMALIZE],
    "two dense": [
        pooling(pooling_mode="cls"),
        dense(HIDDEN, 24, "GELU"),
        dense(24, 7, "Identity", use_residual=True),
    ],
    "inner normalize": [
        pooling(pooling_mode="max"),
        NORMALIZE,
        dense(HIDDEN, 6, "Sigmoid"),
        NORMALIZE,
    ],
    "residual": [pooling(pooling_mode="mean"), dense(HIDDEN, HIDDEN, "ReLU", use_residual=True)],
}


@pytest.mark.parametrize("modules", HEADS.values(), ids=HEADS.keys())
def test_every_chain_of_modules_agrees(
    bert: Path, tmp_path: Path, modules: list[tuple[str, dict[str, Any]]]
) -> None:
    path = with_head(bert, tmp_path / "model", modules)
    expected = np.asarray(sentence_transformer(path).encode(TEXTS, normalize_embeddings=True))
    for runtime in ("torch", "onnx"):
        encoder = load_encoder(path, runtime=runtime, device="cpu")
        assert encoder.dimension == expected.shape[1]
        assert_same(encoder.encode(TEXTS, truncate="end"), expected)
        assert_same(encoder.encode(TEXTS, truncate="end", batch_tokens=1), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_without_normalisation_the_raw_vectors_agree(bert: Path, tmp_path: Path, normalize: bool) -> None:
    modules = [pooling(pooling_mode="mean"), *([NORMALIZE] if normalize else [])]
    path = with_head(bert, tmp_path / "model", modules)
    torch_raw = load_encoder(path, runtime="torch", device="cpu").encode(
        TEXTS, truncate="end", normalize=False
    )
    onnx_raw = load_encoder(path, runtime="onnx").encode(TEXTS, truncate="end", normalize=False)
    np.testing.assert_allclose(onnx_raw, torch_raw, atol=1e-4)
    assert np.linalg.norm(torch_raw, axis=1).min() > 1.5


PROMPTS = {"query": "query : ", "passage": "passage : w1 ", "none": ""}


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean"])
def test_prompts_agree(bert: Path, tmp_path: Path, mode: str, include_prompt: bool) -> None:
    modules = [pooling(pooling_mode=mode, include_prompt=include_prompt), NORMALIZE]
    general = {"prompts": PROMPTS, "default_prompt_name": "passage"}
    path = with_head(bert, tmp_path / "model", modules, **general)
    reference = sentence_transformer(path)
    ask: list[dict[str, Any]] = [{"prompt_name": "query"}, {"prompt": "w7 w8 "}, {}, {"prompt_name": "none"}]
    vectors = []
    for choice in ask:
        expected = np.asarray(reference.encode(TEXTS, normalize_embeddings=True, **choice))
        for runtime in ("torch", "onnx"):
            encoder = load_encoder(path, runtime=runtime, device="cpu")
            assert_same(encoder.encode(TEXTS, truncate="end", **choice), expected)
        vectors.append(expected)
    assert min(np.abs(vectors[0] - other).max() for other in vectors[1:]) > 0.01


def test_texts_with_different_prompts_may_share_a_batch(bert: Path, tmp_path: Path) -> None:
    from embedsvc.encoder import PreparedText

    path = with_head(bert, tmp_path / "model", [pooling(pooling_mode="mean", include_prompt=False)])
    batch = [PreparedText([4, 6, 9], 2), PreparedText([10, 11, 12, 13]), PreparedText([5, 6, 7], 1)]
    for runtime in ("torch", "onnx"):
        inner = load_encoder(path, runtime=runtime, device="cpu").runtime
        alone = np.concatenate([inner.embed([text]) for text in batch])
        np.testing.assert_allclose(inner.embed(batch), alone, atol=1e-5)


def test_a_plain_transformer_is_mean_pooled(bert: Path) -> None:
    expected = np.asarray(sentence_transformer(bert).encode(TEXTS[:2], normalize_embeddings=True))
    assert_same(load_encoder(bert, runtime="onnx").encode(TEXTS[:2]), expected)
    assert_same(load_encoder(bert, runtime="torch", device="cpu").encode(TEXTS[:2]), expected)


def test_do_lower_case_is_honoured(bert_mean: Path, tmp_path: Path) -> None:
    from tiny_models import MAX_SEQUENCE, write_json

    path = with_head(bert_mean, tmp_path / "model", [pooling(pooling_mode="mean")])
    plain = load_encoder(path, runtime="onnx").encode(["W1 W2"])
    write_json(path / "sentence_bert_config.json", {"max_seq_length": MAX_SEQUENCE, "do_lower_case": True})
    expected = np.asarray(sentence_transformer(path).encode(["W1 W2"], normalize_embeddings=True))
    assert_same(load_encoder(path, runtime="onnx").encode(["W1 W2"]), expected)
    assert np.abs(plain - expected).max() > 0.01
