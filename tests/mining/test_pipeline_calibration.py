"""Calibration within a run: known pairs are planted and leave no trace; without them scores must do."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, Encoding, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import read_pairs
from embedsvc.mining.pipeline import LEAST_SENTENCES, mine_files
from embedsvc.mining.records import Pair
from embedsvc.mining.results import MiningSummary
from embedsvc.mining.sides import MiningInputs

OPTIONS = MiningOptions(filters=("none",))
SHARED, ALONE, KNOWN = 500, 700, 80
DIMENSION = 384  # of the bundled model
UNKNOWN = 100_000  # of texts from this number on the model knows no token


class _Space(Encoder):
    """Texts such as "a 17" and "b 17" lie near each other, all others where chance puts them."""

    def __init__(self) -> None:
        inner = load_encoder()
        super().__init__(inner.folder, inner.runtime)

    def encode_with_usage(self, texts: Any, *_: Any, **__: Any) -> Encoding:
        vectors = np.stack([_vector(text) for text in texts]) if len(texts) else np.empty((0, DIMENSION))
        return Encoding(vectors.astype(np.float32), [1] * len(texts), [False] * len(texts))


@cache
def _vector(text: str) -> NDArray[np.float64]:
    side, number = re.fullmatch(r"([ab]) (\d+)", text).groups()  # type: ignore[union-attr]
    if int(number) >= UNKNOWN:
        return np.zeros(DIMENSION)
    meaning = np.random.default_rng(int(number)).standard_normal(DIMENSION)
    noise = np.random.default_rng([ord(side), int(number)]).standard_normal(DIMENSION)
    vector: NDArray[np.float64] = meaning + 1.5 * noise
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def space() -> Encoder:
    return _Space()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> MiningInputs:
    folder = tmp_path_factory.mktemp("space")
    numbers = {"a": range(SHARED + ALONE), "b": [*range(SHARED), *range(5_000, 5_000 + ALONE)]}
    for side, own in numbers.items():
        (folder / f"{side}.txt").write_text("".join(f"{side} {number}\n" for number in own))
    known = [*range(9_000, 9_000 + KNOWN), *range(UNKNOWN, UNKNOWN + 30)]
    (folder / "dev.tsv").write_text("".join(f"a {number}\tb {number}\n" for number in known))
    return MiningInputs([folder / "a.txt"], [folder / "b.txt"], dev=folder / "dev.tsv")


def precision_of(path: Path) -> float:
    pairs = list(read_pairs(path))
    return sum(pair.source.text[1:] == pair.target.text[1:] for pair in pairs) / len(pairs)


@dataclass(frozen=True)
class Run:
    out: Path
    summary: MiningSummary

    def pairs(self) -> list[Pair]:
        return list(read_pairs(self.out))


@pytest.fixture(scope="module")
def calibrated(inputs: MiningInputs, tmp_path_factory: pytest.TempPathFactory, space: Encoder) -> Run:
    out = tmp_path_factory.mktemp("calibrated") / "pairs.tsv"
    return Run(out, mine_files(inputs, out, OPTIONS, encoder=space))


def test_known_pairs_set_the_threshold_and_are_not_written(calibrated: Run) -> None:
    calibration = calibrated.summary.manifest["calibration"]
    assert (calibration["made_by"], calibration["known_pairs"]) == ("development", KNOWN)
    assert precision_of(calibrated.out) == pytest.approx(calibration["precision"]["value"], abs=0.08)
    pairs = calibrated.pairs()
    assert not any(int(pair.source.text[2:]) >= 9_000 for pair in pairs)
    assert not any(int(pair.target.text[2:]) >= 9_000 for pair in pairs)
    probabilities = [pair.probability or 0.0 for pair in pairs]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > 0.9
    assert "expected, from known pairs: precision 0." in calibrated.summary.text


def test_known_pairs_take_nothing_from_the_corpus(
    calibrated: Run, inputs: MiningInputs, tmp_path: Path, space: Encoder
) -> None:
    options = replace(OPTIONS, threshold=calibrated.summary.manifest["threshold"])
    mine_files(replace(inputs, dev=None), tmp_path / "without.tsv", options, encoder=space)
    bare = [replace(pair, probability=None) for pair in calibrated.pairs()]
    assert bare == list(read_pairs(tmp_path / "without.tsv"))


@pytest.mark.slow
def test_a_wanted_precision_is_kept(
    calibrated: Run, inputs: MiningInputs, tmp_path: Path, space: Encoder
) -> None:
    sure = mine_files(inputs, tmp_path / "sure.tsv", replace(OPTIONS, precision=0.98), encoder=space)
    assert sure.manifest["threshold"] > calibrated.summary.manifest["threshold"]
    assert precision_of(tmp_path / "sure.tsv") > 0.95


def test_without_known_pairs_the_scores_must_do(inputs: MiningInputs, tmp_path: Path, space: Encoder) -> None:
    out = tmp_path / "pairs.tsv"
    summary = mine_files(replace(inputs, dev=None), out, OPTIONS, encoder=space)
    calibration = summary.manifest["calibration"]
    assert calibration["made_by"] == "unlabelled"
    assert precision_of(out) > 0.5  # an estimate, and here too hopeful: 0.83 for 0.63
    assert sum(pair.probability is not None for pair in read_pairs(out)) == summary.pairs
    assert "the scores alone" in summary.text


def test_few_sentences_are_not_calibrated_and_the_summary_says_so(tmp_path: Path, space: Encoder) -> None:
    for side in "ab":
        lines = [f"{side} {number}\n" for number in range(LEAST_SENTENCES - 1)]
        (tmp_path / f"{side}.txt").write_text("".join(lines))
    few = MiningInputs([tmp_path / "a.txt"], [tmp_path / "b.txt"])
    summary = mine_files(few, tmp_path / "pairs.tsv", OPTIONS, encoder=space)
    assert summary.manifest["calibration"] is None
    assert "not calibrated: give --dev" in summary.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"dev\.tsv"),
        ("a 1\n", "1 columns; expected source and target"),
        ("a 1\tb 1\tc\n", "3 columns; expected source and target"),
        ("a 9000\tb 9000\n", "1 development pairs can be used; calibration needs at least 20"),
        (" \t \n", "has no pair"),
    ],
)
def test_a_bad_file_of_known_pairs_is_named(
    inputs: MiningInputs, tmp_path: Path, space: Encoder, content: str, message: str
) -> None:
    (tmp_path / "dev.tsv").write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        mine_files(replace(inputs, dev=tmp_path / "dev.tsv"), tmp_path / "pairs.tsv", OPTIONS, encoder=space)
    assert not (tmp_path / "pairs.tsv").exists()


def test_known_pairs_need_texts(inputs: MiningInputs, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    vectors = MiningInputs(
        source_vectors=tmp_path / "x.npy", target_vectors=tmp_path / "x.npy", dev=inputs.dev
    )
    with pytest.raises(InvalidInputError, match="dev pairs are sentences"):
        mine_files(vectors, tmp_path / "pairs.tsv", OPTIONS)
