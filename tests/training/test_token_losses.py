"""Token-level losses: by hand with heads of known weights, what they may look at, and their gradients."""

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from training.loss_config import (  # noqa: E402
    CrossUnmaskingConfig,
    LossConfig,
    MaskedTokensConfig,
    RepresentationTranslationConfig,
    SelfDistillationConfig,
)
from training.losses import LOSSES, EmbeddedPairs  # noqa: E402
from training.losses.heads import (  # noqa: E402
    HeadShape,
    MultiFunctionHead,
    TokenGuess,
    TranslationHead,
    UnmaskingHead,
)
from training.losses.self_distillation import multi_vector_scores, sparse_scores  # noqa: E402
from training.losses.tokens import NOT_MASKED, TokenSides, TokenStates  # noqa: E402

WIDTH, DIMENSION, IDS, PAD, CLS = 8, 6, 20, 0, 1
SHAPE = HeadShape(WIDTH, DIMENSION, IDS, layers=1, heads=2)
MASKED = MaskedTokensConfig(kind="masked_tokens")
CROSS = CrossUnmaskingConfig(kind="cross_unmasking")
WRITTEN = RepresentationTranslationConfig(kind="representation_translation")
SELF = SelfDistillationConfig(kind="self_distillation", scale=2)


def numbers(*shape: int, seed: int = 0) -> "torch.Tensor":
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def side(rows: list[list[int]], *, masked: list[tuple[int, int]] | None = None, seed: int = 0) -> TokenStates:
    """Padded texts behind a special first token; the places given are masked."""
    longest = max(map(len, rows)) + 1
    ids = torch.tensor([[CLS, *row, *[PAD] * (longest - 1 - len(row))] for row in rows])
    labels = None
    if masked is not None:
        labels = torch.full_like(ids, NOT_MASKED)
        for row, place in masked:
            labels[row, place] = ids[row, place]
    return TokenStates(ids, (ids != PAD) & (ids != CLS), numbers(*ids.shape, WIDTH, seed=seed), labels)


SOURCE, TARGET = [[2, 3, 4], [5, 6]], [[7, 8], [9, 10, 11]]


@pytest.fixture
def pairs() -> EmbeddedPairs:
    torch.manual_seed(1)
    sides = TokenSides(
        side(SOURCE, seed=2),
        side(TARGET, seed=3),
        numbers(IDS, WIDTH, seed=4),
        side(SOURCE, masked=[(0, 2), (1, 1)], seed=5),
        side(TARGET, masked=[(0, 1)], seed=6),
    )
    heads = {
        MASKED.kind: TokenGuess(WIDTH, IDS),
        CROSS.kind: UnmaskingHead(SHAPE),
        WRITTEN.kind: TranslationHead(SHAPE),
        SELF.kind: MultiFunctionHead(WIDTH, DIMENSION),
    }
    relations = 2 * torch.eye(2, dtype=torch.int8) - 1
    source, target = numbers(2, DIMENSION, seed=7), numbers(2, DIMENSION, seed=8)
    return EmbeddedPairs(source, target, relations, tokens=sides, heads=heads)


def loss(pairs: EmbeddedPairs, config: LossConfig) -> float:
    return LOSSES[config.kind](pairs, config).item()


def test_masked_tokens_cost_the_mean_surprise_of_each_side(pairs: EmbeddedPairs) -> None:
    head = TokenGuess(WIDTH, IDS)
    head.turn = nn.Sequential(nn.Identity())  # the guess is softmax(states @ vocabulary.T)
    pairs = replace(pairs, heads={MASKED.kind: head})
    sides = pairs.token_sides

    def surprise(states: TokenStates, row: int, place: int) -> float:
        logits = states.states[row, place] @ sides.vocabulary.T
        return -logits.log_softmax(0)[states.ids[row, place]].item()

    source, target = sides.masked
    english = (surprise(source, 0, 2) + surprise(source, 1, 1)) / 2
    other = surprise(target, 0, 1)
    assert loss(pairs, MASKED) == pytest.approx((english + other) / 2, rel=1e-5)
    assert loss(pairs, MASKED.model_copy(update={"sides": "other"})) == pytest.approx(other, rel=1e-5)
    assert loss(pairs, MASKED.model_copy(update={"sides": "english"})) == pytest.approx(english, rel=1e-5)


def test_a_batch_without_a_masked_token_costs_nothing(pairs: EmbeddedPairs) -> None:
    sides = replace(
        pairs.token_sides, masked_source=side(SOURCE, masked=[]), masked_target=side(TARGET, masked=[])
    )
    assert loss(replace(pairs, tokens=sides), MASKED) == 0
    assert loss(replace(pairs, tokens=sides), CROSS) == 0


