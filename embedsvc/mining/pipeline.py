"""Files in, a file of pairs out, of any size: each stage leaves files that the next run takes up.

    files → sentence stores → vector shards → neighbours → calibration → pairs → output
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embedsvc
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import DimensionMismatchError, InvalidInputError
from embedsvc.mining.extract import mined_pairs
from embedsvc.mining.ingest import ingest, input_files
from embedsvc.mining.ingest_options import IngestOptions
from embedsvc.mining.margin import DIRECTION_NAMES, CandidatePairs, all_candidates
from embedsvc.mining.mine import DEFAULT_THRESHOLDS
from embedsvc.mining.options import MiningOptions
from embedsvc.mining.outputs import OutputInfo, output_kind, write_pairs
from embedsvc.mining.progress import Report, Step, ignore
from embedsvc.mining.records import Pair, PairSide
from embedsvc.mining.side_vectors import SideTexts, SideVectors, encode_side, given_vectors
from embedsvc.mining.work_folder import check_job, work_folder
from embedsvc.textfiles import write_json
from indexing import BothWays, Neighbours, neighbours_of_shards, plan_neighbours
from indexing.folder import file_sha256


@dataclass(frozen=True)
class MiningInputs:
    """What is mined: files of sentences, vectors (.npy, a row per record), or both; and known pairs."""

    source: Sequence[Path] = ()
    target: Sequence[Path] = ()
    source_vectors: Path | None = None
    target_vectors: Path | None = None
    dev: Path | None = None


@dataclass(frozen=True)
class MiningSummary:
    """What came out: the file, its pairs, the least score kept and all that the manifest says."""

    out: Path
    pairs: int
    threshold: float
    manifest: dict[str, Any] = field(default_factory=dict)
