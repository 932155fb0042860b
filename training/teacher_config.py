"""What a recipe says about the models that it learns from. No torch: a recipe is checked without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.section import Positive, Section


class TeacherConfig(Section):
    """The model whose vectors are learnt: a folder or a hub id; ``embedsvc train --teacher`` names another.

    ``projection`` says what to do when its vectors are longer than the student's: "pca" cuts them to
    their first principal directions, which also orders them for Matryoshka prefixes; "learned" trains
    a matrix from the student's space into the teacher's, which is not part of the exported model.
    """

    model: str
    multilingual: bool = False  # it reads the first texts of pairs without English too
    projection: Literal["none", "pca", "learned"] = "none"
    max_tokens: Annotated[int, Field(gt=2)] | None = None  # the teacher's own limit when absent
    precision: Literal["float32", "int8"] = "float32"  # int8: its int8 ONNX graph, about three times as fast


class RerankerConfig(Section):
    """The cross-encoder that scores the passages of data.lists: a folder or a hub id."""

    model: str
    max_text_tokens: Positive | None = None  # longer passages are cut
