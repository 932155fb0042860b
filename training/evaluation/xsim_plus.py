"""xsim++ (Chen et al., ACL 2023, arXiv 2306.12907): xsim among sentences that say almost the same.

The English side also holds every sentence with a number, a name or a negation changed (`perturbed`). A model
that only recognises the topic fails; errors are told apart by what it fell for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from indexing import nearest_both_ways
from training.evaluation.flores import english_lines, flores_folder, other_languages
from training.evaluation.items import Items, mean_items
from training.evaluation.perturbed import KINDS, perturbed
from training.evaluation.report import PAIRS, Column, Report, Task, make_report
from training.evaluation.vectors import encoded
from training.evaluation.xsim import best_targets

_OTHER = "other line"
TASK = Task(
    "xsim++",
    "xsim error rate in percent, xx to English, on FLORES lines, ratio margin, k = 4, the English side "
    "extended by changed sentences made by this project's rules (not Meta's file). `error` is the sum of "
    "what was taken for the translation: it with another number, name or negation, or another line or its "
    "changes.",
    (
        PAIRS,
        Column("candidates", "none", counts=True),
        *(Column(name, "lower") for name in ("error", *KINDS, _OTHER)),
    ),
    "error",
    aligned=True,
)
_NEIGHBOURS = 4


def evaluate_xsim_plus(encoder: Encoder, data: Path) -> Report:
    """Return error rates per language and kind of error from FLORES, as `evaluate_xsim` finds it.

    Raises InvalidInputError if nothing in the English sentences could be changed.
    """
    folder = flores_folder("xsim++", data)
    english = english_lines(folder)
    candidates, origins, kinds = extended(english)
    if len(candidates) == len(english):
        raise InvalidInputError(f"xsim++: no number, name or negation could be changed in {folder}")
    targets = encoded(encoder, candidates)
    rows: dict[str, dict[str, Items | float]] = {}
    for language, texts in other_languages(folder, len(english)):
        both = nearest_both_ways(encoded(encoder, texts), targets, _NEIGHBOURS)
        best = best_targets(both, "ratio")
        rows[language] = {
            "pairs": float(len(texts)),
            "candidates": float(len(candidates)),
            **_errors(best, english, origins, kinds),
        }
    return make_report(TASK, encoder, rows)


def extended(english: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.str_]]:
    """Return the sentences, then all changed ones, with the row ``(m,)`` each comes from and its kind.

    The kind of a sentence itself is empty.
    """
    texts, origins, kinds = list(english), list(range(len(english))), [""] * len(english)
    for row, versions in enumerate(perturbed(english)):
        for kind, changed in versions.items():
            texts += changed
            origins += [row] * len(changed)
            kinds += [kind] * len(changed)
    return texts, np.array(origins), np.array(kinds)


def _errors(
    best: NDArray[np.int64], english: Sequence[str], origins: NDArray[np.int64], kinds: NDArray[np.str_]
) -> dict[str, Items]:
    """Return the share of lines with each kind of error; a candidate of the line's text is right."""
    rows = np.arange(len(best))
    own = origins[best] == rows
    fell_for = np.where(best < 0, _OTHER, np.where(own, kinds[best], _OTHER))
    same = [
        found < len(english) and english[found] == english[row] for row, found in enumerate(best.tolist())
    ]
    fell_for[(best >= 0) & np.array(same)] = ""
    return {
        "error": mean_items(fell_for != ""),
        **{kind: mean_items(fell_for == kind) for kind in (*KINDS, _OTHER)},
    }
