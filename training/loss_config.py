"""What a recipe says about each loss, one section per kind. No torch: a recipe is checked without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from training.section import Positive, Section

Distance = Literal["cosine", "mse"]


@dataclass(frozen=True)
class Needs:
    """Token states, those of texts with tokens masked, or the vectors of a slow copy of the student.

    Losses of token states are not repeated for Matryoshka prefixes: the states have none.
    """

    tokens: bool = False
    masked: float = 0.0  # the share of tokens
    momentum: MomentumRankingConfig | None = None
    scores: bool = False


class LossSection(Section):
    weight: float = Field(default=1.0, gt=0.0)

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def ranks_negatives(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        """What the student has to give besides one vector for each text."""
        return Needs()


class _Margin(LossSection):
    scale: float = Field(default=20.0, gt=0.0)  # of cosines; LaBSE 100
    margin: float = Field(default=0.3, ge=0.0, lt=2.0)  # in cosines; LaBSE 0.3
    margin_warmup_steps: int = Field(default=0, ge=0)  # the margin grows from 0 over these steps


class TranslationRankingConfig(_Margin):
    """Softmax ranking of translations within the batch, with an additive margin."""

    kind: Literal["translation_ranking"] = "translation_ranking"
    directions: Literal["both", "from_english", "to_english"] = "both"

    @property
    def ranks_negatives(self) -> bool:
        return True


class TeacherRankingConfig(_Margin):
    """The same against the teacher's vectors of the English side; both sides of a pair are ranked.

    Mined negatives are not among them: most are in other languages, of which the teacher has no vectors.
    They are for a translation_ranking beside it.
    """

    kind: Literal["teacher_ranking"]

    @property
    def needs_teacher(self) -> bool:
        return True


class DistillationConfig(LossSection):
    """Both sides of a pair are drawn to the teacher's vector of the English one.

    LASER3 calls the English side's part "self", the other's "distil"; its weights of 1.0 each are a
    ``weight`` of 2 here.
    """

    kind: Literal["distillation"]
    distance: Distance = "cosine"
    english_share: float = Field(default=0.5, ge=0.0, le=1.0)  # of the loss; the other side has the rest

    @property
    def needs_teacher(self) -> bool:
        return True


class AlignmentConfig(LossSection):
    """The two sides of a pair are drawn to each other; alone it collapses, beside koleo it does not."""

    kind: Literal["alignment"]
    distance: Distance = "cosine"  # mse: as MEXMA, summed over dimensions


class KoLeoConfig(LossSection):
    """Texts of one side spread evenly over the sphere."""

    kind: Literal["koleo"]


class MomentumRankingConfig(LossSection):
    """Each source ranks the targets' vectors of a slow copy of the student, the queue's among them."""

    kind: Literal["momentum_ranking"]
    scale: float = Field(default=20.0, gt=0.0)  # of cosines; mContriever 20 (a temperature of 0.05)
    queue: Positive = 32768  # vectors of earlier batches
    momentum: float = Field(default=0.999, ge=0.0, lt=1.0)  # share of the copy that stays, each step

    @property
    def needs(self) -> Needs:
        return Needs(momentum=self)


class ScoreDistillationConfig(LossSection):
    """Over each query's passages, the student's distribution of scores follows a cross-encoder's."""

    kind: Literal["score_distillation"]
    scale: float = Field(default=20.0, gt=0.0)  # of the student's cosines
    teacher_scale: float = Field(default=1.0, gt=0.0)  # of the teacher's scores
    language_weight: float = Field(default=0.0, ge=0.0)  # languages agree; needs mixing = "round_robin"

    @property
    def needs(self) -> Needs:
        return Needs(scores=True)


class MaskedTokensConfig(LossSection):
    """Each side's masked tokens are guessed from the rest of its text (masked language model)."""

    kind: Literal["masked_tokens"]
    masked: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15  # share of tokens; LASER3 0.15
    sides: Literal["both", "english", "other"] = "both"

    @property
    def needs(self) -> Needs:
        return Needs(tokens=True, masked=self.masked)


class CrossUnmaskingConfig(LossSection):
    """Each side's masked tokens are guessed from the rest of its text and the vector of the other side."""

    kind: Literal["cross_unmasking"]
    masked: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4  # share of tokens; MEXMA 0.4
    layers: Positive = 6  # of the head; MEXMA 6, with 8 attention heads
    heads: Positive = 8

    @property
    def needs(self) -> Needs:
        return Needs(tokens=True, masked=self.masked)


class RepresentationTranslationConfig(LossSection):
    """A small decoder reads the token states of one side and has to write all tokens of the other."""

    kind: Literal["representation_translation"]
    weight: float = Field(default=0.1, gt=0.0)  # DAP 0.1
    directions: Literal["both", "from_english", "to_english"] = "to_english"  # what it has to write
    layers: Positive = 2
    heads: Positive = 8

    @property
    def needs(self) -> Needs:
        return Needs(tokens=True)


class SelfDistillationConfig(LossSection):
    """Dense, sparse and multi-vector scores each rank translations and learn from their weighted sum.

    Of several processes each ranks its own part of the batch: token states are not sent around.
    """

    kind: Literal["self_distillation"]
    scale: float = Field(default=50.0, gt=0.0)  # of all scores; BGE-M3 50 (a temperature of 0.02)
    sparse_weight: float = Field(default=0.3, ge=0.0)  # of the sparse score in the sum; the others have 1
    sparse_loss_weight: float = Field(default=0.1, ge=0.0)
    multi_vector_dimension: Positive | None = None  # the student's own width when absent
    after_step: int = Field(default=0, ge=0)  # until then the three only rank

    @property
    def needs(self) -> Needs:
        return Needs(tokens=True)


AnyLoss = (
    TranslationRankingConfig
    | TeacherRankingConfig
    | DistillationConfig
    | AlignmentConfig
    | KoLeoConfig
    | MomentumRankingConfig
    | ScoreDistillationConfig
    | MaskedTokensConfig
    | CrossUnmaskingConfig
    | RepresentationTranslationConfig
    | SelfDistillationConfig
)
LossConfig = Annotated[AnyLoss, Field(discriminator="kind")]
LOSS_KINDS = [get_args(loss.model_fields["kind"].annotation)[0] for loss in get_args(AnyLoss)]
