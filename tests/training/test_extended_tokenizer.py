"""A tokenizer that learns another script, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from embedsvc.errors import InvalidInputError
from training.extended_tokenizer import extended_tokenizer
from training.tokenizer import UNKNOWN, train_tokenizer

OLD = train_tokenizer(["hello world", "hell yeah, the world 12"] * 20, vocabulary=60, alphabet=40)
NEW = extended_tokenizer(OLD, ["Привет мир", "привет xмир hello", "hello world"] * 10, pieces=60)


def test_words_of_another_script_become_pieces_of_their_own() -> None:
    assert OLD.encode("привет МИР").tokens == [UNKNOWN, UNKNOWN]
    assert NEW.encode("привет МИР, hello").tokens == ["привет", "мир", ",", "hello"]
    assert NEW.encode("приветмир").tokens[0] == "привет"


@given(st.text(alphabet="abcdefhloryw ,12", max_size=30))
@settings(max_examples=50)
def test_a_text_without_unknown_characters_has_the_ids_it_had(text: str) -> None:
    if UNKNOWN not in OLD.encode(text).tokens:
        assert NEW.encode(text).ids == OLD.encode(text).ids


def test_ids_of_new_pieces_are_above_all_others_and_no_more_than_asked_for() -> None:
    size = OLD.get_vocab_size()
    assert {piece: id for piece, id in NEW.get_vocab().items() if id < size} == OLD.get_vocab()
    assert sorted(NEW.get_vocab().values()) == [*range(NEW.get_vocab_size())]
    few = extended_tokenizer(OLD, ["привет мир"] * 10, pieces=12)
    assert few.get_vocab_size() == size + 12
    assert extended_tokenizer(OLD, ["hello the"], pieces=9).get_vocab() == OLD.get_vocab()


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, UNKNOWN: 1}, unk_token=UNKNOWN))
    with pytest.raises(InvalidInputError, match=r"tokenizer\.extend: .* WordLevel; only BPE can be"):
        extended_tokenizer(words, ["b"], pieces=3)
