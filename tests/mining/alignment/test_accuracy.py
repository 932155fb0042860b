from __future__ import annotations

import pytest

from embedsvc.mining.alignment.accuracy import accuracy


def test_strict_and_lax_by_hand() -> None:
    """Found: one same, one that shares a pair, one wrong, one lone sentence that is also alone in gold."""
    gold = [((0,), (0,)), ((1,), (1, 2)), ((2, 3), (3,)), ((), (4,)), ((4,), (5,))]
    found = [((0,), (0,)), ((1,), (1,)), ((2,), (2,)), ((3,), (3,)), ((), (4,)), ((4,), ())]
    result = accuracy([(gold, found)])
    # Of 6 found, 2 are the same (0-0 and the lone 4); 1-1 and 3-3 share a pair with gold beads.
    assert result.strict.precision == pytest.approx(2 / 6)
    assert result.lax.precision == pytest.approx(4 / 6)
    # Of the 4 gold beads with two sides 1 was found, 3 share a pair with a found one.
    assert result.strict.recall == pytest.approx(1 / 4)
    assert result.lax.recall == pytest.approx(3 / 4)
    assert result.strict.f1 == pytest.approx(2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4))


def test_documents_are_counted_together() -> None:
    right, wrong = [((0,), (0,)), ((1,), (1,))], [((0,), (1,)), ((1,), (0,))]
    one = [((0,), (0,))]
    assert accuracy([(right, right), (one, one)]).strict.f1 == 1
    assert accuracy([(right, wrong), (one, one)]).strict.precision == pytest.approx(1 / 3)
    assert accuracy([([], [])]).lax.f1 == 0
