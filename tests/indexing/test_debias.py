import dataclasses

import numpy as np
import pytest
from indexing_reference import unit_rows

from indexing import IndexFileError, IndexingError, VectorError
from indexing.debias import PRIOR_ROWS, Debias, ParallelPairs, fit_debias

LANGUAGES = ("de", "en", "th")
UNIT = np.eye(8, dtype=np.float32)


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def pool(n=300, dimension=16, seed=0, strength=1.0):
    """The same ``n`` meanings in three languages, each moved by an offset of its language."""
    meanings = unit_rows(n, dimension, seed)
    offsets = strength * unit_rows(3, dimension, seed=99)
    vectors = np.concatenate([unit(meanings + offset) for offset in offsets])
    return vectors, np.repeat(LANGUAGES, n)


def own_language_share(queries, query_groups, vectors, groups):
    """How often the nearest vector with another meaning is of the query's own language."""
    scores = queries @ vectors.T
    same_meaning = np.arange(len(queries))[:, None] % (len(queries) // 3) == np.arange(len(vectors)) % (
        len(vectors) // 3
    )
    scores[same_meaning] = -np.inf
    return (groups[scores.argmax(axis=1)] == query_groups).mean()


def pairs_of(vectors, groups, pivot="en"):
    others = [language for language in LANGUAGES if language != pivot]
    return ParallelPairs(
        np.concatenate([vectors[groups == language] for language in others]),
        np.concatenate([groups[groups == language] for language in others]),
        np.concatenate([vectors[groups == pivot]] * len(others)),
        pivot,
    )


def fitted(method, vectors, groups):
    return fit_debias(method, vectors, groups, pairs=pairs_of(vectors, groups) if method == "shift" else None)


def test_center_by_hand():
    vectors = np.repeat(UNIT[[0, 1]], [100, 300], axis=0)
    groups = np.repeat(["a", "b"], [100, 300])
    debias = fit_debias("center", vectors, groups)
    # a: (100 e0 + 100 * (e0 + 3 e1) / 4) / 200; b: (300 e1 + 100 * (e0 + 3 e1) / 4) / 400
    expected = [[0.625, 0.375], [0.0625, 0.9375], [0.25, 0.75]]
    np.testing.assert_allclose(debias.offsets[:, :2], expected, atol=1e-6)
    rest = UNIT[2:5] - debias.offsets
    np.testing.assert_allclose(debias.apply(UNIT[2:5], np.array(["a", "b", "?"])), unit(rest), atol=1e-6)


def test_lir_by_hand():
    """One group along e0, the other along e1: each loses its own axis, an unknown one the pool's first."""
    vectors = np.repeat(UNIT[[0, 1]], [2000, 1000], axis=0)
    debias = fit_debias("lir", vectors, np.repeat(["a", "b"], [2000, 1000]))
    query = unit([[1, 1, 1, 0, 0, 0, 0, 0]] * 3)
    result = debias.apply(query, np.array(["a", "b", "?"]))
    expected = unit([[0, 1, 1], [1, 0, 1], [0, 1, 1]])
    np.testing.assert_allclose(result[:, :3], expected, atol=1e-3)


def test_shift_by_hand():
    """A hundred pairs weigh as much as the prior of no difference: half of it is subtracted."""
    pairs = ParallelPairs(UNIT[[1] * PRIOR_ROWS], np.repeat("de", PRIOR_ROWS), UNIT[[0] * PRIOR_ROWS], "en")
    debias = fit_debias("shift", UNIT[:1], np.array(["en"]), pairs=pairs)
    result = debias.apply(UNIT[[2, 2]], np.array(["de", "en"]))
    np.testing.assert_allclose(result, [unit(UNIT[2] - 0.5 * (UNIT[1] - UNIT[0])), UNIT[2]], atol=1e-6)


def test_lir_removes_the_first_right_singular_vectors_of_a_large_group():
    vectors, groups = pool(n=1000)
    debias = fit_debias("lir", vectors, groups, components=2)
    for position, language in enumerate(LANGUAGES):
        truth = np.linalg.svd(vectors[groups == language], full_matrices=False)[2][:1]
        overlap = np.linalg.norm(debias.directions[position] @ truth.T)
        assert overlap > 0.999
        kept = debias.apply(vectors[:50], np.repeat(language, 50))
        np.testing.assert_allclose(kept @ debias.directions[position].T, 0, atol=1e-5)