def with_states(pairs: EmbeddedPairs, part: str, row: int, place: int) -> EmbeddedPairs:
    """The same with another state at one place."""
    changed: TokenStates = getattr(pairs.token_sides, part)
    states = changed.states.clone()
    states[row, place] += 1.0
    return replace(pairs, tokens=replace(pairs.token_sides, **{part: replace(changed, states=states)}))


def test_unmasking_reads_the_text_and_the_other_vector_and_nothing_else(pairs: EmbeddedPairs) -> None:
    before = loss(pairs, CROSS)
    assert loss(with_states(pairs, "masked_source", 0, 1), CROSS) != before
    for special_or_padding in (("masked_source", 0, 0), ("masked_source", 1, 3), ("masked_target", 0, 3)):
        assert loss(with_states(pairs, *special_or_padding), CROSS) == before
    assert (
        loss(with_states(pairs, "source", 0, 1), CROSS) == before
    )  # the clean text is seen as a vector only
    only_target = replace(
        pairs, tokens=replace(pairs.token_sides, masked_source=side(SOURCE, masked=[], seed=5))
    )
    assert loss(replace(only_target, source=-pairs.source), CROSS) != loss(only_target, CROSS)
    assert loss(replace(only_target, target=-pairs.target), CROSS) == loss(only_target, CROSS)


def test_each_text_is_unmasked_by_its_own_translation(pairs: EmbeddedPairs) -> None:
    head = pairs.head(CROSS.kind, UnmaskingHead)
    masked = pairs.token_sides.masked[1]
    states = head(masked.states, masked.text, pairs.source)
    logits = head.guess(states[0, 1], pairs.token_sides.vocabulary)
    target = -logits.log_softmax(0)[7].item()
    no_english = replace(pairs.token_sides, masked_source=side(SOURCE, masked=[]))
    assert loss(replace(pairs, tokens=no_english), CROSS) == pytest.approx(target / 2, rel=1e-5)
    alone = head(masked.states[:1, :3], masked.text[:1, :3], pairs.source[:1])  # without padding
    assert torch.allclose(alone[0], states[0, :3], atol=1e-5)


def test_translation_reads_the_tokens_of_one_side_and_writes_those_of_the_other(pairs: EmbeddedPairs) -> None:
    before = loss(pairs, WRITTEN)
    assert loss(with_states(pairs, "target", 0, 2), WRITTEN) != before
    for unread in (("target", 0, 0), ("target", 0, 3), ("source", 0, 1)):  # special, padding, to be written
        assert loss(with_states(pairs, *unread), WRITTEN) == before
    head = pairs.head(WRITTEN.kind, TranslationHead)
    sides = pairs.token_sides
    expected = []
    for row, tokens in enumerate(SOURCE):  # one by one, without padding
        length = len(TARGET[row]) + 1
        blanks = torch.tensor([[False, *[True] * len(tokens)]])
        states = head(sides.target.states[[row], :length], sides.target.text[[row], :length], blanks)
        logits = head.guess(states[0, 1:], sides.vocabulary)
        expected += (-logits.log_softmax(1)[torch.arange(len(tokens)), tokens]).tolist()
    assert before == pytest.approx(sum(expected) / 5, rel=1e-5)
    back = loss(pairs, WRITTEN.model_copy(update={"directions": "from_english"}))
    both = loss(pairs, WRITTEN.model_copy(update={"directions": "both"}))
    assert both == pytest.approx((before + back) / 2)
    assert back != before


def test_places_to_be_written_are_told_apart(pairs: EmbeddedPairs) -> None:
    head = pairs.head(WRITTEN.kind, TranslationHead)
    text = torch.ones(1, 2, dtype=torch.bool)
    states = head(numbers(1, 2, WIDTH), text, torch.ones(1, 3, dtype=torch.bool))[0]
    assert (states[0] - states[1]).abs().max() > 0.1
    assert (states[1] - states[2]).abs().max() > 0.1


def known_head() -> MultiFunctionHead:
    """Weight of a token: its first state; its vector: the first two states."""
    head = MultiFunctionHead(2, 2)
    with torch.no_grad():
        head.sparse.weight.copy_(torch.tensor([[1.0, 0.0]]))
        head.multi_vector.weight.copy_(torch.eye(2))
        head.sparse.bias.zero_()
        head.multi_vector.bias.zero_()
    return head


def texts(rows: list[list[tuple[int, float, float]]]) -> TokenStates:
    """Each token an id and its two states; padded with a token that would be noticed."""
    longest = max(map(len, rows))
    padded = [[*row, *[(5, 9.0, 9.0)] * (longest - len(row))] for row in rows]
    ids = torch.tensor([[token for token, _, _ in row] for row in padded])
    text = torch.tensor([[place < len(row) for place in range(longest)] for row in rows])
    return TokenStates(ids, text, torch.tensor([[state for _, *state in row] for row in padded]))


