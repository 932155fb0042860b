"""Code-switching and transliteration: which texts change, how, and that batches stay repeatable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training tests need the [train] extra")
pytest.importorskip("anyascii", reason="transliteration needs the [augment] extra")

from embedsvc import load_encoder
from embedsvc.errors import InvalidInputError
from tests.training.cloned import RECIPE, write_cloned_pairs
from tests.training.test_pair_store import stored
from training.augmentation import Augmentation, latin_letters, replaced
from training.config import Recipe, read_recipe
from training.data import TokenBags, token_bags
from training.data_config import PairFiles
from training.evaluation.tatoeba import accuracies
from training.lexicon import Lexicon, learnt_lexicon, read_lexicon
from training.pair_files import pair_files
from training.preparation import prepare
from training.sampling_config import SamplingConfig
from training.token_store import Tokenization
from training.trainer import train

WORDS = Lexicon({"cat": ["Katze", "chat"], "sleeps": ["schläft"]})


def rows(bags: TokenBags) -> list[list[int]]:
    return [row.tolist() for row in np.split(bags.ids, bags.starts[1:-1])]


def test_words_of_the_lexicon_are_replaced_by_its_share_and_the_rest_stays() -> None:
    generator = np.random.default_rng(1)
    assert WORDS.switched("The CAT, sleeps!", 1.0, generator) in (
        "The Katze, schläft!",
        "The chat, schläft!",
    )
    drawn = [WORDS.switched("cat sleeps", 0.25, generator) for _ in range(4000)]
    assert sum("sleeps" not in text for text in drawn) / 4000 == pytest.approx(0.25, abs=0.03)
    assert sum("Katze" in text for text in drawn) / 4000 == pytest.approx(0.125, abs=0.02)


def test_a_lexicon_is_learnt_from_pairs_of_one_word_but_not_from_held_out_ones(tmp_path: Path) -> None:
    lines = ["Cat\tde\tKatze", "cat\tfr\tchat", "cat\tfr\tchat", "dog\tde\tHund", "big dog\tde\tgroß"]
    lines += ["taxi\tde\tTaxi", "No!\tde\tNein", "tree\tde\tder Baum"]
    pairs = stored(tmp_path, "\n".join(lines) + "\n")
    left_out = np.array([other == "Hund" for other in pairs.other])
    assert learnt_lexicon(pairs, left_out).words == {"cat": ["Katze", "chat"]}
    with pytest.raises(InvalidInputError, match=r"no pair of one word on both sides; give data\.lexicon"):
        learnt_lexicon(pairs, np.ones(len(lines), np.bool_))


def test_a_lexicon_is_read_from_a_file_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("cat\tKatze\nbig dog\tx\n", encoding="utf-8")
    section = PairFiles(files="words.tsv", target_language="de")
    assert read_lexicon(pair_files([section], tmp_path)).words == {"cat": ["Katze"]}
    (tmp_path / "words.tsv").write_text("big dog\tx\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"no entry of one English word in .*words\.tsv"):
        read_lexicon(pair_files([section], tmp_path))


def test_replaced_texts_stand_where_the_old_ones_stood() -> None:
    bags = token_bags([[1, 2], [], [3], [4, 5, 6]])
    assert rows(replaced(bags, {3: [9], 0: [7, 8, 9]})) == [[7, 8, 9], [], [3], [9]]
    assert rows(replaced(bags, {1: [8]})) == [[1, 2], [8], [3], [4, 5, 6]]
    assert replaced(bags, {}) is bags


def augmentation(folder: Path, **sampling: Any) -> Augmentation:
    """Of "cat sleeps" and its translation; a token is the length of a word, and texts are cut at 2."""
    pairs = stored(folder, "cat sleeps well\tru\tкот спит\ndog\tfr\tchien\n")
    tokenization = Tokenization(lambda texts: [[*map(len, text.split())] for text in texts], "x", 2)
    return Augmentation(pairs, tokenization, SamplingConfig(**sampling), 5, WORDS, latin_letters())


def test_english_is_switched_and_the_other_side_written_in_latin_letters(tmp_path: Path) -> None:
    drawn, texts = np.array([0, 1, 0]), token_bags([[1], [2], [1], [3], [4], [3]])
    both = augmentation(tmp_path, code_switching=0.99, switched_words=1.0, transliteration=0.99)
    changed = [rows(both.applied(texts, drawn, step)) for step in range(50)]
    # "Katze schläft well" or "chat schläft well", cut; "kot spit". What the lexicon lacks or is ASCII stays.
    english, other = ([5, 7], [4, 7], [1]), ([3, 4], [3])
    assert all(one[0] in english and one[2] in english for one in changed)
    assert all(one[3] in other and one[5] in other for one in changed)
    assert all(one[1] == [2] and one[4] == [4] for one in changed)
    assert {str(one[0]) for one in changed} >= {"[5, 7]", "[4, 7]"}


def test_a_share_of_the_texts_is_changed_the_same_ones_for_a_seed_and_step(tmp_path: Path) -> None:
    some = augmentation(tmp_path, transliteration=0.3)
    drawn, texts = np.zeros(2000, np.int64), token_bags([[1]] * 2000 + [[9]] * 2000)
    first = some.applied(texts, drawn, 1)
    changed = np.array([row == [3, 4] for row in rows(first)[2000:]])
    assert rows(first)[:2000] == [[1]] * 2000
    assert changed.mean() == pytest.approx(0.3, abs=0.03)
    assert rows(some.applied(texts, drawn, 1)) == rows(first)
    assert rows(some.applied(texts, drawn, 2)) != rows(first)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cloned languages, and every word with its translations as pairs of their own."""
    folder = tmp_path_factory.mktemp("switched")
    write_cloned_pairs(folder / "pairs.tsv", sentences=400, words=80)
    write_cloned_pairs(folder / "words.tsv", sentences=80, words=80, shortest=1, longest=1, unique=True)
    return folder


