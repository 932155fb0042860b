"""Texts of a batch in parts of like length, padded as the model wants them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import TokenBags
from training.padding import Template, length_parts, padded

TEMPLATE = Template(prefix=[1, 2], suffix=[3], pad=9)


def bags(*texts: list[int]) -> TokenBags:
    ids = np.array([token for text in texts for token in text], np.int32)
    return TokenBags(ids, np.cumsum([0, *map(len, texts)]))


def test_texts_stand_in_the_models_template_in_the_order_asked_for() -> None:
    ids, mask = padded(bags([10], [20, 21, 22], [], [40, 41]), np.array([1, 2, 0]), TEMPLATE)
    assert ids.tolist() == [[1, 2, 20, 21, 22, 3], [1, 2, 3, 9, 9, 9], [1, 2, 10, 3, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_parts_hold_texts_of_like_length_longest_first() -> None:
    parts = length_parts(np.array([2, 9, 3, 3, 8, 2]), tokens=10)
    assert [part.tolist() for part in parts] == [[1], [4], [2, 3, 0], [5]]
    assert [part.tolist() for part in length_parts(np.array([2, 9, 3]), tokens=100, rows=2)] == [[1, 2], [0]]


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.integers(1, 200),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_every_text_is_in_one_part_within_the_limits(
    lengths: list[int], tokens: int, rows: int | None
) -> None:
    parts = length_parts(np.array(lengths), tokens=tokens, rows=rows)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        longest = max(lengths[text] for text in part)
        assert len(part) == 1 or len(part) * longest <= tokens
        assert len(part) <= (rows or len(lengths))
