from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the train extra to make ONNX graphs")

from tiny_models import write_graph_model, write_json

from embedsvc.encoder import PreparedText, load_encoder
from embedsvc.encoders import onnx_runtime
from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.errors import EmbedsvcError, MissingExtraError, ModelError, TextTooLongError
from embedsvc.model_folder import open_model_folder

PLAIN = ("input_ids", "attention_mask")


def raw(folder: Path, texts: list[str]) -> np.ndarray:
    return np.asarray(load_encoder(folder).encode(texts, normalize=False))


def test_states_are_pooled_over_the_true_tokens_only(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    # [CLS] = 2, [SEP] = 3, w0 = 7, w1 = 8; the second text is padded.
    found = raw(folder, ["w0 w1 w1 w0", "w1"])
    np.testing.assert_allclose(found, [[(2 + 7 + 8 + 8 + 7 + 3) / 6, 1], [(2 + 8 + 3) / 3, 1]], rtol=1e-6)


def test_token_types_and_positions_are_fed_when_the_graph_wants_them(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=(*PLAIN, "token_type_ids", "position_ids"))
    found = raw(folder, ["w0 w1", "w1"])
    np.testing.assert_allclose(found, [[5, 1 + 100 * 1.5], [13 / 3, 1 + 100]], rtol=1e-6)


def test_a_graph_that_pools_itself_is_taken_at_its_word(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN, output="sentence_embedding")
    np.testing.assert_allclose(raw(folder, ["w0"]), [[2 + 7 + 3, 3]])


def test_limits_come_from_the_folder(tmp_path: Path) -> None:
    encoder = load_encoder(write_graph_model(tmp_path / "m", inputs=PLAIN))
    assert (encoder.runtime.name, encoder.runtime.max_tokens, encoder.runtime.special_tokens) == (
        "onnx",
        10,
        2,
    )
    encoder.encode(["w1 " * 10])
    with pytest.raises(TextTooLongError, match=r"input\[1\] has 11 tokens; the limit is 10"):
        encoder.encode(["w1", "w1 " * 11])


def test_threads_do_not_spin_and_fit_the_machine(tmp_path: Path) -> None:
    from embedsvc.cpu import effective_cpus

    runtime = OnnxRuntime(open_model_folder(write_graph_model(tmp_path / "m", inputs=PLAIN)))
    options = runtime._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == effective_cpus()
    one = OnnxRuntime(open_model_folder(tmp_path / "m"), threads=1)
    assert one._session.get_session_options().intra_op_num_threads == 1


def test_an_unknown_input_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=(*PLAIN, "past_key_values"))
    with pytest.raises(ModelError, match=r"model\.onnx asks for the input 'past_key_values'"):
        load_encoder(folder)


def test_an_unknown_output_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN, output="logits")
    with pytest.raises(ModelError, match=r"model\.onnx has the outputs logits; one of last_hidden_state"):
        load_encoder(folder)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x09"])
def test_a_broken_onnx_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    (folder / "onnx" / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"onnx/model\.onnx cannot be opened as an ONNX model"):
        load_encoder(folder)


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    write_json(folder / "config.json", {"vocab_size": 40, "max_position_embeddings": 12})
    encoder = load_encoder(folder)
    encoder.encode(["w32"])
    with pytest.raises(ModelError, match=r"token id 40, but config\.json says vocab_size 40"):
        encoder.encode(["w33"])


