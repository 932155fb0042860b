from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc import align, load_encoder
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, TextTooLongError
from embedsvc.mining.alignment.align import AlignOptions
from embedsvc.mining.alignment.beads import Bead
from embedsvc.mining.alignment.texts import doubtful_blocks, encoded_side, every_block, read_blocks
from embedsvc.options import EncodeOptions
from embedsvc.runtime import PreparedText

GERMAN = [
    "Die Katze schläft im Haus.",
    "Mein Bruder trinkt jeden Morgen vor der Arbeit viel Kaffee. Der Präsident besuchte China im Mai.",
    "Das Wasser im Fluss ist heute sehr kalt.",
    "Sie kaufte ein neues rotes Auto.",
    "Musik ist wichtig für Kinder.",
    "Die Schule hat zwölf Lehrer",
    "und dreihundert Schüler.",
]
ENGLISH = [
    "The cat sleeps in the house.",
    "My brother drinks a lot of coffee every morning before work.",
    "The president visited China in May.",
    "The water in the river is very cold today.",
    "Music is important for children.",
    "The school has twelve teachers and three hundred students.",
]
BEADS = [
    ((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), ()), ((4,), (4,)), ((5, 6), (5,)),
]  # fmt: skip
RAW = EncodeOptions(normalize=False)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def indices(beads: list[Bead]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(bead.source, bead.target) for bead in beads]


@pytest.mark.parametrize("block_vectors", ["auto", "mean", "exact"])
def test_beads_of_two_short_documents(encoder: Encoder, block_vectors: Any) -> None:
    beads = align(GERMAN, ENGLISH, encoder=encoder, block_vectors=block_vectors)
    assert indices(beads) == BEADS
    assert beads[1].target_text == f"{ENGLISH[1]} {ENGLISH[2]}"
    assert (beads[3].source_text, beads[3].target_text) == (GERMAN[3], "")


def test_texts_are_split_into_sentences(encoder: Encoder) -> None:
    beads = align(" ".join(GERMAN), " ".join(ENGLISH), encoder=encoder, source_language="de")
    assert [bead.kind for bead in beads] == ["1-1", "1-1", "1-1", "1-1", "1-0", "1-1", "1-1"]


def test_a_static_model_s_means_are_the_vectors_of_the_joined_texts(encoder: Encoder) -> None:
    side = encoded_side(encoder, GERMAN, 4, RAW)
    read = read_blocks(encoder, side, every_block(side), RAW)
    for size in range(4):
        np.testing.assert_allclose(side.blocks.vectors[size, size:], read.vectors[size, size:], atol=0.02)
    joined = encoder.encode([" ".join(GERMAN[2:5])])[0]
    np.testing.assert_allclose(read.vectors[2, 4], joined, atol=1e-6)


class Reader:
    """A runtime whose texts are counted and whose joined texts are not the means of their sentences."""

    def __init__(self, runtime: Any, max_tokens: int | None) -> None:
        self.runtime, self.max_tokens, self.read = runtime, max_tokens, list[int]()
        self.name, self.pads, self.workers, self.special_tokens = "onnx", False, 1, 0
        self.dimension, self.batch_tokens = runtime.dimension, runtime.batch_tokens

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.runtime.tokenize(texts)

    def embed(self, batch: list[PreparedText]) -> NDArray[np.float32]:
        self.read += [len(text.ids) for text in batch]
        lengths = np.array([[len(text.ids)] for text in batch], np.float32)
        return self.runtime.embed(batch) + 1e-4 * lengths


def reading(encoder: Encoder, max_tokens: int | None = None) -> tuple[Encoder, Reader]:
    runtime = Reader(encoder.runtime, max_tokens)
    return Encoder(encoder.folder, runtime), runtime  # type: ignore[arg-type]


def test_other_models_read_joined_texts_only_where_there_is_doubt(encoder: Encoder) -> None:
    clear = [f"{text} {k}" for k in range(12) for text in ENGLISH]
    numbers = {}
    for name in ("mean", "auto", "exact"):
        model, runtime = reading(encoder)
        beads = align(clear + GERMAN, clear + ENGLISH, encoder=model, block_vectors=name)
        assert indices(beads)[-6:] == [
            (tuple(i + len(clear) for i in a), tuple(j + len(clear) for j in b)) for a, b in BEADS
        ]
        numbers[name] = len(runtime.read)
    sentences = 2 * len(clear) + len(GERMAN) + len(ENGLISH)
    assert numbers["mean"] == sentences
    assert sentences < numbers["auto"] < 1.5 * sentences
    assert numbers["exact"] > 4 * sentences


