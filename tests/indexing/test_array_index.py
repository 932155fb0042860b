import json

import numpy as np
import pytest
from indexing_reference import assert_same, brute_force, rows_with_languages, unit_rows

from indexing import (
    IndexFileError,
    IndexingError,
    ShardedIndex,
    ShardOptions,
    VectorError,
    build_shards_for_arrays,
    open_array_index,
    recall_at_k,
    save_shards,
)
from indexing.array_index import _CHUNK
from indexing.array_index import unit_rows as checked_rows

VECTORS, LANGUAGES = rows_with_languages(1500, 96, seed=1)
LABELS = np.array(["en", "de", "sw", "is"])[LANGUAGES]
QUERIES = rows_with_languages(40, 96, seed=2)[0]
GRAPHS = ShardOptions(flat_rows=300, shard_rows=300, graph=None)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return build_shards_for_arrays(VECTORS, LABELS, tmp_path_factory.mktemp("a") / "index")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    return build_shards_for_arrays(VECTORS, LABELS, tmp_path_factory.mktemp("a") / "index", GRAPHS)


@pytest.mark.parametrize("labels", [None, ["de"], ["sw", "is", "sw"], ["en", "de", "sw", "is"]])
def test_answers_are_brute_force_in_the_rows_of_the_caller(exact, labels):
    allowed = None if labels is None else np.flatnonzero(np.isin(LABELS, labels))
    assert_same(exact.search(QUERIES, 7, labels=labels), brute_force(QUERIES, VECTORS, 7, allowed))


@pytest.mark.parametrize("labels", [None, ["de"], ["en"], ["sw"], ["en", "is"]])
def test_graphs_find_the_recall_in_every_label(graphs, labels):
    allowed = None if labels is None else np.flatnonzero(np.isin(LABELS, labels))
    found = graphs.search(QUERIES, 10, labels=labels)
    assert recall_at_k(found.rows, brute_force(QUERIES, VECTORS, 10, allowed)[1]) >= 0.95
    true = np.take_along_axis(QUERIES @ VECTORS.T, found.rows, 1)
    np.testing.assert_allclose(found.scores, true, atol=1e-6)
    assert graphs.index.graphs.keys() == {"en", "de"}


def test_slots_beyond_the_last_row_of_a_label_are_empty(exact):
    few = np.flatnonzero(LABELS == "is")
    assert_same(exact.search(QUERIES[:3], 60, labels=["is"]), brute_force(QUERIES[:3], VECTORS, 60, few))


def test_of_equal_scores_the_lower_row_of_the_caller_is_first(tmp_path):
    vectors = np.repeat(unit_rows(1), 4, axis=0)
    index = build_shards_for_arrays(vectors, ["z", "a", "z", "a"], tmp_path / "index")
    assert index.search(vectors[:1], 4).rows.tolist() == [[0, 1, 2, 3]]


def test_half_precision_is_what_it_says_in_single_precision(tmp_path):
    half = VECTORS.astype(np.float16)
    found = build_shards_for_arrays(half, LABELS, tmp_path / "index").search(QUERIES, 5)
    assert_same(found, brute_force(QUERIES, half.astype(np.float64), 5))


def test_rows_of_any_length_are_scaled_when_asked(tmp_path):
    long = VECTORS * np.linspace(0.1, 300, len(VECTORS), dtype=np.float32)[:, None]
    index = build_shards_for_arrays(long, LABELS, tmp_path / "index", normalize=True)
    assert_same(index.search(QUERIES, 5), brute_force(QUERIES, VECTORS, 5))


def test_without_labels_all_rows_are_one_group(tmp_path):
    index = build_shards_for_arrays(VECTORS, None, tmp_path / "index")
    assert [(group.label, group.count) for group in index.index.groups.values()] == [("", 1500)]
    assert_same(index.search(QUERIES, 5), brute_force(QUERIES, VECTORS, 5))


