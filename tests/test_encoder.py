from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from embedsvc import encoder as encoder_module
from embedsvc import runtime as runtime_module
from embedsvc.encoder import Encoder, PreparedText, check_texts, load_encoder
from embedsvc.encoders.static_table import StaticTableRuntime
from embedsvc.errors import (
    EmbedsvcError,
    InvalidInputError,
    MissingExtraError,
    ModelError,
    NotFoundError,
    TextTooLongError,
)
from embedsvc.model_folder import BUNDLED, ModelFolder, Module, open_model_folder
from embedsvc.options import EncodeOptions
from embedsvc.postprocess import finish_vectors

WORDS = ["[UNK]", "query", "passage", ":", *(f"w{number}" for number in range(50))]
TABLE = np.random.default_rng(4).normal(size=(len(WORDS), 8)).astype(np.float32)
TEXTS = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9", "w1 " * 40, "w10 w11 w12"]
PROMPTS = {"query": "query : ", "passage": "passage : "}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.static_export import write_static_folder

    path = tmp_path_factory.mktemp("static") / "tiny"
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    write_static_folder(path, TABLE, tokenizer.to_str(), matryoshka_dimensions=[2, 4], dtype="float32")
    return path


@pytest.fixture
def opened(folder: Path) -> ModelFolder:
    return replace(open_model_folder(folder), prompts=PROMPTS)


@pytest.fixture
def tiny(opened: ModelFolder) -> Encoder:
    return Encoder(opened, StaticTableRuntime(opened))


class LimitedRuntime(StaticTableRuntime):
    """The static runtime with a limit, as transformers have one; remembers what it was given."""

    max_tokens = 5
    special_tokens = 2

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__(folder)
        self.batches: list[list[PreparedText]] = []

    def embed(self, batch: Sequence[PreparedText]) -> Any:
        self.batches.append(list(batch))
        return super().embed(batch)


@pytest.fixture
def limited(opened: ModelFolder) -> Encoder:
    return Encoder(opened, LimitedRuntime(opened))


def ids_given(encoder: Encoder) -> list[list[int]]:
    assert isinstance(encoder.runtime, LimitedRuntime)
    return [text.ids for batch in encoder.runtime.batches for text in batch]


def expected_rows(texts: Sequence[str]) -> np.ndarray:
    means = [TABLE[[WORDS.index(word) for word in text.split()]].mean(axis=0) for text in texts]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def test_vectors_are_unit_rows_in_the_order_of_the_texts(tiny: Encoder) -> None:
    found = tiny.encode(TEXTS)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (5, 8), True)
    np.testing.assert_allclose(found, expected_rows(TEXTS), atol=1e-6)


@pytest.mark.parametrize("batch_tokens", [1, 7, 10**9])
def test_batches_change_nothing(tiny: Encoder, batch_tokens: int) -> None:
    np.testing.assert_allclose(tiny.encode(TEXTS, batch_tokens=batch_tokens), tiny.encode(TEXTS), atol=1e-6)