ROWS = texts([[(5, 2.0, 0.0), (6, 1.0, 1.0), (5, 3.0, 4.0)], [(7, -1.0, 0.0)]])
COLUMNS = texts([[(5, 1.0, 0.0), (6, 2.0, 0.0)], [(7, 5.0, 0.0)]])


def test_the_sparse_score_multiplies_the_largest_weights_of_common_tokens() -> None:
    # row 0: {5: 3, 6: 1}; row 1: {7: 0}, for a weight is at least 0
    assert sparse_scores(known_head(), ROWS, COLUMNS).tolist() == [[3 * 1 + 1 * 2, 0], [0, 0]]


def test_the_multi_vector_score_is_the_mean_of_the_best_cosines() -> None:
    root = 1 / math.sqrt(2)
    first = (1 + root + 0.6) / 3  # every vector of the columns points along the first axis
    expected = torch.tensor([[first, first], [-1.0, -1.0]])
    assert torch.allclose(multi_vector_scores(known_head(), ROWS, COLUMNS), expected, atol=1e-6)


def test_self_distillation_equals_the_formula_written_out(pairs: EmbeddedPairs) -> None:
    head = pairs.head(SELF.kind, MultiFunctionHead)
    nn.init.ones_(head.sparse.bias)
    sides = pairs.token_sides
    shared = replace(sides.target, ids=torch.tensor([[CLS, 2, 5, PAD], [CLS, 5, 3, 2]]))
    pairs = replace(pairs, tokens=replace(sides, target=shared))
    dense = functional.normalize(pairs.source, dim=1) @ functional.normalize(pairs.target, dim=1).T
    sparse = sparse_scores(head, sides.source, shared)
    multi = multi_vector_scores(head, sides.source, shared)
    assert sparse.any()
    total = dense + 0.3 * sparse + multi

    def ranked(scores: "torch.Tensor") -> float:
        return functional.cross_entropy(2 * scores, torch.arange(2)).item()

    def taught(scores: "torch.Tensor") -> float:
        return -((2 * total).softmax(1) * (2 * scores).log_softmax(1)).sum(1).mean().item()

    ranking = (ranked(dense) + ranked(total) + 0.1 * ranked(sparse) + ranked(multi)) / 4
    teaching = (taught(dense) + 0.1 * taught(sparse) + taught(multi)) / 3
    assert loss(pairs, SELF) == pytest.approx((ranking + teaching) / 2, rel=1e-5)
    later = SELF.model_copy(update={"after_step": 3})
    assert loss(replace(pairs, step=2), later) == pytest.approx(ranking, rel=1e-5)
    assert loss(replace(pairs, step=3), later) == pytest.approx(loss(pairs, SELF))


def test_a_translation_of_the_same_sentence_is_left_out_of_self_distillation(pairs: EmbeddedPairs) -> None:
    left_out = replace(pairs, relations=torch.eye(2, dtype=torch.int8))  # no negative at all
    assert loss(left_out, SELF) == pytest.approx(0, abs=1e-6)
    assert loss(pairs, SELF) > 0.1


@pytest.mark.parametrize("config", [MASKED, CROSS, WRITTEN, SELF])
def test_gradients_are_those_of_finite_differences(pairs: EmbeddedPairs, config: LossConfig) -> None:
    def double(states: TokenStates | None, values: "torch.Tensor") -> TokenStates:
        assert states is not None
        return replace(states, states=values)

    sides = pairs.token_sides
    parts = [sides.source, sides.target, *sides.masked]
    leaves = [part.states.double().requires_grad_() for part in parts]
    leaves += [x.double().requires_grad_() for x in (pairs.source, pairs.target, sides.vocabulary)]
    heads = {kind: head.double() for kind, head in pairs.heads.items()}

    def value(*inputs: "torch.Tensor") -> "torch.Tensor":
        changed = [double(part, states) for part, states in zip(parts, inputs[:4], strict=True)]
        tokens = TokenSides(changed[0], changed[1], inputs[6], changed[2], changed[3])
        whole = replace(pairs, source=inputs[4], target=inputs[5], tokens=tokens, heads=heads)
        return LOSSES[config.kind](whole, config)

    # the target of self-distillation has no gradient, which finite differences do not know
    with_target = config.model_copy(update={"after_step": 9}) if config is SELF else config
    config = with_target
    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


def test_what_a_loss_lacks_is_named(pairs: EmbeddedPairs) -> None:
    bare = EmbeddedPairs(pairs.source, pairs.target, pairs.relations)
    for config, lacking in ((CROSS, "its head"), (MASKED, "its head")):
        with pytest.raises(ValueError, match=lacking):
            loss(bare, config)
    with pytest.raises(ValueError, match="token states"):
        loss(replace(bare, heads=pairs.heads), CROSS)
    clean = replace(pairs.token_sides, masked_source=None)
    with pytest.raises(ValueError, match="masked texts"):
        loss(replace(pairs, tokens=clean), CROSS)
