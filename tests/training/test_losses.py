"""Losses against values computed by hand and plain double loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.loss_config import (  # noqa: E402
    AlignmentConfig,
    DistillationConfig,
    KoLeoConfig,
    TeacherRankingConfig,
    TranslationRankingConfig,
)
from training.losses import LOSSES, EmbeddedPairs  # noqa: E402
from training.losses.pairs import Negatives  # noqa: E402
from training.objective import Objective  # noqa: E402
from training.relations import IGNORED, POSITIVE, PairKeys, relation_matrix  # noqa: E402

BOTH_WAYS = TranslationRankingConfig(scale=20, margin=0.3)


def unit(*degrees: float) -> "torch.Tensor":
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def related(n: int, **changes: list[tuple[int, int]]) -> "torch.Tensor":
    relations = 2 * torch.eye(n, dtype=torch.int8) - 1
    for row, column in changes.get("ignored", []):
        relations[row, column] = IGNORED
    for row, column in changes.get("positive", []):
        relations[row, column] = POSITIVE
    return relations


def ranked(pairs: EmbeddedPairs, config: TranslationRankingConfig = BOTH_WAYS) -> float:
    return LOSSES["translation_ranking"](pairs, config).item()


def test_two_pairs_give_the_value_computed_by_hand() -> None:
    # cos = [[1, 0], [0, 1]]; scale 2, margin 0.5: every row is softmax([2 * 0.5, 0]) at the gold column.
    config = TranslationRankingConfig(scale=2, margin=0.5)
    loss = ranked(EmbeddedPairs(unit(0, 90), unit(0, 90), related(2)), config)
    assert loss == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_vectors_need_not_be_unit() -> None:
    pairs = EmbeddedPairs(unit(0, 90), unit(3, 80), related(2))
    scaled = replace(pairs, source=pairs.source * 7, target=pairs.target * 0.1)
    assert ranked(scaled) == pytest.approx(ranked(pairs), abs=1e-5)


def test_the_margin_grows_over_its_first_steps() -> None:
    config = TranslationRankingConfig(scale=20, margin=0.3, margin_warmup_steps=10)
    pairs = EmbeddedPairs(unit(0, 50), unit(10, 70), related(2))
    losses = [ranked(replace(pairs, step=step), config) for step in (0, 5, 10, 99)]
    without = ranked(pairs, TranslationRankingConfig(scale=20, margin=0))
    assert losses[0] == pytest.approx(without)
    assert losses[0] + 0.1 < losses[1] < losses[2] - 0.1
    assert losses[2] == losses[3] == pytest.approx(ranked(pairs))


def test_translations_of_one_sentence_are_no_negatives() -> None:
    x, y = unit(0, 0, 90), unit(0, 0, 90)  # rows 0 and 1 are the same sentence
    left_out = ranked(EmbeddedPairs(x, y, related(3, ignored=[(0, 1), (1, 0)])))
    positive = ranked(EmbeddedPairs(x, y, related(3, positive=[(0, 1), (1, 0)])))
    negative = ranked(EmbeddedPairs(x, y, related(3)))
    assert positive == pytest.approx(left_out)
    assert left_out < 0.01 < 1 < negative


@pytest.mark.parametrize("directions", ["both", "from_english", "to_english"])
def test_ranking_equals_a_double_loop_with_several_positives(directions: str) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(6, 8)), generator.normal(size=(6, 8))
    relations = generator.choice([-1, -1, 0, 1], size=(6, 6)).astype(np.int8)
    relations[3, :] = -1  # a text without a positive does not count
    config = TranslationRankingConfig.model_validate({"scale": 15, "margin": 0.2, "directions": directions})

    def expected(size: int) -> float:
        forward = by_loop(x[:, :size], y[:, :size], relations, config)
        backward = by_loop(y[:, :size], x[:, :size], relations.T, config)
        return {"from_english": forward, "to_english": backward}.get(directions, (forward + backward) / 2)

    pairs = EmbeddedPairs(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(relations))
    total, parts = Objective([config.model_copy(update={"weight": 3.0})])(pairs, [8, 4])
    assert parts["translation_ranking"].item() == pytest.approx((expected(8) + expected(4)) / 2, abs=1e-9)
    assert total.item() == pytest.approx(3 * parts["translation_ranking"].item())


@pytest.mark.parametrize("directions", ["both", "from_english", "to_english"])
def test_mined_negatives_stand_in_the_denominator_of_their_direction(directions: str) -> None:
    generator = np.random.default_rng(5)
    x, y, sources, targets = (generator.normal(size=(rows, 8)) for rows in (5, 5, 2, 3))
    relations = related(5, ignored=[(0, 3)]).numpy()
    forward, backward = (generator.choice([-1, -1, 0], size=(5, n)).astype(np.int8) for n in (3, 2))
    config = TranslationRankingConfig.model_validate({"scale": 15, "margin": 0.2, "directions": directions})

    def expected(size: int) -> float:
        there = by_loop(
            x[:, :size], np.vstack([y, targets])[:, :size], np.hstack([relations, forward]), config
        )
        back = by_loop(
            y[:, :size], np.vstack([x, sources])[:, :size], np.hstack([relations.T, backward]), config
        )
        return {"from_english": there, "to_english": back}.get(directions, (there + back) / 2)

    negatives = Negatives(*[torch.from_numpy(array) for array in (sources, targets, forward, backward)])
    pairs = EmbeddedPairs(*[torch.from_numpy(array) for array in (x, y, relations)], negatives=negatives)
    for size in (8, 3):
        assert ranked(pairs.prefix(size), config) == pytest.approx(expected(size), abs=1e-9)
    assert ranked(replace(pairs, negatives=None), config) < ranked(pairs, config)


def by_loop(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    relations: NDArray[np.int8],
    config: TranslationRankingConfig | TeacherRankingConfig,
) -> float:
    losses = []
    for one, related_to in zip(x, relations, strict=True):
        cosine = y @ one / np.linalg.norm(y, axis=1) / np.linalg.norm(one)
        negatives = sum(math.exp(config.scale * c) for c in cosine[related_to == -1])
        gold = [math.exp(config.scale * (c - config.margin)) for c in cosine[related_to == 1]]
        if gold:
            losses.append(np.mean([-math.log(g / (g + negatives)) for g in gold]))
    return float(np.mean(losses))


def test_a_batch_of_one_sentence_has_nothing_to_learn_from() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    relations = torch.ones(3, 3, dtype=torch.int8)
    pairs = EmbeddedPairs(x, x.detach() + 1, relations)
    for loss in (BOTH_WAYS, KoLeoConfig(kind="koleo")):
        value = LOSSES[loss.kind](pairs, loss)
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() == 0
        assert not gradient.any()


def test_teacher_ranking_ranks_the_teachers_vectors_for_both_sides() -> None:
    generator = np.random.default_rng(1)
    x, y, into = (generator.normal(size=shape) for shape in ((5, 4), (5, 4), (4, 7)))
    teacher, relations = generator.normal(size=(5, 7)), related(5, ignored=[(0, 3)]).numpy()
    config = TeacherRankingConfig(kind="teacher_ranking", scale=10, margin=0.1)
    expected = by_loop(x @ into, teacher, relations, config) + by_loop(y @ into, teacher, relations.T, config)
    tensors = [torch.from_numpy(array) for array in (x, y, relations)]
    pairs = EmbeddedPairs(*tensors, teacher=torch.from_numpy(teacher), into_teacher=torch.from_numpy(into))
    assert LOSSES["teacher_ranking"](pairs, config).item() == pytest.approx(expected / 2, abs=1e-9)


def test_the_squared_distance_of_unit_vectors_does_not_shrink_with_their_dimension() -> None:
    mse = DistillationConfig(kind="distillation", distance="mse")
    for dimension in (2, 512):
        axes = torch.eye(dimension)[:2]
        opposite = EmbeddedPairs(axes, axes, related(2), teacher=axes.flip(0))
        assert LOSSES["distillation"](opposite, mse).item() == pytest.approx(2.0)
        both = LOSSES["distillation"](
            replace(opposite, target=axes.flip(0)), DistillationConfig(kind="distillation")
        )
        assert both.item() == pytest.approx(0.5)  # cosine: one side at right angles, the other there


def test_the_sides_of_distillation_have_their_shares() -> None:
    """The English side is at 60 degrees from the teacher (LASER3's self), the other at 180 (distil)."""
    pairs = EmbeddedPairs(unit(60), unit(180), related(1), teacher=unit(0))
    for share in (0.0, 0.25, 0.5, 1.0):
        config = DistillationConfig(kind="distillation", english_share=share)
        assert LOSSES["distillation"](pairs, config).item() == pytest.approx(0.5 * share + 2 * (1 - share))


def test_alignment_is_one_minus_the_cosine_or_the_squared_distance() -> None:
    pairs = EmbeddedPairs(2 * unit(0, 0), unit(90, 60), related(2))
    assert LOSSES["alignment"](pairs, AlignmentConfig(kind="alignment")).item() == pytest.approx(0.75)
    mse = AlignmentConfig(kind="alignment", distance="mse")
    assert LOSSES["alignment"](pairs, mse).item() == pytest.approx((5 + 3) / 2)


def test_koleo_is_the_log_distance_to_the_nearest_other_meaning() -> None:
    x, y = unit(0, 10, 100), unit(0, 60, 180)
    relations = related(3, ignored=[(0, 1), (1, 0)])

    def chord(degrees: float) -> float:
        return math.log(2 * math.sin(math.radians(degrees / 2)) + 1e-4)

    expected = -(chord(100) + 2 * chord(90)) / 3 - (chord(180) + 2 * chord(120)) / 3
    loss = LOSSES["koleo"](EmbeddedPairs(x * 3, y, relations), KoLeoConfig(kind="koleo"))
    assert loss.item() == pytest.approx(expected / 2, abs=1e-5)


def test_relations_follow_groups_and_texts() -> None:
    keys = PairKeys(
        source=np.array([1, 1, 2, 3]), target=np.array([11, 12, 11, 1]), group=np.array([1, 1, 2, 3])
    )
    expected = np.array(
        [
            [1, 1, 0, 0],  # another translation; the same translation of another sentence; the text itself
            [1, 1, -1, 0],
            [0, -1, 1, -1],
            [-1, -1, -1, 1],
        ]
    )
    assert relation_matrix(keys, keys, positives="group").tolist() == expected.tolist()
    own = np.where(expected - np.eye(4) == 1, 0, expected)
    assert relation_matrix(keys, keys).tolist() == own.tolist()
