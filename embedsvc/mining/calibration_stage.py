"""Calibrate the scores of a run: with known pairs, or from the scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError
from embedsvc.mining.calibrate import calibrate
from embedsvc.mining.calibration import Calibration
from embedsvc.mining.curves import CalibrationOptions
from embedsvc.mining.known_pairs import read_known_pairs
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.plants import PlantedNeighbours, plan_plants, without_rows
from embedsvc.mining.progress import Report, Step
from embedsvc.mining.side_vectors import SideTexts, SideVectors, encode_options
from indexing import BothWays, NeighbourPlan, neighbours_of_shards, shards_of_array


@dataclass(frozen=True, eq=False)
class CalibratedSides:
    """What is calibrated: the sentences and vectors of both sides and their neighbours."""

    texts: tuple[SideTexts, SideTexts]
    vectors: tuple[SideVectors, SideVectors]
    both: BothWays


def calibrate_with_known_pairs(
    sides: CalibratedSides, dev: Path, encoder: Encoder, folder: Path, options: MiningOptions, report: Report
) -> Calibration:
    """Return the calibration from the pairs of ``dev``, planted among the sentences.

    Raises InvalidInputError for a bad file, or for too few pairs.
    """
    pairs = read_known_pairs(dev, options.src_lang, options.tgt_lang)
    encoded = [
        dict(zip(texts, _encoded(texts, encoder, options, dev), strict=True))
        for texts in ([source for source, _ in pairs], [target for _, target in pairs])
    ]
    # A text without any known token has no direction, here as among the sentences.
    pairs = [pair for pair in pairs if encoded[0][pair[0]].any() and encoded[1][pair[1]].any()]
    stores = [texts.store for texts in sides.texts]
    plants = plan_plants(pairs, (stores[0].row_of, stores[1].row_of), (len(stores[0]), len(stores[1])))
    report(Step("calibrate", 0, len(pairs), "pairs"))
    width = sides.vectors[0].shards.dimension
    planted = [
        np.array([vectors[text] for text in texts], np.float32).reshape(-1, width)
        for texts, vectors in zip((plants.source_texts, plants.target_texts), encoded, strict=True)
    ]
    parts = _neighbours(sides, planted, folder, options.k)
    found = calibrate(parts, plants, _options(options))
    report(Step("calibrate", len(pairs), len(pairs), "pairs"))
    return found


def _options(options: MiningOptions) -> CalibrationOptions:
    return CalibrationOptions(options.margin, options.retrieval, options.precision, seed=options.seed)


def _encoded(
    texts: Sequence[str], encoder: Encoder, options: MiningOptions, dev: Path
) -> NDArray[np.float32]:
    try:
        vectors = encoder.encode_with_usage(
            texts, encode_options(options), batch_tokens=options.batch_tokens, progress=False
        ).vectors
    except InvalidInputError as error:
        raise InvalidInputError(f"{dev}: {error.message}", param="dev") from error
    return vectors


def _neighbours(
    sides: CalibratedSides, planted: Sequence[NDArray[np.float32]], folder: Path, k: int
) -> PlantedNeighbours:
    """Return the neighbours of the planted texts too; the search among themselves is small."""
    x, y = (side.shards for side in sides.vectors)
    new_x, new_y = (shards_of_array(vectors) for vectors in planted)
    plan = NeighbourPlan("exact")
    nobody = np.empty(0, np.int64)
    unknown = [side.unknown for side in sides.vectors]
    sources = neighbours_of_shards(new_x, y, k, folder / "planted-sources", plan=plan)
    targets = neighbours_of_shards(x, new_y, k, folder / "planted-targets", plan=plan)
    return PlantedNeighbours(
        sides.both,
        without_rows(sources, nobody, unknown[1]),
        without_rows(targets, unknown[0], nobody),
        neighbours_of_shards(new_x, new_y, k, folder / "planted", plan=plan),
    )
