from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.extract import RETRIEVALS, Retrieval
from embedsvc.mining.margin import MARGINS, Margin
from embedsvc.mining.mine import DEFAULT_THRESHOLDS, MinedPair, mine
from indexing import normalize_rows

# Eight sentences of different lengths in six languages, written for this test.
ALIGNED = {
    "eng": [
        "The cat sleeps in the house.",
        "My brother drinks a lot of coffee every morning before work.",
        "The president visited China in May.",
        "The water in the river is very cold today.",
        "She bought a new red car.",
        "Music is important for children.",
        "The school has twelve teachers and three hundred students.",
        "Tomorrow we will go to the hospital with our father.",
    ],
    "deu": [
        "Die Katze schläft im Haus.",
        "Mein Bruder trinkt jeden Morgen vor der Arbeit viel Kaffee.",
        "Der Präsident besuchte China im Mai.",
        "Das Wasser im Fluss ist heute sehr kalt.",
        "Sie kaufte ein neues rotes Auto.",
        "Musik ist wichtig für Kinder.",
        "Die Schule hat zwölf Lehrer und dreihundert Schüler.",
        "Morgen gehen wir mit unserem Vater ins Krankenhaus.",
    ],
    "fra": [
        "Le chat dort dans la maison.",
        "Mon frère boit beaucoup de café chaque matin avant le travail.",
        "Le président a visité la Chine en mai.",
        "L'eau de la rivière est très froide aujourd'hui.",
        "Elle a acheté une nouvelle voiture rouge.",
        "La musique est importante pour les enfants.",
        "L'école compte douze professeurs et trois cents élèves.",
        "Demain nous irons à l'hôpital avec notre père.",
    ],
    "spa": [
        "El gato duerme en la casa.",
        "Mi hermano bebe mucho café cada mañana antes del trabajo.",
        "El presidente visitó China en mayo.",
        "El agua del río está muy fría hoy.",
        "Ella compró un coche rojo nuevo.",
        "La música es importante para los niños.",
        "La escuela tiene doce profesores y trescientos estudiantes.",
        "Mañana iremos al hospital con nuestro padre.",
    ],
    "rus": [
        "Кошка спит в доме.",
        "Мой брат пьёт много кофе каждое утро перед работой.",
        "Президент посетил Китай в мае.",
        "Вода в реке сегодня очень холодная.",
        "Она купила новую красную машину.",
        "Музыка важна для детей.",
        "В школе двенадцать учителей и триста учеников.",
        "Завтра мы пойдём в больницу с нашим отцом.",
    ],
    "tur": [
        "Kedi evde uyuyor.",
        "Kardeşim her sabah işten önce çok kahve içer.",
        "Başkan mayıs ayında Çin'i ziyaret etti.",
        "Nehrin suyu bugün çok soğuk.",
        "Yeni bir kırmızı araba satın aldı.",
        "Müzik çocuklar için önemlidir.",
        "Okulun on iki öğretmeni ve üç yüz öğrencisi var.",
        "Yarın babamızla hastaneye gideceğiz.",
    ],
}
ENGLISH_DISTRACTORS = [
    "Prices rose by four percent last year.",
    "The museum is closed on Monday.",
    "A strong wind destroyed the old bridge.",
    "Please turn off your phone during the film.",
    "The football match ended without a goal.",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def unit_rows(n: int, seed: int, dimension: int = 16) -> NDArray[np.float32]:
    return normalize_rows(np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32))


def noisy(vectors: NDArray[np.float32], seed: int, noise: float = 0.15) -> NDArray[np.float32]:
    return normalize_rows(vectors + noise * np.random.default_rng(seed).standard_normal(vectors.shape))


def numbered(prefix: str, n: int) -> list[str]:
    return [f"{prefix} {row}" for row in range(n)]


X = unit_rows(30, 0)
Y = np.concatenate([noisy(X[:20], 1), unit_rows(15, 2)])
SOURCE, TARGET = numbered("satz", 30), numbered("sentence", 35)


def rows(pairs: list[MinedPair]) -> list[tuple[int, int]]:
    return [(pair.source_row, pair.target_row) for pair in pairs]


@pytest.mark.parametrize("language", [name for name in ALIGNED if name != "eng"])
def test_translations_are_found_among_distractors(encoder: Encoder, language: str) -> None:
    source = ALIGNED[language]
    targets = ALIGNED["eng"] + ENGLISH_DISTRACTORS
    order = random.Random(7).sample(range(len(targets)), len(targets))
    pairs = mine(source, [targets[row] for row in order], encoder=encoder, threshold=-10)
    assert sum(order[pair.target_row] == pair.source_row for pair in pairs) >= 4  # by chance: 0.6
    assert order[pairs[0].target_row] == pairs[0].source_row
    for pair in pairs:
        assert (pair.source, pair.target) == (source[pair.source_row], targets[order[pair.target_row]])


