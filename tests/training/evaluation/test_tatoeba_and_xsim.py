"""Evaluators against hand-made cases and LASER's double loop."""

from pathlib import Path

import numpy as np
import pytest

from embedsvc import load_encoder
from embedsvc.errors import InvalidInputError, NotFoundError
from tests.training.evaluation.fakes import unit_rows
from training.evaluation.tatoeba import accuracies, evaluate_tatoeba, retrieval_f1
from training.evaluation.tatoeba_groups import LASER, XTREME
from training.evaluation.xsim import evaluate_xsim, xsim_error


def test_accuracies_of_a_case_computed_by_hand() -> None:
    x = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    y = np.array([[0.8, 0.6], [0, 1], [0.28, 0.96]], np.float32)
    # x0 -> y0 right; x1 -> y1 right; x2: .96, .8, .936 -> y0 wrong.
    # y0: .8, .6, .96 -> x2 wrong; y1 -> x1 right; y2: .28, .96, .936 -> x1 wrong.
    assert accuracies(x, y) == pytest.approx((200 / 3, 100 / 3))


def test_the_f1_of_retrieval_is_the_weighted_one_of_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the [train] extra")
    found = np.array([0, 1, 1, 3, 0, 0, 5])  # 0 and 1 rightly among others, 3 rightly and alone
    assert retrieval_f1(found).tolist() == [0.5, 2 / 3, 0, 1, 0, 0, 0]
    expected = metrics.f1_score(np.arange(7), found, average="weighted", zero_division=0)
    assert retrieval_f1(found).mean() == pytest.approx(expected)


@pytest.mark.parametrize("margin", ["ratio", "distance", "absolute"])
def test_xsim_equals_the_double_loop_of_laser(margin: str) -> None:
    y = unit_rows(1, 40, 6)
    y[38:] = y[:2]  # two duplicates: the same text counts as right
    x = y + 0.45 * unit_rows(2, 40, 6)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    texts = [f"text {i % 38}" for i in range(40)]
    assert xsim_error(x, y, texts, margin=margin) == pytest.approx(laser_error(x, y, texts, margin))  # type: ignore[arg-type]


def laser_error(x: np.ndarray, y: np.ndarray, texts: list[str], margin: str, k: int = 4) -> float:
    cos = x @ y.T
    mean_x = np.sort(cos, axis=1)[:, -k:].mean(axis=1)
    mean_y = np.sort(cos, axis=0)[-k:].mean(axis=0)
    wrong = 0
    for i in range(len(x)):
        best, best_score = -1, -np.inf
        for j in np.argsort(-cos[i])[:k]:
            b = (mean_x[i] + mean_y[j]) / 2
            score = {"ratio": cos[i, j] / b, "distance": cos[i, j] - b, "absolute": cos[i, j]}[margin]
            if score > best_score:
                best, best_score = j, score
        wrong += texts[best] != texts[i]
    return 100 * wrong / len(x)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two tiny test sets in which the 'foreign' side repeats the English words, but for one line."""
    english = ["red apple", "blue house", "old tree", "fast train"]
    foreign = ["apple red", "house blue", "old tree", "apple red"]
    (tmp_path / "tatoeba").mkdir()
    (tmp_path / "tatoeba" / "tatoeba.xxx-eng.eng").write_text("\n".join(english) + "\n")
    (tmp_path / "tatoeba" / "tatoeba.xxx-eng.xxx").write_text("\n".join(foreign) + "\n")
    (tmp_path / "flores" / "text").mkdir(parents=True)
    (tmp_path / "flores" / "text" / "eng_Latn.txt").write_text("\n".join(english) + "\n")
    (tmp_path / "flores" / "text" / "xxx_Latn.txt").write_text("\n".join(foreign) + "\n")
    return tmp_path


def test_tatoeba_and_xsim_read_their_files(sets: Path) -> None:
    encoder = load_encoder()
    tatoeba = evaluate_tatoeba(encoder, sets)
    assert tatoeba.rows["xxx"]["pairs"] == 4
    assert tatoeba.rows["xxx"]["xx-eng"] == 75.0
    assert tatoeba.rows["xxx"]["mean"] == (75.0 + tatoeba.rows["xxx"]["eng-xx"]) / 2
    xsim = evaluate_xsim(encoder, sets)
    assert xsim.rows == {"xxx_Latn": {"pairs": 4.0, "error": 25.0, "distance": 25.0, "absolute": 25.0}}


def test_unequal_files_and_missing_sets_are_named(sets: Path, tmp_path: Path) -> None:
    (sets / "tatoeba" / "tatoeba.xxx-eng.xxx").write_text("one\n")
    with pytest.raises(InvalidInputError, match=r"tatoeba\.xxx-eng\.xxx has 1 lines, .*eng has 4"):
        evaluate_tatoeba(load_encoder(), sets)
    with pytest.raises(NotFoundError, match="no tatoeba"):
        evaluate_tatoeba(load_encoder(), tmp_path / "flores")


def test_groups_average_the_languages_that_there_are(sets: Path) -> None:
    folder = sets / "tatoeba"
    for code, foreign in (("deu", ["red apple", "blue house"]), ("cym", ["fast train", "old tree"])):
        (folder / f"tatoeba.{code}-eng.{code}").write_text("\n".join(foreign) + "\n")
        (folder / f"tatoeba.{code}-eng.eng").write_text("red apple\nblue house\n")
    report = evaluate_tatoeba(load_encoder(), sets)
    assert {name: group.rows for name, group in report.groups.items()} == {
        "36 of XTREME": ["deu"],
        "83 that LASER was trained on": ["deu"],
    }
    assert report.groups["36 of XTREME"].mean["xx-eng"] == 100.0
    assert "| **36 of XTREME, 1 of 36** | 2 | 100.00 |" in report.markdown()


def test_the_published_groups_have_their_sizes_and_nest() -> None:
    assert (len(set(XTREME)), len(set(LASER))) == (36, 83)
    assert set(XTREME) - set(LASER) == {"jav"}


@pytest.mark.slow
def test_the_bundled_model_keeps_its_figure(evaluation_data: Path) -> None:
    assert evaluate_tatoeba(load_encoder(), evaluation_data).mean["mean"] >= 30.0
