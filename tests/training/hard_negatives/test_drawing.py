"""The negatives of a batch: drawn for its pairs, each once, and left out wherever they mean the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedsvc.errors import InvalidInputError
from training.data import joined, text_keys, token_bags
from training.hard_negatives.drawing import DrawnNegatives, draw_negatives, shared_rows
from training.hard_negatives.mined import MinedNegatives, PairIdentity, read_mined
from training.hard_negatives.records import NegativeRecord, group_of_key, write_negatives
from training.relations import PairKeys
from training.sampling import BatchSampler, BatchShape, PairSource, pair_weights
from training.sampling_config import SamplingConfig
from training.token_store import Tokenization

# Row 3 says that "ein Haus" means home, too. Each text is the token number of its place here.
PAIRS = [
    ("house", "deu", "Haus"),
    ("house", "fra", "maison"),
    ("mouse", "deu", "Maus"),
    ("home", "deu", "Heim"),
    ("home", "deu", "ein Haus"),
    ("louse", "deu", "Laus"),
]
TEXTS = [
    "Haus",
    "maison",
    "Maus",
    "Heim",
    "ein Haus",
    "Laus",
    "Klaus",
    "aus",
    "house",
    "home",
    "mouse",
    "louse",
]


def key(text: str) -> int:
    return int(text_keys([text])[0])


def record(
    english: str, code: str, other: str, negatives: list[str], side: str = "english"
) -> NegativeRecord:
    anchor, positive = (english, other) if side == "english" else (other, english)
    known = {text: [group_of_key(key(e)) for e, _, o in PAIRS if o == text] for text in negatives}
    return NegativeRecord(
        anchor=anchor,
        positive=positive,
        negatives=negatives,
        anchor_side=side,  # type: ignore[arg-type]
        language=code,
        group=group_of_key(key(english)),
        negative_groups=[*known.values()],
        positive_score=0.9,
        negative_scores=[0.5] * len(negatives),
    )


def ids_of(texts: Sequence[str]) -> list[list[int]]:
    return [[TEXTS.index(text)] for text in texts]


def identity() -> PairIdentity:
    codes = ["deu", "fra"]
    english = text_keys([e for e, _, _ in PAIRS])
    return PairIdentity(
        english,
        english,
        text_keys([o for _, _, o in PAIRS]),
        np.array([codes.index(code) for _, code, _ in PAIRS], np.int16),
        codes,
    )


def mined(tmp_path: Path, records: list[NegativeRecord]) -> MinedNegatives:
    write_negatives(tmp_path / "n.jsonl", records)
    return read_mined(tmp_path / "n.jsonl", identity(), Tokenization(ids_of, "places", 9))


def keys_of(rows: list[int]) -> PairKeys:
    pairs = identity()
    english = pairs.english_key[rows]
    return PairKeys(source=english, target=pairs.other_key[rows], group=english)


def drawn(negatives: MinedNegatives, rows: list[int], number: int) -> DrawnNegatives:
    generator = np.random.default_rng(0)
    return draw_negatives(negatives, np.array(rows), keys_of(rows), number, generator)


def texts_of(found: DrawnNegatives) -> list[str]:
    return [TEXTS[token] for token in found.texts.ids]


def test_a_negative_is_left_out_where_it_means_the_same(tmp_path: Path) -> None:
    negatives = mined(tmp_path, [record("house", "deu", "Haus", ["Maus", "Klaus", "ein Haus"])])
    found = drawn(negatives, [0, 3, 5], 9)
    assert texts_of(found) == ["Maus", "Klaus", "ein Haus"]
    assert found.forward.tolist() == [[-1, -1, -1], [-1, -1, 0], [-1, -1, -1]]  # home: "ein Haus" means it
    assert found.backward.shape == (3, 0)


def test_a_text_of_the_batch_is_not_added_again(tmp_path: Path) -> None:
    negatives = mined(tmp_path, [record("house", "deu", "Haus", ["Maus", "Laus"])])
    assert texts_of(drawn(negatives, [0, 2], 9)) == ["Laus"]
    assert texts_of(drawn(negatives, [0, 5], 9)) == ["Maus"]


def test_each_pair_has_the_negatives_of_its_own_record(tmp_path: Path) -> None:
    records = [
        record("house", "deu", "Haus", ["Maus"]),
        record("house", "fra", "maison", ["aus"]),
        record("louse", "fra", "Laus", ["Klaus"]),  # another language: of no pair
    ]
    negatives = mined(tmp_path, records)
    assert [texts_of(drawn(negatives, [row], 9)) for row in range(6)] == [["Maus"], ["aus"], [], [], [], []]
    assert negatives.facts()["pairs_with_negatives"] == 2


def test_english_negatives_are_ranked_for_the_other_side(tmp_path: Path) -> None:
    negatives = mined(tmp_path, [record("mouse", "deu", "Maus", ["louse", "home", "house"], side="other")])
    found = drawn(negatives, [2, 4, 1], 9)  # mouse-Maus, home-ein Haus, house-maison
    assert texts_of(found) == ["louse"], "home and house stand in the batch"
    assert found.backward.tolist() == [[-1], [-1], [-1]]
    assert found.targets == 0
    alone = drawn(negatives, [2], 9)
    assert texts_of(alone) == ["louse", "home", "house"]
    twice = replace(keys_of([2, 4]), source=keys_of([2, 2]).source)
    many = draw_negatives(negatives, np.array([2, 2]), twice, 9, np.random.default_rng(0))
    assert many.backward.tolist() == [[-1, -1, -1], [-1, 0, -1]]  # "ein Haus" means home


def test_so_many_are_drawn_by_chance_without_repeats(tmp_path: Path) -> None:
    negatives = mined(tmp_path, [record("house", "deu", "Haus", ["Maus", "Klaus", "aus", "Laus"])])
    seen = set()
    for seed in range(40):
        found = draw_negatives(negatives, np.array([0]), keys_of([0]), 2, np.random.default_rng(seed))
        texts = texts_of(found)
        assert len(set(texts)) == 2
        seen.update(texts)
    assert seen == {"Maus", "Klaus", "aus", "Laus"}


def test_held_out_texts_are_no_negatives(tmp_path: Path) -> None:
    negatives = mined(tmp_path, [record("house", "deu", "Haus", ["Maus", "Klaus", "Laus"])])
    kept = negatives.without(text_keys([]), text_keys(["MAUS!", "Laus"]))
    assert texts_of(drawn(kept, [0], 9)) == ["Klaus"]
    assert texts_of(drawn(kept, [1], 9)) == []


def test_a_file_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has negatives of none of the 6 pairs; it is of other data"):
        mined(tmp_path, [record("horse", "deu", "Pferd", ["Maus"])])
    with pytest.raises(InvalidInputError, match="or empty"):
        mined(tmp_path, [])


def sampler(tmp_path: Path, part: tuple[int, int]) -> BatchSampler:
    records = [record("house", "deu", "Haus", ["Maus", "Klaus", "aus"])]
    records += [record("mouse", "deu", "Maus", ["louse", "home"], side="other")]
    pairs = identity()
    english = list(dict.fromkeys(e for e, _, _ in PAIRS))
    source = PairSource(
        token_bags(ids_of(english)),
        token_bags(ids_of([o for _, _, o in PAIRS])),
        np.array([english.index(e) for e, _, _ in PAIRS], np.int32),
        pairs.english_key,
        pairs.other_key,
        pairs.language,
        mined=mined(tmp_path, records),
    )
    weights = pair_weights(pairs.language, np.ones(6, np.int64), np.zeros(6), SamplingConfig())
    return BatchSampler(source, weights, BatchShape(6, negatives=2), seed=3, part=part)


def test_processes_share_out_the_negatives_of_one_batch(tmp_path: Path) -> None:
    whole = sampler(tmp_path, (0, 1))
    parts = [sampler(tmp_path, (process, 2)) for process in range(2)]
    seen = 0
    for step in range(20):
        batch, shares = whole.batch(step), [part.batch(step) for part in parts]
        assert batch.negatives is not None
        seen += batch.negatives.targets
        for name in ("forward", "backward"):
            rows = [getattr(share.negatives, name) for share in shares]
            assert np.concatenate(rows).tolist() == getattr(batch.negatives, name).tolist()
        of_targets, of_sources = [], []
        for share in shares:
            assert share.negatives is not None
            behind = share.texts.part(np.arange(6, len(share.texts)))
            assert behind.ids.tolist() == share.negatives.texts.ids.tolist()
            of_targets.append(behind.part(np.arange(share.negatives.targets)))
            of_sources.append(behind.part(np.arange(share.negatives.targets, len(behind))))
        together = joined([*of_targets, *of_sources]).ids.tolist()
        assert together == batch.negatives.texts.ids.tolist() == batch.texts.ids.tolist()[12:]
    assert seen >= 20


def test_shares_are_equal_but_for_the_last() -> None:
    assert [shared_rows(5, process, 4).tolist() for process in range(4)] == [[0, 1], [2, 3], [4], []]
    assert [len(shared_rows(0, process, 2)) for process in range(2)] == [0, 0]
