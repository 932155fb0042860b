"""Every loss learns cloned languages; the same loss, broken in one place, does not."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from tests.training.cloned_tokens import (  # noqa: E402
    DIMENSION,
    WORDS,
    Change,
    Lesson,
    Sentences,
    english_teacher,
    mixed_states,
    retrieval,
    sentences,
    taught,
    token_states,
    unchanged,
    vectors,
)
from training.loss_config import (  # noqa: E402
    AlignmentConfig,
    CrossUnmaskingConfig,
    DistillationConfig,
    KoLeoConfig,
    LossConfig,
    MaskedTokensConfig,
    RepresentationTranslationConfig,
    ScoreDistillationConfig,
    SelfDistillationConfig,
    TeacherRankingConfig,
    TranslationRankingConfig,
)
from training.losses import EmbeddedPairs  # noqa: E402
from training.losses.heads import (  # noqa: E402
    HeadShape,
    MultiFunctionHead,
    TokenGuess,
    TranslationHead,
    UnmaskingHead,
)
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
    """A margin on every column cancels in the softmax, and is none; one of the wrong sign ends the lesson."""

    def lesson(margin: float) -> Lesson:
        loss = RANKING.model_copy(update={"margin": margin})
        return Lesson([loss], steps=100, sentences=4)

    assert retrieval(taught(lesson(0.6))) >= 95
    assert retrieval(taught(lesson(0.0))) < 70
    assert retrieval(taught(lesson(-0.6))) < 10


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


def with_tokens(
    pairs: EmbeddedPairs,
    table: torch.Tensor,
    drawn: Sentences,
    hidden: float = 0.0,
    languages: Sequence[tuple[int, int]] = ((0, 1),),
) -> EmbeddedPairs:
    both = list(zip(*languages, strict=True))
    clean = [token_states(table, drawn, side) for side in both]
    masked = [token_states(table, drawn, side, hidden=hidden) for side in both] if hidden else []
    return replace(pairs, tokens=TokenSides(*clean, table, *masked))


def test_self_distillation_needs_its_negatives() -> None:
    def lesson() -> Lesson:
        torch.manual_seed(0)
        heads = {"self_distillation": MultiFunctionHead(DIMENSION, DIMENSION)}
        loss = SelfDistillationConfig(kind="self_distillation")
        return Lesson([loss], steps=90, sentences=32, heads=heads, tokens=with_tokens)

    def without_negatives(pairs: EmbeddedPairs) -> EmbeddedPairs:
        return replace(pairs, relations=pairs.relations.clamp(min=0))

    assert retrieval(taught(lesson())) >= 95
    assert retrieval(taught(replace(lesson(), change=without_negatives))) < 5


def test_masked_tokens_tell_what_stands_in_the_same_texts() -> None:
    """No text says which words are the same, and none is a translation; that they go together does."""

    def lesson(change: Callable[[TokenStates], TokenStates] = lambda side: side) -> Lesson:
        torch.manual_seed(0)
        loss, draws = MaskedTokensConfig(kind="masked_tokens", masked=0.4), np.random.default_rng(5)

        def tokens(pairs: EmbeddedPairs, table: torch.Tensor, _: Sentences) -> EmbeddedPairs:
            sides = [change(mixed_states(table, draws, hidden=loss.masked)) for _ in range(2)]
            return replace(pairs, tokens=TokenSides(*sides, table, *sides))

        heads = {loss.kind: TokenGuess(DIMENSION, 2 * WORDS + 2)}
        return Lesson([loss], steps=150, rate=0.02, head_rate=0.005, heads=heads, tokens=tokens)

    def of_another_text(side: TokenStates) -> TokenStates:
        assert side.labels is not None
        return replace(side, labels=side.labels.roll(1, 0))

    assert retrieval(taught(lesson())) >= 95
    assert retrieval(taught(lesson(of_another_text))) < 5


HUB = ((0, 1), (0, 2))  # English with either of two languages, which are never a pair
SHAPE = HeadShape(DIMENSION, DIMENSION, 3 * WORDS + 2, layers=1, heads=4)


def hub_lesson(loss: LossConfig, head: torch.nn.Module, change: Change, *, steps: int) -> Lesson:
    def tokens(pairs: EmbeddedPairs, table: torch.Tensor, drawn: Sentences) -> EmbeddedPairs:
        return with_tokens(pairs, table, drawn, loss.needs.masked, HUB)

    lesson = Lesson([loss], steps=steps, rate=0.02, head_rate=0.005, sentences=32, languages=HUB)
    return replace(lesson, heads={loss.kind: head}, tokens=tokens, change=change)


def own_vectors(pairs: EmbeddedPairs) -> EmbeddedPairs:
    return replace(pairs, source=pairs.target, target=pairs.source)


def another_texts_vectors(pairs: EmbeddedPairs) -> EmbeddedPairs:
    return replace(pairs, source=pairs.source.roll(1, 0), target=pairs.target.roll(1, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "least", "most"), [(unchanged, 95, 100), (own_vectors, 0, 5), (another_texts_vectors, 0, 5)]
)
def test_languages_meet_where_both_unmask_the_same_third_one(
    change: Change, least: float, most: float
) -> None:
    """Nothing draws vectors together but the tokens that they have to tell, if these are theirs to tell."""
    torch.manual_seed(0)
    loss = CrossUnmaskingConfig(kind="cross_unmasking", masked=0.8)
    table = taught(hub_lesson(loss, UnmaskingHead(SHAPE), change, steps=350))
    assert least <= retrieval(table, 1, 2) <= most


def lost_order(pairs: EmbeddedPairs) -> EmbeddedPairs:
    return replace(pairs, target=pairs.target.roll(1, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("change", "least", "most"), [(unchanged, 95, 100), (lost_order, 0, 5)])
def test_mexmas_three_losses_go_together(change: Change, least: float, most: float) -> None:
    """The weights are for vectors about one long: MEXMA's mean over dimensions is for those of XLM-R.

    Telling tokens by the rows of the same table keeps two languages' apart, against which alignment pulls.
    """
    torch.manual_seed(0)
    unmasking = CrossUnmaskingConfig(kind="cross_unmasking")
    alignment = AlignmentConfig(kind="alignment", distance="mse")
    losses = [unmasking, alignment, KoLeoConfig(kind="koleo", weight=0.1)]
    heads = {unmasking.kind: UnmaskingHead(replace(SHAPE, vocabulary=2 * WORDS + 2))}

    def tokens(pairs: EmbeddedPairs, table: torch.Tensor, drawn: Sentences) -> EmbeddedPairs:
        return with_tokens(pairs, table, drawn, unmasking.masked)

    lesson = Lesson(losses, steps=200, rate=0.02, head_rate=0.005, heads=heads, tokens=tokens, change=change)
    assert least <= retrieval(taught(lesson)) <= most


def own_tokens(pairs: EmbeddedPairs) -> EmbeddedPairs:
    return replace(pairs, tokens=replace(pairs.token_sides, target=pairs.token_sides.source))


def another_texts_tokens(pairs: EmbeddedPairs) -> EmbeddedPairs:
    read = pairs.token_sides.target
    turned = TokenStates(read.ids.roll(1, 0), read.text.roll(1, 0), read.states.roll(1, 0))
    return replace(pairs, tokens=replace(pairs.token_sides, target=turned))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "least", "most"), [(unchanged, 95, 100), (own_tokens, 0, 5), (another_texts_tokens, 0, 5)]
)
def test_languages_meet_where_both_are_written_in_english(change: Change, least: float, most: float) -> None:
    torch.manual_seed(0)
    loss = RepresentationTranslationConfig(kind="representation_translation")
    table = taught(hub_lesson(loss, TranslationHead(SHAPE), change, steps=200))
    assert least <= retrieval(table, 1, 2) <= most
