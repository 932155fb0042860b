"""The table of keys says what a dict says, in any order of additions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedsvc.mining.sentence_keys import ABSENT, KeyTable, sentence_keys


def test_a_key_is_the_hash_of_the_text_in_every_process() -> None:
    keys = sentence_keys([b"Guten Tag", b""])
    assert keys.tobytes().hex() == "675901ed8cfbc1dec645733f2532a8c1cae66941d9efbd404e4d88758ea67670"
    assert sentence_keys([]).shape == (0,)


@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=12))
def test_table_agrees_with_a_dict(batches: list[list[int]]) -> None:
    table, expected = KeyTable(), dict[int, int]()
    # Keys with zero bytes, also at their end: numpy's strings must not take them for shorter ones.
    every = np.array([number.to_bytes(16, "little") for number in range(61)], "S16")
    for batch in batches:
        new = [number for number in dict.fromkeys(batch) if number not in expected]
        numbers = np.array([100 + len(expected) + i for i in range(len(new))], np.int64)
        table.add(every[new], numbers)
        expected.update(zip(new, numbers.tolist(), strict=True))
        assert table.find(every).tolist() == [expected.get(number, ABSENT) for number in range(61)]
    keys, numbers = table.sorted()
    order = sorted(expected, key=lambda number: number.to_bytes(16, "little"))
    assert numbers.tolist() == [expected[number] for number in order]
    assert keys.tolist() == every[order].tolist()


def test_searched_runs_stay_few() -> None:
    table = KeyTable()
    for number in range(500):
        table.add(sentence_keys([str(number).encode()]), np.array([number]))
    assert len(table._runs) <= 9  # each more than twice the next