@pytest.mark.parametrize("retrieval", RETRIEVALS)
@pytest.mark.parametrize("margin", MARGINS)
def test_every_strategy_finds_planted_pairs_and_keeps_to_the_threshold(
    margin: Margin, retrieval: Retrieval
) -> None:
    low = {"ratio": 1.3, "distance": 0.2, "absolute": 0.7}[margin]
    options: dict[str, Any] = {
        "source_vectors": X,
        "target_vectors": Y,
        "margin": margin,
        "retrieval": retrieval,
    }
    pairs = mine(SOURCE, TARGET, threshold=low, **options)
    right = {(row, row) for row in range(20)}
    assert len(set(rows(pairs)) & right) >= 18
    assert all(pair.score >= low for pair in pairs)
    assert [pair.score for pair in pairs] == sorted((pair.score for pair in pairs), reverse=True)
    above = mine(SOURCE, TARGET, threshold=pairs[3].score, **options)
    assert above == pairs[:4]


@pytest.mark.parametrize("margin", MARGINS)
def test_default_threshold_is_that_of_the_margin(margin: Margin) -> None:
    default = mine(SOURCE, TARGET, source_vectors=X, target_vectors=Y, margin=margin)
    explicit = mine(
        SOURCE,
        TARGET,
        source_vectors=X,
        target_vectors=Y,
        margin=margin,
        threshold=DEFAULT_THRESHOLDS[margin],
    )
    assert default == explicit


def test_duplicates_do_not_collapse_the_margin() -> None:
    # LASER without --unify: seven copies take the ratio of a true pair from 1.108 to 1.000.
    expected = mine(SOURCE, TARGET, source_vectors=X, target_vectors=Y, threshold=1.3)
    copies = [*TARGET, *["sentence  3 "] * 6, *["sentence\u00a04"] * 6]
    vectors = np.concatenate([Y, np.repeat(Y[[3]], 6, axis=0), np.repeat(Y[[4]], 6, axis=0)])
    found = mine(SOURCE, copies, source_vectors=X, target_vectors=vectors, threshold=1.3)
    assert found == expected


def test_shuffled_duplicates_give_the_same_pairs(encoder: Encoder) -> None:
    source = ALIGNED["deu"] * 3
    target = (ALIGNED["eng"] + ENGLISH_DISTRACTORS) * 2
    results = []
    for seed in range(4):
        shuffle = random.Random(seed)
        shuffle.shuffle(source)
        shuffle.shuffle(target)
        pairs = mine(source, target, encoder=encoder, threshold=1)
        assert [source.index(pair.source) for pair in pairs] == [pair.source_row for pair in pairs]
        assert [target.index(pair.target) for pair in pairs] == [pair.target_row for pair in pairs]
        assert pairs == mine(source, target, encoder=encoder, threshold=1)
        results.append(sorted((pair.source, pair.target, round(pair.score, 4)) for pair in pairs))
    assert results[0]
    assert all(result == results[0] for result in results)


def test_first_of_several_spellings_is_reported_as_it_was_written() -> None:
    source = ["  Caf\u00e9  zu ", "Cafe\u0301 zu", "offen"]
    vectors = unit_rows(3, 5)
    pairs = mine(source, ["x", "y"], source_vectors=vectors, target_vectors=vectors[[2, 0]], threshold=0)
    assert {(pair.source_row, pair.source, pair.target) for pair in pairs} == {
        (0, "  Caf\u00e9  zu ", "y"),
        (2, "offen", "x"),
    }


@pytest.mark.parametrize("retrieval", RETRIEVALS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (3, 2)])
def test_fewer_texts_than_k(retrieval: Retrieval, n: int, m: int) -> None:
    vectors = unit_rows(9, 3)
    texts = numbered("a", 9)
    sides: dict[str, Any] = {"source_vectors": vectors[:n], "target_vectors": vectors[:m]}
    pairs = mine(texts[:n], texts[:m], k=16, retrieval=retrieval, threshold=-100, **sides)
    assert (0, 0) in rows(pairs)
    assert np.isfinite([pair.score for pair in pairs]).all()


