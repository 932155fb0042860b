"""Codes against values by hand, against sentence-transformers, and against the floats they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import EmbedsvcError, InvalidInputError, ModelError
from embedsvc.postprocess import finish_vectors
from embedsvc.quantize import (
    Calibration,
    calibration_json,
    learn_calibration,
    quantize,
    read_calibration,
    typical_texts,
)

ROWS = np.array([[0.6, -0.8, 0.0, 0.0], [0.5, 0.5, -0.5, 0.5]], np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def passages(encoder: Encoder) -> np.ndarray:
    return encoder.encode(typical_texts())


def test_codes_by_hand():
    calibration = Calibration(limit=1.27)  # 0.5 * sqrt(4) = 1 → code 100
    np.testing.assert_array_equal(
        quantize(ROWS, "int8", calibration), np.array([[120, -127, 0, 0], [100, 100, -100, 100]], np.int8)
    )
    np.testing.assert_array_equal(
        quantize(ROWS, "uint8", calibration), np.array([[248, 1, 128, 128], [228, 228, 28, 228]], np.uint8)
    )
    assert quantize(ROWS, "float16", None).tolist()[1] == [0.5, 0.5, -0.5, 0.5]


def test_bits_are_those_of_sentence_transformers():
    vectors = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    ubinary, binary = quantize(vectors, "ubinary", None), quantize(vectors, "binary", None)
    assert (ubinary.dtype, binary.dtype, ubinary.shape) == (np.uint8, np.int8, (5, 3))
    np.testing.assert_array_equal(binary.astype(int), ubinary.astype(int) - 128)
    quantize_embeddings = pytest.importorskip("sentence_transformers.quantization").quantize_embeddings
    np.testing.assert_array_equal(ubinary, quantize_embeddings(vectors, "ubinary"))
    np.testing.assert_array_equal(binary, quantize_embeddings(vectors, "binary"))


def test_bits_are_padded_with_zeros_to_whole_bytes():
    assert quantize(np.array([[1.0] * 9, [-1.0] * 9], np.float32), "ubinary", None).tolist() == [
        [255, 128],
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("dimensions", "least_cosine", "most_error", "same_first"),
    [
        (None, 0.9995, 0.015, 0.98),  # one coordinate each of two texts is cut: .9999, .004 without them
        (64, 0.9998, 0.01, 0.98),
    ],
)
def test_int8_codes_keep_cosines_and_ranking(passages, dimensions, least_cosine, most_error, same_first):
    floats = finish_vectors(passages, dimensions=dimensions, normalize=True)
    calibration = learn_calibration(passages)
    codes = finish_vectors(
        passages, dimensions=dimensions, normalize=True, output_dtype="int8", calibration=calibration
    ).astype(np.float32)
    lengths = np.linalg.norm(codes, axis=1)
    cosines = (codes * floats).sum(axis=1) / lengths
    assert cosines.min() > least_cosine
    steps = 127 * np.sqrt(floats.shape[1]) / calibration.limit
    inner, exact = codes @ codes.T / steps**2, floats @ floats.T  # no normalisation of the codes
    assert np.abs(inner - exact).max() < most_error
    np.fill_diagonal(inner, -1), np.fill_diagonal(exact, -1)
    assert (inner.argmax(axis=1) == exact.argmax(axis=1)).mean() >= same_first


def test_a_calibration_is_the_high_quantile_whatever_the_number_of_dimensions():
    vectors = np.random.default_rng(1).standard_normal((4000, 100)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert learn_calibration(vectors).limit == pytest.approx(4.42, abs=0.15)  # of a normal distribution
    assert learn_calibration(vectors[:, :1] / np.abs(vectors[:, :1])).limit == pytest.approx(1)
    with pytest.raises(InvalidInputError, match="at least one text"):
        learn_calibration(np.zeros((3, 4), np.float32))


def test_codes_without_a_calibration_are_refused():
    with pytest.raises(EmbedsvcError, match="int8 needs a calibration"):
        quantize(ROWS, "int8", None)


def test_a_calibration_travels_with_the_model_folder(tmp_path):
    assert read_calibration(tmp_path) is None
    path = tmp_path / "calibration.json"
    path.write_bytes(calibration_json(Calibration(3.25)))
    assert read_calibration(tmp_path) == Calibration(3.25)
    for content in ('{"limit": 0}', '{"limit": true}', '{"limit": "3"}', "{}", '{"limit": Infinity}'):
        path.write_text(content)
        with pytest.raises(ModelError, match="a number above 0 is expected"):
            read_calibration(tmp_path)