def test_a_failure_inside_the_graph_names_the_file(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    write_json(folder / "config.json", {"vocab_size": 1000, "max_position_embeddings": 12})
    runtime = load_encoder(folder).runtime
    with pytest.raises(EmbedsvcError, match=r"model\.onnx failed on a batch of \(1, 3\)"):
        runtime.embed([PreparedText([900])])


def test_a_limit_without_room_for_text_is_refused(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=("position_ids",))
    write_json(folder / "config.json", {"max_position_embeddings": 2})
    with pytest.raises(ModelError, match="2 special tokens leave no room in a limit of 2"):
        load_encoder(folder)


def test_runtime_onnx_needs_an_onnx_file_or_the_means_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    (folder / "onnx" / "model.onnx").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("embedsvc.onnx_cache.find_spec", lambda _: None)
    with pytest.raises(
        MissingExtraError, match=r"has no float32 ONNX file; exporting one needs the \[train\]"
    ):
        load_encoder(folder, runtime="onnx")


@pytest.mark.slow
def test_a_model_without_an_onnx_file_is_exported_once(
    bert_mean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = tmp_path / "plain"
    shutil.copytree(bert_mean, plain, ignore=shutil.ignore_patterns("onnx"))
    texts = ["w1 w2", "w3"]
    expected = load_encoder(plain, runtime="torch", device="cpu").encode(texts)
    first = load_encoder(plain, runtime="onnx")
    np.testing.assert_allclose(first.encode(texts), expected, atol=1e-5)
    assert first.name == "plain"
    made = first.folder.path.stat().st_mtime_ns
    assert load_encoder(plain, runtime="onnx").folder.path == first.folder.path
    assert first.folder.path.stat().st_mtime_ns == made
    whole = load_encoder(plain, runtime="onnx", precision="int8").encode(texts)
    assert (whole * expected).sum(axis=1).min() > 0.95


def write_whole_batch_int8(folder: Path) -> None:
    """Put a graph beside the model that rounds its states on one scale for the whole batch."""
    import onnx
    from onnx import helper

    model = onnx.load(folder / "onnx" / "model.onnx")
    model.graph.node[-1].output[0] = "exact"
    model.graph.node.extend(
        [
            helper.make_node("DynamicQuantizeLinear", ["exact"], ["steps", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["last_hidden_state"]),
        ]
    )
    onnx.save(model, folder / "onnx" / "model_quantized.onnx")


def test_a_graph_with_scales_of_the_whole_batch_runs_text_by_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    write_whole_batch_int8(folder)
    opened = open_model_folder(folder)
    runtime = OnnxRuntime(opened, precision="int8")
    batch = [PreparedText(ids) for ids in runtime.tokenize(["w0 w1", "w30 w31 w32", "w2"])]
    alone = np.concatenate([runtime.embed([text]) for text in batch])
    np.testing.assert_array_equal(runtime.embed(batch), alone)
    monkeypatch.setattr(onnx_runtime, "_WHOLE_BATCH_SCALES", ())
    mixed = OnnxRuntime(opened, precision="int8").embed(batch)
    assert np.abs(mixed - alone).max() > 0.01, "the graph does depend on its batch"


def test_each_precision_opens_its_own_file(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    with pytest.raises(ModelError, match=r"has no int8 ONNX file; make one: embedsvc export .* --onnx int8"):
        OnnxRuntime(open_model_folder(folder), precision="int8")
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_int8.onnx")
    assert OnnxRuntime(open_model_folder(folder), precision="int8").dimension == 2
    with pytest.raises(ModelError, match="has no float32 ONNX file"):
        OnnxRuntime(open_model_folder(folder))


@pytest.mark.parametrize(("has_vnni", "entry"), [(True, "0"), (False, "1")])
def test_int8_is_exact_on_processors_whose_fast_products_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_vnni: bool, entry: str
) -> None:
    monkeypatch.setattr(onnx_runtime, "multiplies_int8_exactly", lambda: has_vnni)
    runtime = OnnxRuntime(open_model_folder(write_graph_model(tmp_path / "m", inputs=PLAIN)))
    options = runtime._session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == entry


def test_the_fingerprint_is_that_of_the_graph_which_is_run(tmp_path: Path) -> None:
    folder = write_graph_model(tmp_path / "m", inputs=PLAIN)
    other = write_graph_model(tmp_path / "other", inputs=(*PLAIN, "position_ids"))
    shutil.copy(other / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx")
    files = open_model_folder(folder).files_fingerprint
    full, rounded = load_encoder(folder), load_encoder(folder, precision="int8")
    np.testing.assert_allclose(full.encode(["w0"], normalize=False), [[4, 1]], rtol=1e-6)
    np.testing.assert_allclose(rounded.encode(["w0"], normalize=False), [[4, 101]], rtol=1e-6)
    assert full.fingerprint == files
    assert rounded.fingerprint != files
    assert rounded.fingerprint == load_encoder(folder, runtime="onnx", precision="int8").fingerprint
    assert load_encoder(precision="int8").fingerprint == load_encoder().fingerprint  # a table has no graph
