"""`embedsvc encode` and `embedsvc calibrate`: the options are those of the library, and reach it."""

from __future__ import annotations

import json
import shutil
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from embedsvc.cli.calibrate import calibrate
from embedsvc.cli.encode import encode
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import BUNDLED

LINES = ["a", "Guten Morgen, liebe Sorgen", "صباح الخير"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def run(texts: Path, *options: str) -> np.ndarray:
    out = texts.with_suffix(".npy")
    result = CliRunner().invoke(encode, [str(texts), "--out", str(out), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return np.load(out)


def test_every_option_of_the_encoder_is_an_option_of_the_command():
    opening = {"file", "out", "model", "runtime", "precision", "device"}
    names = {parameter.name for parameter in encode.params} - opening
    assert names == set(signature(Encoder.encode).parameters) - {"self", "texts"}


def test_options_reach_the_encoder(texts):
    encoder = load_encoder()
    for arguments, options in (
        ([], {}),
        (["--dimensions", "100", "--force-dimensions"], {"dimensions": 100, "force_dimensions": True}),
        (["--output-dtype", "int8"], {"output_dtype": "int8"}),
        (["--output-dtype", "ubinary", "--no-normalize"], {"output_dtype": "ubinary", "normalize": False}),
        (["--max-tokens", "2", "--truncate", "start"], {"max_tokens": 2, "truncate": "start"}),
        (["--input-type", "query"], {"input_type": "query"}),
    ):
        expected = encoder.encode(LINES, **options)
        got = run(texts, *arguments)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_int8_wants_unit_vectors(texts):
    with pytest.raises(InvalidInputError, match="output_dtype int8 is for unit vectors"):
        run(texts, "--output-dtype", "int8", "--no-normalize")


def test_a_calibration_changes_the_codes_but_not_the_model(texts, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    before = load_encoder(folder)
    learnt = before.calibration.limit
    result = CliRunner().invoke(calibrate, [str(texts), "--model", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    after = load_encoder(folder)
    vectors = before.encode(LINES)
    limit = json.loads((folder / "calibration.json").read_text())["limit"]
    assert limit == pytest.approx(
        np.abs(vectors).max() * vectors.shape[1] ** 0.5, rel=0.01
    )  # the highest of so few texts
    assert after.calibration.limit == limit != learnt
    assert after.fingerprint == before.fingerprint
    assert np.abs(after.encode(LINES, output_dtype="int8")).max() == 127
