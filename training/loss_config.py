"""What a recipe says about each loss, one section per kind. No torch: a recipe is checked without it."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from training.section import Section


class LossSection(Section):
    weight: float = Field(default=1.0, gt=0.0)

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def ranks_negatives(self) -> bool:
        return False


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
    """The same against the teacher's vectors of the English side; both sides of a pair are ranked."""

    kind: Literal["teacher_ranking"]

    @property
    def needs_teacher(self) -> bool:
        return True


class DistillationConfig(LossSection):
    """Both sides of a pair are drawn to the teacher's vector of the English one."""

    kind: Literal["distillation"]
    distance: Literal["cosine", "mse"] = "cosine"

    @property
    def needs_teacher(self) -> bool:
        return True


class AlignmentConfig(LossSection):
    """The two sides of a pair are drawn to each other; alone it collapses, beside koleo it does not."""

    kind: Literal["alignment"]


class KoLeoConfig(LossSection):
    """Texts of one side spread evenly over the sphere."""

    kind: Literal["koleo"]


AnyLoss = TranslationRankingConfig | TeacherRankingConfig | DistillationConfig | AlignmentConfig | KoLeoConfig
LossConfig = Annotated[AnyLoss, Field(discriminator="kind")]
LOSS_KINDS = [get_args(loss.model_fields["kind"].annotation)[0] for loss in get_args(AnyLoss)]


class TeacherConfig(Section):
    """The model whose vectors are learnt: a folder or a hub id; ``embedsvc train --teacher`` names another.

    ``projection`` says what to do when its vectors are longer than the student's: "pca" cuts them to
    their first principal directions, which also orders them for Matryoshka prefixes; "learned" trains
    a matrix from the student's space into the teacher's, which is not part of the exported model.
    """

    model: str
    projection: Literal["none", "pca", "learned"] = "none"
    max_tokens: Annotated[int, Field(gt=2)] | None = None  # the teacher's own limit when absent
    precision: Literal["float32", "int8"] = "float32"  # int8: its int8 ONNX graph, about three times as fast
