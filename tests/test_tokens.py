from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from embedsvc.errors import InvalidInputError, ModelError, TextTooLongError
from embedsvc.tokens import TextTokenizer, check_unicode, fit_tokens

WORDS = ["[UNK]", "[CLS]", "[SEP]", "one", "two", "Two"]


def saved(folder: Path, *, template: str | None = None, unknown: str | None = "[UNK]") -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        special = [("[CLS]", 1), ("[SEP]", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("template", "prefix", "suffix"),
    [
        (None, [], []),
        ("[CLS] $A [SEP]", [1], [2]),
        ("$A [SEP]", [], [2]),
        ("[CLS] $A", [1], []),
        ("[CLS] [CLS] $A [SEP] [SEP]", [1, 1], [2, 2]),
    ],
)
def test_special_tokens_are_found(
    tmp_path: Path, template: str | None, prefix: list[int], suffix: list[int]
) -> None:
    tokenizer = TextTokenizer(saved(tmp_path, template=template))
    assert (tokenizer.prefix, tokenizer.suffix) == (prefix, suffix)
    assert tokenizer.ids(["one two", "two"]) == [[3, 4], [4]]


def test_special_tokens_are_found_even_when_most_words_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer(models.BPE({"x": 0, "[S]": 1}, []))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [S]", special_tokens=[("[S]", 1)])
    tokenizer.save(str(path))
    assert TextTokenizer(path).ids(["a"]) == [[]]
    assert (TextTokenizer(path).prefix, TextTokenizer(path).suffix) == ([], [1])


def test_limits_and_padding_saved_in_the_file_are_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(path))
    assert TextTokenizer(path).ids(["one two one", "two"]) == [[3, 4, 3], [4]]


def test_lower_casing_comes_before_the_tokenizers_own_normaliser(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert TextTokenizer(path).ids(["Two TWO"]) == [[5, 0]]
    assert TextTokenizer(path, lowercase=True).ids(["Two TWO"]) == [[4, 4]]
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.normalizer = normalizers.Replace("t", "T")
    tokenizer.save(str(path))
    assert TextTokenizer(path, lowercase=True).ids(["two TWO"]) == [[5, 5]]


def test_the_vocabulary_is_counted_and_looked_up(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(saved(tmp_path))
    assert (tokenizer.vocabulary, tokenizer.token_id("[SEP]"), tokenizer.token_id("none")) == (6, 2, None)


def test_no_texts_have_no_ids(tmp_path: Path) -> None:
    assert TextTokenizer(saved(tmp_path)).ids([]) == []


@pytest.mark.parametrize("content", ["", "garbage", "{}", '{"version": "1.0"}', "[1]"])
def test_garbage_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        TextTokenizer(path)


def test_a_lone_surrogate_is_located() -> None:
    with pytest.raises(
        InvalidInputError, match=r"input\[4\] holds a lone surrogate at character 2"
    ) as caught:
        check_unicode("ab\ud800", "input[4]", param="input")
    assert caught.value.param == "input"
    check_unicode("astral 𝄞 and NUL \0", "input[0]")


@pytest.mark.parametrize(
    ("truncate", "keep", "expected"),
    [("end", 0, [1, 2, 3]), ("start", 0, [3, 4, 5]), ("start", 1, [1, 4, 5]), ("end", 2, [1, 2, 3])],
)
def test_cutting_keeps_the_prompt(truncate: str, keep: int, expected: list[int]) -> None:
    assert fit_tokens([1, 2, 3, 4, 5], 3, truncate, 0, keep=keep) == expected  # type: ignore[arg-type]


def test_a_text_at_the_limit_is_left_alone_and_one_more_is_refused() -> None:
    assert fit_tokens([1, 2, 3], 3, "none", 0) == [1, 2, 3]
    with pytest.raises(TextTooLongError, match=r"input\[7\] has 4 tokens; the limit is 3 \(truncate="):
        fit_tokens([1, 2, 3, 4], 3, "none", 7)