def recipe(folder: Path, *, sampling: str, data: str = "", steps: int = 120) -> Recipe:
    text = RECIPE.format(steps=steps, learning_rate=0.02).replace(
        "held_out_groups = 100", "held_out_groups = 20"
    )
    text = text.replace("[sampling]\n", f"[sampling]\n{sampling}").replace("[data]\n", f"[data]\n{data}")
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


def test_a_run_draws_switched_batches_that_depend_on_seed_and_step_only(data: Path, tmp_path: Path) -> None:
    plain = prepare(recipe(data, sampling=""), tmp_path / "a", data, progress=False).sampler
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tokenizer.json").write_bytes((tmp_path / "a" / "tokenizer.json").read_bytes())
    with_words = recipe(data, sampling="code_switching = 0.4\n", data='lexicon = "words.tsv"\n')
    prepared = prepare(with_words, tmp_path / "b", data, progress=False)
    batches = [prepared.sampler.batch(step) for step in (3, 4, 3)]
    assert batches[0].texts.ids.tolist() == batches[2].texts.ids.tolist()
    before = plain.batch(3)
    assert before.pairs.tolist() == batches[0].pairs.tolist(), "the same pairs, other texts"
    assert prepared.tokenizer is not None
    tokens = [prepared.tokenizer.decode([int(token)]) for token in batches[0].texts.ids[:300]]
    assert any("а" <= token[-1] <= "п" for token in tokens), "Cyrillic words in the English"
    report = (tmp_path / "b" / "data.json").read_text()
    assert '"words.tsv"' in report


@pytest.mark.slow
def test_latin_letters_are_understood_only_by_a_model_that_has_seen_them(data: Path, tmp_path: Path) -> None:
    lines = [line.split("\t") for line in (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    english = [first for first, _, _ in lines if first][:120]
    latin = [*map(latin_letters(), [other for _, code, other in lines if code == "klon_Cyrl"][:120])]
    figures = []
    for name, sampling in (("plain", ""), ("latin", "transliteration = 0.5\n")):
        model = train(recipe(data, sampling=sampling), tmp_path / name, data, progress=False)
        encoder = load_encoder(model)
        figures.append(min(accuracies(encoder.encode(english), encoder.encode(latin))))
    assert figures[0] < 40 < 90 < figures[1]


def test_a_lexicon_that_nothing_uses_is_refused(data: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"data\.lexicon is given, but sampling\.code_switching is 0"):
        recipe(data, sampling="", data='lexicon = "words.tsv"\n')
