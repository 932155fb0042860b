"""Every loss learns cloned languages; the same loss, broken in one place, does not."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from tests.training.cloned_tokens import (  # noqa: E402
    DIMENSION,
    Lesson,
    Sentences,
    english_teacher,
    retrieval,
    sentences,
    taught,
    token_states,
    vectors,
)
from training.loss_config import (  # noqa: E402
    AlignmentConfig,
    CrossUnmaskingConfig,
    DistillationConfig,
    KoLeoConfig,
    LossConfig,
    RepresentationTranslationConfig,
    ScoreDistillationConfig,
    SelfDistillationConfig,
    TeacherRankingConfig,
    TranslationRankingConfig,
)
from training.losses import EmbeddedPairs  # noqa: E402
from training.losses.heads import HeadShape, MultiFunctionHead, TranslationHead, UnmaskingHead  # noqa: E402
from training.losses.pairs import ScoredPassages  # noqa: E402
from training.losses.tokens import TokenSides, TokenStates  # noqa: E402

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


def scored(pairs: EmbeddedPairs, drawn: Sentences, *, turned: int = 0) -> EmbeddedPairs:
    """Every query's passages are the batch's targets from its own on; the teacher's words score them."""
    words = english_teacher(DIMENSION)(drawn)
    rows = (torch.arange(len(drawn))[:, None] + torch.arange(16)) % len(drawn)
    scores = 20 * torch.einsum("bd,bnd->bn", words, words[rows])
    entry = torch.arange(len(drawn))
    return replace(pairs, passages=ScoredPassages(pairs.target[rows], scores.roll(turned, dims=1), entry))


def test_a_cross_encoders_scores_are_enough_and_have_to_be_those_of_the_passages() -> None:
    loss = ScoreDistillationConfig(kind="score_distillation")
    lesson = Lesson([loss], steps=80, tokens=lambda pairs, _, drawn: scored(pairs, drawn))
    assert retrieval(taught(lesson)) >= 95
    other = replace(lesson, tokens=lambda pairs, _, drawn: scored(pairs, drawn, turned=1))
    assert retrieval(taught(other)) < 5


def with_tokens(pairs: EmbeddedPairs, table: torch.Tensor, drawn: Sentences, hidden: float) -> EmbeddedPairs:
    clean = (token_states(table, drawn, language) for language in (0, 1))
    masked = (token_states(table, drawn, language, hidden=hidden) for language in (0, 1)) if hidden else ()
    return replace(pairs, tokens=TokenSides(*clean, table, *masked))


def test_self_distillation_needs_its_negatives() -> None:
    def lesson() -> Lesson:
        torch.manual_seed(0)
        heads = {"self_distillation": MultiFunctionHead(DIMENSION, DIMENSION)}
        loss = SelfDistillationConfig(kind="self_distillation")
        tokens = lambda pairs, table, drawn: with_tokens(pairs, table, drawn, 0.0)  # noqa: E731
        return Lesson([loss], steps=90, sentences=32, heads=heads, tokens=tokens)

    def without_negatives(pairs: EmbeddedPairs) -> EmbeddedPairs:
        return replace(pairs, relations=pairs.relations.clamp(min=0))

    assert retrieval(taught(lesson())) >= 95
    assert retrieval(taught(replace(lesson(), change=without_negatives))) < 5


SHAPE = HeadShape(DIMENSION, DIMENSION, 2 * 120 + 2, layers=1, heads=4)


def guessed(head: torch.nn.Module, pairs: EmbeddedPairs) -> float:
    """Return the percentage of tokens that the head tells right."""
    sides = pairs.token_sides
    if isinstance(head, UnmaskingHead):
        side = sides.masked[1]
        states, true, where = head(side.states, side.text, pairs.source), side.answers, side.masked
    else:
        assert isinstance(head, TranslationHead)
        states, true, where = (
            head(sides.target.states, sides.target.text, sides.source.text),
            sides.source.ids[sides.source.text],
            sides.source.text,
        )
    right = head.guess(states[where], sides.vocabulary).argmax(dim=1) == true
    return 100 * right.double().mean().item()


def turned(side: TokenStates) -> TokenStates:
    """Give every text the place of the next."""
    labels = None if side.labels is None else side.labels.roll(1, 0)
    return TokenStates(side.ids.roll(1, 0), side.text.roll(1, 0), side.states.roll(1, 0), labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "made", "right"),
    [
        (CrossUnmaskingConfig(kind="cross_unmasking"), UnmaskingHead, 25),  # and still rising
        (RepresentationTranslationConfig(kind="representation_translation"), TranslationHead, 80),
    ],
)
def test_tokens_are_told_from_the_translation_and_from_no_other_text(
    loss: LossConfig, made: type[torch.nn.Module], right: float
) -> None:
    """Guessed are tokens of new sentences; broken, each text goes with the translation of another."""

    def tokens(pairs: EmbeddedPairs, table: torch.Tensor, drawn: Sentences) -> EmbeddedPairs:
        return with_tokens(pairs, table, drawn, loss.needs.masked)

    def exchanged(pairs: EmbeddedPairs) -> EmbeddedPairs:
        sides = pairs.token_sides
        sides = replace(sides, target=turned(sides.target))
        if loss.needs.masked:
            source, target = sides.masked
            sides = replace(sides, masked_source=turned(source), masked_target=turned(target))
        return replace(pairs, tokens=sides)

    accuracy = []
    for change in (lambda pairs: pairs, exchanged):
        torch.manual_seed(0)
        head = made(SHAPE)
        lesson = Lesson([loss], steps=500, rate=0.02, head_rate=0.005, heads={loss.kind: head})
        lesson = replace(lesson, tokens=tokens, change=change)
        table = taught(lesson)
        new = sentences(200, np.random.default_rng(9))
        bare = EmbeddedPairs(vectors(table, new, 0), vectors(table, new, 1), torch.eye(200, dtype=torch.int8))
        accuracy.append(guessed(head, tokens(bare, table, new)))
    assert accuracy[0] >= right
    assert accuracy[1] < 5
