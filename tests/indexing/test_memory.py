import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing_reference import rows_with_languages

from indexing import (
    Flat,
    Hnsw,
    IndexingError,
    ShardedIndex,
    ShardOptions,
    choose,
    choose_together,
    save_shards,
)
from indexing.shard_folder import part_bytes
from indexing.shard_options import graph_steps

COUNTS = {"de": 50_000, "en": 30_000, "*": 100_000}


def total(chosen, counts):
    return sum(choice.bytes_per_vector * counts[name] for name, choice in chosen.items())


def test_without_a_limit_every_graph_is_the_first_choice():
    chosen = choose_together(COUNTS, 384, recall=0.97)
    assert chosen == {name: choose(count, 384, recall=0.97) for name, count in COUNTS.items()}


def test_less_memory_makes_codes_shorter_for_all_graphs_alike():
    names = []
    for megabytes in (140, 100, 60, 30, 20):
        chosen = choose_together(COUNTS, 384, memory_bytes=megabytes * 10**6)
        names.append({f"{choice.kind.name}{getattr(choice.kind, 'bits', '')}" for choice in chosen.values()})
    assert names == [{"hnsw"}, {"ivf_pq"}, {"rabitq4"}, {"rabitq2"}, {"rabitq1"}]


def test_the_reason_says_what_the_memory_rules_out():
    # 384 values of 8 bits, 32 links of 8 bytes, 16 + 4 of numbers; then half a byte for 4 values, and lists.
    reason = choose_together(COUNTS, 384, memory_bytes=60 * 10**6)["*"].reason
    assert reason.endswith("; the memory of all graphs rules out hnsw 660, ivf_pq 468 bytes per vector")
    assert "the memory" not in choose_together(COUNTS, 384, memory_bytes=140 * 10**6)["*"].reason
    assert "rules out" not in choose_together({"small": 5000}, 384)["small"].reason


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers(1000, 4_000_000), min_size=1, max_size=5),
    st.sampled_from([1, 32, 768]),
    st.sampled_from([0.9, 0.97, 0.99]),
    st.floats(0, 1.2),
)
def test_what_is_chosen_fits_or_the_least_memory_is_named(counts, dim, recall, share):
    memory = int(share * total(choose_together(counts, dim, recall=recall), counts))
    try:
        chosen = choose_together(counts, dim, recall=recall, memory_bytes=memory)
    except IndexingError as error:
        least = int(re.search(r"take at least (\d+) bytes", str(error))[1])
        assert memory < least
        chosen, memory = choose_together(counts, dim, recall=recall, memory_bytes=least), least
        with pytest.raises(IndexingError):
            choose_together(counts, dim, recall=recall, memory_bytes=least - 1)
    assert total(chosen, counts) <= memory
    assert dim < 32 or Flat() not in {choice.kind for choice in chosen.values()}


# Built: 1200 rows of 96 dimensions, and graphs of all, of the 700 of 0, and of the 360 of 1.
VECTORS, LABELS = rows_with_languages(1200, 96, seed=1)
ORDER = LABELS.argsort(kind="stable")
SMALL = {"flat_rows": 250, "shard_rows": 250, "graph": None}


def built_graphs(tmp_path, memory_bytes):
    options = ShardOptions(**SMALL, memory_bytes=memory_bytes)
    index = ShardedIndex.build(VECTORS[ORDER], LABELS[ORDER].astype("U"), options)
    save_shards(index, tmp_path / "index")
    sizes = part_bytes(tmp_path / "index")
    assert sizes.pop("exact") >= VECTORS.nbytes
    assert sizes.keys() == {"graph of '0'", "graph of '1'", "pool"}
    return index, sum(sizes.values())


def least_memory():
    with pytest.raises(IndexingError, match="memory_bytes is 1; graphs of ") as caught:
        ShardedIndex.build(VECTORS[ORDER], LABELS[ORDER].astype("U"), ShardOptions(**SMALL, memory_bytes=1))
    return int(re.search(r"at least (\d+) bytes", str(caught.value))[1])


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq", "rabitq"])
def test_what_is_built_takes_no_more_than_the_memory(tmp_path, kind):
    memory = {"hnsw": 900_000, "ivf_pq": 400_000, "rabitq": least_memory()}[kind]
    index, found = built_graphs(tmp_path, memory)
    assert index.pool.kind.name == kind
    assert 0.8 * memory < found <= memory


def test_graphs_are_built_in_turn_the_smallest_first():
    seen = []
    options = ShardOptions(flat_rows=250, shard_rows=250, graph=Hnsw(m=4, ef_construction=10))
    ShardedIndex.build(VECTORS[ORDER], LABELS[ORDER].astype("U"), options, progress=seen.append)
    counts = [int((label == LABELS).sum()) for label in (1, 0)]
    assert [(step.label, step.rows, step.number, step.left) for step in seen[::2]] == [
        ("1", counts[0], 1, sum(counts) + 1200),
        ("0", counts[1], 2, counts[1] + 1200),
        ("*", 1200, 3, 1200),
    ]
    assert [step.calibration is None for step in seen] == [True, False] * 3
    assert seen[-1].calibration.recall_by_group.keys() == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall": 0}, "recall is 0; expected more than 0"),
        ({"recall": 1.1}, r"recall is 1\.1"),
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"flat_rows": -1}, "flat_rows is -1"),
        ({"graph": None, "memory_bytes": -5}, "memory_bytes is -5; expected at least 0"),
        ({"memory_bytes": 5}, "memory_bytes is 5, which chooses kinds; graph is hnsw"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(IndexingError, match=message):
        ShardOptions(**options)


def test_a_recall_of_one_means_no_graphs():
    assert graph_steps({"de": 50_000, "en": 50_000}, 8, ShardOptions(graph=None, recall=1)) == []


def test_the_label_of_the_pool_is_taken():
    with pytest.raises(IndexingError, match="3 rows have the label '\\*', which stands for all rows"):
        graph_steps({"de": 5, "*": 3}, 8, ShardOptions())
