"""Reading pairs, drawing batches: every claim on values."""

import numpy as np
import pytest

from training.data import TokenBags, text_keys
from training.likeness import sentence_likeness
from training.sampling import BatchSampler, BatchShape, PairSource, pair_weights
from training.sampling_config import SamplingConfig
from training.tokenizer import train_tokenizer


def bags(*rows: list[int]) -> TokenBags:
    return TokenBags(
        np.array([token for row in rows for token in row], np.int32), np.cumsum([0, *map(len, rows)])
    )


def test_keys_ignore_case_spaces_and_punctuation_only() -> None:
    keys = text_keys(["Yes, please!", "yes please", "no please", "!!!", "???"])
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 4


def test_take_returns_the_bags_of_the_rows() -> None:
    ids, lengths = bags([1, 2], [], [3], [4, 5, 6]).take(np.array([3, 1, 0]))
    assert ids.tolist() == [4, 5, 6, 1, 2]
    assert lengths.tolist() == [3, 0, 2]


def test_weights_follow_the_stated_formula() -> None:
    language = np.array([0, 0, 0, 0, 1], np.int16)
    characters = np.array([60, 0, 180, 0, 0])
    likeness = np.array([0, 0, 1, 0.5, 0])
    config = SamplingConfig(language_exponent=0.5, length_pivot=60, length_exponent=1, sentences=3)
    weights = pair_weights(language, characters, likeness, config)
    assert weights == pytest.approx([0.25, 0.5, 0.125 * 4, 0.5 * 2.5, 1.0])


@pytest.mark.parametrize(
    ("text", "likeness"),
    [
        ("Where is my book?", 1.0),
        ("He saw the house", 0.5),
        ("See the list below.", 0.5),
        ("Open recent file", 0.0),
        ("You have %d new messages.", 0.0),
        ("The HTML is here.", 0.0),
        ("Is it?", 0.0),
        (" ".join(["he"] * 21) + ".", 0.0),
    ],
)
def test_sentences_are_told_from_labels(text: str, likeness: float) -> None:
    assert sentence_likeness(text) == likeness


def source() -> PairSource:
    return PairSource(
        english=bags([1, 2], [3]),
        other=bags([4], [5, 6], [7], [8, 9]),
        group=np.array([0, 0, 1, 1], np.int32),
        group_key=np.array([10, 10, 11, 11]),
        other_key=np.array([20, 21, 22, 20]),
        language=np.array([0, 1, 0, 1], np.int16),
    )


def test_a_batch_holds_both_sides_and_masks_other_translations() -> None:
    batch = BatchSampler(source(), np.ones(4), BatchShape(64), seed=5).batch(0)
    texts = [bag.tolist() for bag in np.split(batch.texts.ids, batch.texts.starts[1:-1])]
    pair = {(4,): (0, 10, 20), (5, 6): (0, 10, 21), (7,): (1, 11, 22), (8, 9): (1, 11, 20)}
    english = {0: [1, 2], 1: [3]}
    drawn = [pair[tuple(text)] for text in texts[64:]]
    assert [english[group] for group, _, _ in drawn] == texts[:64]
    for i, (_, group, other) in enumerate(drawn):
        for j, (_, group_j, other_j) in enumerate(drawn):
            left_out = i != j and (group == group_j or other == other_j)
            assert batch.relations[i, j] == (1 if i == j else 0 if left_out else -1)


def test_a_batch_depends_on_seed_and_step_only() -> None:
    def draw(seed: int, step: int) -> list[int]:
        sampler = BatchSampler(source(), np.ones(4), BatchShape(16, token_dropout=0.3), seed=seed)
        sampler.batch(99)
        return sampler.batch(step).texts.ids.tolist()

    assert draw(1, 4) == draw(1, 4)
    assert draw(1, 4) != draw(1, 5)
    assert draw(1, 4) != draw(2, 4)


def test_pairs_are_drawn_by_weight_and_never_with_weight_zero() -> None:
    batch = BatchSampler(source(), np.array([0.0, 3.0, 1.0, 0.0]), BatchShape(4000), seed=1).batch(0)
    lengths = batch.texts.lengths[4000:]
    assert 2850 < (lengths == 2).sum() < 3150
    assert set(batch.texts.ids.tolist()) == {1, 2, 3, 5, 6, 7}


def three_languages() -> PairSource:
    """Ten sentences, each in languages 0, 1 and 2: pair ``3 * sentence + language``."""
    pairs, texts = np.arange(30), bags(*[[row] for row in range(30)])
    group = pairs // 3
    return PairSource(texts, texts, group.astype(np.int32), group, 100 + pairs, (pairs % 3).astype(np.int16))