def test_equal_scores_stand_in_order_of_rows() -> None:
    vectors = np.eye(6, dtype=np.float32)
    pairs = mine(
        numbered("a", 6),
        numbered("b", 6),
        k=1,
        source_vectors=vectors,
        target_vectors=vectors[::-1],
        threshold=1,
    )
    assert rows(pairs) == [(0, 5), (1, 4), (2, 3), (3, 2), (4, 1), (5, 0)]


def test_given_vectors_are_the_same_as_encoding(encoder: Encoder) -> None:
    source, target = ALIGNED["fra"], ALIGNED["eng"] + ENGLISH_DISTRACTORS
    expected = mine(source, target, encoder=encoder)
    assert mine(source, target, encoder=encoder, target_vectors=encoder.encode(target)) == expected
    both: dict[str, Any] = {
        "source_vectors": encoder.encode(source),
        "target_vectors": encoder.encode(target),
    }
    assert mine(source, target, **both) == expected


def test_dimensions_and_prompt_reach_the_encoder(encoder: Encoder) -> None:
    source, target = ALIGNED["fra"], ALIGNED["eng"]
    vectors = [encoder.encode(texts, dimensions=64, prompt="query: ") for texts in (source, target)]
    expected = mine(source, target, source_vectors=vectors[0], target_vectors=vectors[1])
    assert mine(source, target, encoder=encoder, dimensions=64, prompt="query: ") == expected
    assert mine(source, target, encoder=encoder) != expected


def test_texts_without_any_token_pair_with_none(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize = encoder.runtime.tokenize

    def without_unknown(texts: Sequence[str]) -> list[list[int]]:
        return [[] if "§" in text else ids for text, ids in zip(texts, tokenize(texts), strict=True)]

    monkeypatch.setattr(encoder.runtime, "tokenize", without_unknown)
    source = ["§§", *ALIGNED["deu"], "§"]
    pairs = mine(source, ALIGNED["eng"], encoder=encoder, threshold=-100, retrieval="forward")
    assert [pair.source_row for pair in sorted(pairs, key=lambda pair: pair.source_row)] == list(range(1, 9))
    assert all(pair.source == source[pair.source_row] for pair in pairs)
    assert mine(["§"], ALIGNED["eng"], encoder=encoder, threshold=-100) == []


def test_a_side_without_texts_gives_no_pairs() -> None:
    assert mine([], ["a"]) == mine(["a"], []) == []


def test_error_names_the_side_and_the_row_given_not_the_row_after_folding(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder.runtime, "max_tokens", 20)
    target = ["same", "same", "same", "word " * 30]
    with pytest.raises(InvalidInputError, match=r"^target\[3\] has \d+ tokens; the limit is 20"):
        mine(["same", "word"], target, encoder=encoder)
    assert len(mine(["same", "word"], target, encoder=encoder, truncate="end", threshold=-100)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": "cosine"}, "margin 'cosine' is unknown; choose ratio, distance, absolute"),
        ({"retrieval": "fwd"}, "retrieval 'fwd' is unknown; choose forward, backward, intersection, max"),
        ({"k": 0}, "k = 0; it must be at least 1"),
        ({"threshold": float("nan")}, "threshold is not a number"),
        ({"source_vectors": X[:3]}, r"source_vectors have shape \(3, 16\); expected \(30, dim\)"),
        ({"target_vectors": Y[0]}, r"target_vectors have shape \(16,\); expected \(35, dim\)"),
        ({"source_vectors": X * 2}, "vectors cannot be mined: x.* has length 2"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    given = {"source_vectors": X, "target_vectors": Y} | options
    with pytest.raises(InvalidInputError, match=message):
        mine(SOURCE, TARGET, **given)


def test_vectors_of_different_width_are_refused() -> None:
    with pytest.raises(DimensionMismatchError, match="source vectors have 16 dimensions, target vectors 8"):
        mine(SOURCE, TARGET, source_vectors=X, target_vectors=unit_rows(35, 0, 8))


def test_blank_text_is_refused_by_side_and_row() -> None:
    with pytest.raises(InvalidInputError, match=r"target\[1\] is empty"):
        mine(["a"], ["b", " "])


def test_progress_names_the_stages(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    mine(ALIGNED["deu"], ALIGNED["eng"], encoder=encoder, progress=True)
    shown = capsys.readouterr().err
    for stage in ("encode source", "encode target", "neighbours"):
        assert f"{stage}: 100%" in shown
    mine(ALIGNED["deu"], ALIGNED["eng"], encoder=encoder)
    assert capsys.readouterr().err == ""
