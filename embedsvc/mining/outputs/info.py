"""What a file says about all of its pairs."""

from __future__ import annotations

from dataclasses import dataclass

from embedsvc.languages import UNDECIDED


@dataclass(frozen=True)
class OutputInfo:
    """The languages of the two sides, as tags ("de", "pt-BR"); None where nobody said."""

    source_language: str | None = None
    target_language: str | None = None

    @property
    def source_tag(self) -> str:
        """The tag for formats that must have one."""
        return self.source_language or UNDECIDED

    @property
    def target_tag(self) -> str:
        """The tag for formats that must have one."""
        return self.target_language or UNDECIDED