@pytest.mark.parametrize("method", ["center", "lir", "shift"])
def test_a_wrong_text_of_the_own_language_no_longer_comes_first(method):
    vectors, groups = pool()
    assert own_language_share(vectors, groups, vectors, groups) > 0.9
    debias = fitted(method, vectors, groups)
    documents, queries = debias.apply(vectors, groups), debias.apply_to_queries(vectors, groups)
    assert own_language_share(queries, groups, documents, groups) < 0.65


@pytest.mark.parametrize("method", ["center", "lir", "shift"])
def test_results_are_unit_rows_one_by_one_as_together(method):
    vectors, groups = pool()
    debias = fitted(method, vectors, groups)
    together = debias.apply(vectors, groups)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for row in (0, 350, 899):
        alone = debias.apply(vectors[[row]], groups[[row]])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
    assert debias.apply(vectors[:0], groups[:0]).shape == (0, 16)


@pytest.mark.parametrize("method", ["center", "lir"])
def test_an_unknown_language_is_treated_as_the_whole_pool(method):
    vectors, groups = pool()
    several = fit_debias(method, vectors, groups)
    one = fit_debias(method, vectors, np.full(len(vectors), "all"))
    expected = one.apply(vectors[:9], np.full(9, "all"))
    for label in ("und", "", "zzz"):
        unknown = several.apply(vectors[:9], np.full(9, label))
        # A sign or the order of rounding may differ, the removed part may not.
        np.testing.assert_allclose(unknown, expected, atol=1e-4)


def test_shift_leaves_queries_unknown_languages_and_the_pivot_alone_and_names_what_has_no_pairs():
    vectors, groups = pool()
    more = np.concatenate([groups, ["sw", "yo"]])
    debias = fit_debias(
        "shift", np.concatenate([vectors, vectors[:2]]), more, pairs=pairs_of(vectors, groups)
    )
    assert debias.unchanged == ("sw", "yo")
    for label in ("en", "sw", "und"):
        np.testing.assert_allclose(debias.apply(vectors, np.full(len(vectors), label)), vectors, atol=1e-6)
    np.testing.assert_array_equal(debias.apply_to_queries(vectors, groups), vectors)
    assert np.abs(debias.apply(vectors[:9], np.full(9, "de")) - vectors[:9]).max() > 0.1


@pytest.mark.parametrize("method", ["center", "lir"])
def test_a_language_of_one_or_five_vectors_keeps_what_tells_them_apart(method):
    vectors, groups = pool(strength=0.5)
    five = unit(0.7 * unit_rows(1, seed=7) + 0.3 * unit_rows(5, seed=8))  # of one subject
    everything = np.concatenate([vectors, five, UNIT[:1] @ np.eye(8, 16, dtype=np.float32)])
    labels = np.concatenate([groups, np.repeat(["sw", "yo"], [5, 1])])
    debias = fit_debias(method, everything, labels)
    kept = (debias.apply(everything, labels) * everything).sum(axis=1)[-6:]
    as_pool = (debias.apply(everything, np.full(len(labels), "und")) * everything).sum(axis=1)[-6:]
    assert (kept > as_pool - 0.1).all()
    assert kept.min() > 0.6


@pytest.mark.parametrize("method", ["center", "lir"])
def test_a_vector_of_which_nothing_remains_keeps_its_direction(method):
    vectors = np.repeat(UNIT[:1], 50, axis=0)
    debias = fit_debias(method, vectors, np.full(50, "en"))
    np.testing.assert_array_equal(debias.apply(vectors, np.full(50, "en")), vectors)


def test_labels_may_be_bytes():
    vectors, groups = pool()
    from_bytes = fit_debias("center", vectors, groups.astype("S"))
    np.testing.assert_array_equal(
        from_bytes.apply(vectors, groups.astype("S")),
        fit_debias("center", vectors, groups).apply(vectors, groups),
    )


