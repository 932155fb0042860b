"""Every loss learns cloned languages; the same loss, broken in one place, does not."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from tests.training.cloned_tokens import (  # noqa: E402
    DIMENSION,
    Lesson,
    english_teacher,
    retrieval,
    sentences,
    taught,
    vectors,
)
from training.loss_config import (  # noqa: E402
    AlignmentConfig,
    DistillationConfig,
    KoLeoConfig,
    LossConfig,
    TeacherRankingConfig,
    TranslationRankingConfig,
)
from training.losses import EmbeddedPairs  # noqa: E402

RANKING = TranslationRankingConfig(scale=100, margin=0.3)


def test_ranking_needs_its_negatives() -> None:
    def without_negatives(pairs: EmbeddedPairs) -> EmbeddedPairs:
        return replace(pairs, relations=pairs.relations.clamp(min=0))

    lesson = Lesson([RANKING], steps=40, sentences=32)
    assert retrieval(taught(lesson)) >= 95
    assert retrieval(taught(replace(lesson, change=without_negatives))) < 5


@pytest.mark.parametrize("loss", [RANKING, AlignmentConfig(kind="alignment")])
def test_a_lost_order_of_the_batch_teaches_nothing(loss: LossConfig) -> None:
    def rolled(pairs: EmbeddedPairs) -> EmbeddedPairs:
        return replace(pairs, target=pairs.target.roll(1, dims=0))

    losses = [loss, KoLeoConfig(kind="koleo", weight=0.1)]
    lesson = Lesson(losses, steps=100)
    assert retrieval(taught(lesson)) >= 95
    assert retrieval(taught(replace(lesson, change=rolled))) < 5


def test_a_margin_on_the_positives_alone_makes_few_negatives_enough() -> None:
    """A margin on every column cancels in the softmax, and is none."""
    lesson = Lesson([RANKING], steps=60, sentences=8)
    everywhere = Lesson([RANKING.model_copy(update={"margin": 0.0})], steps=60, sentences=8)
    assert retrieval(taught(lesson)) >= 95
    assert retrieval(taught(everywhere)) < 80


def test_only_group_ids_tie_languages_that_are_never_a_pair() -> None:
    """Pairs are (0, 1) and (2, 3); that 0 and 3 mean the same is known from the group alone."""
    lesson = Lesson([RANKING], sentences=32, languages=((0, 1), (2, 3)), positives="group")
    table = taught(lesson)
    assert min(retrieval(table, 0, 1), retrieval(table, 0, 3), retrieval(table, 2, 1)) >= 95
    for broken in (replace(lesson, positives="own"), replace(lesson, groups_known=False)):
        table = taught(broken)
        assert retrieval(table, 0, 1) >= 95
        assert retrieval(table, 0, 3) < 5


@pytest.mark.parametrize(
    ("loss", "dimension"),
    [
        (DistillationConfig(kind="distillation"), DIMENSION),
        (DistillationConfig(kind="distillation", distance="mse"), DIMENSION),
        (TeacherRankingConfig(kind="teacher_ranking"), 48),  # through a learnt projection
    ],
)
def test_both_sides_go_to_the_teachers_vector_of_the_english_one(loss: LossConfig, dimension: int) -> None:
    learnt = None if dimension == DIMENSION else dimension
    lesson = Lesson([loss], steps=60, teacher=english_teacher(dimension), learnt_projection=learnt)
    assert retrieval(taught(lesson)) >= 95
    for broken in (
        lambda pairs: replace(pairs, source=pairs.source.detach()),
        lambda pairs: replace(pairs, target=pairs.target.detach()),
    ):
        assert retrieval(taught(replace(lesson, change=broken))) < 5


def test_prefixes_are_taught_by_any_loss() -> None:
    lesson = Lesson([TeacherRankingConfig(kind="teacher_ranking")], steps=60, teacher=english_teacher(48))
    lesson = replace(lesson, learnt_projection=48)
    with_prefix = retrieval(taught(replace(lesson, prefixes=(DIMENSION, 4))), size=4)
    assert with_prefix > retrieval(taught(lesson), size=4) + 20


def test_koleo_keeps_alignment_from_drawing_all_texts_together() -> None:
    new = sentences(200, np.random.default_rng(4))

    def mean_cosine(table: torch.Tensor) -> float:
        x = torch.nn.functional.normalize(vectors(table, new, 0), dim=1)
        return ((x @ x.T).sum() - len(x)).item() / (len(x) * (len(x) - 1))

    alignment = AlignmentConfig(kind="alignment")
    alone = taught(Lesson([alignment]))
    spread = taught(Lesson([alignment, KoLeoConfig(kind="koleo", weight=0.1)]))
    assert retrieval(spread) >= 95
    assert mean_cosine(spread) < 0.02 < 0.1 < mean_cosine(alone)
