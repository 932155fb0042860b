"""Pairs that are copies, differ in numbers or in length beyond what their languages do, are told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.mining.filters import FILTERS, PAIR_FILTERS
from embedsvc.mining.pair_filters import length_factor, numbers_in, pair_reason


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("no number", []),
        ("1,234,567 and 1.234.567 and 1 234 567 and 1'234'567", ["1234567"] * 4),
        ("12,34,567", ["1234567"]),
        ("1,234.50", ["1234", "50"]),
        ("3.5 and 3,5", ["3", "5", "3", "5"]),
        ("12.05.2019", ["12", "5", "2019"]),
        ("2019 100 people", ["2019", "100"]),
        ("08:30", ["8", "30"]),
        ("007 0 00", ["7", "0", "0"]),
        ("٣٤٥ १२ 12 x2", ["345", "12", "12", "2"]),
        ("½ ² ⑤", []),
    ],
)
def test_numbers_of_all_scripts_and_separators(text: str, numbers: list[str]) -> None:
    assert sorted(numbers_in(text).elements()) == sorted(numbers)


@given(st.integers(0, 10**9), st.sampled_from(",.' "))
def test_separators_of_thousands_do_not_matter(number: int, separator: str) -> None:
    grouped = f"{number:,}".replace(",", separator)
    assert numbers_in(f"about {grouped} of them") == numbers_in(str(number))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("In 2019 it rained.", "2020 regnete es.", "numbers"),
        ("In 2019 it rained.", "2019 regnete es.", None),
        ("It cost 1,234.50 euros.", "Es kostete 1.234,50 Euro.", None),
        ("Three days in 2019", "3 Tage im Jahr 2019", None),  # in words on one side
        ("Flight 12 at 8", "Flug 12 um 8 und um 8", None),
        ("Flight 12 at 9", "Flug 12 um 8", "numbers"),
        ("सन २०१९ में", "In 2019", None),
        ("Hello, World!", "hello world", "copy"),
        ("Berlin (DE)", "BERLIN DE", "copy"),
        ("Hello World", "Hello Welt", None),
        ("!!!", "???", None),
        (
            "A short sentence.",
            "Ein Satz, der so lang ist, dass er niemals die Übersetzung sein kann. " * 2,
            "ratio",
        ),
        ("Yes.", "Ja, das ist so.", None),
    ],
)
def test_reason_of_a_pair(source: str, target: str, expected: str | None) -> None:
    assert pair_reason(source, target, FILTERS) == expected
    assert pair_reason(source, target, [name for name in PAIR_FILTERS if name != expected]) is None
    assert pair_reason(source, target, ()) is None


def test_length_factor_is_the_median_and_makes_the_limit_narrower() -> None:
    pairs = [("x" * 90, "y" * 190)] * 29  # (190 + 10) / (90 + 10) = 2
    assert length_factor(pairs) is None
    factor = length_factor([*pairs, ("x" * 90, "y" * 90), ("x" * 90, "y" * 1990)])
    assert factor == pytest.approx(2)
    for size, expected in ((390, None), (391, "ratio"), (90, None), (89, "ratio")):
        assert pair_reason("x" * 90, "y" * size, ["ratio"], length_factor=factor) == expected
    for size, expected in ((290, None), (291, "ratio")):  # without a factor, three times
        assert pair_reason("x" * 90, "y" * size, ["ratio"]) == expected


def test_wide_characters_count_as_three() -> None:
    assert length_factor([("东" * 30, "x" * 90)] * 30) == pytest.approx(1)


def test_true_pairs_are_kept(evaluation_data: Path) -> None:
    folder = evaluation_data / "flores" / "text"
    english = (folder / "eng_Latn.txt").read_text(encoding="utf-8").split("\n")[:300]
    for name in ("deu_Latn", "zho_Hans", "arb_Arab", "hin_Deva", "fin_Latn", "tha_Thai"):
        other = (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:300]
        pairs = list(zip(english, other, strict=True))
        factor = length_factor(pairs)
        assert factor is not None
        assert abs(math.log(factor)) < math.log(1.5)
        dropped = [pair for pair in pairs if pair_reason(*pair, FILTERS, length_factor=factor)]
        assert len(dropped) <= 6, name  # 5 in Chinese, which counts in ten thousands
