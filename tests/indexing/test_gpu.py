import faiss
import numpy as np
import pytest
from indexing_reference import assert_same, brute_force, clustered_rows

from indexing import Flat, Hnsw, IvfPq, VectorIndex, measure_recall, on_gpu, open_index, save_index

VECTORS = clustered_rows(3000, seed=1)
QUERIES = clustered_rows(20, seed=2)
needs_gpu = pytest.mark.skipif(not faiss.get_num_gpus(), reason="needs a CUDA device and faiss-gpu")


@pytest.fixture
def stand_in(monkeypatch):
    """FAISS as if it had a GPU: the copies it would put there are listed, and are CPU indexes."""
    copies = []

    def copied(index):
        copies.append(faiss.clone_index(index))
        return copies[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", copied, raising=False)
    return copies


def test_without_a_gpu_the_cpu_searches(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    monkeypatch.delattr(faiss, "index_cpu_to_all_gpus", raising=False)
    index = VectorIndex.build(VECTORS)
    assert on_gpu(index) is index
    lists = VectorIndex.build(VECTORS, IvfPq(nlist=16, nprobe=16))
    assert measure_recall(lists, QUERIES, VECTORS, 10) >= 0.95


def test_unfiltered_searches_are_answered_by_the_copy(stand_in):
    index = on_gpu(VectorIndex(Flat(), Flat().build(VECTORS[::-1].copy()), np.arange(3000)[::-1]))
    (copy,) = stand_in
    assert_same(index.search(QUERIES, 10), brute_force(QUERIES, VECTORS, 10))
    copy.reset()
    assert (index.search(QUERIES, 10).rows == -1).all()


def test_what_gpus_cannot_do_is_left_to_the_cpu(stand_in):
    index = on_gpu(VectorIndex.build(VECTORS))
    (copy,) = stand_in
    copy.reset()
    rows = np.arange(0, 3000, 7)
    assert_same(index.search(QUERIES, 10, rows=rows), brute_force(QUERIES, VECTORS, 10, rows))
    assert_same(index.search(QUERIES[:1], 2049), brute_force(QUERIES[:1], VECTORS, 2049))
    graph = VectorIndex.build(VECTORS[:100], Hnsw(m=4))
    assert on_gpu(graph) is graph


def test_an_index_on_a_gpu_is_saved_as_any_other(stand_in, tmp_path):  # noqa: ARG001
    save_index(on_gpu(VectorIndex.build(VECTORS)), tmp_path)
    assert_same(open_index(tmp_path).search(QUERIES, 5), brute_force(QUERIES, VECTORS, 5))


def test_lists_are_made_with_the_help_of_a_gpu(stand_in):
    index = VectorIndex.build(VECTORS, IvfPq(nlist=16, nprobe=16))
    (copy,) = stand_in
    assert copy.ntotal == 16  # k-means left its centroids there
    assert faiss.extract_index_ivf(index.faiss_index).clustering_index is None
    assert measure_recall(index, QUERIES, VECTORS, 10) >= 0.95


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_finds_what_the_cpu_finds():
    index = on_gpu(VectorIndex.build(VECTORS))
    found = index.search(QUERIES, 10)
    np.testing.assert_array_equal(found.rows, brute_force(QUERIES, VECTORS, 10)[1])
    np.testing.assert_allclose(found.scores, brute_force(QUERIES, VECTORS, 10)[0], atol=1e-4)
    rows = np.arange(0, 3000, 7)
    assert_same(index.search(QUERIES, 10, rows=rows), brute_force(QUERIES, VECTORS, 10, rows))


@pytest.mark.gpu
@needs_gpu
def test_lists_made_on_a_gpu_are_as_good():
    index = VectorIndex.build(VECTORS, IvfPq(nlist=16, nprobe=8))
    assert measure_recall(index, QUERIES, VECTORS, 10) >= 0.9
