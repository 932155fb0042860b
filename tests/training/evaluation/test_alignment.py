"""Alignment without labels on a case computed by hand and against plain loops."""

from pathlib import Path

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError
from indexing import nearest_both_ways
from tests.training.evaluation.fakes import chosen, unit_rows
from training.evaluation.alignment import alignment_figures, evaluate_alignment, mutual


def test_mutual_pairs_and_gaps_equal_plain_loops() -> None:
    x, y = unit_rows(1, 12, 4), unit_rows(2, 9, 4)
    cos = (x @ y.T).astype(np.float64)
    mean_x, mean_y = np.sort(cos, axis=1)[:, -4:].mean(axis=1), np.sort(cos, axis=0)[-4:].mean(axis=0)
    ratio = cos / ((np.maximum(mean_x, 0.01)[:, None] + np.maximum(mean_y, 0.01)) / 2)
    listed_x = [sorted(np.argsort(-row)[:4], key=lambda j, i=i: -ratio[i, j]) for i, row in enumerate(cos)]
    listed_y = [
        max(np.argsort(-column)[:4], key=lambda i, j=j: ratio[i, j]) for j, column in enumerate(cos.T)
    ]
    row = alignment_figures(x, y)
    expected = [listed_y[listed[0]] == i for i, listed in enumerate(listed_x)]
    assert mutual(nearest_both_ways(x, y, 4)).tolist() == expected
    assert 0 < sum(expected) < 12
    gaps = [ratio[i, listed[0]] - ratio[i, listed[1]] for i, listed in enumerate(listed_x)]
    assert row["margin gap"].figure() == pytest.approx(100 * np.mean(gaps), rel=1e-4)  # type: ignore[union-attr]


def test_line_numbers_do_not_matter_and_sizes_may_differ(tmp_path: Path) -> None:
    folder = tmp_path / "alignment"
    folder.mkdir()
    texts = [f"t{n}" for n in range(6)]
    vectors = dict(zip(texts, unit_rows(3, 6, 5), strict=True))
    (folder / "eng.txt").write_text("\n".join(texts) + "\n")
    (folder / "xx.txt").write_text("\n".join(texts[4:1:-1]) + "\n")
    report = evaluate_alignment(chosen(vectors), tmp_path)
    assert report.rows["xx"]["mutual"] == 100
    assert report.rows["xx"]["texts"] == 3
    (folder / "xx.txt").write_text("t1\n")
    with pytest.raises(InvalidInputError, match="has 1 line; alignment needs at least 2"):
        evaluate_alignment(chosen(vectors), tmp_path)
    (folder / "xx.txt").unlink()
    with pytest.raises(InvalidInputError, match=r"no file beside eng\.txt"):
        evaluate_alignment(chosen(vectors), tmp_path)