def test_what_is_read_stands_in_place_of_the_means(encoder: Encoder) -> None:
    model, _ = reading(encoder)
    side = encoded_side(model, GERMAN, 3, RAW)
    chosen = np.zeros((3, len(GERMAN)), bool)
    chosen[1, 4] = True
    read = read_blocks(model, side, chosen, RAW).vectors
    joined = model.encode([" ".join(GERMAN[3:5])])[0]
    np.testing.assert_allclose(read[1, 4], joined, atol=1e-6)
    assert np.abs(side.blocks.vectors[1, 4] - joined).max() > 1e-5
    np.testing.assert_array_equal(np.delete(read[1], 4, 0), np.delete(side.blocks.vectors[1], 4, 0))


def test_joined_texts_longer_than_the_model_takes_keep_their_means(encoder: Encoder) -> None:
    tokens = encoder.encode_with_usage(GERMAN).tokens
    model, runtime = reading(encoder, max_tokens=max(tokens))
    side = encoded_side(model, GERMAN, 3, RAW)
    runtime.read.clear()
    blocks = read_blocks(model, side, every_block(side), EncodeOptions(normalize=False, truncate="end"))
    assert 0 < len(runtime.read) < every_block(side).sum()
    assert max(runtime.read) <= max(tokens)
    np.testing.assert_array_equal(blocks.vectors[2, 3], side.blocks.vectors[2, 3])
    assert indices(align(GERMAN, ENGLISH, encoder=model, block_vectors="exact")) == BEADS


def test_doubtful_blocks_lie_around_beads_that_are_no_clear_pairs(encoder: Encoder) -> None:
    beads = [Bead((i,), (i,), 0.6, 0.6) for i in range(8)]
    beads[4] = Bead((4,), (4,), 0.1, 0.1)
    side = encoded_side(encoder, ENGLISH + ENGLISH[:2], 3, RAW)
    chosen = doubtful_blocks(beads, side, "source")
    assert np.argwhere(chosen).tolist() == [[1, 4], [1, 5], [2, 5]]  # 3-4, 4-5, 3-5


def test_a_single_sentence_on_each_side_is_one_bead(encoder: Encoder) -> None:
    assert indices(align(GERMAN[:1], ENGLISH[:1], encoder=encoder)) == [((0,), (0,))]


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ([], ENGLISH, {}, "source has no sentence; both documents need one"),
        (GERMAN, " \n ", {}, "target has no sentence; both documents need one"),
        (["a", " "], ENGLISH, {}, r"source\[1\] is empty"),
        (GERMAN, ["a", "b\ud800"], {}, r"target\[1\] holds a lone surrogate"),
        ("b\ud800", ENGLISH, {}, "source holds a lone surrogate"),
        (GERMAN, ENGLISH, {"max_bead": 17}, "max_bead = 17; it must be from 1 to 16"),
        (GERMAN, ENGLISH, {"block_vectors": "all"}, "block_vectors 'all' is unknown; choose auto"),
        ("Ein Text.", ENGLISH, {"source_language": "x y"}, "'x y' is not a language code"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(source: Any, target: Any, options: Any, message: str, encoder: Encoder) -> None:
    with pytest.raises(InvalidInputError, match=message):
        align(source, target, encoder=encoder, **options)


def test_a_sentence_longer_than_the_model_takes_is_named_or_cut(encoder: Encoder) -> None:
    model, _ = reading(encoder, max_tokens=20)
    long = [*ENGLISH, "word " * 40]
    with pytest.raises(TextTooLongError, match=r"^target\[6\] has \d+ tokens; the limit is 20"):
        align(ENGLISH, long, encoder=model)
    assert indices(align(ENGLISH, long, encoder=model, truncate="end"))[-1] == ((), (6,))


def test_defaults_of_the_function_are_those_of_its_options() -> None:
    assert align.__kwdefaults__ == {
        "encoder": None, "source_language": None, "target_language": None, **vars(AlignOptions())
    }  # fmt: skip
