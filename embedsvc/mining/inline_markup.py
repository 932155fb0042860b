"""The text of a segment without its inline markup, for TMX and XLIFF."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InlineMarkup:
    """What becomes of the elements within a segment; of any other the text is kept and the tags vanish.

    Elements in ``codes`` hold codes of the original format, not text: they vanish with all that is in them.
    Those in ``placeholders`` stand for something (an image, a line break, a variable): one between two
    letters or digits becomes a space, lest two words become one.
    """

    codes: frozenset[str]
    placeholders: frozenset[str]


class SegmentText:
    """Collect the text of one segment from the events within it."""

    def __init__(self, markup: InlineMarkup) -> None:
        self._markup = markup
        self._parts: list[str | None] = []  # None: a placeholder
        self._hidden = 0

    def start(self, name: str) -> None:
        """Take the beginning of an element."""
        if name in self._markup.placeholders and not self._hidden:
            self._parts.append(None)
        if self._hidden or name in self._markup.codes:
            self._hidden += 1

    def end(self) -> None:
        """Take the end of an element."""
        self._hidden = max(0, self._hidden - 1)

    def text(self, data: str) -> None:
        """Take character data."""
        if not self._hidden:
            self._parts.append(data)

    def value(self) -> str:
        """Return the text so far."""
        done: list[str] = []
        gap, last = False, ""
        for part in self._parts:
            if part:
                if gap and last.isalnum() and part[0].isalnum():
                    done.append(" ")
                done.append(part)
                last = part[-1]
            gap = part is None
        return "".join(done)
