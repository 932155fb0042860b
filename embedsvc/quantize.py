"""Vectors as small codes: a byte or a bit per dimension; inner products of byte codes keep cosines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import EmbedsvcError, InvalidInputError, ModelError
from embedsvc.model_folder import SAMPLE_FILE, read_json
from embedsvc.options import OutputDtype

CALIBRATED: tuple[OutputDtype, ...] = ("int8", "uint8")
CALIBRATION_FILE = "calibration.json"
_QUANTILE = 0.99999  # of |coordinates|; clipping more costs the cosine more than finer steps give back


@dataclass(frozen=True)
class Calibration:
    """The scale of a model's int8 codes: ``limit`` = |coordinate| * sqrt(dimensions) of the code 127.

    One scale for all coordinates, and none for zero: the inner product of two codes is that of the
    vectors times (127 * sqrt(dimensions) / limit)². It holds for every number of dimensions.
    """

    limit: float


def learn_calibration(vectors: NDArray[np.float32]) -> Calibration:
    """Return the scale from unit vectors (n, dim) of typical texts; raise InvalidInputError for none."""
    if not vectors.size or not vectors.any():
        raise InvalidInputError("a calibration is learnt from at least one text that has known tokens")
    limit = np.quantile(np.abs(vectors), _QUANTILE) * np.sqrt(vectors.shape[1])
    return Calibration(float(limit))


def typical_texts() -> list[str]:
    """Return the sample passages, in 16 languages: what a calibration is learnt from by default."""
    lines = SAMPLE_FILE.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def read_calibration(folder: Path) -> Calibration | None:
    """Return the calibration that a model folder ships, if it does; raise ModelError when it is unusable."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    limit = read_json(path).get("limit")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < float("inf"):
        raise ModelError(f'{path}: "limit" is {limit!r}; a number above 0 is expected')
    return Calibration(float(limit))


def calibration_json(calibration: Calibration) -> bytes:
    """Return the content of a model folder's calibration.json."""
    return json.dumps(asdict(calibration)).encode() + b"\n"


def quantize(
    vectors: NDArray[np.float32], output_dtype: OutputDtype, calibration: Calibration | None
) -> NDArray[Any]:
    """Return vectors (n, dims) as ``output_dtype``; binary and ubinary as (n, ceil(dims / 8)) packed bits.

    int8 and uint8 are for unit vectors and need the model's calibration; uint8 is int8 + 128. A bit is 1
    where the coordinate is above 0, the first one highest, and binary is ubinary - 128, as in
    sentence-transformers.
    """
    if output_dtype in ("float32", "float16"):
        return np.ascontiguousarray(vectors, dtype=output_dtype)
    if output_dtype in ("binary", "ubinary"):
        bits: NDArray[np.uint8] = np.packbits(vectors > 0, axis=1)
        return bits if output_dtype == "ubinary" else (bits ^ np.uint8(0x80)).view(np.int8)
    if calibration is None:
        raise EmbedsvcError(f"output_dtype {output_dtype} needs a calibration")
    scale = np.float32(127 * np.sqrt(vectors.shape[1]) / calibration.limit)
    codes: NDArray[np.int8] = np.clip(np.rint(vectors * scale), -127, 127).astype(np.int8)
    return codes if output_dtype == "int8" else codes.view(np.uint8) ^ np.uint8(0x80)
