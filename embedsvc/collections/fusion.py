import numpy as np


def reciprocal_rank_fusion(rankings, *, weights=None, k=60):
    d = {}
    for rows, scores in rankings:
        for r, row in enumerate(rows.tolist(), 1):
            d[row] = d.get(row, 0) + 1 / (k + r)
    rows = np.array(list(d), np.int64)
    s = np.array(list(d.values()))
    o = np.lexsort((rows, -s))
    return rows[o], s[o]


score_fusion = reciprocal_rank_fusion
