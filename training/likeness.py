"""How much an English text reads like a sentence that somebody would say, rather than a label or a list."""

from __future__ import annotations

import re

# Words that hold sentences together; labels, titles and lists of names mostly do without them.
_PERSONAL = re.compile(
    r"\b(i|you|he|she|it|we|they|me|him|her|us|them|my|your|his|our|their|this|that|what|who|where|how|why"
    r"|is|are|was|do|don't|i'm)\b",
    re.IGNORECASE,
)
_MACHINE = re.compile(r"[%{}<>_$\\/]|\b[A-Z]{2,}\b|\d{3}")  # placeholders, markup, names of options, numbers
_ENDS = (".", "?", "!")
_WORDS = range(3, 21)


def sentence_likeness(text: str) -> float:
    """Return 1 for "Where is my book?", 0.5 for "He saw the house" or "See below.", 0 for "Open %s".

    A sentence has 3 to 20 words and nothing of the machine in it; the ending and a pronoun, question
    word or form of "to be" count one half each.
    """
    if len(text.split()) not in _WORDS or _MACHINE.search(text):
        return 0.0
    return 0.5 * text.rstrip().endswith(_ENDS) + 0.5 * bool(_PERSONAL.search(text))