@pytest.mark.parametrize(
    ("rows", "normalize", "message"),
    [
        ({_CHUNK + 5: 2.0}, False, rf"vectors\[{_CHUNK + 5}\] has length 2; rows must have length 1"),
        ({_CHUNK + 5: 0.0}, True, rf"vectors\[{_CHUNK + 5}\] is all zeros"),
        ({3: np.nan, _CHUNK + 5: 2.0}, True, r"vectors\[3\] holds NaN"),
    ],
)
def test_a_bad_row_is_named_by_its_number_in_the_file(tmp_path, rows, normalize, message):
    vectors = np.zeros((_CHUNK + 10, 2), np.float32)
    vectors[:, 0] = 1
    for row, value in rows.items():
        vectors[row, 0] = value
    with pytest.raises(VectorError, match=message):
        build_shards_for_arrays(vectors, None, tmp_path / "index", normalize=normalize)
    assert list(tmp_path.iterdir()) == []


def test_only_the_rows_asked_for_are_returned():
    np.testing.assert_array_equal(checked_rows(VECTORS, 5, 9, normalize=False), VECTORS[5:9])


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (VECTORS, LABELS[:-1], "there are 1499 labels for 1500 vectors"),
        (VECTORS, ["*"] * 1500, r"1500 rows have the label '\*'"),
        (VECTORS[:0], None, r"vectors have shape \(0, 96\); expected \(n, dim\), at least one row"),
        (VECTORS[0], None, r"vectors have shape \(96,\)"),
        (np.ones((3, 2), int), None, "vectors have dtype int64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, vectors, labels, message):
    with pytest.raises(IndexingError, match=message):
        build_shards_for_arrays(vectors, labels, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_wrong_searches_are_refused(exact):
    with pytest.raises(IndexingError, match="no row has the label 'fr'; there are 'de', 'en', 'is', 'sw'"):
        exact.search(QUERIES, 3, labels=["de", "fr"])
    with pytest.raises(IndexingError, match="k is 0"):
        exact.search(QUERIES, 0)
    with pytest.raises(VectorError, match="queries have dimension 16; expected 96"):
        exact.search(unit_rows(1), 1)


def test_an_index_is_replaced_only_when_asked_and_only_by_a_whole_one(tmp_path):
    folder = tmp_path / "index"
    old = build_shards_for_arrays(VECTORS[:50], None, folder)
    with pytest.raises(IndexingError, match="index exists; choose another folder, or overwrite it"):
        build_shards_for_arrays(VECTORS, LABELS, folder)
    with pytest.raises(VectorError):
        build_shards_for_arrays(2 * VECTORS, LABELS, folder, overwrite=True)
    assert open_array_index(folder).index.count == 50
    build_shards_for_arrays(VECTORS, LABELS, folder, overwrite=True)
    assert open_array_index(folder).index.count == 1500
    assert_same(old.search(QUERIES, 5), brute_force(QUERIES, VECTORS[:50], 5))
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_no_index_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(IndexingError, match=r"holds no index \(shards.json is missing\)"):
        build_shards_for_arrays(VECTORS, None, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_shards_of_another_program_are_not_opened(tmp_path):
    index = ShardedIndex.build(VECTORS[:9], [""] * 9)
    save_shards(index, tmp_path / "without", extra={"options": {}, "why": {}})
    save_shards(index, tmp_path / "other", arrays={"rows": np.arange(9)})
    for name in ("without", "other"):
        with pytest.raises(IndexFileError, match=rf"{name}/shards\.json: is not of an index of arrays"):
            open_array_index(tmp_path / name)


def test_the_folder_says_what_was_asked_for_and_why(graphs):
    assert graphs.extra["options"] == {"recall": 0.95, "k": 10, "memory_bytes": None}
    assert graphs.extra["why"].keys() == {"en", "de", "*"}
    assert "a graph over 8-bit values" in graphs.extra["why"]["*"]
    assert json.loads(json.dumps(graphs.extra)) == graphs.extra
