"""Arrays in, neighbours out: exact and approximate search over unit vectors, on numpy and FAISS."""

from indexing.array_index import ArrayIndex, build_shards_for_arrays, open_array_index
from indexing.calibrate import Calibration, build_calibrated
from indexing.choose import Choice, choose
from indexing.debias import Debias, ParallelPairs, fit_debias
from indexing.errors import IndexFileError, IndexingError, VectorError
from indexing.exact import BothWays, nearest, nearest_both_ways
from indexing.folder import open_index, save_index
from indexing.gpu import on_gpu
from indexing.index import VectorIndex
from indexing.kinds import KINDS, Flat, Hnsw, IvfPq, Kind, PqScan, RaBitQ, kind_from
from indexing.manifest import Manifest, read_manifest
from indexing.memory import choose_together
from indexing.neighbour_plan import NeighbourPlan, plan_neighbours
from indexing.neighbours import Neighbours
from indexing.recall import measure_recall, recall_at_k
from indexing.sampled_recall import SampledRecall, sampled_recall
from indexing.shard_folder import OpenedShards, open_shards, save_shards, saved_recall
from indexing.shard_options import GraphStep, ShardOptions
from indexing.shard_writer import ShardWriter, grow_shards
from indexing.shards import Allowed, Found, Group, Plan, ShardedIndex, best_of
from indexing.tiled import TiledNeighbours, neighbours_of_shards
from indexing.vector_shards import VectorShards, open_vector_shards, shards_of_array
from indexing.vectors import check_vectors, normalize_rows

__all__ = [
    "KINDS",
    "Allowed",
    "ArrayIndex",
    "BothWays",
    "Calibration",
    "Choice",
    "Debias",
    "Flat",
    "Found",
    "GraphStep",
    "Group",
    "Hnsw",
    "IndexFileError",
    "IndexingError",
    "IvfPq",
    "Kind",
    "Manifest",
    "NeighbourPlan",
    "Neighbours",
    "OpenedShards",
    "ParallelPairs",
    "Plan",
    "PqScan",
    "RaBitQ",
    "SampledRecall",
    "ShardOptions",
    "ShardWriter",
    "ShardedIndex",
    "TiledNeighbours",
    "VectorError",
    "VectorIndex",
    "VectorShards",
    "best_of",
    "build_calibrated",
    "build_shards_for_arrays",
    "check_vectors",
    "choose",
    "choose_together",
    "fit_debias",
    "grow_shards",
    "kind_from",
    "measure_recall",
    "nearest",
    "nearest_both_ways",
    "neighbours_of_shards",
    "normalize_rows",
    "on_gpu",
    "open_array_index",
    "open_index",
    "open_shards",
    "open_vector_shards",
    "plan_neighbours",
    "read_manifest",
    "recall_at_k",
    "sampled_recall",
    "save_index",
    "save_shards",
    "saved_recall",
    "shards_of_array",
]
