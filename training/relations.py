"""Which texts of a batch are translations of each other, which are not, and which had better be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

POSITIVE, IGNORED, NEGATIVE = 1, 0, -1
Positives = Literal["own", "group"]


@dataclass(frozen=True)
class PairKeys:
    """What tells translations apart. ``source`` and ``target`` (B,) are equal for equal texts.

    Texts of one ``group`` (B,) mean the same; in English-centred data it is the key of the English text.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    group: NDArray[np.int64]


def relation_matrix(
    rows: PairKeys, columns: PairKeys, *, positives: Positives = "own", offset: int = 0
) -> NDArray[np.int8]:
    """Return int8 (rows, columns): how the source of each row relates to the target of each column.

    Row i and column ``i + offset``, where there is one, are one pair, and positive. Other columns of the
    row's group are positive too with ``positives="group"`` (1-to-K, https://arxiv.org/abs/2406.18254),
    else ignored, for a translation is no negative. Ignored in any case: another column with the text of
    the row's own translation, which would count twice, or with the row's own text.
    """
    same_group = _equal(rows.group, columns.group) | _equal(rows.source, columns.source)
    same_text = _equal(rows.target, columns.target) | _equal(rows.source, columns.target)
    relations = np.full(same_group.shape, NEGATIVE, np.int8)
    relations[same_group] = POSITIVE if positives == "group" else IGNORED
    relations[same_text] = IGNORED
    own = np.arange(max(0, -offset), min(len(rows.source), len(columns.source) - offset))
    relations[own, own + offset] = POSITIVE
    return relations


def _equal(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = rows[:, None] == columns[None, :]
    return equal