@pytest.mark.parametrize("method", ["center", "lir", "shift"])
def test_saved_is_loaded(method, tmp_path):
    vectors, groups = pool()
    debias = fitted(method, vectors, groups)
    path = tmp_path / "debias.npz"
    debias.save(path)
    debias.save(path)
    loaded = Debias.load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["debias.npz"]
    assert (loaded.method, loaded.unchanged, loaded.dimension) == (method, debias.unchanged, 16)
    np.testing.assert_array_equal(loaded.apply(vectors, groups), debias.apply(vectors, groups))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "debias.npz"
    fit_debias("center", *pool()).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(IndexFileError, match=r"debias\.npz: damaged"):
            Debias.load(path)
    with path.open("wb") as file:
        np.save(file, UNIT)
    with pytest.raises(IndexFileError, match=r"debias\.npz: damaged, or no file"):
        Debias.load(path)
    with pytest.raises(IndexFileError, match=r"missing\.npz: cannot be read: No such file"):
        Debias.load(tmp_path / "missing.npz")


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path, debias = tmp_path / "debias.npz", fit_debias("center", UNIT, np.array(list("aaabbbcc")))
    debias.save(path)
    whole, noticed = path.read_bytes(), 0
    for position in range(0, len(whole), 9):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            loaded = Debias.load(path)
        except IndexFileError:
            noticed += 1
        else:
            np.testing.assert_array_equal(loaded.offsets, debias.offsets)
            assert loaded.groups.tolist() == ["a", "b", "c"]
    assert noticed > len(whole) / 9 / 2


def test_a_file_with_objects_is_not_unpickled(tmp_path):
    path = tmp_path / "debias.npz"
    np.savez(path, version=np.array([print], dtype=object))
    with pytest.raises(IndexFileError, match="allow_pickle=False"):
        Debias.load(path)


def test_a_file_of_another_version_is_refused(tmp_path):
    np.savez(tmp_path / "debias.npz", version=2)
    with pytest.raises(IndexFileError, match="format version 2; this version reads 1"):
        Debias.load(tmp_path / "debias.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"groups": np.array(["th", "en", "de"])}, "groups are not distinct and ascending"),
        ({"groups": np.array(["de", "en"])}, "do not fit 2 groups"),
        ({"groups": np.arange(3)}, "arrays of kinds"),
        ({"offsets": np.zeros((4, 15), np.float32)}, r"offsets \(4, 15\)"),
        ({"offsets": np.full((4, 16), np.nan, np.float32)}, "NaN"),
        ({"directions": np.zeros((4, 16), np.float32)}, "arrays have shapes"),
    ],
)
def test_a_file_of_what_cannot_be_fitted_is_refused(tmp_path, change, message):
    path = tmp_path / "debias.npz"
    dataclasses.replace(fit_debias("center", *pool()), **change).save(path)
    with pytest.raises(IndexFileError, match=message):
        Debias.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("whiten", UNIT, np.repeat("a", 8)), "'whiten'; expected one of center, lir, shift"),
        (("shift", UNIT, np.repeat("a", 8)), "'shift' needs parallel pairs"),
        (("center", UNIT[:0], np.repeat("a", 0)), "no vectors to learn from"),
        (("center", UNIT, np.repeat("a", 7)), r"shape \(7,\); expected \(8,\)"),
        (("center", UNIT, ["a"] * 8), "groups are list; expected a numpy array"),
        (("center", UNIT, np.arange(8)), "groups are int64"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(IndexingError, match=message):
        fit_debias(*arguments)


def test_bad_parameters_and_pairs_are_refused():
    labels = np.repeat("a", 8)
    for components in (0, 8):
        with pytest.raises(IndexingError, match=f"components is {components}; expected 1 to 7"):
            fit_debias("lir", UNIT, labels, components=components)
    with pytest.raises(IndexingError, match="'lir' takes no parallel pairs"):
        fit_debias("lir", UNIT, labels, pairs=ParallelPairs(UNIT, labels, UNIT, "en"))
    with pytest.raises(IndexingError, match="pairs have 8 vectors, but 7 pivot vectors"):
        fit_debias("shift", UNIT, labels, pairs=ParallelPairs(UNIT, labels, UNIT[:7], "en"))
    with pytest.raises(VectorError, match=r"pairs\.pivot_vectors have dimension 7; expected 8"):
        fit_debias("shift", UNIT, labels, pairs=ParallelPairs(UNIT, labels, np.eye(8, 7, dtype="f4"), "en"))


def test_vectors_of_another_dimension_are_refused():
    debias = fit_debias("center", UNIT, np.repeat("a", 8))
    with pytest.raises(VectorError, match="dimension 7; expected 8"):
        debias.apply(np.eye(7, dtype=np.float32), np.repeat("a", 7))