def test_batches_of_one_language_draw_languages_and_pairs_by_weight() -> None:
    weights = np.tile([0.0, 3.0, 1.0], 10)
    weights[1] = 9.0
    sampler = BatchSampler(three_languages(), weights, BatchShape(64, batches="one_language"), seed=1)
    drawn = [sampler.batch(step).pairs for step in range(400)]
    languages = [set((pairs % 3).tolist()) for pairs in drawn]
    assert all(len(one) == 1 for one in languages)
    assert sum(one == {1} for one in languages) / 400 == pytest.approx(36 / 46, abs=0.05)
    first = np.concatenate([pairs for pairs in drawn if pairs[0] % 3 == 1])
    assert (first == 1).mean() == pytest.approx(9 / 36, abs=0.02)


def test_translation_groups_come_together_and_are_positives_of_each_other() -> None:
    weights = np.tile([4.0, 1.0, 1.0], 10)
    weights[:3] = [1.0, 0.0, 1.0]
    shape = BatchShape(33, translations=2, positives="group")
    batches = [BatchSampler(three_languages(), weights, shape, seed=1).batch(step) for step in range(200)]
    for batch in batches:
        pairs = batch.pairs
        assert len(pairs) == 33
        assert 1 not in pairs, "weight zero"
        assert (pairs[0:32:2] // 3 == pairs[1:32:2] // 3).all()
        assert (pairs[0:32:2] != pairs[1:32:2]).all()
        same = pairs[:, None] // 3 == pairs[None, :] // 3
        again = (pairs[:, None] == pairs[None, :]) & ~np.eye(33, dtype=bool)
        assert batch.relations.tolist() == np.where(again, 0, np.where(same, 1, -1)).tolist()
    first, second = (np.concatenate([batch.pairs[at:32:2] for batch in batches]) for at in (0, 1))
    beside_language_1 = second[(first % 3 == 1)]
    assert (beside_language_1 % 3 == 0).mean() == pytest.approx(4 / 5, abs=0.05)


def test_languages_are_drawn_by_their_size_to_the_exponent() -> None:
    language = np.repeat([0, 1], [900, 100]).astype(np.int16)
    config = SamplingConfig(language_exponent=0.5)
    weights = pair_weights(language, np.full(1000, 30), np.zeros(1000), config)
    texts = bags(*[[row] for row in range(1000)])
    rows = np.arange(1000)
    pairs = PairSource(texts, texts, rows.astype(np.int32), rows, rows, language)
    sampler = BatchSampler(pairs, weights, BatchShape(100), seed=1)
    drawn = np.concatenate([sampler.batch(step).pairs for step in range(100)])
    assert (drawn < 900).mean() == pytest.approx(30 / (30 + 10), abs=0.02)


def test_a_text_that_would_lose_every_token_keeps_its_first() -> None:
    pairs = PairSource(
        bags([1, 2], [], [3]),
        bags([4, 5], [], [6]),
        np.arange(3, dtype=np.int32),
        *[np.arange(3)] * 2,
        np.zeros(3, np.int16),
    )
    batch = BatchSampler(pairs, np.ones(3), BatchShape(300, token_dropout=0.97), seed=1).batch(0)
    texts = [tuple(bag) for bag in np.split(batch.texts.ids, batch.texts.starts[1:-1])]
    assert {(1,), (), (3,)} <= set(texts[:300]) <= {(1,), (2,), (1, 2), (), (3,)}
    assert {(4,), (), (6,)} <= set(texts[300:]) <= {(4,), (5,), (4, 5), (), (6,)}


def test_dropout_leaves_out_its_share_but_never_a_whole_text() -> None:
    wide = PairSource(
        bags(list(range(100))),
        bags([7], [8]),
        *[np.zeros(2, np.int32)] * 2,
        np.arange(2),
        np.zeros(2, np.int16),
    )
    batch = BatchSampler(wide, np.ones(2), BatchShape(500, token_dropout=0.25), seed=1).batch(3)
    lengths = batch.texts.lengths
    assert abs(lengths[:500].mean() - 75) < 1
    assert (lengths[500:] == 1).all()


def test_the_tokenizer_lower_cases_marks_continuations_and_knows_unknown() -> None:
    tokenizer = train_tokenizer(["hello hello hell", "привет привет"] * 20, vocabulary=60, alphabet=30)
    assert tokenizer.encode("HELLO").tokens == ["hello"]
    assert tokenizer.encode("hello привет").tokens == ["hello", "привет"]
    assert tokenizer.encode("语").tokens == ["[UNK]"]
    assert tokenizer.encode("othell").tokens[-1].startswith("##")
