import hashlib
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing_reference import assert_same, brute_force, clustered_rows, unit_rows

import indexing.engines
import indexing.methods
from indexing import (
    IndexFileError,
    IndexingError,
    NeighbourPlan,
    nearest_both_ways,
    neighbours_of_shards,
    sampled_recall,
    shards_of_array,
)
from indexing.block_files import read_block
from indexing.block_lists import Lists, merge_lists
from indexing.engines import LocalEngine
from indexing.methods import Method
from indexing.neighbours import Neighbours
from indexing.tiled import Grid, merged

EXACT = NeighbourPlan("exact")
INT8 = NeighbourPlan("int8")
X, Y = clustered_rows(330, seed=3), clustered_rows(270, seed=4)
LISTS = ["x_to_y.rows.npy", "x_to_y.scores.npy", "y_to_x.rows.npy", "y_to_x.scores.npy"]


def found(x, y, k, folder, plan=EXACT, shard_rows=100, **options):
    sides = (shards_of_array(side, shard_rows=shard_rows) for side in (x, y))
    return neighbours_of_shards(*sides, k, folder, plan=plan, **options)


def file_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("plan", [EXACT, INT8], ids=["exact", "int8"])
@pytest.mark.parametrize(("k", "shard_rows"), [(1, 100), (4, 90), (4, 1000), (100, 60)])
def test_neighbours_are_brute_force(tmp_path, plan, k, shard_rows):
    both = found(X, Y, k, tmp_path, plan, shard_rows)
    assert_same(both.x_to_y, brute_force(X, Y, k))
    assert_same(both.y_to_x, brute_force(Y, X, k))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    k=st.integers(1, 70),
    shards=st.integers(1, 3),
    dtype=st.sampled_from([np.float16, np.float32]),
    method=st.sampled_from(["exact", "int8"]),
    threads=st.integers(1, 3),
)
def test_any_shape_is_brute_force(tmp_path_factory, n, m, k, shards, dtype, method, threads):
    x, y = unit_rows(n, 16, 1).astype(dtype), unit_rows(m, 16, 2).astype(dtype)
    folder = tmp_path_factory.mktemp("grid")
    # Of a list of all candidates nothing can be missing, so that bytes are exact as well.
    plan = NeighbourPlan(method, {"factor": 60} if method == "int8" else {}, threads=threads)
    both = found(x, y, k, folder, plan, -(-max(n, m) // shards))
    assert_same(both.x_to_y, brute_force(x, y, min(k, m)))
    assert_same(both.y_to_x, brute_force(y, x, min(k, n)))
    assert (both.x_certified, both.y_certified) == (n, m)


@pytest.mark.parametrize("plan", [EXACT, INT8], ids=["exact", "int8"])
def test_among_equal_scores_the_lower_row_wins_across_shards(tmp_path, plan):
    x, y = np.repeat(unit_rows(1), 9, axis=0), np.repeat(unit_rows(1), 11, axis=0)
    both = found(x, y, 3, tmp_path, plan, shard_rows=2)
    assert (both.x_to_y.rows == [0, 1, 2]).all()
    assert (both.y_to_x.rows == [0, 1, 2]).all()


def test_the_lists_are_those_of_the_search_in_memory_to_the_last_bit(tmp_path):
    both, expected = found(X, Y, 5, tmp_path), nearest_both_ways(X, Y, 5)
    for side in ("x_to_y", "y_to_x"):
        np.testing.assert_array_equal(getattr(both, side).rows, getattr(expected, side).rows)
        np.testing.assert_array_equal(getattr(both, side).scores, getattr(expected, side).scores)
        assert isinstance(getattr(both, side).rows, np.memmap)


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_shards_and_threads_change_no_byte(tmp_path, method, monkeypatch):
    monkeypatch.setattr(indexing.methods, "TILES", {"exact": (32, 40), "int8": (32, 40)})
    plans = [(1, 100), (2, 100), (3, 330), (2, 50)]
    for threads, shard_rows in plans:
        folder = tmp_path / f"{threads}-{shard_rows}"
        # Enough candidates that the shards, of which each keeps as many, find the same.
        plan = NeighbourPlan(method, {"factor": 12} if method == "int8" else {}, threads=threads)
        found(X, Y, 4, folder, plan, shard_rows)
    first, *others = [{name: (path / name).read_bytes() for name in LISTS} for path in tmp_path.iterdir()]
    assert all(other == first for other in others)


def test_an_empty_side_has_no_neighbours(tmp_path):
    none = np.empty((0, 32), np.float32)
    both = found(X, none, 4, tmp_path / "a")
    assert both.x_to_y.rows.shape == (330, 0)
    assert both.y_to_x.rows.shape == (0, 4)
    assert found(none, none, 4, tmp_path / "b").x_to_y.rows.shape == (0, 0)


@pytest.fixture
def computed(monkeypatch):
    """The number of rows of every block that is computed."""
    shapes, block_lists = [], indexing.engines.block_lists

    def counted(x, y, *rest):
        shapes.append((len(x), len(y)))
        return block_lists(x, y, *rest)

    monkeypatch.setattr(indexing.engines, "block_lists", counted)
    return shapes


def test_what_is_there_is_not_computed_again(tmp_path, computed):
    found(X, Y, 4, tmp_path)
    assert len(computed) == 4 * 3
    before = file_bytes(tmp_path)
    found(X, Y, 4, tmp_path)
    assert len(computed) == 4 * 3
    assert file_bytes(tmp_path) == before


def test_another_shard_costs_its_row_and_its_column_only(tmp_path, computed):
    found(X[:200], Y[:200], 4, tmp_path)
    computed.clear()
    both = found(X[:300], Y[:250], 4, tmp_path)
    assert computed == [(100, 50), (100, 50), (100, 100), (100, 100), (100, 50)]
    assert_same(both.x_to_y, brute_force(X[:300], Y[:250], 4))


@pytest.mark.parametrize("change", [{"k": 5}, {"plan": INT8}, {"plan": NeighbourPlan("int8", {"factor": 4})}])
def test_blocks_of_other_vectors_or_options_are_not_taken(tmp_path, computed, change):
    found(X[:100], Y[:100], 4, tmp_path)
    options = {"k": 4, "plan": EXACT} | change
    found(X[:100], Y[:100], options["k"], tmp_path, options["plan"])
    found(X[100:200], Y[:100], 4, tmp_path)
    assert len(computed) == 3


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1] + b"?", lambda whole: whole[:50], lambda _: b""])
def test_a_damaged_block_is_computed_again(tmp_path, computed, damage):
    found(X, Y, 4, tmp_path)
    before = file_bytes(tmp_path)
    path = sorted(tmp_path.glob("*.block"))[5]
    path.write_bytes(damage(path.read_bytes()))
    assert read_block(path) is None
    computed.clear()
    found(X, Y, 4, tmp_path)
    assert len(computed) == 1
    assert file_bytes(tmp_path) == before