def test_windows_change_nothing(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny.encode(TEXTS)
    monkeypatch.setattr(encoder_module, "_WINDOW_TEXTS", 2)
    found = tiny.encode_with_usage(TEXTS)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert found.tokens == [1, 6, 2, 40, 3]


def test_no_texts_give_no_vectors(tiny: Encoder) -> None:
    assert tiny.encode([]).shape == (0, 8)
    assert tiny.encode([], dimensions=2).shape == (0, 2)


def test_several_threads_may_encode(tiny: Encoder) -> None:
    expected = tiny.encode(TEXTS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(tiny.encode(TEXTS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(vectors, expected) for vectors in found)


def test_without_normalisation_the_mean_itself_is_given(tiny: Encoder) -> None:
    found = tiny.encode(["w1", "w2"], normalize=False)
    np.testing.assert_array_equal(found, TABLE[[WORDS.index("w1"), WORDS.index("w2")]])


def test_half_precision_is_the_rounded_float32(tiny: Encoder) -> None:
    found = tiny.encode(TEXTS, output_dtype="float16")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, tiny.encode(TEXTS).astype(np.float16))


def test_finished_vectors_have_the_type_that_was_asked_for() -> None:
    raw = np.array([[3.0, 4.0, 12.0]], np.float32)
    found = finish_vectors(raw, dimensions=2, normalize=True, output_dtype="float16")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([[0.6, 0.8]], np.float16))
    with pytest.raises(EmbedsvcError, match=r"not finite for input\[1\]"):
        finish_vectors(
            np.array([[1.0], [np.inf]], np.float32), dimensions=None, normalize=True, output_dtype="float32"
        )


def test_matryoshka_vectors_are_cut_and_then_renormalised(tiny: Encoder) -> None:
    whole, found = tiny.encode(TEXTS), tiny.encode(TEXTS, dimensions=3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    prefix = whole[:, :3]
    np.testing.assert_allclose(found, prefix / np.linalg.norm(prefix, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(tiny.encode(TEXTS, dimensions=8), whole)


@pytest.mark.parametrize("dimensions", [0, -1, 9])
def test_impossible_dimensions_are_refused(tiny: Encoder, dimensions: int) -> None:
    with pytest.raises(
        InvalidInputError, match=f"dimensions = {dimensions}; model 'tiny' has 1 to 8"
    ) as caught:
        tiny.encode(["w1"], dimensions=dimensions)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("said", [(), (8,)])  # a model's whole length makes no Matryoshka model of it
def test_fewer_dimensions_are_for_matryoshka_models(opened: ModelFolder, said: tuple[int, ...]) -> None:
    plain = replace(opened, matryoshka_dimensions=said)
    with pytest.raises(InvalidInputError, match=r"'tiny' was not trained for shorter vectors .*ask for 8"):
        Encoder(plain, StaticTableRuntime(plain)).encode(["w1"], dimensions=4)
    forced = Encoder(plain, StaticTableRuntime(plain)).encode(["w1"], dimensions=4, force_dimensions=True)
    np.testing.assert_allclose(np.linalg.norm(forced, axis=1), 1, atol=1e-6)


def test_prompts_by_name_and_by_text_are_the_same(tiny: Encoder) -> None:
    expected = expected_rows(["query : w1", "query : w2 w3"])
    np.testing.assert_allclose(tiny.encode(["w1", "w2 w3"], prompt_name="query"), expected, atol=1e-6)
    np.testing.assert_allclose(tiny.encode(["w1", "w2 w3"], prompt="query : "), expected, atol=1e-6)


def test_the_default_prompt_is_used_and_can_be_turned_off(opened: ModelFolder) -> None:
    asking = replace(opened, default_prompt_name="passage")
    encoder = Encoder(asking, StaticTableRuntime(asking))
    np.testing.assert_allclose(encoder.encode(["w1"]), expected_rows(["passage : w1"]), atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode(["w1"], prompt_name="query"), expected_rows(["query : w1"]), atol=1e-6
    )
    np.testing.assert_allclose(encoder.encode(["w1"], prompt=""), expected_rows(["w1"]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message", "param"),
    [
        ({"prompt": "a", "prompt_name": "query"}, "give prompt_name or prompt, not both", "prompt"),
        ({"prompt": "a", "input_type": "query"}, "give input_type or prompt, not both", "prompt"),
        ({"max_tokens": 0}, "max_tokens = 0; at least 1 expected", "max_tokens"),
        (
            {"prompt_name": "quest"},
            "'quest' is unknown to model 'tiny'; it has: passage, query",
            "prompt_name",
        ),
        ({"prompt_name": ""}, "'' is unknown", "prompt_name"),
        ({"prompt": "\ud800"}, "prompt holds a lone surrogate at character 0", "prompt"),
        ({"batch_tokens": 0}, "batch_tokens = 0; it must be at least 1", "batch_tokens"),
    ],
)
def test_wrong_options_are_refused(tiny: Encoder, options: dict[str, Any], message: str, param: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        tiny.encode(["w1"], **options)
    assert caught.value.param == param


def test_a_model_without_prompts_says_so(opened: ModelFolder) -> None:
    bare = replace(opened, prompts={})
    with pytest.raises(InvalidInputError, match="it has: none"):
        Encoder(bare, StaticTableRuntime(bare)).encode(["w1"], prompt_name="query")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("w1", "input must be a list of texts, not one text"),
        (["w1", 5], r"input\[1\] is int, not a text"),
        (["w1", None], r"input\[1\] is NoneType, not a text"),
        (["w1", b"w2"], r"input\[1\] is bytes, not a text"),
        (["w1", "w2", ""], r"input\[2\] is empty"),
        (["w1", " \t\n\u3000"], r"input\[1\] is empty"),
        (["w1", "w2 \udfff"], r"input\[1\] holds a lone surrogate at character 3"),
    ],
)
def test_bad_texts_are_named_by_position(tiny: Encoder, texts: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        tiny.encode(texts)
    assert caught.value.param == "input"


def test_positions_count_from_the_whole_list(limited: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_WINDOW_TEXTS", 2)
    with pytest.raises(InvalidInputError, match=r"input\[4\] has 6 tokens; the limit is 5"):
        limited.encode(["w1", "w2", "w3", "w4", "w5 " * 6])


def test_a_check_may_name_another_field() -> None:
    with pytest.raises(InvalidInputError, match=r"documents\[0\] is empty") as caught:
        check_texts([""], name="documents")
    assert caught.value.param == "documents"


def test_a_nul_character_is_text_like_any_other(tiny: Encoder) -> None:
    assert np.isfinite(tiny.encode(["w1 \0 w2", "\0"])).all()


def test_texts_are_cut_where_asked(limited: Encoder) -> None:
    text = "w1 w2 w3 w4 w5 w6 w7"
    end = limited.encode_with_usage([text], EncodeOptions(truncate="end"))
    start = limited.encode_with_usage([text], EncodeOptions(truncate="start"))
    np.testing.assert_allclose(end.vectors, expected_rows(["w1 w2 w3 w4 w5"]), atol=1e-6)
    np.testing.assert_allclose(start.vectors, expected_rows(["w3 w4 w5 w6 w7"]), atol=1e-6)
    assert (end.tokens, end.truncated) == ([9], [True])


def test_max_tokens_lowers_the_limit_of_the_model(limited: Encoder) -> None:
    text = "w1 w2 w3 w4"
    options = EncodeOptions(max_tokens=4, truncate="end")  # two of them are special
    found = limited.encode_with_usage([text, "w9"], options)
    np.testing.assert_allclose(found.vectors, expected_rows(["w1 w2", "w9"]), atol=1e-6)
    assert (found.tokens, found.truncated) == ([6, 3], [True, False])
    with pytest.raises(TextTooLongError, match=r"input\[0\] has 4 tokens; the limit is 2"):
        limited.encode([text], max_tokens=4)


def test_input_types_take_the_prompts_of_their_role(tiny: Encoder, opened: ModelFolder) -> None:
    np.testing.assert_array_equal(
        tiny.encode(["w1"], input_type="query"), tiny.encode(["w1"], prompt_name="query")
    )
    np.testing.assert_array_equal(
        tiny.encode(["w1"], input_type="document"), tiny.encode(["w1"], prompt_name="passage")
    )
    plain = replace(opened, prompts={})
    without = Encoder(plain, StaticTableRuntime(plain))
    np.testing.assert_array_equal(without.encode(["w1"], input_type="query"), without.encode(["w1"]))


def test_the_prompt_survives_cutting_at_the_start(limited: Encoder) -> None:
    limited.encode(["w1 w2 w3 w4 w5"], prompt_name="query", truncate="start")
    assert ids_given(limited) == [[WORDS.index(word) for word in ["query", ":", "w3", "w4", "w5"]]]
    assert isinstance(limited.runtime, LimitedRuntime)
    assert limited.runtime.batches[0][0].prompt_tokens == 2


def test_a_prompt_that_leaves_no_room_is_refused(limited: Encoder) -> None:
    with pytest.raises(
        InvalidInputError, match="the prompt has 5 tokens; the limit is 5, text included"
    ) as caught:
        limited.encode(["w9"], prompt="w1 w2 w3 w4 w5 ", truncate="end")
    assert caught.value.param == "prompt"


def test_special_tokens_count_in_usage_and_in_the_budget(limited: Encoder) -> None:
    assert limited.encode_with_usage(["w1 w2", "w3"]).tokens == [4, 3]
    assert isinstance(limited.runtime, LimitedRuntime)
    limited.runtime.batches.clear()
    limited.encode(["w1", "w2", "w3", "w4"], batch_tokens=6)
    assert [len(batch) for batch in limited.runtime.batches] == [2, 2]


def test_a_vector_that_is_not_finite_is_never_returned(
    opened: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = StaticTableRuntime(opened)
    runtime.table = runtime.table.copy()
    runtime.table[WORDS.index("w3")] = np.nan
    monkeypatch.setattr(encoder_module, "_WINDOW_TEXTS", 2)
    with pytest.raises(EmbedsvcError, match=r"not finite for input\[3\]"):
        Encoder(opened, runtime).encode(["w1 w1 w1", "w1", "w2", "w3 w2", "w4"])


def test_progress_is_shown_on_standard_error(tiny: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.encode(TEXTS, progress=True)
    assert "5/5" in capsys.readouterr().err
    tiny.encode(TEXTS)
    tiny.encode(TEXTS, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_model_is_found_by_path_or_text(folder: Path) -> None:
    for model in (folder, str(folder)):
        encoder = load_encoder(model)
        assert (encoder.name, encoder.dimension, encoder.runtime.name) == ("tiny", 8, "static")
        assert encoder.fingerprint == open_model_folder(folder).fingerprint


@pytest.mark.skipif(not (BUNDLED / "modules.json").is_file(), reason="no bundled model in this checkout")
def test_the_bundled_model_is_the_default() -> None:
    encoder = load_encoder()
    assert encoder.name == "embedsvc-default"
    np.testing.assert_allclose(
        np.linalg.norm(encoder.encode(["Hello", "Guten Morgen"]), axis=1), 1, atol=1e-6
    )


@pytest.mark.parametrize("model", ["/no/such/folder", "./none", "~/none-of-these", "none", "a/b/c"])
def test_a_missing_folder_is_not_sought_on_the_hub(model: str) -> None:
    with pytest.raises(NotFoundError, match="no model folder at"):
        load_encoder(model)


def test_a_hub_model_that_is_not_cached_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFoundError, match="model 'acme/none' is neither a folder here nor available"):
        load_encoder("acme/none")


def test_an_unknown_runtime_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="runtime 'tensorflow' is unknown; choose auto, static"):
        load_encoder(folder, runtime="tensorflow")  # type: ignore[arg-type]


def test_without_onnx_and_torch_the_missing_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    (tmp_path / "config.json").write_text("{}")
    shutil.copy(folder / "tokenizer.json", tmp_path)
    monkeypatch.setattr(runtime_module, "torch_installed", lambda: False)
    with pytest.raises(
        MissingExtraError, match=r"has no float32 ONNX file; running it with torch needs the \[torch\] extra"
    ):
        load_encoder(tmp_path)


def test_loading_and_encoding_import_no_torch(folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, embedsvc; embedsvc.load_encoder(sys.argv[1]).encode(['w1']); "
        "sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60)


def test_a_broken_model_is_refused_when_it_is_opened(folder: Path) -> None:
    module = Module("Pooling", folder)
    broken = replace(open_model_folder(folder), modules=(Module("StaticEmbedding", folder), module))
    with pytest.raises(ModelError, match="a static model cannot be followed by Pooling"):
        StaticTableRuntime(broken)
