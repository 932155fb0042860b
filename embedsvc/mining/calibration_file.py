"""A calibration in a file: by itself, or in the manifest of a run."""

from __future__ import annotations

import json
from pathlib import Path

from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.margin import Margin


def read_calibration(path: Path, margin: Margin) -> Calibration:
    """Return the calibration of scores of the kind ``margin`` in a .json file, ``OUT.manifest.json`` for one.

    Raises InvalidInputError for a file without one, or with one of another margin.
    """
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path}: not JSON: {error}", param="calibration") from error
    if isinstance(values, dict) and "calibration" in values:
        values = values["calibration"]
        if values is None:
            raise InvalidInputError(f"{path} is of a run that was not calibrated", param="calibration")
    try:
        found = Calibration.from_json(values)
    except (AttributeError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path} holds no calibration", param="calibration") from error
    if found.margin != margin:
        raise InvalidInputError(
            f"{path} is for margin {found.margin!r}; the scores are of margin {margin!r}", param="calibration"
        )
    return found
