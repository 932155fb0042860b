"""What a user may ask of the miner. The same names in the library and the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from embedsvc.errors import InvalidInputError
from embedsvc.mining.options import MiningOptions

Anchors = Literal["english", "other", "both"]
Languages = Literal["same", "any", "another"]


@dataclass(frozen=True)
class NegativeOptions:
    """How hard negatives are chosen; every field is an option of `embedsvc negatives`.

    count       the most negatives of a pair
    skip        so many of the nearest texts that are no translations are passed over
    max_share   a negative scores at most this share of what the positive scores (NV-Retriever,
                https://arxiv.org/abs/2407.15831); nearer ones are mostly unmarked translations
    margin      and at least so much less, in cosines
    anchors     the side whose texts get negatives, which are texts of the other side
    languages   of the negatives of an English anchor: that of its translation, any, or any but that
    depth       how many neighbours of an anchor are looked at; None: `count` and `skip`, its translations,
                and some to spare
    neighbours, memory, threads   how these are found, see `embedsvc mine`
    """

    count: int = 8
    skip: int = 0
    max_share: float = 0.95
    margin: float = 0.0
    anchors: Anchors = "english"
    languages: Languages = "same"
    depth: int | None = None
    neighbours: str = "auto"
    memory: int = 2 << 30
    threads: int | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInputError for a value that no data can make right."""
        _check_least("count", self.count, 1)
        _check_least("skip", self.skip, 0)
        if self.depth is not None:
            _check_least("depth", self.depth, self.skip + 1)
        if not 0 < self.max_share <= 1:
            raise InvalidInputError(f"max_share = {self.max_share:g}; expected more than 0 and at most 1")
        if not 0 <= self.margin <= 2:
            raise InvalidInputError(f"margin = {self.margin:g}; expected 0 to 2, the range of cosines")
        _check_choice("anchors", self.anchors, get_args(Anchors))
        _check_choice("languages", self.languages, get_args(Languages))
        if self.languages == "another" and self.anchors != "english":
            raise InvalidInputError(
                f"languages = 'another' with anchors = {self.anchors!r}: the negatives of a translation are "
                "English, as its positive is; take anchors = 'english'"
            )

    @property
    def search(self) -> MiningOptions:
        """The part that the search for neighbours reads."""
        return MiningOptions(neighbours=self.neighbours, memory=self.memory, threads=self.threads)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidInputError(f"{name} = {value}; it must be at least {least}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInputError(f"{name} = {value!r} is unknown; choose {', '.join(known)}")
