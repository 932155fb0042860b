import pytest
from hypothesis import given
from hypothesis import strategies as st

import indexing.neighbour_plan
from indexing import IndexingError, plan_neighbours
from indexing.methods import Method


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """A machine on which a score takes 8 ns in float32 and 2 ns in bytes, whatever the dimension."""
    nanoseconds = {"exact": 8e-9, "int8": 2e-9}
    monkeypatch.setattr(indexing.neighbour_plan, "score_seconds", lambda kind, _: nanoseconds[kind])
    monkeypatch.setattr(indexing.neighbour_plan, "gpus", lambda: 0)
    monkeypatch.setattr(indexing.neighbour_plan, "byte_product_is_exact", lambda: True)


def test_a_small_search_is_exact():
    plan = plan_neighbours(50_000, 50_000, 384, 4, threads=1)
    assert plan.method == "exact"
    assert plan.seconds == pytest.approx(2.5e9 * 8e-9, rel=0.1)
    assert plan.reason == "2.5e+09 scores"


def test_a_large_search_is_of_bytes():
    plan = plan_neighbours(1_000_000, 1_000_000, 384, 4, threads=2)
    assert (plan.method, plan.parameters) == ("int8", {"factor": 3})
    assert 1_000 < plan.seconds < 1_300
    assert plan.reason == "1e+12 scores: bytes first, then exact scores"
    assert plan.memory_bytes < 1.2e9
    assert plan.disk_bytes == 2 * 8_000_000 * 36 + 2_000_000 * 48


def test_with_little_time_some_neighbours_may_be_missed():
    assert plan_neighbours(10**6, 10**6, 384, 4, threads=2, max_seconds=3_000).method == "int8"
    plan = plan_neighbours(10**6, 10**6, 384, 4, threads=2, max_seconds=600)
    assert plan.method == "ivf"
    assert "600 s are allowed" in plan.reason
    assert plan_neighbours(50_000, 50_000, 384, 4, threads=1, max_seconds=10).method == "int8"


def test_without_fast_bytes_a_large_search_is_exact(monkeypatch):
    monkeypatch.setattr(indexing.neighbour_plan, "byte_product_is_exact", lambda: False)
    plan = plan_neighbours(10**6, 10**6, 384, 4, threads=2)
    assert plan.method == "exact"


def test_the_method_does_not_depend_on_how_fast_the_machine_is(monkeypatch):
    before = [plan_neighbours(n, n, 384, 4).method for n in (10_000, 70_000, 80_000)]
    monkeypatch.setattr(indexing.neighbour_plan, "score_seconds", lambda *_: 1.0)
    assert [plan_neighbours(n, n, 384, 4).method for n in (10_000, 70_000, 80_000)] == before
    assert before == ["exact", "exact", "int8"]


def test_a_graphics_card_is_used(monkeypatch):
    monkeypatch.setattr(indexing.neighbour_plan, "gpus", lambda: 2)
    assert plan_neighbours(10**6, 10**6, 384, 4).method == "gpu"


def test_too_little_memory_names_the_shards_that_fit():
    with pytest.raises(
        IndexingError, match=r"131072 rows take \d+ MiB; the limit is 500 MiB; write shards of"
    ):
        plan_neighbours(10**6, 10**6, 384, 4, memory_bytes=500 << 20, threads=1)
    with pytest.raises(IndexingError, match="too low for any"):
        plan_neighbours(10**6, 10**6, 384, 4, memory_bytes=100 << 20)


@pytest.mark.parametrize("dimension", [1, 384, 768, 1024, 1536, 4096])
@pytest.mark.parametrize("threads", [1, 16, 256])
def test_any_width_and_any_machine_does_with_the_default_memory(dimension, threads):
    plan = plan_neighbours(10**7, 10**7, dimension, 16, threads=threads, method="int8")
    assert plan.memory_bytes <= 2 << 30
    assert 1 <= plan.threads <= threads
    assert plan_neighbours(3, 3, dimension, 4, threads=threads).threads >= min(threads, 16)


def test_the_callers_method_is_taken():
    plan = plan_neighbours(10, 10, 384, 4, method="truncated")
    assert (plan.method, plan.reason) == ("truncated", "chosen by the caller")
    with pytest.raises(IndexingError, match="method 'fast' is unknown"):
        plan_neighbours(10, 10, 384, 4, method="fast")


@given(
    n=st.integers(0, 10**8),
    m=st.integers(0, 10**8),
    dimension=st.integers(1, 4096),
    k=st.integers(1, 64),
    shard_rows=st.integers(1, 1 << 20),
    limit=st.integers(300 << 20, 1 << 36),
)
def test_a_plan_stays_within_its_memory_or_says_what_would(n, m, dimension, k, shard_rows, limit):
    options = {"memory_bytes": limit, "threads": 1}
    try:
        plan = plan_neighbours(n, m, dimension, k, shard_rows=shard_rows, **options)
    except IndexingError as error:
        words = str(error).split()
        if "at" in words:
            most = int(words[words.index("most") + 1])
            assert plan_neighbours(n, m, dimension, k, shard_rows=most, **options).memory_bytes <= limit
    else:
        assert plan.memory_bytes <= limit
        assert plan.seconds >= 0
        assert Method(plan.method, plan.parameters).complete() == plan.parameters
