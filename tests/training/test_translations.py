"""Known translations against sets of pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.ragged import ragged
from training.translations import Translations

KEYS = st.integers(0, 9)


def keys(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@given(st.lists(st.tuples(KEYS, KEYS), min_size=1), st.lists(KEYS), st.lists(KEYS))
def test_lookups_equal_a_set_of_pairs(
    pairs: list[tuple[int, int]], english: list[int], other: list[int]
) -> None:
    translations = Translations(keys([e for e, _ in pairs]), keys([o for _, o in pairs]))
    expected = [[(e, o) in pairs or e == o for o in other] for e in english]
    grid = np.broadcast_arrays(keys(english)[:, None], keys(other)[None])
    assert translations.known(*grid).tolist() == expected
    hits = np.zeros((len(english), len(other)), bool)
    hits[translations.among(keys(english), keys(other))] = True
    assert hits.tolist() == expected
    groups, text = translations.groups(keys(other))
    assert sorted(zip(text.tolist(), groups.tolist(), strict=True)) == sorted(
        (at, e) for at, o in enumerate(other) for e in {e for e, wanted in pairs if wanted == o}
    )


def test_ragged_lists_come_one_after_the_other() -> None:
    places, owner = ragged(keys([5, 0, 2]), keys([2, 0, 3]))
    assert places.tolist() == [5, 6, 2, 3, 4]
    assert owner.tolist() == [0, 0, 2, 2, 2]
