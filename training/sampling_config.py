"""What a recipe says about how batches are drawn. No torch: a recipe is checked without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.section import Positive, Section, Share

Mixing = Literal["passages", "entries", "round_robin"]


class SamplingConfig(Section):
    """A pair is drawn by ``n^(language_exponent-1) * (1 + characters/length_pivot)^-length_exponent`` and by
    ``1 + sentences * likeness`` of its English text (`training.likeness`).

    Batches of one language keep a model from telling languages apart instead of meanings, batches of
    all languages have the harder negatives (LAReQA, https://arxiv.org/abs/2004.05484: try both).
    """

    language_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    length_pivot: float = Field(default=60.0, gt=0.0)  # characters of the English side
    length_exponent: float = Field(default=0.0, ge=0.0)  # 0 = length does not matter
    sentences: float = Field(default=0.0, ge=0.0)  # 3: sentences as people say them four times as often
    token_dropout: Share = 0.0  # share of tokens left out of each text, at random
    code_switching: Share = 0.0  # share of English texts in which words are replaced by a lexicon's
    switched_words: float = Field(default=0.5, gt=0.0, le=1.0)  # of the words of such a text in the lexicon
    transliteration: Share = 0.0  # share of the other texts written in ASCII letters (extra [augment])
    crops: tuple[float, float] = (0.1, 0.5)  # of unlabelled texts: the least and the greatest share of tokens
    batches: Literal["mixed", "one_language"] = "mixed"
    translations: Positive = (
        1  # of one English sentence, drawn into a batch together (fewer where it has fewer)
    )
    positives: Literal["own", "group"] = (
        "own"  # group: the other translations are positives too, not left out
    )
    negatives: int = Field(default=0, ge=0)  # of those in data.negatives, so many of each pair in a batch

    passages: Annotated[int, Field(gt=1)] = 6  # of each query of data.lists, drawn at random
    mixing: Mixing = "passages"  # of languages, see ListShape in training/list_sampling.py

    @model_validator(mode="after")
    def _crops_fit(self) -> SamplingConfig:
        low, high = self.crops
        if not 0 < low <= high <= 1:
            raise ValueError(f"crops = [{low}, {high}]: a smaller share, then a greater one, of at most 1")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> SamplingConfig:
        if self.batches == "one_language" and self.translations > 1:
            raise ValueError('translations of one sentence are in several languages: batches = "mixed"')
        return self
