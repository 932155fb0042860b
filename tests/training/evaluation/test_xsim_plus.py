"""Changed sentences by example, and which error is counted as what."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedsvc.errors import InvalidInputError
from tests.training.evaluation.fakes import chosen
from training.evaluation.perturbed import perturbed
from training.evaluation.xsim_plus import evaluate_xsim_plus, extended

SENTENCES = [
    "On Monday the Danish team did not win 1,250 points in Oslo.",
    "He said three people can leave after March 2019.",
    "Most of Peru and The Oslo were warm.",
]


def test_numbers_keep_their_form() -> None:
    first, second, _ = perturbed(SENTENCES)
    assert len(first["numbers"]) == 3
    for text in first["numbers"]:
        number = text.split(" win ")[1].split(" ")[0]
        assert text == SENTENCES[0].replace("1,250", number)
        assert sum(a != b for a, b in zip(number, "1,250", strict=True)) == 1
        assert number[0] != "0"
    words = {text.split()[2] for text in second["numbers"]} - {"three"}
    assert words
    assert words <= {
        "two",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    }
    years = {text.split()[-1] for text in second["numbers"]} - {"2019."}
    assert years
    assert all(re.fullmatch(r"20\d\d\.", year) for year in years)


def test_a_change_that_two_sentences_allow_is_made_once() -> None:
    found = perturbed([f"It has {digit}." for digit in range(2, 10)])
    assert [text for versions in found for text in versions["numbers"]] == ["It has 1."]


def test_names_are_exchanged_with_names_of_their_kind() -> None:
    first, second, third = (set(found["entities"]) for found in perturbed(SENTENCES))
    assert first == {SENTENCES[0].replace("Oslo", "Peru")}  # one day and one people: nothing to take instead
    assert second == set()  # "He" only begins the sentence; March is the only month
    assert third == {"Most of Oslo and The Oslo were warm.", "Most of Peru and The Peru were warm."}


def test_negation_adds_and_removes_not_and_takes_opposites() -> None:
    first, second, third = (found["negation"] for found in perturbed(SENTENCES))
    assert SENTENCES[0].replace("did not win", "did win") in first
    assert SENTENCES[0].replace("win", "lose") in first
    assert SENTENCES[1].replace("can", "cannot") in second
    assert SENTENCES[1].replace("after", "before") in second
    assert SENTENCES[1].replace("He", "She") in second
    assert SENTENCES[2].replace("were", "were not") in third
    assert SENTENCES[2].replace("Most", "Least") in third
    assert perturbed(["It can't be."])[0]["negation"] == ["It can be."]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.sampled_from("aA1 .,'not is Oslo"), max_size=25), max_size=5, unique=True))
def test_every_change_is_a_new_text_and_always_the_same(sentences: list[str]) -> None:
    found = perturbed(sentences)
    texts = [text for versions in found for changed in versions.values() for text in changed]
    assert len({*texts, *sentences}) == len(texts) + len(sentences)
    assert found == perturbed(sentences)


def test_candidates_know_where_they_come_from() -> None:
    texts, origins, kinds = extended(SENTENCES)
    assert texts[:3] == SENTENCES
    assert kinds[:3].tolist() == ["", "", ""]
    assert origins[:3].tolist() == [0, 1, 2]
    row = texts.index(SENTENCES[1].replace("can", "cannot"))
    assert (origins[row], kinds[row]) == (1, "negation")


def test_errors_are_counted_by_what_was_taken_for_the_translation(tmp_path: Path) -> None:
    english = ["Three men left.", "It is Oslo.", "Do not sleep.", "We saw Peru.", "Same.", "Same."]
    texts, _, kinds = extended(english)
    vectors = {text: np.eye(len(texts))[row] for row, text in enumerate(texts)}
    number, negated = kinds.tolist().index("numbers"), texts.index("It is not Oslo.")
    assert texts[number].endswith(" men left.")
    foreign = {"f1": number, "f2": negated, "f3": texts.index(english[2]), "f4": 0, "f5": 5, "f6": 5}
    vectors |= {text: np.eye(len(texts))[row] for text, row in foreign.items()}
    vectors["Same."] = np.eye(len(texts))[5]
    (tmp_path / "eng_Latn.txt").write_text("\n".join(english) + "\n")
    (tmp_path / "xxx_Latn.txt").write_text("\n".join(foreign) + "\n")
    row = evaluate_xsim_plus(chosen(vectors), tmp_path).rows["xxx_Latn"]
    sixth = pytest.approx(100 / 6)
    assert [row[name] for name in ("numbers", "entities", "negation", "other line")] == [
        sixth,
        0,
        sixth,
        sixth,
    ]
    assert row["error"] == pytest.approx(50)


def test_sentences_that_cannot_be_changed_are_an_error(tmp_path: Path) -> None:
    for name in ("eng_Latn", "xxx_Latn"):
        (tmp_path / f"{name}.txt").write_text("hello\n")
    with pytest.raises(InvalidInputError, match="could be changed in"):
        evaluate_xsim_plus(chosen({"hello": [1]}), tmp_path)
