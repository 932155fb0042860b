"""What the tests of `indexing` compare with: brute force in float64, and data to search."""

import numpy as np


def unit_rows(n, dimension=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered_rows(n, dimension=32, seed=0, clusters=60):
    """Rows around common centres, as sentence vectors are; ``seed`` draws the rows, not the centres."""
    centres = np.random.default_rng(99).standard_normal((clusters, dimension))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, clusters, n)] + 0.6 * random.standard_normal((n, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(queries, vectors, k, allowed=None):
    """Scores and rows ``(q, k)``, best first, lower row first among equals; padded with -inf and -1."""
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    scores = np.full((len(queries), k), -np.inf)
    rows = np.full((len(queries), k), -1)
    candidates = np.arange(len(vectors)) if allowed is None else np.unique(allowed)
    for query, product in enumerate(products):
        best = sorted(candidates, key=lambda row: (-product[row], row))[:k]
        scores[query, : len(best)], rows[query, : len(best)] = product[best], best
    return scores, rows


def assert_same(found, expected):
    scores, rows = expected
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-6)
    assert (found.scores.dtype, found.rows.dtype) == (np.float32, np.int64)
