"""Filters of pairs, tried on what was extracted: "ratio", "copy" and "numbers" (`filters`)."""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from embedsvc.mining.scripts import text_width

# Of true pairs (FLORES and NTREX, English to each language) these drop: ratio 0.1 %, numbers 0.3 % and 1.4 %,
# there mostly miles made kilometres and 3 p.m. made 15:00; numbers that merely differ would be 3 % and 4 %.
_LEAST_PAIRS = 30
RATIO_PAIRS = 20_000
_RATIO_LIMIT = 2.0
_RATIO_LIMIT_UNCORRECTED = 3.0  # the factors themselves reach from 0.7 (Chinese) to 1.45
_PADDING = 10  # characters added to both: of short texts one word more is no mistake

_DIGITS = re.compile(r"\d+")
_GROUPED = re.compile(r"(?<!\d)\d{1,3}([.,'’ ٬،])(?:\d{2,3}\1)*\d{3}(?!\d)")
"""1,234,567 1.234.567 1 234 567 and, as in India, 12,34,567."""


def pair_reason(
    source: str, target: str, filters: Sequence[str], *, length_factor: float | None = None
) -> str | None:
    """Return the name of the first filter that drops a pair of normalised texts, None if it is kept.

    ``filters`` are names; those of sentence filters are passed over. ``length_factor`` is that of the
    pair's languages (`length_factor`); without one only lengths that differ thrice are dropped.
    """
    checks: dict[str, Callable[[], bool]] = {
        "ratio": lambda: _is_out_of_ratio(source, target, length_factor),
        "copy": lambda: _is_copy(source, target),
        "numbers": lambda: _differ_in_numbers(source, target),
    }
    return next((name for name, drops in checks.items() if name in filters and drops()), None)


def length_factor(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Return how long targets are beside their sources, the median of the first 20,000 pairs given.

    The pairs may hold some wrong ones. None where fewer than 30 are given.
    """
    return factor_of([log_ratio(source, target) for source, target in islice(pairs, RATIO_PAIRS)])


def factor_of(log_ratios: Sequence[float]) -> float | None:
    """Return the factor of pairs with these `log_ratio`s, None for fewer than 30."""
    return math.exp(statistics.median(log_ratios)) if len(log_ratios) >= _LEAST_PAIRS else None


def log_ratio(source: str, target: str) -> float:
    """Return the logarithm of how many times as long the target is as the source."""
    return math.log((text_width(target) + _PADDING) / (text_width(source) + _PADDING))


def _is_out_of_ratio(source: str, target: str, factor: float | None) -> bool:
    limit = _RATIO_LIMIT_UNCORRECTED if factor is None else _RATIO_LIMIT
    return abs(log_ratio(source, target) - math.log(factor or 1.0)) > math.log(limit)


def _is_copy(source: str, target: str) -> bool:
    bare = _bare(source)
    return bool(bare) and bare == _bare(target)


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _differ_in_numbers(source: str, target: str) -> bool:
    """Say whether each has a number more often than the other: where only one has, it may be in words."""
    ours, theirs = numbers_in(source), numbers_in(target)
    return bool(ours - theirs) and bool(theirs - ours)


def numbers_in(text: str) -> Counter[str]:
    """Return the numbers of a text, in European digits, without separators of thousands and leading zeros.

    The parts of a decimal fraction, a date or a time are numbers of their own: "3.5" and "3,5" are the same.
    """
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = _GROUPED.sub(lambda group: "".join(_DIGITS.findall(group[0])), text)
    return Counter(number.lstrip("0") or "0" for number in _DIGITS.findall(text))
