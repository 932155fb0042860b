from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.training.tiny_tokenizers import KINDS, TEXT
from training.trimmed_tokenizer import TrimmableTokenizer


def kept_ids(trimmable: TrimmableTokenizer, tokenizer: Tokenizer, corpus: list[str]) -> np.ndarray:
    """All that has to stay for the corpus, by the rules of the module."""
    used = {id_ for text in corpus for id_ in tokenizer.encode(text, add_special_tokens=False).ids}
    wanted = used | trimmable.required() | trimmable.before_failing(corpus)
    return np.array(sorted(trimmable.closure(wanted)), np.int64)


def trim(tokenizer: Tokenizer, corpus: list[str]) -> tuple[Tokenizer, np.ndarray]:
    trimmable = TrimmableTokenizer(tokenizer.to_str())
    kept = kept_ids(trimmable, tokenizer, corpus)
    return Tokenizer.from_str(trimmable.trimmed(kept)), kept


def same_cuts(tokenizer: Tokenizer, small: Tokenizer, kept: np.ndarray, text: str) -> bool:
    return kept[small.encode(text).ids].tolist() == tokenizer.encode(text).ids


OTHER = "quixotic yaks überholten Москву, dogged foxglove watchers: 今日は ☃"


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(st.sampled_from([*TEXT, "foxdog", "overover", "☃fox", "fo☃x", "xyz123"]), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_the_corpus_is_cut_as_before(kind: str, words: list[str]) -> None:
    tokenizer = KINDS[kind]
    corpus = [*words, " ".join(words)]
    small, kept = trim(tokenizer, corpus)
    assert all(same_cuts(tokenizer, small, kept, text) for text in corpus)
    assert [small.id_to_token(i) for i in range(len(kept))] == [tokenizer.id_to_token(i) for i in kept]


@pytest.mark.parametrize("kind", KINDS)
def test_other_texts_get_smaller_pieces_not_unknown_ones(kind: str) -> None:
    tokenizer = KINDS[kind]
    small, kept = trim(tokenizer, ["the fox"])
    assert len(kept) < tokenizer.get_vocab_size()
    for word in TEXT:
        before, after = tokenizer.encode(word).tokens, small.encode(word).tokens
        assert "unk" not in "".join(after).lower()
        assert len(after) >= len(before)
    unknown = [piece for piece in small.encode(OTHER).tokens if "unk" in piece.lower()]
    assert len(unknown) <= len([piece for piece in tokenizer.encode(OTHER).tokens if "unk" in piece.lower()])


def test_special_tokens_and_padding_get_their_new_numbers() -> None:
    small, kept = trim(KINDS["WordPiece"], ["the fox"])
    assert small.token_to_id("unused") is None
    assert kept[:4].tolist() == [0, 2, 3, 4]
    first, second = small.encode_batch(["the fox", "fox the fox"])
    assert first.tokens == ["[CLS]", "the", "fox", "[SEP]", "[PAD]"]
    assert first.ids == [2, small.token_to_id("the"), small.token_to_id("fox"), 3, 0]
    assert second.tokens[-1] == "[SEP]"


def hand_bpe(**options: object) -> Tokenizer:
    """Merges that lead to abcd in two steps, and ones in their way: cd would win against bc in "abcd"."""
    pieces = ["a", "b", "c", "d", "ab", "cd", "abcd", "bc", "bcd", "abc"]
    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("b", "c"), ("bc", "d"), ("a", "bc")]
    return Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, **options))


def test_the_parts_of_a_kept_merge_stay_and_no_others() -> None:
    small, kept = trim(hand_bpe(), ["abcd"])
    assert [small.id_to_token(i) for i in range(len(kept))] == ["a", "b", "c", "d", "ab", "cd", "abcd"]
    assert json.loads(small.to_str())["model"]["merges"] == [["a", "b"], ["c", "d"], ["ab", "cd"]]
    assert small.encode("abcd").tokens == ["abcd"]
    assert small.encode("bcd").tokens == ["b", "cd"]


def test_every_way_to_a_piece_stays() -> None:
    """As in tokenizers converted from sentencepiece, where several merges make one piece."""
    pieces = ["a", "b", "c", "ab", "bc", "abc"]
    merges = [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    small, kept = trim(tokenizer, ["abc"])
    assert len(kept) == 6
    assert small.encode("abc").tokens == ["abc"]


def test_a_word_that_needs_no_merges_is_kept_whole() -> None:
    small, _ = trim(hand_bpe(ignore_merges=True), ["bcd"])
    assert small.encode("bcd").tokens == ["bcd"]


def test_bytes_stay_for_what_no_piece_covers() -> None:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "ab"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)}, [("a", "b")], unk_token="<unk>", byte_fallback=True
        )
    )
    small, kept = trim(tokenizer, ["a"])
    assert len(kept) == 259
    assert small.encode("é").tokens == ["<0xC3>", "<0xA9>"]


def test_the_penalty_of_unknown_characters_stays_what_it_was() -> None:
    scores = [("<unk>", 0.0), ("xy", -19.5), ("yxy", -1.0), ("zzz", -30.0), ("zz", -20.0)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    # unknown: -30 - 10; "x" unknown and "yxy" have -41, "xy" twice -39. After -19.5 - 10 it were -30.5.
    assert tokenizer.encode("xyxy").tokens == ["xy", "xy"]
    small, kept = trim(tokenizer, ["xyxy", "yxy"])
    assert kept.tolist() == [0, 1, 2, 3]
    assert small.encode("xyxy").tokens == ["xy", "xy"]


def test_a_word_that_fails_after_a_long_match_still_fails() -> None:
    pieces = ["[UNK]", "a", "c", "ab", "##b☃"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert tokenizer.encode("ab☃").tokens == ["[UNK]"]  # "ab" is taken, and "##☃" is nothing
    small, kept = trim(tokenizer, ["ab☃", "cb☃"])
    assert kept.tolist() == [0, 1, 2, 3, 4]
    assert small.encode("ab☃").tokens == ["[UNK]"]
    smaller, _ = trim(tokenizer, ["cb☃"])
    assert smaller.encode("ab☃").tokens == ["a", "##b☃"], "nobody asked for this word"


def test_old_files_that_do_not_name_their_kind_are_read() -> None:
    made = json.loads(hand_bpe().to_str())
    del made["model"]["type"]
    trimmable = TrimmableTokenizer(json.dumps(made))
    assert Tokenizer.from_str(trimmable.trimmed(np.arange(6))).encode("abc").tokens == ["ab", "c"]
