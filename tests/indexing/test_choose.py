import math
import re

import faiss
import pytest
from hypothesis import given
from hypothesis import strategies as st
from indexing_reference import clustered_rows

from indexing import Flat, Hnsw, IndexingError, IvfPq, RaBitQ, VectorIndex, choose


@pytest.mark.parametrize(
    ("n", "memory_mib", "kind"),
    [
        (0, None, Flat()),
        (20_000, None, Flat()),
        (20_001, None, Hnsw(ef_construction=40, storage="sq8")),
        (100_000, 64, Hnsw(ef_construction=40, storage="sq8")),  # 660 bytes per vector
        (100_000, 60, IvfPq(nlist=1024)),  # 471
        (100_000, 40, RaBitQ(bits=4, nlist=1024)),  # 244
        (100_000, 20, RaBitQ(bits=2, nlist=1024)),  # 160
        (100_000, 10, RaBitQ(bits=1, nlist=1024)),  # 91
        (3_000_000, None, Hnsw(ef_construction=40, storage="sq8")),
        (3_000_001, None, IvfPq(nlist=8192)),
        (10**9, None, IvfPq(nlist=65_536)),
    ],
)
def test_the_kind_follows_from_the_number_of_vectors_and_the_memory(n, memory_mib, kind):
    memory = None if memory_mib is None else memory_mib * 2**20
    assert choose(n, 384, memory_bytes=memory).kind == kind


def test_more_recall_is_bought_with_more_care():
    assert choose(10**5, 384, recall=0.97).kind == Hnsw(ef_construction=100, storage="sq8")
    assert choose(10**5, 384, recall=0.99).kind == Hnsw(ef_construction=100, storage="float32")
    assert choose(10**5, 384, recall=1).kind == Flat()
    assert choose(10**5, 384, recall=0.97, memory_bytes=46 * 10**6).kind == RaBitQ(bits=8, nlist=1024)


def test_the_reason_is_a_sentence_with_the_numbers():
    assert choose(100_000, 384, memory_bytes=50 * 2**20).reason == (
        "ivf_pq for 100,000 vectors: 4-bit codes in 1,024 lists find candidates, which 8-bit values refine "
        "(468 bytes per vector, 44.6 MiB); the limit of 50.0 MiB rules out hnsw 62.9"
    )
    assert choose(500, 384).reason == (
        "flat for 500 vectors: an exact search of up to 20,000 vectors takes about a millisecond "
        "(1536 bytes per vector, 0.7 MiB)"
    )


@given(st.integers(1, 10**8), st.integers(1, 4096), st.floats(0.01, 1), st.floats(0.001, 10))
def test_what_is_chosen_fits_or_the_least_memory_is_named(n, dim, recall, share):
    memory = int(n * 4 * dim * share)
    try:
        choice = choose(n, dim, recall=recall, memory_bytes=memory)
    except IndexingError as error:
        named = re.search(r"take at least (\d+) bytes", str(error))
        assert named is not None
        least = int(named[1])
        assert least > memory
        assert choose(n, dim, recall=recall, memory_bytes=least).bytes_per_vector * n <= least
        with pytest.raises(IndexingError, match=f"take at least {least} bytes"):
            choose(n, dim, recall=recall, memory_bytes=least - 1)
    else:
        assert choice.bytes_per_vector * n <= memory
        needed = math.ceil(choice.bytes_per_vector * n)
        assert choose(n, dim, recall=recall, memory_bytes=needed).kind == choice.kind


@pytest.mark.parametrize("memory", [None, 950_000, 350_000, 200_000])
def test_the_memory_named_is_what_the_index_takes(memory):
    choice = choose(3000, 64, memory_bytes=memory)
    index = VectorIndex.build(clustered_rows(3000, 64), choice.kind)
    order = 0 if choice.kind == Flat() else 4
    written = len(faiss.serialize_index(index.faiss_index)) / 3000
    assert choice.bytes_per_vector == pytest.approx(written + order, rel=0.02, abs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1, "dim": 4}, "n is -1; expected at least 0"),
        ({"n": 1, "dim": 0}, "dim is 0; expected at least 1"),
        ({"n": 1, "dim": 4, "memory_bytes": -5}, "memory_bytes is -5"),
        ({"n": 1, "dim": 4, "recall": 0}, "recall is 0; expected more than 0, at most 1"),
        ({"n": 1, "dim": 4, "recall": 1.01}, "recall is 1.01"),
        ({"n": 10**5, "dim": 384, "memory_bytes": 10**6}, r"at least \d+ bytes \(rabitq\)"),
    ],
)
def test_wrong_values_are_refused(arguments, message):
    with pytest.raises(IndexingError, match=message):
        choose(**arguments)