def test_a_block_that_is_gone_when_the_lists_are_merged_is_named(tmp_path):
    found(X, Y, 4, tmp_path)
    grid = Grid(*(shards_of_array(side, shard_rows=100) for side in (X, Y)), 4, Method("exact"))
    (tmp_path / grid.file_name((1, 2))).unlink()
    with pytest.raises(IndexFileError, match=grid.file_name((1, 2))):
        merged(grid, tmp_path, LocalEngine())


def test_progress_counts_rows_once_per_shard_of_the_other_side(tmp_path):
    calls = []
    found(X, Y, 1, tmp_path, progress=lambda *call: calls.append(call))
    assert calls[-1] == (330 * 3, 330 * 3)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    again = []
    found(X, Y, 1, tmp_path, progress=lambda *call: again.append(call))
    assert again == [(990, 990)]


def test_work_that_is_stopped_by_its_progress_goes_on(tmp_path, computed):
    def stop(done, _):
        if done > 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(X, Y, 4, tmp_path, progress=stop)
    before = len(computed)
    both = found(X, Y, 4, tmp_path)
    assert before + len(computed) - before <= 13
    assert_same(both.x_to_y, brute_force(X, Y, 4))


def test_a_full_disk_is_an_error_and_the_folder_goes_on(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*\.tmp'"):
            found(X, Y, 4, tmp_path / "full")
        with pytest.raises(
            OSError, match=r"File too large: '.*x_to_y.*'"
        ):  # the blocks are short enough, the lists are not
            found(X, Y, 4, tmp_path / "lists", shard_rows=30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(found(X, Y, 4, tmp_path / "full").x_to_y, brute_force(X, Y, 4))
    assert len(list((tmp_path / "lists").glob("*.block"))) == 11 * 9
    assert_same(found(X, Y, 4, tmp_path / "lists", shard_rows=30).x_to_y, brute_force(X, Y, 4))


def test_what_cannot_be_searched_is_refused(tmp_path):
    with pytest.raises(IndexingError, match="k is 0"):
        found(X, Y, 0, tmp_path)
    with pytest.raises(IndexingError, match="x have dimension 32, y have 8"):
        found(X, unit_rows(5, 8), 1, tmp_path)
    for plan, message in (
        (NeighbourPlan("flat"), "method 'flat' is unknown; choose exact, int8"),
        (NeighbourPlan("int8", {"factors": 3}), "method int8 has no parameter 'factors'"),
        (NeighbourPlan("int8", {"factor": 0}), "factor is 0; expected a whole number of at least 1"),
        (NeighbourPlan("truncated", {"dimensions": 33}), "dimensions is 33; the vectors have only 32"),
    ):
        with pytest.raises(IndexingError, match=message):
            found(X, Y, 1, tmp_path, plan)


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_inverted_lists_of_few_vectors_are_exact(n, tmp_path):
    """Miners that derive the number of lists from that of vectors fail where it comes out as 0."""
    plan = NeighbourPlan("ivf", {"nlist": 0, "nprobe": 16})
    lists = found(X[:n], Y[:n], 4, tmp_path, plan)
    exact = nearest_both_ways(X[:n], Y[:n], 4)
    assert (lists.x_to_y.rows == exact.x_to_y.rows).all()
    assert (lists.y_to_x.rows == exact.y_to_x.rows).all()


def test_a_processor_that_cannot_multiply_bytes_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(indexing.methods, "byte_product_is_exact", lambda: False)
    with pytest.raises(IndexingError, match="choose method exact"):
        found(X, Y, 1, tmp_path, INT8)
    both = found(X, Y, 3, tmp_path, NeighbourPlan("truncated", {"dimensions": 32}))
    assert_same(both.x_to_y, brute_force(X, Y, 3))


def test_rows_are_certified_only_where_the_lists_are_exact(tmp_path):
    """With few candidates bytes miss some; every row they miss must be among those not certified."""
    x, y = unit_rows(600, 64, 1), unit_rows(500, 64, 2)
    true = brute_force(x, y, 3)[1]
    both = found(x, y, 3, tmp_path, NeighbourPlan("int8", {"factor": 1}), 250)
    lists = merge_lists(parts_of(x, y, tmp_path), 3)
    wrong = (lists.neighbours.rows != true).any(axis=1)
    assert wrong.any()
    assert lists.certified.any()
    assert not lists.certified[wrong].any()
    assert both.x_certified == lists.certified.sum()


def parts_of(x, y, folder):
    """The lists of all rows of x, from blocks of 250 rows, block by block of y."""
    grid = Grid(*(shards_of_array(side, shard_rows=250) for side in (x, y)), 3, Method("int8", {"factor": 1}))
    for j, (start, _) in enumerate(grid.y.bounds()):
        blocks = [read_block(folder / grid.file_name((i, j))).x for i in range(len(grid.x.bounds()))]
        neighbours = Neighbours(
            np.concatenate([block.neighbours.scores for block in blocks]),
            np.concatenate([block.neighbours.rows for block in blocks]),
        )
        yield start, Lists(neighbours, np.concatenate([block.ceilings for block in blocks]))


@pytest.mark.parametrize(
    ("plan", "least"),
    [
        (NeighbourPlan("truncated", {"dimensions": 24, "factor": 8}), 0.95),
        (NeighbourPlan("ivf", {"nlist": 20, "nprobe": 15}), 0.95),
    ],
    ids=["truncated", "ivf"],
)
def test_approximations_have_true_scores_and_a_measured_recall(tmp_path, plan, least):
    both = found(X, Y, 4, tmp_path, plan)
    scores = (X.astype(np.float64) @ Y.T.astype(np.float64))[np.arange(330)[:, None], both.x_to_y.rows]
    np.testing.assert_allclose(both.x_to_y.scores, scores, atol=1e-6)
    sides = [shards_of_array(side, shard_rows=100) for side in (X, Y)]
    recall = sampled_recall(*sides, both, rows=400)
    hits = (both.x_to_y.rows[:, :, None] == brute_force(X, Y, 4)[1][:, None, :]).any(axis=2)
    assert recall.x_to_y == pytest.approx(hits.mean())
    assert recall.rows == (330, 270)
    assert least < recall.x_to_y <= 1
    assert least < recall.y_to_x <= 1
    assert (both.x_certified, both.y_certified) == (0, 0)


def test_few_dimensions_or_lists_lose_neighbours_and_the_sample_says_so(tmp_path):
    sides = [shards_of_array(side, shard_rows=100) for side in (X, Y)]
    for plan in (
        NeighbourPlan("truncated", {"dimensions": 3, "factor": 1}),
        NeighbourPlan("ivf", {"nprobe": 1}),
    ):
        recall = sampled_recall(*sides, found(X, Y, 4, tmp_path, plan), rows=100)
        assert recall.rows == (100, 100)
        assert recall.x_to_y < 0.95
        assert recall.y_to_x_first < 1


def test_graphics_cards_are_asked_for_candidates(tmp_path, monkeypatch):
    with pytest.raises(IndexingError, match="needs a CUDA device and faiss-gpu"):
        found(X, Y, 4, tmp_path, NeighbourPlan("gpu"))
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: index, raising=False)
    both = found(X, Y, 4, tmp_path, NeighbourPlan("gpu"))
    assert_same(both.x_to_y, brute_force(X, Y, 4))
    assert both.x_certified == 330


@pytest.mark.gpu
@pytest.mark.skipif(not indexing.methods.gpus(), reason="needs a CUDA device and faiss-gpu")
def test_a_gpu_finds_what_brute_force_does(tmp_path):
    both = found(X, Y, 4, tmp_path, NeighbourPlan("gpu"))
    assert_same(both.x_to_y, brute_force(X, Y, 4))
    assert_same(both.y_to_x, brute_force(Y, X, 4))


SEARCH = """
import sys
sys.path.insert(0, sys.argv[2])
from indexing_reference import clustered_rows
from indexing import NeighbourPlan, neighbours_of_shards, shards_of_array
x, y = (shards_of_array(clustered_rows(4000, 64, seed), shard_rows=400) for seed in (1, 2))
print("begun", flush=True)
neighbours_of_shards(x, y, 4, sys.argv[1], plan=NeighbourPlan(sys.argv[3], threads=int(sys.argv[4])))
"""


def search(folder, method, threads):
    command = [sys.executable, "-c", SEARCH, str(folder), str(Path(__file__).parent), method, str(threads)]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | limits)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "int8"])
def test_killed_at_any_moment_a_search_goes_on_to_the_same_bytes(tmp_path, method):
    random = np.random.default_rng(1)
    with search(tmp_path / "whole", method, 1) as process:
        process.communicate()
    blocks = []
    for _ in range(6):
        with search(tmp_path / "killed", method, 2) as process:
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.5))
            process.kill()
        blocks.append(len(list((tmp_path / "killed").glob("*.block"))))
    with search(tmp_path / "killed", method, 2) as process:
        process.communicate()
    assert blocks == sorted(blocks)
    assert blocks[-1] > 0
    hashes = [
        {name: hashlib.sha256(data).hexdigest() for name, data in file_bytes(tmp_path / side).items()}
        for side in ("whole", "killed")
    ]
    assert len(hashes[0]) == 104
    assert hashes[0] == hashes[1]
