"""What the tests of `indexing` compare with: brute force in float64, and data to search."""

import numpy as np

from indexing import Flat, Hnsw, IvfPq, PqScan, RaBitQ

# One of every kind and way to keep vectors, small enough for some thousand vectors.
EXAMPLES = [
    Flat(),
    Hnsw(m=8, ef_construction=60, ef_search=60),
    Hnsw(m=8, ef_construction=60, ef_search=60, storage="sq8"),
    IvfPq(nlist=24, nprobe=12),
    IvfPq(nlist=24, nprobe=12, refine="float32"),
    PqScan(k_factor=8),
    PqScan(k_factor=8, refine="float32"),
    RaBitQ(bits=7, nlist=24, nprobe=16),
    RaBitQ(bits=1, nlist=24, nprobe=12, k_factor=16, refine="sq8"),
    RaBitQ(bits=2, nlist=24, nprobe=12, k_factor=8, refine="float32"),
]
EXAMPLE_NAMES = ["-".join(str(part) for part in (kind.name, *vars(kind).values())) for kind in EXAMPLES]


def score_error(kind):
    """How far the scores of a kind may be from the inner products, for vectors of 16 to 64 dimensions."""
    kept = getattr(kind, "storage", None) or getattr(kind, "refine", "float32")
    return {"float32": 1e-6, "sq8": 0.01, "none": 0.02}[kept]


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
        near = candidates
        if k < len(candidates):  # sorts no more than the k best and what equals the last of them
            near = candidates[product[candidates] >= np.partition(product[candidates], -k)[-k]]
        best = near[np.argsort(-product[near], kind="stable")][:k]
        scores[query, : len(best)], rows[query, : len(best)] = product[best], best
    return scores, rows


def assert_same(found, expected, score_error=1e-6):
    scores, rows = expected
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=score_error)
    assert (found.scores.dtype, found.rows.dtype) == (np.float32, np.int64)


def rows_with_languages(n, dimension=32, seed=0, shares=(0.6, 0.3, 0.08, 0.02)):
    """Clustered rows and the language ``(n,)`` of each: a cluster speaks mostly one language."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(98).standard_normal((100, dimension))
    language_of_centre = np.repeat(np.arange(len(shares)), [round(100 * share) for share in shares])
    chosen = random.integers(0, 100, n)
    rows = centres[chosen] + 0.7 * random.standard_normal((n, dimension))
    strays = random.random(n) < 0.05
    languages = np.where(strays, random.integers(0, len(shares), n), language_of_centre[chosen])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), languages
